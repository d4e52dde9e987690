"""The refinery's tables. Writers: `refinery.store.entries` (ReviewEntry), `refinery.store.lanes` (Lane),
`refinery.store.candidates` (Candidate), `refinery.store.verdicts` (Verdict, Waiver), `refinery.store.landings`
(Landing), `refinery.store.gates` (GateResult), `refinery.store.forecasts` (Forecast, Stack),
`refinery.store.comments` (ReviewComment), `refinery.store.pulls` (HostedPull, RigHost),
`refinery.tick.invariants` (Violation),
`refinery.tick.metrics` (TickRecord, TickTotal).

`ReviewEntry` is the review side of a merge-request bead. Its head is pinned: verdicts count for the head they
were given on, gate results for the tree they were run on, and a landing names one candidate.
"""

from __future__ import annotations

from refinery.models.entries import Candidate, ReviewComment, ReviewEntry, Verdict, Waiver
from refinery.models.landings import GateResult, Landing
from refinery.models.lanes import Forecast, Lane, LostDecision, Stack
from refinery.models.pulls import HostedPull, RigHost
from refinery.models.ticks import TickRecord, TickTotal, Violation

__all__ = [
    "Candidate",
    "Forecast",
    "GateResult",
    "HostedPull",
    "Landing",
    "Lane",
    "LostDecision",
    "ReviewComment",
    "ReviewEntry",
    "RigHost",
    "Stack",
    "TickRecord",
    "TickTotal",
    "Verdict",
    "Violation",
    "Waiver",
]
