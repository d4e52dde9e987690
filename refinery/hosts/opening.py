"""A rig's host, opened with the town's secret: the one place that knows how it is reached.

It is connected to the very address that was looked at: every address that its name stands for must be public, unless
the owner has named the place. No redirect is followed: the credential is for this host alone.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any

from beads import config as configs
from beads import owner, secrets
from beads.errors import GastownError
from beads.models import Rig
from refinery.core import hosting
from refinery.hosts.base import Host, HostUnknown
from refinery.hosts.github import GitHubHost

if TYPE_CHECKING:
    import httpx

PATIENCE = 20.0  # seconds for one request
_APP = re.compile(r"\s*(\d+)/(\d+)\s*\n\s*(-----BEGIN [\s\S]+)")


def host_of(rig: Rig) -> Host:
    """The rig's host. Raises HostUnknown, `denied`, when its credential is not set or is no credential."""
    config = configs.usable(rig.town.config, rig.config)[0]
    try:
        value = secrets.values(rig.town, [config.pr.credential])[config.pr.credential].strip()
    except GastownError as error:
        raise HostUnknown("denied", error.message) from error
    return GitHubHost(_client(value, hosting.api(config)), hosting.repository(config, rig.remote_url))


def _client(value: str, base: str) -> Any:
    import httpx
    from githubkit import AppInstallationAuthStrategy, GitHub, TokenAuthStrategy

    app = _APP.fullmatch(value)
    auth: Any = TokenAuthStrategy(value)
    if app is not None:
        auth = AppInstallationAuthStrategy(app[1], app[3], int(app[2]))
    elif not re.fullmatch(r"[\x21-\x7e]{1,1000}", value):
        raise HostUnknown("denied", "the secret of pr.credential is neither a token nor APP/INSTALLATION and a key")
    return GitHub(
        auth,
        base_url=base,
        transport=_transport(),
        timeout=httpx.Timeout(PATIENCE),
        follow_redirects=False,
        trust_env=False,
        http_cache=False,
        auto_retry=False,
        user_agent="gastown",
    )


def _transport() -> httpx.BaseTransport:
    import httpx

    class Looked(httpx.HTTPTransport):
        """Connects to the address that was looked at; the certificate must be the host's."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            """Send it to an address that is allowed."""
            host, port = request.url.host, request.url.port
            named = owner.allowed().place(*owner.place_of(str(request.url)))
            if request.url.scheme != "https" and not named:
                raise HostUnknown("denied", f"{host} would get the credential over plain http")
            request.extensions = {**request.extensions, "sni_hostname": host}
            request.url = request.url.copy_with(host=_address(host, port or 443, named=named))
            return super().handle_request(request)

    return Looked(verify=True, retries=0)


def _address(host: str, port: int, *, named: bool) -> str:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HostUnknown("down", f"the host {host} is not known: {error}") from error
    found = [str(row[4][0]) for row in rows]
    if not named and (why := owner.refused_address(host, found, "networks")):
        raise HostUnknown("denied", why)
    return found[0]
