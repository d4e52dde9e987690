"""Where a rig's changes are reviewed: on the remote's own host, or on pages of ours. Pure."""

from __future__ import annotations

import re

from beads.config import Config
from beads.limits import Provider

GITHUB = "github.com"
_REMOTE = re.compile(r"(?:\w+://(?:[^/@\s]*@)?|(?:[^/@\s]+@))([^/:\s]+)(?::\d+)?[:/](.+)")
_NAME = re.compile(r"/?([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+?)(?:\.git)?/?")


def _parts(remote: str) -> tuple[str, str]:
    """(host, path) of a remote's URL; empty for a path on this machine."""
    found = _REMOTE.fullmatch(remote)
    if found is None:
        return "", ""
    return found[1].lower(), found[2]


def repository(config: Config, remote: str) -> str:
    """`owner/name` on the host; empty when nothing says it."""
    if config.pr.repository:
        return config.pr.repository
    found = _NAME.fullmatch(_parts(remote)[1])
    if found is None:
        return ""
    return found[1]


def api(config: Config) -> str:
    """The base URL of the host's API."""
    if config.pr.url:
        return f"{config.pr.url.rstrip('/')}/api/v3"
    return f"https://api.{GITHUB}"


def _is_there(config: Config, remote: str) -> bool:
    """True when the remote is a repository of GitHub, or of the Enterprise that the config names."""
    host = _parts(remote)[0]
    own = re.sub(r"^https?://|:\d+/?$|/$", "", config.pr.url).lower()
    if not host:  # a path on this machine is where the config says
        return bool(own and config.pr.repository)
    return host in (GITHUB, own)


def provider(config: Config, remote: str) -> Provider:
    """Who hosts a rig's reviews: `github` or `builtin`."""
    asked = config.pr.provider
    if asked == Provider.AUTO and config.pr.credential and _is_there(config, remote):
        return Provider.GITHUB
    if asked == Provider.AUTO:
        return Provider.BUILTIN
    return asked


def problem(config: Config, remote: str) -> str:
    """Why the rig cannot be served as its config asks; empty when it can."""
    if provider(config, remote) != Provider.GITHUB:
        return ""
    if not config.pr.credential:
        return 'pr.provider is "github": name the secret with its token, pr.credential = "GITHUB_TOKEN"'
    if not repository(config, remote):
        return 'the remote does not say which repository of GitHub it is: set pr.repository = "owner/name"'
    return ""


def told(config: Config, remote: str) -> str:
    """One sentence for whoever adds a rig: where its changes are reviewed, and what would make it otherwise."""
    if provider(config, remote) == Provider.GITHUB:
        return f"pull requests are those of {repository(config, remote)} at {api(config)}"
    if config.pr.provider == Provider.AUTO and _is_there(config, remote):
        return 'reviews are on pages of Gastown: for pull requests on GitHub name a token, [pr] credential = "NAME"'
    return ""
