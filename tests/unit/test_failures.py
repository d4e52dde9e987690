"""Whose matter a failure is: what git and remotes really print, sorted in one place."""

from __future__ import annotations

import pytest

from agents.runtime.failures import KINDS, Fate, GitFailed, failure, kind_of
from beads.errors import Disposition
from beads.outages import host_of

SAID = {
    "fatal: unable to access 'https://git.example.org/a.git/': Could not resolve host: git.example.org": "unreachable",
    "ssh: connect to host git.example.org port 22: Connection refused\nfatal: Could not read from remote repository.\n"
    "\nPlease make sure you have the correct access rights": "unreachable",
    "ssh: connect to host git.example.org port 22: No route to host\nfatal: Could not read from remote repository.":
        "unreachable",
    "kex_exchange_identification: Connection closed by remote host\nfatal: Could not read from remote repository.":
        "unreachable",
    "fatal: unable to access 'https://x/a.git/': The requested URL returned error: 503": "unreachable",
    "fatal: unable to access 'https://x/a.git/': The requested URL returned error: 429": "unreachable",
    "fatal: unable to access 'https://x/a.git/': SSL certificate problem: certificate has expired": "unreachable",
    "error: RPC failed; curl 56 GnuTLS recv error (-110)\nfatal: early EOF": "unreachable",
    "fatal: unable to access 'https://x/a.git/': The requested URL returned error: 403": "auth",
    "remote: Permission to ann/a.git denied to bob.\nfatal: unable to access 'https://x/a.git/': The requested URL "
    "returned error: 403": "auth",
    "fatal: could not read Username for 'https://x': terminal prompts disabled": "auth",
    "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.": "auth",
    "fatal: Authentication failed for 'https://x/a.git/'": "auth",
    "fatal: repository 'https://x/a.git/' not found": "not_found",
    "ERROR: Repository not found.\nfatal: Could not read from remote repository.": "not_found",
    "fatal: '/srv/gone.git' does not appear to be a git repository\nfatal: Could not read from remote repository.":
        "not_found",
    "fatal: unable to access 'https://x/a/': The requested URL returned error: 302": "redirect",
    "Host key verification failed.\nfatal: Could not read from remote repository.": "host_key",
    "fatal: couldn't find remote ref refs/heads/main": "missing_ref",
    "remote: fatal: write error: No space left on device\nerror: remote unpack failed": "remote_full",
    "fatal: write error: No space left on device": "disk_full",
    " ! [remote rejected] a -> main (pre-receive hook declined)": "rejected",
    " ! [remote rejected] a -> main (protected branch hook declined)": "rejected",
    "fatal: refusing to merge unrelated histories": "unrelated",
    "something nobody has ever seen": "other",
}  # fmt: skip


@pytest.mark.parametrize(("said", "kind"), SAID.items())
def test_what_git_says_has_a_kind(said: str, kind: str) -> None:
    assert kind_of(said) == kind
    assert failure("fetch", 128, said).kind == kind


def test_every_kind_that_a_person_must_mend_says_how() -> None:
    assert all(kind.remedy for kind in KINDS.values() if kind.fate == Fate.RIG)


def test_only_what_the_change_is_to_blame_for_is_permanent() -> None:
    for name, kind in KINDS.items():
        permanent = GitFailed("x", kind=name).disposition == Disposition.PERMANENT
        assert permanent == (kind.fate == Fate.CHANGE), name


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://git.example.org/a/b.git", "git.example.org:443"),
        ("https://ann:word@Git.Example.org:8443/a.git", "git.example.org:8443"),
        ("ssh://git@git.example.org/a.git", "git.example.org:22"),
        ("ssh://git@[::1]:2222/a.git", "[::1]:2222"),
        ("git@git.example.org:a/b.git", "git.example.org:22"),
        ("git://git.example.org/a.git", "git.example.org:9418"),
        ("/srv/a.git", ""),
        ("file:///srv/a.git", ""),
    ],
)
def test_a_remote_has_a_host_or_is_a_path_here(url: str, host: str) -> None:
    assert host_of(url) == host
