"""[convoy], [dispatch] and [git]: how work is batched, handed out and committed. Pure."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from beads.values import Duration, MailAddress, OptionalSecret, PersonName, Section, enum_of


class MergeMode(StrEnum):
    """How a convoy reaches the default branch."""

    REVIEW_THEN_LAND = "review-then-land"
    REVIEW_AND_MERGE = "review-and-merge"


class ConvoyConfig(Section):
    """[convoy]"""

    merge_mode: Annotated[MergeMode, enum_of(MergeMode)] = MergeMode.REVIEW_THEN_LAND
    staged: bool = False


class DispatchConfig(Section):
    """[dispatch]"""

    max_polecats: Annotated[int, Field(ge=1, le=1000)] = 4
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    start_deadline: Duration = dt.timedelta(seconds=60)
    lease: Duration = dt.timedelta(seconds=60)
    heartbeat: Duration = dt.timedelta(seconds=10)
    backoff: Annotated[tuple[Duration, ...], Field(strict=False, min_length=1, max_length=50)] = tuple(
        dt.timedelta(seconds=s) for s in (30, 60, 120, 300, 600)
    )

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> DispatchConfig:
        second = dt.timedelta(seconds=1)
        if self.lease < second or self.heartbeat < second or self.start_deadline < second:
            raise ValueError("start_deadline, lease and heartbeat must be at least 1s")
        if self.lease < 2 * self.heartbeat:
            raise ValueError("lease must be at least twice the heartbeat")
        return self

    def backoff_for(self, failures: int) -> dt.timedelta:
        """The wait after `failures` (≥ 1) failed attempts; the last value repeats."""
        return self.backoff[min(max(failures, 1), len(self.backoff)) - 1]


class Publish(StrEnum):
    """When an agent's branch goes to the remote: only what people shall see there, or always."""

    REVIEW = "review"
    ALWAYS = "always"


class GitConfig(Section):
    """[git]: who commits, what agents' branches are called, what of the repository is checked out, with which keys.

    `credential`, `signing_key`: names of the town's secrets, used by the server alone.
    """

    name: PersonName = "Gastown Refinery"
    email: MailAddress = "refinery@gastown.invalid"
    branch_prefix: Annotated[str, StringConstraints(max_length=50, pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*/)+$")] = "gt/"
    publish: Annotated[Publish, enum_of(Publish)] = Publish.REVIEW
    submodules: bool = False
    lfs: bool = False
    credential: OptionalSecret = ""
    signing_key: OptionalSecret = ""
