"""Breaks the project on purpose, one safeguard at a time, and names the test that notices. `python -m tests.mutations`

Each mutation removes one compare-and-swap, constraint, lease check or fence from a copy of the project and runs the
tests that should fail. A mutation that nothing notices is the result that matters: the exit code is then 1.
"""

from __future__ import annotations

from tests.mutations import core, hosts, ledger, models, refinery, runs, sessions

MUTATIONS = (
    *core.MUTATIONS,
    *runs.MUTATIONS,
    *ledger.MUTATIONS,
    *refinery.MUTATIONS,
    *models.MUTATIONS,
    *hosts.MUTATIONS,
    *sessions.MUTATIONS,
)
