"""What a gate lacked, by its last words: the sentence that is said of it, and whether it is certain. Tables."""

from __future__ import annotations

import pytest

from refinery.core.remedies import remedy

NPM = """npm error code EAI_AGAIN
npm error syscall getaddrinfo
npm error errno EAI_AGAIN
npm error request to https://registry.npmjs.org/left-pad failed, reason: getaddrinfo EAI_AGAIN registry.npmjs.org
npm error A complete log of this run can be found in: /tmp/.npm/_logs/2026-11-29T20_00_00_000Z-debug-0.log
"""
PIP = """WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(': Failed to establish a new
connection: [Errno -3] Temporary failure in name resolution')': /simple/wheel/
ERROR: Could not find a version that satisfies the requirement wheel (from versions: none)
ERROR: No matching distribution found for wheel
"""
UV = """error: Failed to fetch: `https://pypi.org/simple/wheel/`
  Caused by: dns error: failed to lookup address information: Temporary failure in name resolution
"""
GO = 'go: example.org/x@v1.0.0: Get "https://proxy.golang.org/x": dial tcp: lookup proxy.golang.org: no such host\n'
CARGO = "warning: spurious network error: [6] Couldn't resolve host name (Could not resolve host: index.crates.io)\n"
GIT = "fatal: unable to access 'https://git.example.org/x.git/': Could not resolve host: git.example.org\n"
APT = "W: Failed to fetch http://deb.debian.org/debian/dists  Temporary failure resolving 'deb.debian.org'\n"
MAVEN = "[ERROR] Unknown host repo.maven.apache.org: Name or service not known\n"
GEM = "ERROR:  Could not find a valid gem: Failed to open TCP connection (getaddrinfo: Name or service not known)\n"
PYTHON = "socket.gaierror: [Errno -3] Temporary failure in name resolution\n"
ROUTE = "curl: (7) Failed to connect to 10.0.0.1 port 443: Network is unreachable\n"


@pytest.mark.parametrize("output", [NPM, PIP, UV, GO, CARGO, GIT, APT, MAVEN, GEM, PYTHON, ROUTE])
def test_o7_without_a_network_what_speaks_of_one_is_an_error_with_its_remedy(output: str) -> None:
    found = remedy(1, output, network=("none",), boxed=True)
    assert found is not None and found.certain
    assert found.text.startswith("this gate has no network: `network = true`")
    assert remedy(0, output, network=("none",), boxed=True) is None
    for network, boxed in ((("open",), True), (("none",), False), (None, True)):
        other = remedy(1, output, network=network, boxed=boxed)
        assert other is None or not other.certain


@pytest.mark.parametrize(
    "summary",
    [
        "FAILED tests/test_net.py::test_dns\n=========== 1 failed, 3 passed in 0.2s ===========",
        "FAILED (failures=1)",
        "--- FAIL: TestDial (0.00s)\nFAIL\texample.org/x\t0.2s",
        "test result: FAILED. 1 passed; 1 failed; 0 ignored",
        "Tests:       1 failed, 2 passed, 3 total",
        "  2 passing (5ms)\n  1 failing",
        "Tests run: 3, Failures: 1, Errors: 0, Skipped: 0",
    ],
)
def test_o7_where_tests_ran_and_failed_their_words_prove_nothing(summary: str) -> None:
    said = f"{PYTHON}E  ModuleNotFoundError: No module named 'pytest'\nOSError: No space left on device\n{summary}\n"
    assert remedy(1, said, network=("none",), boxed=True) is None
    assert remedy(1, PYTHON, network=("none",), boxed=True, tests_failed=True) is None


def test_words_long_ago_prove_nothing() -> None:
    assert remedy(1, NPM + "line\n" * 60, network=("none",), boxed=True) is None


@pytest.mark.parametrize(
    ("code", "output", "name"),
    [
        (127, "sh: 1: npm: not found\n", "npm"),
        (127, "bash: line 1: tool-x: command not found\n", "tool-x"),
        (127, "env: 'node': No such file or directory\n", "node"),
        (127, "/usr/bin/env: ‘python4’: No such file or directory\n", "python4"),
        (2, "make: pytest: No such file or directory\nmake: *** [Makefile:2: test] Error 127\n", "pytest"),
        (127, "", ""),
    ],
)
def test_o6_a_program_that_is_missing_is_named_with_the_config_that_shows_it(code: int, output: str, name: str) -> None:
    found = remedy(code, output, network=("none",), boxed=True)
    assert found is not None and found.certain
    assert f"`{name}` is not there" in found.text if name else "is not there" in found.text
    assert "[sandbox] path and read_only" in found.text


def test_a_program_that_is_only_outside_is_said_to_be() -> None:
    outside = "/opt/node/bin/node is outside the sandbox: add its directory to [sandbox] read_only or path"
    said = f"sh: 1: node: not found\n{outside}\n"
    found = remedy(127, said, network=("none",), boxed=True)
    assert found is not None and found.text.startswith("/opt/node/bin/node is outside the sandbox: add its directory")


@pytest.mark.parametrize(
    ("output", "module", "certain"),
    [
        ("/usr/bin/python3: No module named pytest\n", "pytest", True),
        ("ModuleNotFoundError: No module named 'pytest'\n", "pytest", True),
        ("ModuleNotFoundError: No module named 'flask.helpers'\n", "flask.helpers", False),
        ("Error: Cannot find module 'vitest'\n", "vitest", True),
        ("Error: Cannot find module 'lodash'\nRequire stack:\n- /w/a.js\n", "lodash", False),
        ("Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'express' imported from /w/a.mjs\n", "express", False),
        ("'require': cannot load such file -- nokogiri (LoadError)\n", "nokogiri", False),
        ("Error: Cannot find module './mine'\n", "", False),
    ],
)
def test_o6_a_module_may_be_the_authors_own_unless_it_is_a_tool(output: str, module: str, certain: bool) -> None:
    found = remedy(1, output, network=("none",), boxed=True)
    assert (found is not None and found.certain) is certain
    assert (found.text if found else "").startswith(f"module {module!r} is not installed" if module else "")


@pytest.mark.parametrize(
    ("output", "text", "certain"),
    [
        ("tar: write error: No space left on device\n", "no space is left", True),
        ("touch: cannot touch '/etc/x': Read-only file system\n", "it writes to /etc/x", False),
        ("OSError: [Errno 30] Read-only file system: '/usr/lib/x'\n", "it writes to /usr/lib/x", False),
        ("cat: /srv/data: Permission denied\n", "/srv/data may not be used from inside", False),
    ],
)
def test_places_that_are_full_or_closed(output: str, text: str, certain: bool) -> None:
    found = remedy(1, output, network=("none",), boxed=True)
    assert found is not None and found.text.startswith(text) and found.certain is certain


def test_o7_a_host_that_the_gate_may_not_reach_is_named() -> None:
    said = "npm error 403 registry.example.org:443 is not among what this run may reach\n"
    found = remedy(1, said, network=("other.example.org:443",), boxed=True)
    assert found is not None and 'add "registry.example.org:443" to its `network`' in found.text
