"""What `gt` does: a tool's command, the gates here, the server of MCP, help."""

from __future__ import annotations

import json
import os
import sys
import time

from .typed import ASK_SECONDS, Typed, Wrong, chosen, flag
from .wire import Failed, call, insisted

TYPE_CHECKING = False  # the module that has it takes as long to import as all of this
if TYPE_CHECKING:
    from typing import Any

    Tool = dict[str, Any]  # of the table: name, words, roles, reads, doc, args, text

COMMON = """  --file F   the arguments as a JSON object, or else the text of --{text}; - is the standard input
  --json     print the raw answer"""
KINDS = {"text": "TEXT", "number": "N", "words": "WORD", "json": "JSON"}


def run_tool(tool: Tool, words: list[str]) -> int:
    """One command; returns the exit code."""
    typed = Typed(tool, words)
    if typed.help:
        return tell(usage(tool))
    try:
        data, raw = call(tool, typed.arguments)
        end, pause = time.monotonic() + typed.wait, 1.0
        while typed.wait and data.get("state") == "open":
            if time.monotonic() + pause > end:
                told = f"nobody has answered within {typed.wait:.0f} s: {data['id']} is still open"
                raise Failed(f"{told}; ask again later", raw)
            time.sleep(pause)
            pause = min(pause * 1.5, 10.0)
            data, raw = call(tool, typed.arguments)
    except Failed as error:
        if typed.json and error.raw:
            tell(error.raw)
            return 1
        raise
    if typed.json:
        return tell(raw)
    return tell(shown(data) or "ok")


def shown(value: object, depth: int = 0) -> str:
    """Data as lines that a person or a model reads."""
    pad = "  " * depth
    if isinstance(value, dict):
        return "\n".join(f"{pad}{key}:{beside(item, depth)}" for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(f"{pad}-{beside(item, depth)}" for item in value)
    return pad + word(value).replace("\n", f"\n{pad}")


def beside(value: object, depth: int) -> str:
    """A value after its key: on the same line where it is one word, below it where it is more."""
    if value in ({}, [], None, ""):
        return " -"
    if isinstance(value, (dict, list)) or "\n" in word(value):
        return "\n" + shown(value, depth + 1)
    return " " + word(value)


def word(value: object) -> str:
    """One value."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def run_gates(table: list[Tool]) -> int:
    """The rig's gates, one after the other, here in the workspace; returns 0 when all pass."""
    import contextlib
    import signal
    import subprocess

    prime = next(tool for tool in table if tool["name"] == "gt_prime")
    gates = call(prime, {})[0].get("gates") or []
    if not gates:
        return tell("this rig has no gates")
    environment = {**os.environ, "CI": "true"}
    environment.pop("GASTOWN_TOKEN", None)  # gates call no tools
    top = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False)
    where, failed = top.stdout.strip() or ".", []
    for gate in gates:
        tell(f"gate {gate['name']}: {gate['run']}")
        said = "pass"
        started = subprocess.Popen(["sh", "-c", gate["run"]], env=environment, cwd=where, start_new_session=True)
        try:
            if code := started.wait(gate.get("timeout")):
                said = f"exit {code}"
        except subprocess.TimeoutExpired:
            said = f"not done after {gate['timeout']:g} s"
        finally:  # and what it has started goes with it
            with contextlib.suppress(OSError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        tell(f"gate {gate['name']}: {said}")
        if said != "pass":
            failed.append(gate["name"])
    if failed:
        raise Failed(f"{len(failed)} of {len(gates)} gates did not pass here: {', '.join(failed)}")
    return 0


def mcp() -> int:
    """An MCP server on standard input and output, which is the server's own: each message goes there and back."""
    version = ""
    for line in sys.stdin.buffer:
        if not line.strip():
            continue
        message = None
        try:
            message = json.loads(line)
            status, body = insisted("/mcp", line.strip(), headers_of(message, version))
            answer = json.loads(body.strip() or "null")
            if answer is not None and "jsonrpc" not in answer:
                raise Failed(str((answer.get("error") or {}).get("message") or f"the server answers {status}"))
        except (Failed, ValueError, AttributeError) as error:
            answer = failure(message, str(error))
        if answer is not None:
            version = (answer.get("result") or {}).get("protocolVersion") or version
            tell(json.dumps(answer))
    return 0


def failure(message: Any, why: str) -> dict[str, Any] | None:
    """What JSON-RPC answers to a message that led to nothing; None is one that could not be read. A notification, which
    has no id, gets no answer."""
    if message is None:
        return {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": why}}
    if not isinstance(message, dict) or message.get("id") is None:
        return None
    return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32603, "message": why}}


