"""The convoy side of the world: branches, tracked beads, landing entries. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from beads.lifecycle import BeadStatus


@dataclass(frozen=True, slots=True)
class BranchView:
    """A convoy's feature branch in one rig."""

    id: int
    rig: int
    name: str
    base_sha: str = ""
    head_sha: str = ""
    asked_at: dt.datetime | None = None
    observed_at: dt.datetime | None = None
    landed_sha: str = ""


@dataclass(frozen=True, slots=True)
class TrackedBead:
    """A convoy's bead, final ones included."""

    id: str
    rig: int
    status: str
    resolution: str = ""
    title: str = ""
    closed_at: dt.datetime | None = None
    reason: str = ""  # of a failed one


@dataclass(frozen=True, slots=True)
class LandingEntry:
    """A landing entry of a live convoy, ended ones included."""

    id: str
    rig: int
    state: str
    reason: str = ""
    reason_text: str = ""
    merge_sha: str = ""


@dataclass(frozen=True, slots=True)
class ConvoyView:
    """A live convoy."""

    id: str
    rig: int
    status: str
    merge_mode: str
    title: str = ""
    started_at: dt.datetime | None = None
    close_requested: bool = False
    beads: tuple[TrackedBead, ...] = ()
    branches: tuple[BranchView, ...] = ()
    landings: tuple[LandingEntry, ...] = ()

    @property
    def lands_once(self) -> bool:
        """True for `review-then-land`."""
        return self.merge_mode == "review-then-land"

    @property
    def failed_beads(self) -> tuple[TrackedBead, ...]:
        """Beads that failed: the convoy needs attention."""
        return tuple(b for b in self.beads if b.status == BeadStatus.FAILED)

    @property
    def uncut(self) -> tuple[BranchView, ...]:
        """Its feature branches that are still to be made on their remotes."""
        return tuple(b for b in self.branches if not b.base_sha)

    @property
    def all_closed(self) -> bool:
        """True when every bead is closed."""
        return all(b.status == BeadStatus.CLOSED for b in self.beads)

    def branch_in(self, rig: int) -> BranchView | None:
        """Its feature branch in a rig."""
        return next((b for b in self.branches if b.rig == rig), None)

    def is_cut_in(self, rig: int) -> bool:
        """True when its feature branch in a rig has been cut."""
        branch = self.branch_in(rig)
        return branch is not None and bool(branch.base_sha)
