"""`make soak`: the model-based test for as long as asked (`SOAK_MINUTES`, default 20), then the load test of processes.

Prints steps, faults injected and violations. Ends with a non-zero exit at the first violation, with the steps that led
to it. `SOAK_SEED` repeats a run.
"""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.town import COUNTS, Machine

MINUTES = float(os.environ.get("SOAK_MINUTES", "20"))
SEED = int(os.environ.get("SOAK_SEED", str(time.time_ns() % 2**32)))


@pytest.mark.django_db
def test_soak_of_the_model() -> None:
    end = time.monotonic() + MINUTES * 60
    round_ = 0
    while time.monotonic() < end:
        machine = seed(SEED + round_)(Machine)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=20,
                stateful_step_count=100,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate,),
            ),
        )
        round_ += 1
        left = max(end - time.monotonic(), 0) / 60
        print(f"soak: {COUNTS['steps']} steps, 0 violations, {left:.1f} minutes left (seed {SEED})", flush=True)
    faults = {name.removeprefix("fault: "): n for name, n in sorted(COUNTS.items()) if name.startswith("fault")}
    print(f"soak: {COUNTS['steps']} steps, violations: 0, refused at doors: {COUNTS['refused']}")
    print(f"soak: faults injected: {faults}")