def headers_of(message: Any, version: str) -> dict[str, str]:
    """What MCP over HTTP says of a message in headers: its protocol version, and since 2026 its method and name."""
    headers = {"Accept": "application/json, text/event-stream"}
    params: dict[str, Any] = {}
    if isinstance(message, dict):
        params = message.get("params") or {}
    told = (params.get("_meta") or {}).get("io.modelcontextprotocol/protocolVersion")
    if told:
        headers.update({"MCP-Protocol-Version": told, "Mcp-Method": str(message.get("method"))})
        if isinstance(params.get("name"), str):
            headers["Mcp-Name"] = params["name"]
    elif version:
        headers["MCP-Protocol-Version"] = version
    return headers


def placeholder(field: dict[str, Any]) -> str:
    """A field as a command's line names it; in brackets where it may be left out."""
    if field["required"]:
        return str(field["name"]).upper()
    return f"[{str(field['name']).upper()}]"


def usage(tool: Tool) -> str:
    """What one command takes."""
    typed = Typed(tool, ["--help"])
    lines = [f"gt {tool['words']} {' '.join(map(placeholder, typed.places))}".rstrip(), "", tool["doc"], ""]
    for field in tool["args"]:
        told = "|".join(field["choices"]) or KINDS.get(field["kind"], "")
        line = f"  --{flag(field)} {told}".rstrip()
        if field["required"]:
            line += " (needed)"
        elif field["kind"] == "words":
            line += ", as often as there are some"
        lines.append(line)
    if tool["name"] == "gt_ask":
        lines.append(f"  --wait [SECONDS]   until a person has answered, at most so long (else {ASK_SECONDS:.0f})")
    return "\n".join(lines) + "\n" + COMMON.format(text=tool["text"] or "text")


def overview(table: list[Tool], role: str) -> str:
    """All commands of a role."""
    lines = ["gt: the commands of Gastown. `gt help COMMAND` says more.", ""]
    rows = [(tool["words"], first_sentence(tool["doc"])) for tool in table if role in ("", *tool["roles"])]
    if role == "polecat":
        rows.append(("run-gates", "Run the rig's gates here, in your workspace, one after the other."))
    rows += [("mcp", "An MCP server on standard input and output, with the same tools."), ("help", "This.")]
    width = max(len(name) for name, _ in rows)
    return "\n".join([*lines, *(f"  gt {name:<{width}}  {doc}" for name, doc in sorted(rows))])


def first_sentence(doc: str) -> str:
    """What a command is for, in short."""
    sentence, end, _ = " ".join(doc.split("\n\n")[0].split()).partition(". ")
    return sentence + end.rstrip()


def tell(text: str) -> int:
    """Print it, whatever the locale; returns the exit code of what went well."""
    sys.stdout.buffer.write(text.rstrip("\n").encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()
    return 0


def carried_out(table: list[Tool], words: list[str]) -> int:
    """What was typed; returns the exit code."""
    role = os.environ.get("GASTOWN_ROLE", "")
    if not words or words[0] in ("help", "-h", "--help"):
        if not words[1:]:
            return tell(overview(table, role))
        return tell(usage(chosen(table, words[1:])[0]))
    if words[0] == "mcp":
        return mcp()
    if words == ["run-gates"] and role == "polecat":
        return run_gates(table)
    return run_tool(*chosen(table, words))


def main(table_file: str, words: list[str]) -> int:
    """Run it. `table_file`: where the server has written which commands there are."""
    with open(table_file, encoding="utf-8") as handle:
        table = json.load(handle)
    try:
        return carried_out(table, words)
    except Wrong as error:
        sys.stderr.write(f"gt: {error}\n")
        return 2
    except Failed as error:
        sys.stderr.write(f"gt: {error}\n")
        return 1
    except BrokenPipeError:  # whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def start(table_file: str) -> None:
    """The program's start: what was typed is in `sys.argv`."""
    sys.exit(main(table_file, sys.argv[1:]))
