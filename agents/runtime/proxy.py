"""The proxy of a box, out here: HTTP and CONNECT, to what the run may reach.

Standard library only: the shim imports it. Names are resolved once, and the connection goes there; an address that is
not public is refused, whatever the name, unless the owner allows it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import select
import socket
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from agents.runtime.doors import CONNECT_SECONDS, HEAD, IDLE_SECONDS, Door, Head, Onward, Refusal, Say, pass_on

# reserved for documents, so nobody's private network; some installations have a gateway to the outside there
_FOR_DOCUMENTS = [
    ipaddress.ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


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
    if name.startswith("*."):
        return host.endswith(name[1:])
    return host == name


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
    public = address.is_global or any(address in net for net in _FOR_DOCUMENTS if net.version == address.version)
    if public:
        return ""
    return "a private address"


def of_this_machine(address: Address) -> bool:
    """True for one of our own addresses: what listens there may think that it is among friends."""
    family = socket.AF_INET6
    if address.version == 4:
        family = socket.AF_INET
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
                onward = Onward(absolute, _joined(host, port), upstream.authorization())
            else:
                onward = Onward(target, parts.netloc.rpartition("@")[2])
            pass_on(head, stream, client, server, onward)

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
                made = socket.create_connection((str(address), port), timeout=CONNECT_SECONDS)
            except OSError as error:
                problem = error
            else:
                made.settimeout(IDLE_SECONDS)
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
    port = default
    if found and found[3]:
        port = int(found[3])
    if found is None or port is None or not 0 < port < 65536:
        raise Refusal(400, f"{text[:200]!r} is no host:port")
    return (found[1] or found[2]).lower().rstrip("."), port


def _joined(host: str, port: int) -> str:
    if ":" in host:
        return f"[{host}]:{port}"
    return f"{host}:{port}"


def _tunnel(client: socket.socket, stream: BinaryIO, server: socket.socket) -> None:
    """Bytes both ways until both have ended, or nothing has moved for long."""
    client.setblocking(False)
    early = stream.peek()  # type: ignore[attr-defined]  # what came with the head
    client.settimeout(IDLE_SECONDS)
    if early:
        server.sendall(stream.read1(len(early)))  # type: ignore[attr-defined]
    other = {client: server, server: client}
    reading = {client, server}
    last = time.monotonic()
    while reading and time.monotonic() - last < IDLE_SECONDS:
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
        """The Proxy-Authorization header for the URL's user, with its line end; empty where the URL names none."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.username is None:
            return ""
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        return f"Proxy-Authorization: Basic {b64encode(pair.encode()).decode()}\r\n"

    def connect(self, host: str, port: int, scheme: str) -> socket.socket:
        """A connection to the proxy; for https a tunnel through it to `host:port`. Raises Refusal."""
        parts = urllib.parse.urlsplit(self.url if "://" in self.url else f"http://{self.url}")
        try:
            made = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise Refusal(502, f"the server's own proxy cannot be reached: {error}") from error
        if scheme == "https":
            try:
                where = _joined(host, port)
                made.sendall(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{self.authorization()}\r\n".encode())
                head = b""
                while not head.endswith(b"\r\n\r\n") and len(head) < HEAD:
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
        made.settimeout(IDLE_SECONDS)
        return made


def _upstream(scheme: str, host: str, port: int) -> Upstream | None:
    """The server's own proxy for this, if it has one."""
    url = urllib.request.getproxies_environment().get(scheme, "")
    if not url or _bypass(_joined(host, port)):
        return None
    return Upstream(url)


def _bypass(where: str) -> bool:
    """True for what NO_PROXY names."""
    return bool(urllib.request.proxy_bypass_environment(where))  # type: ignore[attr-defined]
