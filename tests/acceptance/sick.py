"""Ten rigs that are each sick in another way, and two that are well: what stands in nobody's way but its own."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GATE = "sleep 0.3"
BACKEND = Path(subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip())


def git(*words: str, cwd: Path, input: str | None = None) -> str:
    """Git as a person types it."""
    command = ["git", "-c", "safe.directory=*", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *words]
    done = subprocess.run(command, cwd=cwd, input=input, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


class Served:
    """Repositories over HTTP, by git's own backend; `mode`: well, hole, slow or closed door (401)."""

    def __init__(self, root: Path) -> None:
        self.root, self.mode = root, "well"
        self.over = threading.Event()
        served = self

        class Door(BaseHTTPRequestHandler):
            """One request."""

            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                """Answer in the mode of the moment."""
                served.answer(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Be quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, door: BaseHTTPRequestHandler) -> None:
        """What the mode says."""
        if self.mode == "hole":
            self.over.wait(600)
        elif self.mode == "slow":
            for byte in b"HTTP/1.0 200 OK\r\nX-Wait: " + b"x" * 600:
                if self.over.wait(1):
                    return
                door.wfile.write(bytes([byte]))
                door.wfile.flush()
        elif self.mode == "401":
            door.send_response(401)
            door.send_header("WWW-Authenticate", 'Basic realm="git"')
            door.end_headers()
        else:
            self._backend(door)

    def _backend(self, door: BaseHTTPRequestHandler) -> None:
        path, _, query = door.path.partition("?")
        body = door.rfile.read(int(door.headers.get("Content-Length") or 0))
        if "gzip" in (door.headers.get("Content-Encoding") or ""):
            coding = {"HTTP_CONTENT_ENCODING": "gzip"}
        else:
            coding = {}
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": door.command, "REMOTE_USER": "ann",
            "CONTENT_TYPE": door.headers.get("Content-Type") or "", "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": door.headers.get("Git-Protocol") or "", "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*", **coding,
        }  # fmt: skip
        done = subprocess.run(
            [str(BACKEND / "git-http-backend")], input=body, env=env, capture_output=True, check=False
        )
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        lines = head.decode().splitlines()
        status = next((line.split()[1] for line in lines if line.lower().startswith("status:")), "200")
        door.send_response(int(status))
        for line in lines:
            name, _, value = line.partition(":")
            if name.lower() != "status":
                door.send_header(name, value.strip())
        door.end_headers()
        door.wfile.write(rest)

    def close(self) -> None:
        """Nobody listens any more."""
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


class Ward:
    """Remotes, rigs and their branches; `type` types a command at the installation."""

    def __init__(self, root: Path, type: Callable[..., Any]) -> None:
        self.root, self.type = root, type
        self.doors: dict[str, Served] = {}
        self.count = 0

    def _new(self, name: str) -> Path:
        remote, work = self.root / name / "r.git", self.root / name / "work"
        remote.parent.mkdir()
        git("init", "-q", "--bare", "-b", "main", str(remote), cwd=self.root)
        git("config", "http.receivepack", "true", cwd=remote)
        git("init", "-q", "-b", "main", str(work), cwd=self.root)
        for number in range(3):
            (work / "a.txt").write_text(f"{number}\n")
            git("add", "-A", cwd=work)
            git("commit", "-q", "-m", f"start {number}", cwd=work)
        git("push", "-q", str(remote), "main", cwd=work)
        return remote

    def rig(self, name: str, *, served: bool = False, gate: str = GATE, more: str = "") -> None:
        """A new rig with its remote."""
        url = str(self._new(name))
        if served:
            self.doors[name] = Served(self.root / name)
            url = f"{self.doors[name].url}/r.git"
        config = self.root / name / "rig.toml"
        config.write_text(f"[refinery]\ncode_review = false\ngates = ['{gate}']\n{more}")
        self.type("rig", "add", name, url, "--config", str(config))

    def change(self, name: str, author: str = "") -> str:
        """A branch with a change, submitted; returns its entry. `author`: the commit's line, as an importer made it."""
        self.count += 1
        work, branch = self.root / name / "work", f"b{self.count}"
        git("checkout", "-q", "-b", branch, "main", cwd=work)
        (work / f"{branch}.txt").write_text("x\n")
        git("add", "-A", cwd=work)
        git("commit", "-q", "-m", f"change {self.count}", cwd=work)
        if author:
            raw = git("cat-file", "commit", "HEAD", cwd=work).splitlines()
            text = "\n".join(f"author {author}" if line.startswith("author ") else line for line in raw) + "\n"
            made = git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", cwd=work, input=text)
            git("reset", "-q", "--hard", made, cwd=work)
        git("push", "-q", str(self.root / name / "r.git"), branch, cwd=work)
        return str(self.type("mq", "submit", name, "--branch", branch)["id"])

    def hook(self, name: str, script: str) -> None:
        """What the remote runs before it takes anything in."""
        path = self.root / name / "r.git" / "hooks" / "pre-receive"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def fall_ill(self, name: str) -> None:
        """Each in its own way."""
        remote = self.root / name / "r.git"
        match name:
            case "hole" | "slow":
                self.doors[name].mode = name
            case "keyless":
                self.doors[name].mode = "401"
            case "refusing":
                self.doors[name].close()
            case "gone":
                remote.rename(remote.with_name("elsewhere.git"))
            case "full":
                self.hook(name, "echo 'fatal: write error: No space left on device' >&2; exit 1")
            case "policy":
                self.hook(name, "echo 'every commit must have a ticket: PROJ-123' >&2; exit 1")
            case "renamed":
                git("branch", "-m", "main", "trunk", cwd=remote)
                git("symbolic-ref", "HEAD", "refs/heads/trunk", cwd=remote)

    def get_well(self, name: str) -> None:
        """What a person does about it, by the remedy that was told; what goes by itself goes."""
        remote = self.root / name / "r.git"
        match name:
            case "hole" | "slow" | "keyless":
                self.doors[name].mode = "well"
            case "gone":
                remote.with_name("elsewhere.git").rename(remote)
            case "full":
                (remote / "hooks" / "pre-receive").unlink()
            case "renamed":
                self.type("rig", "set-default-branch", name, "trunk")

    def close(self) -> None:
        """Leave no server behind."""
        for door in self.doors.values():
            door.close()


SERVED = ("hole", "slow", "refusing", "keyless")
SICK = (*SERVED, "gone", "odd", "toolless", "full", "policy", "renamed")
WELL = ("well1", "well2")
CURABLE = ("hole", "slow", "keyless", "gone", "full", "renamed")
REMEDY = {
    "keyless": "gastown secret set NAME",
    "renamed": "gastown rig set-default-branch renamed trunk",
    "full": "make room on the remote's disk",
    "gone": "see that the remote is still at this address",
    "refusing": "see that this machine reaches the remote's host",
    "policy": "gastown mq retry ",
    "toolless": "gastown rig check toolless",
}


def landed_in(ward: Ward, entries: list[str], seconds: float = 120) -> float:
    """How long it takes until all these have landed."""
    began = time.monotonic()
    left = set(entries)
    while left:
        left -= {row["id"] for row in ward.type("mq", "list", "--all") if row["phase"] == "merged"}
        assert time.monotonic() - began < seconds, [row for row in ward.type("mq", "list") if row["id"] in left]
        time.sleep(0.05)
    return time.monotonic() - began
