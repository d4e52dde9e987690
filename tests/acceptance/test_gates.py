"""Gates as real processes on real candidates: their environment, several at once, what they leave and say."""

from __future__ import annotations

from typing import Any

from refinery.models import GateResult
from tests.acceptance.conftest import Stage


def gate(name: str, run: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "run": run, **more}


def test_a_gate_has_the_environment_that_its_config_gives_it_and_no_other_gate_has(stage: Stage) -> None:
    see = 'echo "MODE=${MODE-unset} CI=$CI PATH=$PATH"'
    stage.open(agents=False, gates=[gate("with", see, env={"MODE": "a b", "PATH": "/opt/x:/usr/bin:/bin"}), see])
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "merged")
    given, plain = GateResult.objects.order_by("id")
    assert given.output == "MODE=a b CI=true PATH=/opt/x:/usr/bin:/bin\n"
    assert plain.output.startswith("MODE=unset CI=true")
    assert given.command == f"MODE='a b' PATH=/opt/x:/usr/bin:/bin {see}"
