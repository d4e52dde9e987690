"""The only ways out of a box: two listening sockets inside its network namespace, served out here.

Standard library only: the shim imports it. Nothing of ours runs inside: `listen_inside` enters the namespace for a
moment, in a child, and brings the sockets out. One is the tool API's (`ToolRelay`): it passes on what an agent may ask of
the server, and nothing else. The other is a proxy (`Proxy`) for HTTP and CONNECT: names are resolved once, and an
address that is not public is refused, whatever the name.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import re
import select
import signal
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

PROXY_PORT = 3128
TOOL_PORT = 8000
_MOST_CONNECTIONS = 128
_HEAD = 64 << 10
_HEAD_SECONDS = 30.0
_CONNECT_SECONDS = 30.0
_IDLE_SECONDS = 900.0
_NS_GET_USERNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0xB701, 0x10000000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

Say = Callable[[str], None]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


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
    """In the child."""
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
    return port if port not in (None, PROXY_PORT) and port is not None and port >= 1024 else TOOL_PORT


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


# -- what both have in common ---------------------------------------------------------------------------------------


class Refusal(Exception):
    """A request that is not passed on: the answer's status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass
class Head:
    """The head of a request, checked. Header names are as they came."""

    method: str
    target: str
    headers: list[tuple[str, str]]

    def first(self, name: str) -> str:
        """A header's value, or an empty string."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def length(self) -> int | None:
        """How long the body is; None: in chunks. Raises Refusal for what could be read in two ways."""
        lengths = {value for key, value in self.headers if key.lower() == "content-length"}
        coding = [value.lower() for key, value in self.headers if key.lower() == "transfer-encoding"]
        if coding:
            if coding != ["chunked"] or lengths:
                raise Refusal(400, "the length of the request's body is not clear")
            return None
        if len(lengths) > 1 or not all(re.fullmatch(r"\d{1,15}", value) for value in lengths):
            raise Refusal(400, "the length of the request's body is not clear")
        return int(lengths.pop()) if lengths else 0


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"[!-~]+")
_HOP = {
    "connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "trailer",
    "upgrade", "expect", "host", "http2-settings",
}  # fmt: skip


def read_head(stream: BinaryIO) -> Head:
    """The head of a request. Raises Refusal for one that is malformed or too long, OSError when it does not come."""
    left = _HEAD
    lines: list[str] = []
    while True:
        raw = stream.readline(left + 1)
        left -= len(raw)
        if left < 0:
            raise Refusal(431, "the head of the request is too long")
        if not raw.endswith(b"\n"):
            raise ConnectionResetError("the request has no end")
        line = raw.rstrip(b"\r\n").decode("latin-1")
        if not line and lines:
            break
        if line:
            lines.append(line)
    words = lines[0].split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _TARGET.fullmatch(words[1]):
        raise Refusal(400, "this is no HTTP request")
    if words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refusal(505, "only HTTP/1.1 is spoken here")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or any(ord(c) < 32 and c != "\t" for c in value):
            raise Refusal(400, "a header of the request is malformed")
        headers.append((name, value.strip()))
    return Head(words[0], words[1], headers)


class Door:
    """A listening socket, served by threads of ours until it is closed. Each connection carries one request."""

    what = "door"

    def __init__(self, listener: socket.socket, say: Say) -> None:
        self.listener, self._say = listener, say
        self._slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._said: set[str] = set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        listener.settimeout(None)
        threading.Thread(target=self._accept, daemon=True, name=self.what).start()

    def close(self) -> None:
        """Serve nobody any more."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self._slots.acquire(blocking=False):
                with contextlib.suppress(OSError):
                    self._answer(client, 503, f"more than {_MOST_CONNECTIONS} connections at once")
                client.close()
                continue
            try:
                threading.Thread(target=self._one, args=(client,), daemon=True).start()
            except RuntimeError:  # no more threads
                self._slots.release()
                client.close()

    def _one(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        try:
            client.settimeout(_HEAD_SECONDS)
            with client.makefile("rb") as stream:
                head = read_head(stream)
                client.settimeout(_IDLE_SECONDS)
                self.serve(head, stream, client)
        except Refusal as refusal:
            self.tell(f"{self.what}: {refusal.sentence}")
            with contextlib.suppress(OSError):
                self._answer(client, refusal.status, refusal.sentence)
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()
            self._slots.release()

    def serve(self, head: Head, stream: BinaryIO, client: socket.socket) -> None:
        """Answer one request. Raises Refusal."""
        raise NotImplementedError

    def tell(self, sentence: str) -> None:
        """Say it in the run's log, once."""
        with self._lock:
            if sentence in self._said or len(self._said) >= 100:
                return
            self._said.add(sentence)
        self._say(sentence)

    def _answer(self, client: socket.socket, status: int, sentence: str) -> None:
        body, kind = self.body(status, sentence)
        head = f"HTTP/1.1 {status} Refused\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        client.settimeout(5.0)
        client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        with contextlib.suppress(OSError):  # what the client still sends must not reset the answer
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    def body(self, status: int, sentence: str) -> tuple[bytes, str]:
        """What a refusal says, and its type."""
        return f"{sentence}\n".encode(), "text/plain; charset=utf-8"


def _pass_on(
    head: Head, stream: BinaryIO, client: socket.socket, server: socket.socket, target: str, host: str, extra: str = ""
) -> None:
    """Send the request as one of ours, and the answer back as it comes; then both connections are at their end."""
    length = head.length()
    lines = [f"{head.method} {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
    named = {word.strip().lower() for word in head.first("connection").split(",")}
    lines += [f"{k}: {v}" for k, v in head.headers if k.lower() not in _HOP and k.lower() not in named]
    server.sendall("\r\n".join(lines).encode("latin-1") + f"\r\n{extra}\r\n".encode("latin-1"))
    if head.first("expect").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    up = threading.Thread(target=_send_body, args=(stream, server, length), daemon=True)
    up.start()  # an answer may come before the body is through
    try:
        while data := server.recv(65536):
            client.sendall(data)
    finally:
        for one in (client, server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        up.join(5.0)


def _send_body(stream: BinaryIO, server: socket.socket, length: int | None) -> None:
    """The body and nothing behind it. Chunks are made anew."""
    try:
        if length is not None:
            _copy(stream, server, length)
            return
        while True:
            size = int(stream.readline(1024).split(b";")[0].strip(), 16)
            server.sendall(f"{size:x}\r\n".encode())
            if size == 0:
                break
            _copy(stream, server, size)
            stream.readline(8)
            server.sendall(b"\r\n")
        server.sendall(b"\r\n")
    except (OSError, ValueError):
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _copy(stream: BinaryIO, server: socket.socket, length: int) -> None:
    while length > 0:
        data = stream.read1(min(length, 65536))  # type: ignore[attr-defined]
        if not data:
            raise ConnectionResetError("the body has no end")
        server.sendall(data)
        length -= len(data)


# -- the tool API ---------------------------------------------------------------------------------------------------


_TOOL_PATH = re.compile(r"/api/tools(/[A-Za-z0-9_.-]*/?)?|/api/schema/?|/mcp/?|/model(/[A-Za-z0-9_.:@/-]*)?")
_NEVER = {"cookie", "forwarded", "x-real-ip", "x-http-method-override", "remote-user"}


def _spoofs(name: str) -> bool:
    """True for a header by which a request would pretend to be somebody or come from somewhere."""
    return name in _NEVER or name.startswith("x-forwarded") or "_" in name


class ToolRelay(Door):
    """Tools, their schema, MCP and the model door of the server at `url`; everything else of it is out of reach."""

    what = "tool API"

    def __init__(self, listener: socket.socket, url: str, say: Say) -> None:
        self.url = urllib.parse.urlsplit(url)
        super().__init__(listener, say)

    def serve(self, head: Head, stream: BinaryIO, client: socket.socket) -> None:
        """Pass it on, if it is for what agents may ask."""
        path, _, query = head.target.partition("?")
        dots = {".", ".."} & set(path.split("/"))
        if not _TOOL_PATH.fullmatch(path) or dots or "//" in path:
            raise Refusal(403, f"{head.method} {path[:200]} cannot be reached from inside: only /api/tools, /mcp, /model")
        host, port = self.url.hostname or "localhost", self.url.port
        secure = self.url.scheme == "https"
        head.headers = [(k, v) for k, v in head.headers if not _spoofs(k.lower())]
        try:
            server = socket.create_connection((host, port or (443 if secure else 80)), timeout=_CONNECT_SECONDS)
        except OSError as error:
            raise Refusal(502, f"the server cannot be reached: {error}") from error
        with server:
            server.settimeout(_IDLE_SECONDS)
            wire = ssl.create_default_context().wrap_socket(server, server_hostname=host) if secure else server
            with wire:
                target = self.url.path.rstrip("/") + path + (f"?{query}" if query else "")
                _pass_on(head, stream, client, wire, target, self.url.netloc.rpartition("@")[2])

    def body(self, status: int, sentence: str) -> tuple[bytes, str]:
        """The API's envelope."""
        code = {403: "forbidden", 502: "unavailable", 503: "unavailable"}.get(status, "invalid")
        text = json.dumps({"ok": False, "error": {"code": code, "message": sentence, "details": {}}})
        return text.encode(), "application/json"


# -- the proxy ------------------------------------------------------------------------------------------------------


class Allowed:
    """What the owner lets be reached though it is not public: networks, addresses, `host` or `host:port`."""

    def __init__(self, words: Iterable[str]) -> None:
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._hosts: list[str] = []
        for word in words:
            try:
                self._networks.append(ipaddress.ip_network(word, strict=False))
            except ValueError:
                self._hosts.append(word.lower())

    def host(self, host: str, port: int) -> bool:
        """True when this name is allowed, whatever its address."""
        return any(fits(word if ":" in word else f"{word}:{port}", host, port) for word in self._hosts)

    def address(self, address: Address) -> bool:
        """True when this address is."""
        return any(address.version == net.version and address in net for net in self._networks)


def fits(pattern: str, host: str, port: int) -> bool:
    """Whether `host:port` is meant by a pattern of that form; `*.example.org` is whatever is below it."""
    name, _, number = pattern.rpartition(":")
    if number != str(port):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def not_public(address: Address) -> str:
    """What is not public about an address, in words; an empty string for one of the internet."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return not_public(inner)
        if int(address) < 1 << 32:  # ::1, and the old way to write an IPv4 address
            return "a loopback address"
        if address.is_site_local:
            return "a private address"
    for what in ("loopback", "unspecified", "multicast", "link_local"):
        if getattr(address, f"is_{what}"):
            return f"{'an' if what[0] == 'u' else 'a'} {what.replace('_', '-')} address"
    return "" if address.is_global else "a private address"


def of_this_machine(address: Address) -> bool:
    """True for one of our own addresses: what listens there may think that it is among friends."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


class Proxy(Door):
    """HTTP and CONNECT to what `policy` names: `("open",)`, or patterns of `host:port`.

    `allow`: the owner's exceptions for addresses that are not public. Where the server itself has a proxy
    (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), requests go on through that one, which then resolves the names.
    """

    what = "network"

    def __init__(self, listener: socket.socket, policy: Sequence[str], allow: Sequence[str], say: Say) -> None:
        self._policy, self._allow = tuple(policy), Allowed(allow)
        super().__init__(listener, say)

    def serve(self, head: Head, stream: BinaryIO, client: socket.socket) -> None:
        """Connect, or pass on."""
        if head.method == "CONNECT":
            host, port = _authority(head.target, None)
            with self._reach("https", host, port) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _tunnel(client, stream, server)
            return
        parts = urllib.parse.urlsplit(head.target)
        if parts.scheme != "http" or not parts.netloc:
            raise Refusal(400, "this is a proxy: it takes CONNECT, and http:// addresses")
        if parts.username is not None and not head.first("authorization"):
            raise Refusal(400, "credentials do not belong into the address")
        host, port = _authority(parts.netloc.rpartition("@")[2], 80)
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        upstream = _upstream("http", host, port)
        with self._reach("http", host, port) as server:
            if upstream is not None:
                absolute = f"http://{_joined(host, port)}{target}"
                _pass_on(head, stream, client, server, absolute, _joined(host, port), upstream.authorization())
            else:
                _pass_on(head, stream, client, server, target, parts.netloc.rpartition("@")[2])

    def _reach(self, scheme: str, host: str, port: int) -> socket.socket:
        """A connection to there, or to the proxy that leads there. Raises Refusal."""
        if self._policy != ("open",) and not any(fits(word, host, port) for word in self._policy):
            raise Refusal(403, f"{_joined(host, port)} is not among what this run may reach")
        upstream = _upstream(scheme, host, port)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            if upstream is None:
                raise Refusal(502, f"{host} cannot be resolved: {error}") from error
            found = []  # where a proxy leads out, names of the outside may not be known here
        addresses = self._judged(host, port, [str(one[4][0]) for one in found])
        if upstream is not None:
            return upstream.connect(host, port, scheme)
        problem: OSError | None = None
        for address in addresses[:4]:
            try:
                made = socket.create_connection((str(address), port), timeout=_CONNECT_SECONDS)
            except OSError as error:
                problem = error
            else:
                made.settimeout(_IDLE_SECONDS)
                return made
        raise Refusal(502, f"{_joined(host, port)} cannot be reached: {problem}")

    def _judged(self, host: str, port: int, found: Sequence[str]) -> list[Address]:
        """The addresses that may be connected to. Raises Refusal when there is none among those that were found."""
        addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in dict.fromkeys(found)]
        if self._allow.host(host, port):
            return addresses
        why = ""
        fine = []
        for address in addresses:
            wrong = not_public(address) or ("an address of this machine" if of_this_machine(address) else "")
            if wrong and not self._allow.address(address):
                why = f"{_joined(host, port)} is {address}, {wrong}: only the owner can allow that"
            else:
                fine.append(address)
        if addresses and not fine:
            raise Refusal(403, why)
        return fine


def _authority(text: str, default: int | None) -> tuple[str, int]:
    """`host:port` → (host in lower case, port). Raises Refusal."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?", text)
    port = int(found[3]) if found and found[3] else default
    if found is None or port is None or not 0 < port < 65536:
        raise Refusal(400, f"{text[:200]!r} is no host:port")
    return (found[1] or found[2]).lower().rstrip("."), port


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tunnel(client: socket.socket, stream: BinaryIO, server: socket.socket) -> None:
    """Bytes both ways until both have ended, or nothing has moved for long."""
    client.setblocking(False)
    early = stream.peek()  # type: ignore[attr-defined]  # what came with the head
    client.settimeout(_IDLE_SECONDS)
    if early:
        server.sendall(stream.read1(len(early)))  # type: ignore[attr-defined]
    other = {client: server, server: client}
    reading = {client, server}
    last = time.monotonic()
    while reading and time.monotonic() - last < _IDLE_SECONDS:
        for one in select.select(list(reading), [], [], 30.0)[0]:
            last = time.monotonic()
            data = one.recv(65536)
            if data:
                other[one].sendall(data)
            else:
                reading.discard(one)
                with contextlib.suppress(OSError):
                    other[one].shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Upstream:
    """The proxy that the server itself must use."""

    url: str

    def authorization(self) -> str:
        """The header that it wants, with its line end, or an empty string."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.username is None:
            return ""
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        return f"Proxy-Authorization: Basic {b64encode(pair.encode()).decode()}\r\n"

    def connect(self, host: str, port: int, scheme: str) -> socket.socket:
        """A connection to it, and for https through it. Raises Refusal."""
        parts = urllib.parse.urlsplit(self.url if "://" in self.url else f"http://{self.url}")
        try:
            made = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise Refusal(502, f"the server's own proxy cannot be reached: {error}") from error
        if scheme == "https":
            try:
                where = _joined(host, port)
                made.sendall(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{self.authorization()}\r\n".encode())
                head = b""
                while not head.endswith(b"\r\n\r\n") and len(head) < _HEAD:
                    byte = made.recv(1)
                    if not byte:
                        break
                    head += byte
                if not re.match(rb"HTTP/1\.[01] 2\d\d", head):
                    said = head.split(b"\r\n")[0].decode("latin-1")[:200] or "nothing"
                    raise Refusal(502, f"the server's own proxy does not lead to {where}: it answers {said}")
            except BaseException:
                made.close()
                raise
        made.settimeout(_IDLE_SECONDS)
        return made


def _upstream(scheme: str, host: str, port: int) -> Upstream | None:
    """The server's own proxy for this, if it has one."""
    url = urllib.request.getproxies_environment().get(scheme, "")
    if not url or urllib.request.proxy_bypass_environment(_joined(host, port)):
        return None
    return Upstream(url)
