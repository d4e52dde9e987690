"""Every way in which git and a remote fail, sorted in one place: whose matter it is, and what is to be done.

Stdlib only: the shim imports it. A kind has one fate:
- `change`: the change itself cannot be: its author hears why, at once, and nobody waits for it;
- `rig`: the remote says no to the whole rig until a person mends something: the rig is held, with one remedy;
- `weather`: the remote (its host) is away: it is tried again by itself, and everybody is told since when and when next;
- `here`: this machine fails, and it is not known why: tried a few times, then held for a person.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from enum import StrEnum

from agents.runtime.names import redact as redact
from beads.errors import Disposition, GastownError


class Fate(StrEnum):
    """Whose matter a failure is; see the module."""

    CHANGE = "change"
    RIG = "rig"
    WEATHER = "weather"
    HERE = "here"


@dataclass(frozen=True)
class Kind:
    """One kind of failure. `says`: what git, or the remote, prints; empty: found out otherwise. `remedy`: what a person
    does about it, with {rig}, {branch} and {secret} to be filled in; empty: it goes by itself, or nobody knows.
    `whole_host`: whoever else has a remote on that host has the same trouble."""

    fate: Fate
    says: str = ""
    remedy: str = ""
    whole_host: bool = False

    def remedy_for(self, rig: str, branch: str = "", secret: str = "") -> str:
        """The remedy as it is typed for a rig, with the names that are known; empty where there is none."""
        return self.remedy.format(rig=rig, branch=branch or "BRANCH", secret=secret or "NAME")


CREDENTIAL = "gastown secret set {secret} (then it is tried again at once)"
# The order is that of the search: the first that says it wins.
KINDS: dict[str, Kind] = {
    "remote_full": Kind(
        Fate.RIG,
        r"remote: .*(no space left on device|disk quota exceeded)",
        "make room on the remote's disk; it is tried again by itself",
    ),
    "disk_full": Kind(Fate.HERE, r"no space left on device|disk quota exceeded"),
    "stale_lease": Kind(Fate.CHANGE, r"stale info|\(fetch first\)|non-fast-forward|failed to lock|cannot lock ref"),
    "rejected": Kind(
        Fate.CHANGE, r"pre-receive hook declined|hook declined|protected branch|remote rejected|deny|denied by"
    ),
    "host_key": Kind(
        Fate.RIG,
        r"host key verification failed|remote host identification has changed",
        "gastown rig host-key {rig} --renew, if its owner has changed the key",
    ),
    "redirect": Kind(Fate.RIG, r"returned error: 30\d", "give the remote's own address: a redirect is not followed"),
    "auth": Kind(
        Fate.RIG,
        r"authentication failed|could not read (username|password)|permission denied|access denied"
        r"|returned error: 40[13]|invalid credentials|\bpermission to \S+ denied",
        CREDENTIAL,
    ),
    "format": Kind(
        Fate.RIG,
        r"mismatched algorithms",
        "give a repository whose object names are SHA-1: those with SHA-256 cannot be served",
    ),
    "unrelated": Kind(Fate.CHANGE, r"refusing to merge unrelated histories"),
    "missing_ref": Kind(Fate.CHANGE, r"couldn't find remote ref|not our ref|unadvertised object|bad revision"),
    "not_found": Kind(
        Fate.RIG,
        r"returned error: 4(04|10)|repository .*not found|does not appear to be a git|not a git repository",
        "see that the remote is still at this address, and that its credential may read it",
    ),
    "unreachable": Kind(
        Fate.WEATHER,
        r"could not resolve|connection (refused|timed out|reset|closed)|failed to connect|couldn't connect"
        r"|unable to access|unable to connect|could not read from remote|no route to host|network is unreachable"
        r"|operation timed out|early eof|hung up|returned error: (5\d\d|429)|ssl|gnutls|rpc failed|empty reply",
        "see that this machine reaches the remote's host; it is tried again by itself",
        whole_host=True,
    ),
    "bad_object": Kind(  # the last, for it is what git says of its own disk when nothing else is known
        Fate.CHANGE,
        r"not something we can merge|not a (?:valid|commit) object|is not a commit|bad object|not a tree object"
        r"|(?:unable to read|unable to parse|could not parse) (?:tree|commit|object|[0-9a-f]{40})"
        r"|missing (?:blob|tree|commit|object)|does not point to a",
    ),
    # what git does not say in words
    "timeout": Kind(Fate.WEATHER, remedy="see why the remote's host takes so long", whole_host=True),
    "silent": Kind(
        Fate.WEATHER,
        remedy="see why the remote's host accepts and does not answer; it is tried again by itself",
        whole_host=True,
    ),
    "credential": Kind(Fate.RIG, remedy=CREDENTIAL),
    "shallow": Kind(Fate.RIG, remedy="give a remote with the whole history (git fetch --unshallow, there)"),
    "missing_target": Kind(Fate.RIG, remedy="gastown rig set-default-branch {rig} {branch}"),
    "unfit": Kind(Fate.CHANGE),
    "local": Kind(Fate.HERE),
    "other": Kind(Fate.WEATHER),
}
_SAID = [(name, re.compile(kind.says, re.I | re.M)) for name, kind in KINDS.items() if kind.says]
TROUBLE = (Fate.RIG, Fate.WEATHER)  # what lasts for a while, and stands in the way of the whole rig


class GitFailed(GastownError):
    """A git command failed. `kind`: one of KINDS. `branch`: the default branch that a remote names instead of the one
    that it has not got; empty: it names none."""

    code = "git"

    def __init__(self, message: str, *, kind: str = "other", branch: str = "") -> None:
        told = KINDS[kind].fate == Fate.CHANGE  # an answer; anything else may be otherwise the next time
        super().__init__(message, disposition=Disposition.PERMANENT if told else Disposition.RETRY)
        self.kind, self.branch = kind, branch

    @property
    def fate(self) -> Fate:
        """Whose matter it is."""
        return KINDS[self.kind].fate


def kind_of(stderr: str) -> str:
    """The kind of what git has printed."""
    return next((name for name, pattern in _SAID if pattern.search(stderr)), "other")


def failure(what: str, returncode: int, stderr: str, rig: str = "RIG") -> GitFailed:
    """The typed error for a failed git process: one line, credentials removed. `rig`: whose remote was spoken to."""
    lines = [line for line in redact(stderr).strip().splitlines() if line.strip()]
    lines = [line for line in lines if "askpass" not in line] or lines  # how we let it ask is nobody's matter
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", " !"))] or lines
    if telling and telling[0].startswith("fatal: Could not read from remote"):  # why not, ssh has said before
        telling = [line for line in lines if not line.startswith("Warning:")] or telling
    kind = kind_of(stderr)
    said = telling[0][:1000] if telling else f"exit {returncode}"
    if kind == "host_key":
        said = (
            "the remote does not show the host key that is pinned: if its owner has changed it, "
            f"`gastown rig host-key {rig} --renew` trusts the new one"
        )
    elif kind == "redirect":
        said += " (it redirects elsewhere: give the remote's own address)"
    return GitFailed(f"git {what}: {said}", kind=kind)


def disk_failure(what: str, error: OSError) -> GitFailed:
    """The typed error for what could not be written beside git: a full disk is waited for, else a person looks."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return GitFailed(f"{what}: {error.strerror or error}", kind="disk_full" if full else "local")


def refusal(stderr: str) -> str:
    """What the remote said when it refused."""
    said = [line.removeprefix("remote:").strip() for line in redact(stderr).splitlines()]
    telling = [line for line in said if line and not line.startswith(("To ", "error: failed to push"))]
    return "; ".join(telling)[:500]
