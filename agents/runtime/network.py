"""The only ways out of a box: two listening sockets inside its network namespace, served out here.

Standard library only: the shim imports it. Nothing of ours runs inside: `listen_inside` enters the namespace for a
moment, in a child, and brings the sockets out. One is the tool API's (`doors.ToolRelay`), the other is a proxy
(`proxy.Proxy`).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import signal
import socket
import urllib.parse
from collections.abc import Sequence

PROXY_PORT = 3128
TOOL_PORT = 8000
_NS_GET_USERNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0xB701, 0x10000000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_NO_WAY_OUT = re.compile(
    r"EAI_AGAIN|ENOTFOUND|ENETUNREACH|[Cc]ould not resolve (?:host|proxy)|[Nn]ame resolution|Name or service not known|"
    r"Network is unreachable|failed to lookup address|dial tcp: lookup|UnknownHostException|unable to resolve host"
)


def listen_inside(pid: int, ports: Sequence[int], seconds: float = 10.0) -> list[socket.socket]:
    """Sockets that listen on 127.0.0.1 at `ports` in the network namespace of `pid`. Raises OSError.

    A child does it, for who enters a user namespace must have one thread, and cannot come back.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child = os.fork()
        if child == 0:
            try:
                _listen(pid, ports, theirs)
            finally:
                os._exit(0)
        theirs.close()  # so that its end is heard
        ours.settimeout(seconds)
        try:
            told, handles, _, _ = socket.recv_fds(ours, 4096, len(ports))
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            os.waitpid(child, 0)
    found = [socket.socket(fileno=handle) for handle in handles]
    if told != b"ok" or len(found) != len(ports):
        for one in found:
            one.close()
        raise OSError(f"the box's network cannot be entered: {told.decode('utf-8', 'replace') or 'no answer'}")
    return found


def _listen(pid: int, ports: Sequence[int], channel: socket.socket) -> None:
    """Join the namespaces of `pid`, listen there, and send the sockets (or why there are none) over `channel`."""
    try:
        net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        for handle, kind in ((fcntl.ioctl(net, _NS_GET_USERNS), _CLONE_NEWUSER), (net, _CLONE_NEWNET)):
            if _libc.setns(handle, kind) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        found = []
        for port in ports:
            one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", port))
            one.listen(128)
            found.append(one)
        socket.send_fds(channel, [b"ok"], [one.fileno() for one in found])
    except BaseException as error:
        channel.send(f"{type(error).__name__}: {error}".encode()[:1000])


def tool_port(url: str) -> int:
    """The port at which the tool API is found inside: the server's own where it is on this machine, else 8000."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port if parts.hostname in ("127.0.0.1", "localhost", "::1") else None
    if port not in (None, PROXY_PORT) and port is not None and port >= 1024:
        return port
    return TOOL_PORT


def variables(proxy: bool, url: str = "") -> dict[str, str]:
    """What tools must know of the ways out. `url`: the server's, where the tool API is to be reached."""
    env: dict[str, str] = {}
    if url:
        env["GASTOWN_URL"] = f"http://127.0.0.1:{tool_port(url)}"
    if proxy:
        through = f"http://127.0.0.1:{PROXY_PORT}"
        env |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), through)
        env |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        env |= {"NODE_USE_ENV_PROXY": "1", "npm_config_proxy": through, "npm_config_https_proxy": through}
    return env


def hint(output: str, patterns: Sequence[str], *, gate: bool) -> str:
    """What to say to a command that has failed and whose last lines speak of a network that it has not; else empty.

    `patterns`: the box's network, as in the config.
    """
    if not _NO_WAY_OUT.search("\n".join(output.splitlines()[-40:])):
        return ""
    if tuple(patterns) in (("none",), ()):
        if gate:
            return 'this gate has no network: `network = true` for it, or a list such as ["registry.example.org:443"]'
        return (
            'this agent has no network: say network = "open" in its config, or a list such as ["host.example.org:443"]'
        )
    return (
        "inside, no name is resolved, and raw TCP and ssh do not get out: the network is HTTP and HTTPS through the "
        "proxy that HTTPS_PROXY names (git by https, not ssh; Node uses it by itself from 24 on)"
    )
