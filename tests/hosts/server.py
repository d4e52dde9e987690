"""The tests' GitHub over HTTP: its routes, its limits and ETags, its faults on demand, its signed hooks."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.hosts import description
from tests.hosts.github import SHAPES, WRITES, GitHub, Pull

PAGE = 100
_REPO = r"/repos/acme/proj"
Answer = tuple[int, Any]


@dataclass
class Fault:
    """What becomes of the next `times` requests whose method and path match. `half`: the answer breaks off."""

    pattern: str = ""
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()
    message: str = "no"
    times: int = 1
    half: bool = False


class Server:
    """A GitHub that listens. `complaints`: what was not as GitHub's description has it."""

    def __init__(self, github: GitHub) -> None:
        self.github = github
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.answered: list[int] = []
        self.complaints: list[str] = []
        self.lock = threading.RLock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.serve(self)

            do_POST = do_PATCH = do_PUT = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        github.url = f"{self.url}/api/v3"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def fail(self, pattern: str = "", status: int = 503, **more: Any) -> Fault:
        fault = Fault(pattern, status, **more)
        self.faults.append(fault)
        return fault

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """One request, with the whole state to itself."""
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = urlsplit(handler.path)
        path = parts.path.removeprefix("/api/v3")
        method = handler.command
        with self.lock:
            self.requests.append(f"{method} {path}" + (f"?{parts.query}" if parts.query else ""))
            fault = next((f for f in self.faults if f.times and re.search(f.pattern, f"{method} {path}")), None)
            headers: dict[str, str] = {}
            if fault is not None and not fault.half:
                fault.times -= 1
                status, body = fault.status, {"message": fault.message, "documentation_url": "…"}
                headers |= dict(fault.headers)
            else:
                status, body = self._answer(handler, method, path, dict(parse_qsl(parts.query)), raw)
        text = json.dumps(body).encode()
        etag = f'W/"{hashlib.sha256(text).hexdigest()}"'
        if method == "GET" and status == 200:
            headers["ETag"] = etag
            if handler.headers.get("If-None-Match") == etag:
                status, text = 304, b""
        self.answered.append(status)
        size = len(text)
        if fault is not None and fault.half and fault.times:
            fault.times -= 1
            text = text[: size // 2]
            handler.close_connection = True
        handler.send_response_only(status)
        handler.send_header("Date", self.github.date())
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Type", "application/json; charset=utf-8")
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        handler.wfile.write(text)

    def _answer(
        self, handler: BaseHTTPRequestHandler, method: str, path: str, query: dict[str, str], raw: bytes
    ) -> Answer:
        if handler.headers.get("Authorization", "").rpartition(" ")[2] != self.github.token:
            return 401, {"message": "Bad credentials"}
        sent = json.loads(raw) if raw else None
        if path == "/api/graphql":
            return self._graphql(sent)
        self.complaints += description.wrong_request(method, path, query, sent)
        self.github.refresh()
        for verb, pattern, act in ROUTES:
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                status, body = act(self.github, found, query, sent)
                self.complaints += description.wrong_answer(method, path, status, body)
                return status, body
        return 404, {"message": "Not Found"}

    def _graphql(self, sent: Any) -> Answer:
        if "markPullRequestReadyForReview" not in sent["query"]:
            return 200, {"data": None, "errors": [{"message": "unknown", "type": "X"}]}
        number = int(sent["variables"]["id"].removeprefix("PR_"))
        self.github.pulls[number].draft = False
        return 200, {"data": {"markPullRequestReadyForReview": {"pullRequest": {"isDraft": False}}}}

    def deliver(self, url: str, secret: str, *, times: int = 1, keep: bool = False) -> list[int]:
        """Send the hooks that wait, signed, each `times` times; what they were answered."""
        told = []
        with self.lock:
            waiting = list(self.github.hooks)
            if not keep:
                self.github.hooks.clear()
        for event, payload in waiting:
            body, name = json.dumps(payload).encode(), str(uuid.uuid4())
            for _ in range(times):
                told.append(httpx.post(url, content=body, headers=signed(body, secret, event, name)).status_code)
        return told

    def lose_hooks(self) -> None:
        with self.lock:
            self.github.hooks.clear()


def signed(body: bytes, secret: str, event: str, delivery: str) -> dict[str, str]:
    """The headers of a hook."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    told = {"Content-Type": "application/json", "X-GitHub-Event": event, "X-GitHub-Delivery": delivery}
    return told | {"X-Hub-Signature-256": f"sha256={digest}"}


@contextmanager
def serving(remote: Path) -> Iterator[Server]:
    """A GitHub whose one repository is `remote`; at the end nothing may have been otherwise than it is described."""
    server = Server(GitHub(remote))
    server.thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
    assert not server.complaints, server.complaints[:10]


# -- routes -----------------------------------------------------------------------------------------------------------


def _pull(github: GitHub, found: re.Match[str]) -> Pull | None:
    return github.pulls.get(int(found["n"]))


def _page(rows: list[Any], query: dict[str, str]) -> list[Any]:
    size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
    return rows[(page - 1) * min(size, PAGE) : page * min(size, PAGE)]


def _repo(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    shown = json.loads(json.dumps(SHAPES["repo"]))
    right = github.people["bot"]
    shown |= {"full_name": f"{github.owner}/{github.name}", "name": github.name, "default_branch": "main"}
    shown["permissions"] = {"admin": right == "admin", "push": right in WRITES, "pull": True}
    return 200, shown


def _pulls(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    rows = list(github.pulls.values())
    if query.get("state", "open") != "all":
        rows = [p for p in rows if p.state == query.get("state", "open")]
    if "head" in query:
        rows = [p for p in rows if f"{p.author if p.fork else github.owner}:{p.branch}" == query["head"]]
    if query.get("sort") == "updated":
        rows.sort(key=lambda p: p.updated, reverse=query.get("direction") == "desc")
    return 200, [github.pull(p, simple=True) for p in _page(rows, query)]


def _offer(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    if any(p.branch == sent["head"] and p.state == "open" for p in github.pulls.values()):
        return 422, {"message": "Validation Failed", "errors": [{"message": "A pull request already exists"}]}
    if not github.git("rev-parse", "-q", "--verify", f"refs/heads/{sent['head']}", check=False):
        return 422, {"message": "Validation Failed", "errors": [{"field": "head", "code": "invalid"}]}
    words = {"base": sent["base"], "draft": bool(sent.get("draft"))}
    return 201, github.pull(github.open("bot", sent["head"], sent["title"], sent.get("body") or "", **words))


def _one(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    pull = _pull(github, found)
    return (200, github.pull(pull)) if pull else (404, {"message": "Not Found"})


def _change(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    pull = _pull(github, found)
    if pull is None:
        return 404, {"message": "Not Found"}
    pull.title, pull.body = sent.get("title", pull.title), sent.get("body", pull.body)
    if sent.get("state") == "closed" and pull.state == "open":
        github.close(pull)
    return 200, github.pull(pull)


def _under(name: str) -> Callable[[GitHub, re.Match[str], dict[str, str], Any], Answer]:
    def act(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
        pull = _pull(github, found)
        if pull is None:
            return 404, {"message": "Not Found"}
        shown = {
            "reviews": lambda: [github.reviewed(r) for r in pull.reviews],
            "lines": lambda: [github.line(c) for c in pull.lines],
            "comments": lambda: [github.comment(pull, c) for c in pull.comments],
            "commits": lambda: github.commits(pull),
        }
        return 200, _page(shown[name](), query)

    return act


def _say(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    pull = _pull(github, found)
    return (201, github.comment(pull, github.say(pull, "bot", sent["body"]))) if pull else (404, {"message": "no"})


def _edit(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    for pull in github.pulls.values():
        for comment in pull.comments:
            if comment["id"] == int(found["n"]):
                comment["body"] = sent["body"]
                return 200, github.comment(pull, comment)
    return 404, {"message": "Not Found"}


def _said(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    rows = [(p, c) for p in github.pulls.values() for c in p.comments if c["updated_at"] >= query.get("since", "")]
    rows.sort(key=lambda row: row[1]["updated_at"])
    return 200, _page([github.comment(*row) for row in rows], query)


def _right(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    right = github.people.get(found["who"], "read")
    shown = json.loads(json.dumps(SHAPES["permission"]))
    short = {"maintain": "write", "triage": "read"}.get(right, right)
    return 200, shown | {"permission": short, "role_name": right}


def _status(github: GitHub, found: re.Match[str], query: dict[str, str], sent: Any) -> Answer:
    if not github.git("rev-parse", "-q", "--verify", f"{found['sha']}^{{commit}}", check=False):
        return 422, {"message": f"No commit found for SHA: {found['sha']}"}
    told = {"state": sent["state"], "context": sent.get("context", "default"), "description": sent.get("description")}
    github.statuses.setdefault(found["sha"], {})[told["context"]] = told
    return 201, json.loads(json.dumps(SHAPES["status"])) | told


_N = r"/(?P<n>\d+)"
ROUTES: list[tuple[str, str, Callable[[GitHub, re.Match[str], dict[str, str], Any], Answer]]] = [
    ("GET", _REPO, _repo),
    ("GET", f"{_REPO}/pulls", _pulls),
    ("POST", f"{_REPO}/pulls", _offer),
    ("GET", f"{_REPO}/pulls{_N}", _one),
    ("PATCH", f"{_REPO}/pulls{_N}", _change),
    ("GET", f"{_REPO}/pulls{_N}/reviews", _under("reviews")),
    ("GET", f"{_REPO}/pulls{_N}/comments", _under("lines")),
    ("GET", f"{_REPO}/pulls{_N}/commits", _under("commits")),
    ("GET", f"{_REPO}/issues{_N}/comments", _under("comments")),
    ("POST", f"{_REPO}/issues{_N}/comments", _say),
    ("PATCH", f"{_REPO}/issues/comments{_N}", _edit),
    ("GET", f"{_REPO}/issues/comments", _said),
    ("GET", f"{_REPO}/collaborators/(?P<who>[^/]+)/permission", _right),
    ("POST", f"{_REPO}/statuses/(?P<sha>[0-9a-f]+)", _status),
]
