"""Two healthy rigs beside ten sick ones: how long their landings take, against the same alone, in one run."""

from __future__ import annotations

import os
from pathlib import Path

from bench.django_town import installation, running

EACH, ROUNDS = 4, 3


def main() -> None:
    """Print each round's seconds and the ratio of the sums."""
    with installation() as home, running(home):
        from tests.acceptance.desk import Desk
        from tests.acceptance.sick import SERVED, SICK, WELL, Ward, landed_in

        desk = Desk(dict(os.environ))
        ward = Ward(Path(home), desk)
        try:
            for name in WELL:
                ward.rig(name)
            landed_in(ward, [ward.change(name) for name in WELL])  # warm
            alone = [landed_in(ward, [ward.change(n) for n in WELL for _ in range(EACH)]) for _ in range(ROUNDS)]
            for name in SICK:
                ward.rig(name, served=name in SERVED, gate="no-such-tool" if name == "toolless" else "true")
                ward.type("rig", "park", name)
                ward.change(name)
                ward.fall_ill(name)
            for name in SICK:
                ward.type("rig", "unpark", name)
            beside = [landed_in(ward, [ward.change(n) for n in WELL for _ in range(EACH)]) for _ in range(ROUNDS)]
        finally:
            ward.close()
            desk.leave()
        print(f"alone:              {', '.join(f'{x:.1f}' for x in alone)} s for {EACH * len(WELL)} landings")
        print(f"beside ten sick:    {', '.join(f'{x:.1f}' for x in beside)} s")
        print(f"ratio {sum(beside) / sum(alone):.2f} (target ≤ 1.5)")
