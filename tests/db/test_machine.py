"""The model-based test, in a short version; `make soak` runs it for as long as asked."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.town import Machine

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking is for `make soak`


@pytest.mark.long
@pytest.mark.django_db
def test_whatever_happens_the_promises_hold_and_everything_comes_to_an_end() -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=6,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            phases=PHASES,
        ),
    )
