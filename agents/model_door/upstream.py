"""How the door reaches a provider: by https, at an address that was looked at, and along no redirect.

Where the server itself has a proxy (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, without what `NO_PROXY` names), that
resolves the name, and what it reaches is its word. So a host that only a town has named must be seen to be public from
here as well; the provider's own, and what the installation's owner has named, are passed on as they are.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import urllib.request
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from agents.model_door.apis import Refusal
from agents.model_door.desk import Pass
from beads.addresses import is_near
from beads.owner import place_of, refused_address

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 20.0
SILENCE = 600.0  # so long may a model think without a byte; as the providers' own libraries have it
CONNECTIONS = 1000

_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, httpx.AsyncClient]] = (
    weakref.WeakKeyDictionary()
)


@functools.cache
def _trust() -> ssl.SSLContext:
    """The system's certificate authorities, or those that SSL_CERT_FILE names."""
    return ssl.create_default_context()


def _client(proxy: str) -> httpx.AsyncClient:
    """This event loop's client, with its pool of connections. It keeps no cookies between runs."""
    import httpx

    found = _clients.setdefault(asyncio.get_running_loop(), {})
    if proxy not in found:
        found[proxy] = httpx.AsyncClient(
            verify=_trust(),
            trust_env=False,
            proxy=_through(proxy),
            follow_redirects=False,
            timeout=httpx.Timeout(SILENCE, connect=CONNECT_SECONDS, write=60.0, pool=30.0),
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=50, keepalive_expiry=30.0),
        )
    return found[proxy]


def _through(proxy: str) -> httpx.Proxy | None:
    """A proxy as the client takes it; one that is itself reached by https is trusted as providers are."""
    import httpx

    if not proxy:
        return None
    if proxy.startswith("https://"):
        return httpx.Proxy(proxy, ssl_context=_trust())
    return httpx.Proxy(proxy)


def proxy_of(scheme: str, host: str, port: int) -> str:
    """The URL of the server's own proxy for this place; empty: it is reached directly. An address that is not public is
    always: a proxy would reach a neighbour of its own. Raises Refusal for a proxy of a kind that is not spoken."""
    known = urllib.request.getproxies_environment()
    found = known.get(scheme) or known.get("all") or ""
    spared = urllib.request.proxy_bypass_environment(f"{host}:{port}", known)  # type: ignore[attr-defined]
    if not found or spared or is_near(host):
        return ""
    if "://" not in found:
        found = f"http://{found}"
    if urlsplit(found).scheme not in ("http", "https"):
        raise Refusal(502, f"the server's proxy {_place(found)} is none for HTTP: set HTTPS_PROXY", fault="place")
    return found


def _place(proxy: str) -> str:
    """A proxy's URL without the password that may be in it."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 80}"


async def _addresses(host: str, port: int, *, named: bool) -> list[str]:
    """Where a host is. All of it must be public, unless the owner has named the place. Raises Refusal."""
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refusal(502, f"the provider's host {host} is not known: {error}", again=True, fault="place") from None
    found = list(dict.fromkeys(str(row[4][0]) for row in rows))
    if not named and (why := refused_address(host, found, "networks")):
        raise Refusal(403, f"the provider's host {why}", fault="place")
    return found


@dataclass(frozen=True)
class _Way:
    """How a place is reached: at these hosts or addresses, one after the other, through this proxy (empty: none)."""

    hosts: list[str]
    proxy: str = ""

    def words(self, host: str) -> str:
        """Whom it is that does not answer."""
        if self.proxy:
            return f"the provider at {host} through the server's proxy {_place(self.proxy)}"
        return f"the provider at {host}"


async def _way(may: Pass, scheme: str, host: str, port: int) -> _Way:
    """How a provider is reached. Raises Refusal where it must not be."""
    proxy = proxy_of(scheme, host, port)
    if not proxy:
        return _Way(await _addresses(host, port, named=may.named))
    if not (may.named or may.own):
        await _addresses(host, port, named=False)
    return _Way([host], proxy)


@asynccontextmanager
async def ask(
    may: Pass, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes
) -> AsyncIterator[httpx.Response]:
    """The provider's answer, of which only the head has been read. Raises Refusal when there is none.

    Without a proxy it is connected to the very address that was looked at; the certificate must be the host's.
    """
    import httpx

    parts = urlsplit(may.base)
    host, port = place_of(may.base)
    if parts.scheme != "https" and not may.named:
        raise Refusal(403, f"the provider at {host} would get the key over plain http", fault="place")
    way = await _way(may, parts.scheme, host, port)
    client = _client(way.proxy)
    extensions: dict[str, Any] = {"sni_hostname": host}
    response: httpx.Response | None = None
    for address in way.hosts:
        place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        url = urlunsplit((parts.scheme, place, parts.path.rstrip("/") + path, query, ""))
        told = [("host", parts.netloc), *headers]
        request = httpx.Request(method, url, headers=told, content=body or None, extensions=extensions)
        request.extensions["timeout"] = client.timeout.as_dict()
        try:
            response = await client.send(request, stream=True)
            break
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            if address == way.hosts[-1]:
                why = f"{way.words(host)} cannot be reached: {_words(error)}"
                raise Refusal(502, why, again=True, fault="place") from None
        except httpx.TimeoutException:
            raise Refusal(504, f"{way.words(host)} did not answer in time", again=True) from None
        except httpx.HTTPError as error:
            raise Refusal(502, f"{way.words(host)} broke off: {_words(error)}", again=True) from None
    assert response is not None
    try:
        yield response
    finally:
        await response.aclose()


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
