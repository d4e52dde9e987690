"""What facts say: the type and the bound of every key of their payloads. Which kind says what stands beside its
handler, see `refinery.facts.registry`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from beads.budget import CapScope
from refinery.core.states import BuildResult, Judgement, LandingState

_SHA = r"^([0-9a-f]{40}|[0-9a-f]{64})$"
Sha = Annotated[str, Field(pattern=_SHA)]
MaybeSha = Annotated[str, Field(pattern=rf"^$|{_SHA}")]
Line = Annotated[str, Field(max_length=4000)]
Text = Annotated[str, Field(max_length=256 * 1024)]
Items = Annotated[list[dict[str, Any]], Field(max_length=200)]
Branch = Annotated[str, Field(max_length=250)]


class Payload(BaseModel):
    """Base, and the payload of a fact whose kind and subject say everything."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Reason(Payload):
    """A person's wish, and why."""

    reason: Line = ""


class Result(Payload):
    """run.done and run.request_changes"""

    summary: Text = ""
    feedback: Text = ""
    items: Items = []


class Escalated(Payload):
    """escalation.raised"""

    title: Annotated[str, Field(min_length=1, max_length=300)]
    body: Text = ""
    severity: Literal["low", "medium", "high", "critical"] = "medium"


class Asked(Payload):
    """question.asked: by an agent's run"""

    run: Annotated[str, Field(min_length=1, max_length=32)]


class Answered(Payload):
    """question.answered: a person's words"""

    text: Annotated[str, Field(min_length=1, max_length=4000)]


class Hinted(Payload):
    """bead.hint: a person's words for its next run"""

    text: Annotated[str, Field(min_length=1, max_length=4000)]


class LimitTold(Payload):
    """limit.reached: a run was refused more than `[limits]` allows"""

    limit: Annotated[str, Field(max_length=60)]
    message: Line


class Words(Payload):
    """mayor.asked, mayor.replied and mayor.answer: what was said"""

    text: Annotated[str, Field(min_length=1, max_length=64 * 1024)]


class ModelRefused(Payload):
    """model.refused: what only a person can mend of a run's calls to a model; `fault`: key, model, credit or place"""

    api: Annotated[str, Field(max_length=20)]
    fault: Annotated[str, Field(max_length=20)]
    model: Annotated[str, Field(max_length=200)] = ""
    message: Line


class BudgetTold(Reason):
    """budget.set: a person's word on a cap; `subject`: of the allowance: a bead, a convoy or a day"""

    scope: Annotated[CapScope, Field(strict=False)]
    subject: Annotated[str, Field(min_length=1, max_length=40)]
    amount: Annotated[str, Field(max_length=40)]


class WasFiled(Payload):
    """bead.filed: an agent's run has filed the subject, and a person is to release or start it"""

    run: Annotated[str, Field(max_length=32)]


class Built(Payload):
    """candidate.built"""

    build_no: Annotated[int, Field(ge=1, lt=2**31)]
    result: Annotated[BuildResult, Field(strict=False)]
    head: Sha
    base: MaybeSha = ""
    sha: MaybeSha = ""
    tree: MaybeSha = ""
    seal: MaybeSha = ""
    files: list[str] = []
    error: Line = ""
    on: int | None = None
    untouched: Annotated[list[list[str]], Field(max_length=100)] = []

    @model_validator(mode="after")
    def _complete(self) -> Built:
        if self.result == BuildResult.BUILT and not (self.base and self.sha and self.tree):
            raise ValueError("a built candidate has base, sha and tree")
        return self


class CarLanded(Payload):
    """How it ended for one car."""

    state: Literal[
        LandingState.LANDED,
        LandingState.MOVED,
        LandingState.HEAD_MOVED,
        LandingState.REFUSED,
        LandingState.ABANDONED,
    ]
    message: Line = ""
    head: MaybeSha = ""

    @model_validator(mode="after")
    def _complete(self) -> CarLanded:
        if self.state == LandingState.HEAD_MOVED and not self.head:
            raise ValueError("a moved head is named")
        return self


class Landed(CarLanded):
    """landing.concluded; `cars`: by landing, those for which it ended otherwise"""

    cars: dict[str, CarLanded] = {}


class BranchSeen(Payload):
    """branch.seen; an empty SHA says that there is no such branch."""

    sha: MaybeSha
    asked_at: Annotated[AwareDatetime, Field(strict=False)]


