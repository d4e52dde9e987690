"""The box from inside, by somebody hostile: as root and as a user, with the system's bubblewrap and the wheel's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.scenes import EAT, PYTHON, SECRET, Scene

pytestmark = pytest.mark.skipif(not os.path.exists(PYTHON), reason="needs a Python in /usr/bin")


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
