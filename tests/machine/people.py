"""What people do in the model: push, submit, review, steer; always through the doors that they have."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from agents.models import Run
from beads import ledger
from beads.models import Bead, Convoy
from refinery.decisions import gatechecks, merge_queue, operators, reviews, towns, work
from refinery.models import ReviewEntry
from tests.machine.ground import FILES, WHO, Ground, branches, choose, picks


class People(Ground):
    """Everything that a person may ask for."""

    @rule(pick=picks, branch=branches, priority=st.integers(0, 4), feature=st.booleans())
    def submit(self, pick: int, branch: str, priority: int, feature: bool) -> None:
        """Somebody pushes a branch and submits it; sometimes to a convoy's feature branch."""
        targets = [b for b in self.remote.branches if b.startswith("convoy/")] if feature else []
        target = targets[0] if targets else "main"
        fresh = branch not in self.remote.branches or pick % 2
        self.remote.commit(branch, self.change(pick), start="main" if fresh else None)
        with self.refusable():
            merge_queue.submit(self.rig, merge_queue.Submission(branch, target=target, priority=priority), by=WHO)

    @rule(branch=branches)
    def submit_again(self, branch: str) -> None:
        """The same branch as it is."""
        with self.refusable():
            merge_queue.submit(self.rig, merge_queue.Submission(branch), by=WHO)

    @rule(branch=branches, pick=picks)
    def push_branch(self, branch: str, pick: int) -> None:
        """A new head that nobody submits."""
        if branch in self.remote.branches:
            self.remote.commit(branch, self.change(pick))

    @rule(branch=branches)
    def delete_branch(self, branch: str) -> None:
        """A branch vanishes."""
        self.remote.branches.pop(branch, None)

    @rule(pick=picks)
    def push_target(self, pick: int) -> None:
        """Somebody pushes to the default branch directly."""
        self.outside.add(self.remote.commit("main", {FILES[pick % len(FILES)]: f"outside{self.now():%f}"}))

    @rule(after=st.booleans(), pick=picks)
    def sling(self, after: bool, pick: int) -> None:
        """A bead, perhaps after another."""
        beads = list(Bead.objects.filter(type="issue", purpose="work").order_by("created_at"))
        with self.refusable():
            blockers = [choose(beads, pick)] if after and beads else []
            work.sling(self.rig, ledger.Draft("Work", priority=pick % 5), by=WHO, after=blockers)

    @rule(pick=picks, on=picks, what=st.sampled_from(["block", "block", "unblock"]))
    def depend(self, pick: int, on: int, what: str) -> None:
        """Somebody lets a bead wait for another one, or no longer."""
        beads = list(Bead.objects.filter(type="issue").order_by("created_at"))
        if len(beads) > 1:
            door = work.block_bead if what == "block" else work.unblock_bead
            with self.refusable():
                door(choose(beads, pick), by=WHO, on=choose(beads, on))

    @rule(pick=picks, on=picks, priority=st.integers(0, 4), own=st.booleans())
    def submit_stacked(self, pick: int, on: int, priority: int, own: bool) -> None:
        """Somebody builds upon a branch that is in the queue; perhaps for a bead of the ledger."""
        below = list(ReviewEntry.objects.filter(state="active", target="main").order_by("created_at"))
        free = list(Bead.objects.filter(type="issue", purpose="work", status="open").order_by("created_at"))
        if not below:
            return
        head = choose(below, on).head_sha
        files = {**self.remote.files(head), **self.change(pick)}
        self.remote.push("stacked", self.remote.make(files, [head], salt=str(self.number)))
        with self.refusable():
            bead = choose(free, pick) if own and free else None
            wanted = merge_queue.Submission("stacked", target="main", bead=bead, priority=priority)
            merge_queue.submit(self.rig, wanted, by=WHO)

    @rule(size=st.integers(1, 3), chained=st.booleans(), staged=st.booleans(), once=st.booleans())
    def convoy(self, size: int, chained: bool, staged: bool, once: bool) -> None:
        """A convoy."""
        plan = [
            {
                "key": str(n),
                "rig": self.rig,
                "title": f"Part {n}",
                "body": "",
                "priority": 2,
                "after": [str(n - 1)] if chained and n else [],
            }
            for n in range(size)
        ]
        mode = "review-then-land" if once else "review-and-merge"
        self.reload()
        with self.refusable():
            work.create_convoy(self.rig, by=WHO, title="Convoy", mode=mode, plan=plan, staged=staged)

    @rule(pick=picks, what=st.sampled_from(["start", "close", "retry"]))
    def steer_convoy(self, pick: int, what: str) -> None:
        """A person steers a convoy."""
        convoys = list(Convoy.objects.select_related("bead__town", "rig").order_by("bead__created_at"))
        if convoys:
            door = {"start": work.start_convoy, "close": work.close_convoy, "retry": work.retry_convoy}[what]
            with self.refusable():
                door(choose(convoys, pick), by=WHO)

    @rule(pick=picks, what=st.sampled_from(["cancel", "retry", "confirm", "release", "release"]))
    def steer_bead(self, pick: int, what: str) -> None:
        """A person cancels, retries or releases a bead, or says that it needed nothing."""
        beads = list(Bead.objects.filter(type="issue").order_by("created_at"))
        if what == "release":
            beads = [bead for bead in beads if bead.unreleased]
        if beads:
            bead = choose(beads, pick)
            with self.refusable():
                match what:
                    case "cancel":
                        work.cancel_bead(bead, by=WHO)
                    case "retry":
                        work.retry_bead(bead, by=WHO)
                    case "confirm":
                        work.confirm_bead(bead, by=WHO)
                    case "release":
                        work.release_bead(bead, by=WHO)

    @rule(
        pick=picks,
        what=st.sampled_from(
            ["approve", "approve", "approve later", "changes", "reject", "retry", "promote", "land now"]
        ),
    )
    def steer_entry(self, pick: int, what: str) -> None:
        """A person reviews or steers an entry."""
        entries = list(ReviewEntry.objects.select_related("rig__town", "bead", "source").order_by("created_at"))
        if not entries:
            return
        entry = choose(entries, pick)
        with self.refusable():
            match what:
                case "approve":
                    reviews.approve(entry, by=WHO, head=entry.head_sha)
                case "approve later":
                    reviews.approve(entry, by=WHO, merge_now=False)
                case "changes":
                    reviews.request_changes(entry, by=WHO, body="not like this")
                case "reject":
                    merge_queue.reject(entry, by=WHO, reason="no")
                case "retry":
                    merge_queue.retry_entry(entry, by=WHO)
                case "land now":
                    merge_queue.land_now(entry, by=WHO, reason="it burns", skip_gates=pick % 4 == 0)
                case "promote":
                    merge_queue.promote(entry, by=WHO, priority=pick % 5)

    @rule()
    def check_gates(self) -> None:
        """Somebody wants to know whether the gates pass on the target itself."""
        self.reload()
        with self.refusable():
            gatechecks.ask(self.rig, by=WHO)

    @rule(away=st.booleans())
    def the_host_breaks(self, away: bool) -> None:
        """What the gates need on the host goes, or comes back."""
        self.away = away

    @rule(what=st.sampled_from(["pause", "resume", "park", "unpark", "protect", "unprotect"]))
    def steer_town(self, what: str) -> None:
        """A person pauses, parks, or protects the branch."""
        self.reload()
        match what:
            case "pause":
                towns.pause(self.town, by=WHO)
            case "resume":
                towns.resume(self.town, by=WHO)
            case "park":
                towns.park(self.rig, by=WHO)
            case "unpark":
                towns.unpark(self.rig, by=WHO)
            case _:
                self.remote.protected = what == "protect"

    @rule(pick=picks)
    def stop_run(self, pick: int) -> None:
        """A person stops a run."""
        live = list(Run.objects.live().order_by("created_at"))
        if live:
            with self.refusable():
                operators.stop_run(choose(live, pick), by=WHO)
