"""Names from outside: branches and remotes that git may be given, checked; what may be shown of them. Stdlib only."""

from __future__ import annotations

import re
import unicodedata

from beads.errors import Invalid

MAX_BRANCH = 200
OUR_MAIL = "@gastown.invalid"  # of agents, who have no account anywhere


def mail_of(agent: str) -> str:
    """The mail address of an agent's commits, by which it is told that they are its own."""
    return f"{agent}{OUR_MAIL}"


def check_branch(name: str | bytes, field: str = "branch") -> str:
    """Return a branch name that is safe everywhere, or raise Invalid with the reason.

    At least as strict as `git check-ref-format`, at most 200 bytes, letters, digits and `._/-+@#=` only.
    """
    if isinstance(name, bytes):
        try:
            name = name.decode("utf-8")
        except UnicodeDecodeError:
            raise Invalid(f"{field} is not UTF-8", field=field) from None
    shown = name[:60].encode("unicode_escape").decode()
    if not name:
        raise Invalid(f"{field} is empty", field=field)
    if any(unicodedata.category(c) in ("Cs", "Cc", "Cf", "Zs", "Zl", "Zp") for c in name):
        raise Invalid(f"{field} {shown!r} holds white space, control or undecodable characters", field=field)
    if len(name.encode()) > MAX_BRANCH:
        raise Invalid(f"{field} is longer than {MAX_BRANCH} bytes", field=field)
    if name.startswith("-"):
        raise Invalid(f"{field} {shown!r} starts with a dash", field=field)
    bad = next((c for c in name if not (c.isalnum() or c in "._/-+@#=")), None)
    if bad is not None:
        raise Invalid(f"{field} {shown!r} holds the character {bad!r}", field=field)
    parts = name.split("/")
    if ".." in name or "@{" in name or name == "@" or name.endswith("."):
        raise Invalid(f"{field} {shown!r} is not a legal branch name", field=field)
    if any(not p or p.startswith((".", "-")) or p.endswith(".lock") for p in parts):
        raise Invalid(f"{field} {shown!r} has an illegal path component", field=field)
    if name.startswith("refs/") or name == "HEAD":
        raise Invalid(f"{field} {shown!r}: give the branch's short name", field=field)
    return name


PULL = re.compile(r"refs/pull/\d{1,10}/head")  # where GitHub keeps the head of a pull request, also of a fork's


def check_source(name: str, field: str = "branch") -> str:
    """As `check_branch`, and the ref of a pull request's head, which changes are taken from like from a branch."""
    return name if PULL.fullmatch(name) else check_branch(name, field)


def ref_of(name: str) -> str:
    """The ref on the remote of a branch, or of a pull request."""
    return name if PULL.fullmatch(name) else f"refs/heads/{check_branch(name)}"


def check_remote_url(url: str, field: str = "remote_url") -> str:
    """Return a remote URL that git may be given: an absolute path, file, http, https, ssh, git, or user@host:path."""
    if not url or url.startswith("-") or any(ord(c) < 32 for c in url) or len(url) > 1000:
        raise Invalid(f"{field} is not a git remote", field=field)
    if url.startswith("/") or re.match(r"(?:https?|ssh|git|file)://[^-\s]", url):
        return url
    if re.fullmatch(r"[\w.+-]+@[\w.-]+:(?!-)[^\s]+", url) and "::" not in url:
        return url
    raise Invalid(
        f"{field} {redact(url)!r} is not a git remote: give https://…, ssh://…, user@host:path or an absolute path",
        field=field,
    )


def redact(text: str) -> str:
    """Text with credentials in URLs removed."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)
