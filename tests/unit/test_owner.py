"""What only the owner may set, and which addresses are nobody else's business. Pure but for the owner's file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from beads import owner
from beads.addresses import is_public
from beads.config import Config, effective, validate
from beads.errors import Forbidden, Invalid

NOBODY = owner.Allow()


def made(text: dict[str, Any]) -> Config:
    return effective(validate(text), {})


def agent(*command: str, **more: Any) -> dict[str, Any]:
    return {"agents": {"polecat": {"command": list(command), "network": "none", **more}}}


def gate(**more: Any) -> dict[str, Any]:
    return {"refinery": {"gates": [{"name": "t", "run": "make", **more}]}}


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ({}, agent("sh", "-c", "id"), "agents.polecat.command"),
        (agent("claude"), agent("claude", "--dangerous"), "agents.polecat.command"),
        ({}, agent("claude", network="open"), "agents.polecat.network"),
        (agent("x"), agent("x", network=["db.lan:5432"]), "agents.polecat.network"),
        (agent("x", network=["a.org:443"]), agent("x", network=["a.org:443", "b.org:443"]), "b.org:443"),
        (agent("x"), agent("x", memory="64G"), "agents.polecat.memory"),
        ({}, gate(network=True), "refinery.gates 't'.network"),
        ({}, gate(nested=True), "refinery.gates 't' nested"),
        ({}, gate(disk="900G"), "refinery.gates 't'.disk"),
        ({}, {"sandbox": {"mode": "off"}}, "sandbox.mode"),
        ({}, {"sandbox": {"read_only": ["/root"]}}, "sandbox.read_only"),
        ({}, {"sandbox": {"memory": "1G"}}, "sandbox.memory"),
        ({"sandbox": {"memory": "1G"}}, {}, "sandbox.memory"),
        ({}, {"notify": {"webhook": "https://evil.example.org/"}}, "notify.webhook"),
    ],
)
def test_s5_a_tenant_may_not_set_what_is_the_owners(old: dict[str, Any], new: dict[str, Any], key: str) -> None:
    (line,) = [line for line in owner.refused(made(old), made(new), NOBODY) if key in line]
    assert owner.ASK in line
    with pytest.raises(Forbidden) as refused:
        owner.check(made(old), made(new), by_owner=False)
    assert key in refused.value.message
    owner.check(made(old), made(new), by_owner=True)


@pytest.mark.parametrize(
    "config",
    [
        agent("sh", "-c", "id", network="open", memory="64G"),
        gate(network=["db.lan:5432"], nested=True, disk="900G"),
        {"sandbox": {"mode": "off", "read_only": ["/root"]}},
        {"notify": {"webhook": "http://10.0.0.1/"}},
    ],
)
def test_s5_what_stays_is_never_refused_whatever_else_changes(config: dict[str, Any]) -> None:
    more = {**config, "dispatch": {"max_polecats": 2}, "git": {"credential": "DEPLOY"}}
    assert owner.refused(made(config), made(more), NOBODY) == []


def test_s5_less_is_never_refused() -> None:
    old = made({**agent("x", network="open"), **gate(network=True, nested=True, memory="64G")})
    new = made({**agent("x", network=["a.org:443"]), **gate(memory="1G")})
    assert owner.refused(old, new, NOBODY) == []
    assert owner.refused(old, made(gate()), NOBODY) == []


def test_s5_a_gate_by_another_name_is_another_gate() -> None:
    old = made(gate(network=True))
    new = made({"refinery": {"gates": [{"name": "u", "run": "make", "network": True}]}})
    assert len(owner.refused(old, new, NOBODY)) == 1


def test_s5_what_the_owner_allows_may_be_set_and_nothing_beside_it() -> None:
    allow = owner.Allow.model_validate(
        {
            "commands": ["claude", "/opt/review", ["sh", "-c", "exactly this"]],
            "networks": ["a.org:443", "*.b.org", "c.lan", "10.1.0.0/16"],
            "webhooks": ["https://hooks.example.org/one", "chat.lan:8065"],
            "nested": True,
        }
    )
    fine = [
        agent("claude", "-p", "x"),
        agent("/opt/review"),
        agent("sh", "-c", "exactly this"),
        gate(network=["a.org:443", "x.b.org:22", "c.lan:80", "10.1.2.3:5432"], nested=True),
        {"notify": {"webhook": "https://hooks.example.org/one"}},
        {"notify": {"webhook": "http://chat.lan:8065/x"}},
    ]
    wrong = [
        agent("/tmp/claude"),
        agent("review"),
        agent("sh", "-c", "exactly this", "and more"),
        agent("claude", network="open"),
        gate(network=["a.org:22"]),
        gate(network=["evilb.org:443"]),
        gate(network=["10.2.0.1:80"]),
        {"notify": {"webhook": "https://hooks.example.org/two"}},
        {"notify": {"webhook": "http://chat.lan/x"}},
        {"notify": {"webhook": "http://chat.lan:8065.evil.org/x"}},
    ]
    assert [owner.refused(Config(), made(one), allow) for one in fine] == [[]] * len(fine)
    assert [len(owner.refused(Config(), made(one), allow)) for one in wrong] == [1] * len(wrong)


def file(folder: Path, text: str, mode: int = 0o600) -> str:
    made = folder / "owner.toml"
    made.write_text(text)
    made.chmod(mode)
    return str(made)


def test_the_owners_file_is_read(settings: Any, tmp_path: Path) -> None:
    settings.GASTOWN_OWNER_CONFIG = ""
    assert owner.allowed() == NOBODY
    text = '[allow]\ncommands = ["claude"]\nnetworks = ["open", "Mirror.LAN", "10.0.0.0/8"]\nnested = true\n'
    settings.GASTOWN_OWNER_CONFIG = file(tmp_path, text)
    assert owner.allowed().commands == ("claude",) and owner.allowed().nested
    assert owner.private_networks() == ("mirror.lan", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("[allow]\ncommand = ['x']", "allow.command: unknown key"),
        ("[alow]\n", "alow: unknown key"),
        ("[allow", "is not TOML"),
        ("[allow]\nnested = 'yes'", "allow.nested"),
        ("[allow]\nnetworks = ['10.0.0.0/99']", "no network such as"),
        ("[allow]\nnetworks = ['a b:443']", "is not host:port"),
        ("[allow]\ncommands = [1]", "allow.commands.0"),
    ],
)
def test_a_wrong_owners_file_is_one_clear_error(settings: Any, tmp_path: Path, text: str, needle: str) -> None:
    settings.GASTOWN_OWNER_CONFIG = file(tmp_path, text)
    with pytest.raises(Invalid) as refused:
        owner.allowed()
    assert needle in refused.value.message and "owner.toml" in refused.value.message


def test_a_file_that_others_can_write_or_replace_is_refused(settings: Any, tmp_path: Path) -> None:
    for mode in (0o620, 0o602, 0o666):
        settings.GASTOWN_OWNER_CONFIG = file(tmp_path, "[allow]\nnested = true\n", mode)
        with pytest.raises(Invalid, match="others than the owner can write"):
            owner.allowed()
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    settings.GASTOWN_OWNER_CONFIG = file(shared, "[allow]\nnested = true\n")
    with pytest.raises(Invalid, match="shared"):
        owner.allowed()
    link = tmp_path / "link.toml"
    link.symlink_to(shared / "owner.toml")
    settings.GASTOWN_OWNER_CONFIG = str(link)
    with pytest.raises(Invalid, match="shared"):
        owner.allowed()
    settings.GASTOWN_OWNER_CONFIG = str(tmp_path / "none.toml")
    with pytest.raises(Invalid, match=r"none\.toml cannot be read: No such file"):
        owner.allowed()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(settings: Any, tmp_path: Path) -> None:
    settings.GASTOWN_OWNER_CONFIG = file(tmp_path, "[allow]\n")
    os.chown(settings.GASTOWN_OWNER_CONFIG, 12345, 0)
    with pytest.raises(Invalid, match="others than the owner can write"):
        owner.allowed()


def test_s14_which_addresses_are_public() -> None:
    public = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
    inner = [
        "127.0.0.1", "10.1.1.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2", "::127.0.0.1", "localhost", "",
    ]  # fmt: skip
    assert [one for one in public if not is_public(one)] == []
    assert [one for one in inner if is_public(one)] == []


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/", "http://localhost:80/", "http://a.localhost/", "http://[::1]/"]
)
def test_s14_nobody_sets_a_webhook_inside_unless_the_owner_names_it(settings: Any, tmp_path: Path, url: str) -> None:
    new = made({"notify": {"webhook": url}})
    with pytest.raises(Invalid, match="no public address"):
        owner.check(Config(), new, by_owner=True)
    settings.GASTOWN_OWNER_CONFIG = file(tmp_path, f"[allow]\nwebhooks = ['{url}']\n")
    owner.check(Config(), new, by_owner=True)
    owner.check(Config(), new, by_owner=False)
