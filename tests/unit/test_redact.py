"""Secrets leave no record, however the stream is cut."""

from __future__ import annotations

import base64
import json
import urllib.parse

from hypothesis import given
from hypothesis import strategies as st

from agents.runtime.limits import Limits
from agents.runtime.redact import Redactor
from refinery.core.rules.runs import _LIMIT

SECRETS = ["hunter2-secret+/x", "hunter2-secret", "aaaaaa", "short"]


@given(
    st.lists(st.sampled_from([*SECRETS, "hunter2", "-secret", "a", "aa", "\n", "x"]), max_size=20),
    st.lists(st.integers(1, 9), min_size=1, max_size=50),
)
def test_a_secret_that_is_cut_in_two_is_found_as_if_it_were_whole(words: list[str], cuts: list[int]) -> None:
    data = "".join(words).encode()
    stream, out, at = Redactor(SECRETS), b"", 0
    for cut in cuts:
        out += stream.feed(data[at : at + cut])
        at += cut
    out += stream.feed(data[at:]) + stream.flush()
    assert out == Redactor(SECRETS).clean(data)
    assert b"hunter2-secret" not in out and b"aaaaaa" not in out


def test_other_forms_of_it_are_found() -> None:
    secret = 'pass"word/with:é'
    redactor = Redactor([secret])
    for offset in range(3):
        for tail in range(3):
            coded = base64.b64encode(b"u" * offset + secret.encode() + b"z" * tail)
            assert b"[secret]" in redactor.clean(coded)
    assert redactor.text(urllib.parse.quote(secret, safe="")) == "[secret]"
    assert redactor.text(json.dumps({"k": secret})) == '{"k": "[secret]"}'


def test_each_long_line_of_a_key_is_one_and_short_values_are_none() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nabc\n-----END KEY-----\n"
    redactor = Redactor([key, "yes"])
    assert redactor.text("got MIIEvQIBADANBgkqhkiG, abc, yes") == "got [secret], abc, yes"


def test_what_is_not_a_secret_is_not_kept_back() -> None:
    stream = Redactor(["hunter2-secret"])
    assert stream.feed(b"progress 10%\r") == b"progress 10%\r"
    assert stream.feed(b"hunt") == b"" and stream.feed(b"ing") == b"hunting"


def test_the_plan_knows_a_limit_by_its_words() -> None:
    limits = Limits(memory=3 << 29, processes=20, disk=1, tmp=1 << 20, wall=5400)
    words = {limits.reached(name) for name in ("memory", "processes", "disk", "tmp", "wall")}
    assert "memory limit of 1536M reached" in words and "wall limit of 1h30m reached" in words
    assert all(_LIMIT.fullmatch(word) for word in words)