class FoundClash(Payload):
    """Two heads that conflict on the base; an empty `b`: `a` with the base itself"""

    a: Sha
    b: MaybeSha = ""
    files: Annotated[list[str], Field(max_length=20)] = []


class Foreseen(Payload):
    """lane.foreseen"""

    number: Annotated[int, Field(ge=1, lt=2**31)]
    base: Sha
    heads: Annotated[list[Sha], Field(max_length=200)]
    paired: Annotated[list[Sha], Field(max_length=200)] = []
    stacks: Annotated[list[Annotated[list[Sha], Field(min_length=2, max_length=2)]], Field(max_length=20_000)] = []
    clashes: Annotated[list[FoundClash], Field(max_length=20_000)] = []


class HeadSeen(Payload):
    """entry.head_seen"""

    head: Sha


class Verdict(Payload):
    """entry.verdict"""

    head: Sha
    decision: Annotated[Judgement, Field(strict=False)]
    merge_now: bool = False
    feedback: Text = ""
    items: Items = []


class Promoted(Reason):
    """entry.promote"""

    priority: Annotated[int, Field(ge=0, le=4)]


class LandNow(Reason):
    """entry.land_now; `skip_gates`: of exactly this head; `carried_out`: at the door already"""

    head: Sha
    skip_gates: bool = False
    carried_out: bool = False


class Dependence(Reason):
    """bead.block and bead.unblock: the bead that the subject waits for"""

    on: Annotated[str, Field(min_length=1, max_length=32)]


class Edited(Reason):
    """bead.edit: what it says from now on; what is left out stays"""

    title: Annotated[str, Field(max_length=300)] = ""
    body: Text = ""
    priority: Annotated[int, Field(ge=0, le=4)] | None = None


class ModelSaid(Reason):
    """bead.model: that of whoever works on it; empty: the config says"""

    model: Annotated[str, Field(max_length=200)] = ""


class EffectTold(Payload):
    """effect.failed and effect.struggling"""

    kind: Annotated[str, Field(max_length=40)]
    key: Annotated[str, Field(max_length=200)]
    error: Line
    payload: dict[str, Any] = {}


class EffectKey(Payload):
    """effect.recovered: it has failed time and again, and now succeeded"""

    key: Annotated[str, Field(max_length=200)]


# -- pull requests on a host --

Number = Annotated[int, Field(ge=0, lt=2**31)]
At = Annotated[AwareDatetime, Field(strict=False)]
Digest = Annotated[str, Field(max_length=64)]


class Hint(Payload):
    """host.hint: what a hook names. `calls`: it tells of a comment that begins with our word"""

    event: Annotated[str, Field(max_length=60)]
    number: Number = 0
    calls: bool = False


class HostPolled(Payload):
    """host.polled: a look that began at `at`; by number when each pull request was changed; who calls us"""

    at: At
    etags: Annotated[dict[str, Annotated[str, Field(max_length=8000)]], Field(max_length=10)] = {}
    pulls: Annotated[dict[str, Annotated[str, Field(max_length=40)]], Field(max_length=2000)] = {}
    calls: Annotated[list[Number], Field(max_length=2000)] = []


class HostUnknownTold(Payload):
    """host.unknown: why it did not say"""

    kind: Annotated[str, Field(max_length=20)]
    error: Line
    wait: Annotated[float, Field(ge=0)] = 0.0


class PullRead(Payload):
    """pull.read: what a reading that began at `at` has shown; see `refinery.core.pullviews.Pull`"""

    at: At
    state: dict[str, Any]


class PullOffered(Payload):
    """pull.offered"""

    number: Annotated[int, Field(ge=1, lt=2**31)]
    head: Sha


class PullHeard(Payload):
    """pull.heard: see `refinery.core.effects.HearPull`; `entry`: that it has become"""

    what: Annotated[str, Field(max_length=40)]
    value: Annotated[str, Field(max_length=40)]
    answer: Line = ""
    entry: Annotated[str, Field(max_length=32)] = ""


class PullDone(Payload):
    """pull.pushed and pull.ended"""

    head: MaybeSha = ""


class PullTold(Payload):
    """pull.told"""

    digest: Digest
    comment: Annotated[int, Field(ge=1, lt=2**62)]


class PullReported(Payload):
    """pull.reported"""

    digest: Digest
    ready: bool = False
