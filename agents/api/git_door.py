"""`/git/<run>/`: a run's door over HTTP, for its shim on whatever machine. git's own `http-backend` does the talking.

It opens with the shim's secret alone (as a bearer token, or as the password of any user), while the run is live. It
shows the run's door repository: the target, the default branch, the tags, and where the run starts. It takes one
branch, the run's own; `agents.runtime.door` checks what comes, in git's quarantine, before it is kept. Then the mirror
has it, as `refs/gastown/runs/<run>`: the head that counts.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from agents import tokens, work
from agents.lifecycle import RunState
from agents.models import Run
from agents.runtime import door, gitcmd, harvest, mirrors
from agents.runtime.gitcmd import GitFailed
from agents.runtime.workspace import Workspace

CHUNK = 1 << 16
AT_ONCE = 1 << 20  # so much of an answer is sent whole
MOST_BYTES = 2 << 30
SERVICES = ("git-upload-pack", "git-receive-pack")
HOOKS = Path(__file__).parents[1] / "runtime" / "hooks"


def _refused(status: int, code: str, message: str) -> HttpResponse:
    answer = JsonResponse({"ok": False, "error": {"code": code, "message": message, "details": {}}}, status=status)
    if status == 401:
        answer["WWW-Authenticate"] = 'Basic realm="gastown"'
    return answer


def _secret(request: HttpRequest) -> str:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    return ""


def _entering(request: HttpRequest, run_id: str) -> Run | HttpResponse:
    """The run whose shim knocks, or why nobody is let in."""
    secret = _secret(request)
    if not secret:
        return _refused(401, "unauthenticated", "the secret of the run's shim is needed")
    run = tokens.shim_run(secret)
    if run is None:
        if tokens.live_run(secret) or tokens.fenced_run(secret):
            return _refused(403, "forbidden", "a run's token does not open its door")
        return _refused(401, "unauthenticated", "unknown secret")
    if run.pk != run_id:
        return _refused(403, "forbidden", "this secret belongs to another run")
    if run.state != RunState.RUNNING or run.exited_at is not None:
        return _refused(409, "run_superseded", "this run has ended: its door is closed")
    return run


@csrf_exempt
async def door_view(request: HttpRequest, run_id: str, path: str) -> HttpResponseBase:
    """One request of git's smart HTTP protocol."""
    entering = await sync_to_async(_entering)(request, run_id)
    if isinstance(entering, HttpResponse):
        return entering
    service = request.GET.get("service", "") if path == "info/refs" else path
    wanted = "GET" if path == "info/refs" else "POST"
    if service not in SERVICES or request.method != wanted:
        return _refused(404, "not_found", "only git's smart HTTP protocol is spoken here")
    if int(request.META.get("CONTENT_LENGTH") or 0) > MOST_BYTES:
        return _refused(413, "too_large", f"the pack is larger than {MOST_BYTES} bytes")
    space = work.workspace_of(entering)
    if not (space.origin / "HEAD").exists():
        return _refused(404, "not_found", "this run's door is not on this machine")
    backend = await _start(request, entering, space, path)
    await _feed(request, backend)
    headers, body = await _head(backend)
    status = int(headers.pop("status", "200").split(" ", 1)[0])
    if len(body) < AT_ONCE:
        await backend.wait()
        if path == "git-receive-pack" and status == 200:
            await sync_to_async(_take_in)(space, entering)
        answer: HttpResponseBase = HttpResponse(body, status=status)
    else:
        answer = StreamingHttpResponse(_stream(backend, body), status=status)
    for name, value in headers.items():
        answer.headers[name] = value
    return answer


async def _start(request: HttpRequest, run: Run, space: Workspace, path: str) -> asyncio.subprocess.Process:
    """`git http-backend`, as CGI, over the door repository."""
    config = {
        "core.hooksPath": str(HOOKS),
        "http.receivepack": "true",
        "receive.fsckObjects": "true",
        "receive.denyDeletes": "true",
        "receive.denyCurrentBranch": "ignore",
        "receive.maxInputSize": str(MOST_BYTES),
        "receive.autogc": "false",
        "receive.unpackLimit": "1",
    }
    told = {
        "GIT_PROJECT_ROOT": str(space.root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{space.origin.name}/{path}",
        "REQUEST_METHOD": str(request.method),
        "QUERY_STRING": request.META.get("QUERY_STRING", ""),
        "CONTENT_TYPE": request.META.get("CONTENT_TYPE", ""),
        "REMOTE_USER": run.pk,
        "REMOTE_ADDR": request.META.get("REMOTE_ADDR", ""),
        "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
        "GASTOWN_PYTHON": sys.executable,
        "GASTOWN_DOOR": str(Path(door.__file__)),
        "GASTOWN_DOOR_REF": f"refs/heads/{run.branch}",
        "GASTOWN_DOOR_SALVAGE": f"{harvest.SALVAGE}/{run.pk}",
        "GASTOWN_DOOR_BASE": run.start_sha,
    }
    if length := request.META.get("CONTENT_LENGTH"):
        told["CONTENT_LENGTH"] = length
    return await asyncio.create_subprocess_exec(
        "git",
        "http-backend",
        cwd=space.origin,
        env=gitcmd.environment(told | gitcmd.more_config(config)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def _feed(request: HttpRequest, backend: asyncio.subprocess.Process) -> None:
    assert backend.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has answered without reading on
        while data := request.read(CHUNK):
            backend.stdin.write(data)
            await backend.stdin.drain()
    backend.stdin.close()


async def _head(backend: asyncio.subprocess.Process) -> tuple[dict[str, str], bytes]:
    """The answer's headers, and its body up to `AT_ONCE` bytes."""
    assert backend.stdout is not None
    headers: dict[str, str] = {}
    while (line := (await backend.stdout.readline()).decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = b""
    while len(body) < AT_ONCE and (data := await backend.stdout.read(CHUNK)):
        body += data
    return headers, body


async def _stream(backend: asyncio.subprocess.Process, first: bytes) -> AsyncIterator[bytes]:
    """The rest of a large answer; a client that goes away ends the process."""
    assert backend.stdout is not None
    try:
        yield first
        while data := await backend.stdout.read(CHUNK):
            yield data
    finally:
        if backend.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                backend.kill()
        await backend.wait()


def _take_in(space: Workspace, run: Run) -> None:
    """What the door repository has taken goes on into the mirror, as the run's own ref."""
    pairs: Mapping[str, Any] = {
        f"refs/heads/{run.branch}": f"{harvest.RUNS}/{run.pk}",
        f"{harvest.SALVAGE}/{run.pk}": f"{harvest.SALVAGE}/{run.pk}",
    }
    specs = [f"+{ours}:{theirs}" for ours, theirs in pairs.items() if mirrors.resolve(space.origin, ours)]
    if specs:
        words = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--end-of-options"]
        with contextlib.suppress(GitFailed):  # nothing has arrived then, and the exit report finds no head
            gitcmd.run_git([*words, str(space.origin), *specs], cwd=space.mirror, timeout=gitcmd.NETWORK_TIMEOUT)
