"""How the door reaches a provider: by https, at an address that was looked at, and along no redirect."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from agents.model_door.apis import Refusal
from agents.model_door.desk import Pass
from beads.addresses import is_public
from beads.owner import place_of

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 20.0
SILENCE = 600.0  # so long may a model think without a byte; as the providers' own libraries have it
CONNECTIONS = 1000

_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = weakref.WeakKeyDictionary()


@functools.cache
def _trust() -> ssl.SSLContext:
    """The system's certificate authorities, or those that SSL_CERT_FILE names."""
    return ssl.create_default_context()


def _client() -> httpx.AsyncClient:
    """This event loop's client, with its pool of connections. It keeps no cookies between runs."""
    import httpx

    loop = asyncio.get_running_loop()
    found = _clients.get(loop)
    if found is None:
        found = _clients[loop] = httpx.AsyncClient(
            verify=_trust(),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(SILENCE, connect=CONNECT_SECONDS, write=60.0, pool=30.0),
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=50, keepalive_expiry=30.0),
        )
    return found


async def _addresses(host: str, port: int, *, named: bool) -> list[str]:
    """Where a host is. All of it must be public, unless the owner has named the place. Raises Refusal."""
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refusal(502, f"the provider's host {host} is not known: {error}", again=True, fault="place") from None
    found = list(dict.fromkeys(str(row[4][0]) for row in rows))
    inside = [address for address in found if not is_public(address)]
    if inside and not named:
        raise Refusal(
            403,
            f"the provider's host {host} is at {inside[0]}, which is no public address: the installation's owner can "
            "name it in [allow] networks of GASTOWN_OWNER_CONFIG",
            fault="place",
        )
    return found


@asynccontextmanager
async def ask(
    may: Pass, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes
) -> AsyncIterator[httpx.Response]:
    """The provider's answer, of which only the head has been read. Raises Refusal when there is none.

    It is connected to the very address that was looked at, and the certificate must be the host's.
    """
    import httpx

    parts = urlsplit(may.base)
    host, port = place_of(may.base)
    if parts.scheme != "https" and not may.named:
        raise Refusal(403, f"the provider at {host} would get the key over plain http", fault="place")
    addresses = await _addresses(host, port, named=may.named)
    extensions: dict[str, Any] = {"sni_hostname": host}
    response: httpx.Response | None = None
    for address in addresses:
        place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        url = urlunsplit((parts.scheme, place, parts.path.rstrip("/") + path, query, ""))
        told = [("host", parts.netloc), *headers]
        request = httpx.Request(method, url, headers=told, content=body or None, extensions=extensions)
        request.extensions["timeout"] = _client().timeout.as_dict()
        try:
            response = await _client().send(request, stream=True)
            break
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if address == addresses[-1]:
                why = f"the provider at {host} cannot be reached: {_words(error)}"
                raise Refusal(502, why, again=True, fault="place") from None
        except httpx.TimeoutException:
            raise Refusal(504, f"the provider at {host} did not answer in time", again=True) from None
        except httpx.HTTPError as error:
            raise Refusal(502, f"the provider at {host} broke off: {_words(error)}", again=True) from None
    assert response is not None
    try:
        yield response
    finally:
        await response.aclose()


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
