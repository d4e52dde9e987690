"""Sections of the config that set limits: what agents may file, patience, how long what is finished is kept. Pure."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from beads.values import FOREVER, Age, Duration, OptionalSecret, Section, enum_of

Person = Annotated[str, StringConstraints(min_length=1, max_length=150, pattern=r"^[^\s:]+$")]


class FiledBeads(StrEnum):
    """What becomes of a bead that an agent files: it waits for a person, or is dispatched."""

    STAGED = "staged"
    DISPATCH = "dispatch"


class LimitsConfig(Section):
    """[limits]: what agents may file. `beads_per_plan`: of the convoys of one run of the mayor, where a person starts
    them; without a person their beads count as all others. `depth`: a bead filed by a run of a bead filed by a run … at
    most so deep; `beads_per_day`: of the whole town, by all its agents."""

    beads_per_run: Annotated[int, Field(ge=0, le=10_000)] = 5
    beads_per_plan: Annotated[int, Field(ge=0, le=10_000)] = 50
    escalations_per_run: Annotated[int, Field(ge=0, le=10_000)] = 5
    mail_per_run: Annotated[int, Field(ge=0, le=10_000)] = 50
    depth: Annotated[int, Field(ge=0, le=100)] = 2
    beads_per_day: Annotated[int, Field(ge=0, le=100_000)] = 200
    filed_beads: Annotated[FiledBeads, enum_of(FiledBeads)] = FiledBeads.STAGED


class Provider(StrEnum):
    """Where changes are reviewed. `auto`: on the remote's host, where that is known and can be asked; else here."""

    AUTO = "auto"
    BUILTIN = "builtin"
    GITHUB = "github"


def _provider(value: object) -> object:
    if isinstance(value, str) and value in ("gitlab", "forgejo"):
        raise ValueError(f"{value} is not served yet: builtin reviews on pages of Gastown's own")
    if isinstance(value, str) and value in list(Provider):
        return Provider(value)
    raise ValueError(f"expected one of {', '.join(Provider)}")


_LOGIN = r"^[A-Za-z0-9][A-Za-z0-9_.\[\]-]{0,99}$"


class PrConfig(Section):
    """[pr]: where changes are reviewed by people.

    `credential`, `webhook_secret`: names of the town's secrets, used by the server alone: what opens the host's API (a
    token, or a GitHub App), and what signs its hooks. `url`: a GitHub Enterprise. `repository`: `owner/name` there,
    where the remote's URL does not say it. `people`: logins there, and who they are here.
    """

    provider: Annotated[Provider, BeforeValidator(_provider)] = Provider.AUTO
    credential: OptionalSecret = ""
    webhook_secret: OptionalSecret = ""
    url: Annotated[str, StringConstraints(max_length=300, pattern=r"^(https?://[^\s/@?#]+/?)?$")] = ""
    repository: Annotated[str, StringConstraints(max_length=200, pattern=r"^([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)?$")] = ""
    people: Annotated[dict[Annotated[str, StringConstraints(pattern=_LOGIN)], Person], Field(max_length=1000)] = {}
    poll_interval: Duration = dt.timedelta(seconds=60)
    auto_merge_delay: Duration = dt.timedelta(minutes=5)
    required_approvals: Annotated[int, Field(ge=1, le=100)] = 1


class PatrolConfig(Section):
    """[patrol]: how long an agent's run may show no activity (tool calls, output, a reported tool in progress)."""

    nudge: Duration = dt.timedelta(minutes=15)
    escalate: Duration = dt.timedelta(hours=1)
    stop: Duration = dt.timedelta(hours=2)

    @model_validator(mode="after")
    def _in_order(self) -> PatrolConfig:
        if not self.nudge <= self.escalate <= self.stop:
            raise ValueError("nudge, escalate and stop must not be in another order")
        return self


class RetentionConfig(Section):
    """[retention]: how long what is finished is kept. Unlanded work is kept for ever. What is removed from the database
    is in the archive.

    `facts`: and effects, and failed tasks; `calls`: of tools, by runs that have ended; `ticks`: what each did; `work`:
    closed beads, once they have landed and nothing that stays refers to them, with all that hangs on them, and the
    console's and config's history; `archives`: the archive's files. A year of work: long enough for whoever looks back
    from one to the next, short enough that a town of a thousand beads a day stays within some gigabytes.
    """

    branches: Age = dt.timedelta(days=7)
    logs: Age = dt.timedelta(days=30)
    salvage: Age = dt.timedelta(days=90)
    facts: Age = dt.timedelta(days=30)
    caches: Age = dt.timedelta(days=14)
    calls: Age = dt.timedelta(days=90)
    ticks: Age = dt.timedelta(days=7)
    work: Age = dt.timedelta(days=365)
    archives: Age = FOREVER

    @property
    def whole_work(self) -> dt.timedelta:
        """After how long closed work goes: not before what belongs to it and is kept for longer."""
        return max(self.work, self.branches, self.logs, self.salvage, self.calls)


class NotifyConfig(Section):
    """[notify] of a town: where notices are posted, signed with the town's own webhook secret."""

    webhook: Annotated[str, StringConstraints(max_length=1000, pattern=r"^(https?://[^\s/@]+(/\S*)?)?$")] = ""
