"""What people decide: one function each, shared by commands, pages and admin. Thin.

Each refuses at once what can be refused, then records one fact with its actor, or makes a new row through the single
writer. The tick carries it out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from agents import access
from agents.models import LIVE_RUN, Run, RunState
from agents.runtime import lfs
from agents.runtime.gitcmd import GitFailed, check_branch, check_remote_url
from beads import config as configs
from beads import inbox, ledger, owner
from beads.errors import Conflict, Forbidden, Invalid, NotFound, Refused, Unavailable
from beads.lifecycle import BeadStatus, BeadType, Purpose, Resolution, is_final
from beads.models import Bead, Convoy, Escalation, Rig, Town
from refinery.core.stages import is_own
from refinery.git import ranges
from refinery.git.mirror import fetched_first, look, repo_of
from refinery.models import ReviewComment, ReviewEntry
from refinery.store import comments, emergencies, entries

REMOTE_PATIENCE = 10.0  # seconds

# -- towns and rigs -------------------------------------------------------------------------------------------------


def pause(town: Town, reason: str, who: str) -> None:
    """Stop dispatching in a town. Carried out at the door; the fact is its history and the wake-up."""
    with transaction.atomic():
        ledger.pause_town(town, reason or f"paused by {who}")
        inbox.record(town, "town.pause", town.slug, {"reason": reason}, actor=who)


def resume(town: Town, who: str, reason: str = "") -> None:
    """Undo `pause`."""
    with transaction.atomic():
        ledger.resume_town(town)
        inbox.record(town, "town.resume", town.slug, {"reason": reason}, actor=who)


def park(rig: Rig, who: str, reason: str = "") -> None:
    """Stop dispatching in a rig."""
    with transaction.atomic():
        ledger.park_rig(rig)
        inbox.record(rig.town, "rig.park", rig.slug, {"reason": reason}, actor=who)


def unpark(rig: Rig, who: str, reason: str = "") -> None:
    """Undo `park`."""
    with transaction.atomic():
        ledger.unpark_rig(rig)
        inbox.record(rig.town, "rig.unpark", rig.slug, {"reason": reason}, actor=who)


def add_rig(
    town_slug: str | None,
    slug: str,
    url: str,
    branch: str | None,
    overrides: Mapping[str, Any],
    *,
    by_owner: bool = False,
) -> Rig:
    """Look at the remote, then make the rig (and the default town `main` when it is missing). Nothing half-done.

    With an ssh key of its own (`git.credential`) the host key that the remote shows is pinned. `by_owner`: see
    `controls.check_config`.
    """
    ledger.check_slug("rig", slug)
    check_remote_url(url)
    if branch is not None:
        check_branch(branch, "default_branch")
    town = Town.objects.filter(slug=town_slug or "main").first()
    if town is None and town_slug not in (None, "main"):
        raise NotFound(f"no town {town_slug}", details={"field": "town"})
    config, found = configs.usable(town.config if town else {}, overrides)
    if found:
        raise Invalid(found[0], field="config")
    if config.git.lfs:
        lfs.check_installed()
    if Rig.objects.filter(slug=slug).exists():
        raise Conflict(f"rig {slug} exists already", details={"field": "rig"})
    _not_our_own(url)
    owner.check(configs.usable(town.config if town else {}, {})[0], config, by_owner=by_owner)
    with access.scratch() as folder:
        opened = access.variables(town, config.git.credential, url, folder, slug)
        branch = look(url, branch, opened)
        with fetched_first(url, branch, opened, slug) as make_mirror, transaction.atomic():
            town = town or ledger.create_town("main")
            rig = ledger.create_rig(town, slug, url, branch, overrides)
            access.adopt(folder, rig)
            make_mirror(rig)
    return rig


def _not_our_own(url: str) -> None:
    """Raises Invalid for a remote among Gastown's own repositories: mirrors and workspaces are nobody's remotes."""
    path = os.path.realpath(url.removeprefix("file://"))
    home = os.path.realpath(settings.GASTOWN_HOME)
    ours = (os.path.join(home, name) for name in ("repos", "workspaces", "gates", "worktrees", "runs", "trash"))
    if url.startswith(("/", "file://")) and any(path == one or path.startswith(f"{one}/") for one in ours):
        raise Invalid("remote_url: that is a repository of Gastown's own, in GASTOWN_HOME", field="remote_url")


# -- beads and convoys ----------------------------------------------------------------------------------------------


def sling(rig: Rig, title: str, *, body: str, priority: int, after: Sequence[Bead], who: str) -> Bead:
    """One issue bead, dispatched when it is ready."""
    with transaction.atomic():
        for blocker in after:
            if blocker.town_id != rig.town_id:
                raise Invalid(f"{blocker.pk} belongs to another town", field="after")
        bead = ledger.create_bead(rig.town, rig, title, body=body, priority=priority, after=after, actor=who)
        inbox.wake(rig.town)
    return bead


def cancel_bead(bead: Bead, reason: str, who: str) -> None:
    """Ask for a bead's end."""
    if is_final(bead.status):
        raise Conflict(f"{bead.pk} is {bead.status} already")
    if bead.type != BeadType.ISSUE:
        raise Conflict(f"{bead.pk} is a {bead.type}: use the command for those")
    inbox.record(bead.town, "bead.cancel", bead.pk, {"reason": reason}, actor=who)


def release_bead(bead: Bead, who: str, reason: str = "") -> None:
    """Let what an agent has filed be given to an agent."""
    if bead.type != BeadType.ISSUE or not bead.unreleased or is_final(bead.status):
        raise Conflict(f"{bead.pk} is a {bead.status} {bead.type} that waits for no release")
    if bead.convoy is not None and bead.convoy.started_at is None:
        raise Conflict(f"{bead.pk} waits for its convoy: start {bead.convoy_id}")
    inbox.record(bead.town, "bead.release", bead.pk, {"reason": reason}, actor=who)


def retry_bead(bead: Bead, who: str, reason: str = "") -> None:
    """Bring a failed bead back."""
    if bead.status != BeadStatus.FAILED or bead.type != BeadType.ISSUE:
        raise Conflict(f"{bead.pk} is a {bead.status} {bead.type}: only a failed issue can be retried")
    if bead.convoy is not None and is_final(bead.convoy.bead.status):
        raise Conflict(f"its convoy {bead.convoy_id} has ended: use convoy retry, or sling it anew")
    inbox.record(bead.town, "bead.retry", bead.pk, {"reason": reason}, actor=who)


def confirm_bead(bead: Bead, who: str, reason: str = "") -> None:
    """A person's word that nothing needed to be changed: the bead is closed as that, and what waits for it goes on."""
    if bead.status != BeadStatus.FAILED or bead.resolution != Resolution.NOTHING_CHANGED:
        raise Conflict(f"{bead.pk} is {bead.status} {bead.resolution}: only what has changed nothing can be confirmed")
    inbox.record(bead.town, "bead.confirm", bead.pk, {"reason": reason}, actor=who)


def block_bead(bead: Bead, on: Bead, who: str, reason: str = "") -> None:
    """Let a bead, and its change in the queue, wait until another bead of the town is closed, in whatever rig."""
    for one, field in ((bead, "id"), (on, "on")):
        if one.type not in (BeadType.ISSUE, BeadType.CONVOY) or one.purpose != Purpose.WORK:
            raise Invalid(f"{one.pk} is no planned work: only beads and convoys wait for one another", field=field)
    if on.town_id != bead.town_id:
        raise Invalid(f"{on.pk} belongs to another town", field="on")
    if bead.convoy_id == on.pk or on.convoy_id == bead.pk:
        raise Invalid(f"{bead.pk} and {on.pk} are a convoy and its own bead", field="on")
    if is_final(bead.status):
        raise Conflict(f"{bead.pk} is {bead.status} already")
    path = ledger.find_path(on.pk, bead.pk)
    if path or bead.pk == on.pk:
        raise Invalid(f"dependency cycle: {' → '.join([bead.pk, *(path or [])])}", field="on")
    inbox.record(bead.town, "bead.block", bead.pk, {"on": on.pk, "reason": reason}, actor=who)


def unblock_bead(bead: Bead, on: Bead, who: str, reason: str = "") -> None:
    """Undo `block_bead`, or drop a dependency of a plan."""
    if not bead.blocked_by.filter(on=on).exists():
        raise Conflict(f"{bead.pk} does not wait for {on.pk}")
    if on.parent_id == bead.pk:
        raise Invalid(f"{on.pk} is a task of {bead.pk}: cancel it instead", field="on")
    inbox.record(bead.town, "bead.unblock", bead.pk, {"on": on.pk, "reason": reason}, actor=who)


def create_convoy(
    rig: Rig, title: str, mode: str | None, plan: Sequence[Mapping[str, Any]], *, staged: bool | None, who: str
) -> tuple[Convoy, bool]:
    """Make a convoy from a checked plan; returns it and whether it stays staged."""
    config = configs.effective(rig.town.config, rig.config).convoy
    staged = config.staged if staged is None else staged
    if not staged and rig.parked_at is not None:
        raise Conflict(f"rig {rig.slug} is parked: unpark it, or give --staged")
    with transaction.atomic():
        convoy = ledger.create_convoy(rig, title, mode or config.merge_mode, plan, actor=who)
        if not staged:
            start_convoy(convoy, who)
    return convoy, staged


def start_convoy(convoy: Convoy, who: str, reason: str = "") -> None:
    """Let a staged convoy's beads be dispatched."""
    if convoy.started_at is not None:
        raise Conflict(f"convoy {convoy.pk} was started before")
    if convoy.rig.parked_at is not None:
        raise Conflict(f"rig {convoy.rig.slug} is parked: the convoy stays staged")
    inbox.record(convoy.bead.town, "convoy.start", convoy.pk, {"reason": reason}, actor=who)


def close_convoy(convoy: Convoy, who: str, reason: str = "") -> None:
    """Close a convoy midway: runs are stopped, entries cancelled, its branch kept."""
    if is_final(convoy.bead.status):
        raise Conflict(f"convoy {convoy.pk} is {convoy.bead.status} already")
    inbox.record(convoy.bead.town, "convoy.close", convoy.pk, {"reason": reason}, actor=who)


def retry_convoy(convoy: Convoy, who: str, reason: str = "") -> None:
    """Retry a convoy's failed beads, or its failed landing."""
    failed = convoy.beads.filter(status=BeadStatus.FAILED).exists()
    if convoy.bead.status == BeadStatus.CLOSED or not (failed or convoy.bead.status == BeadStatus.FAILED):
        raise Conflict(f"convoy {convoy.pk} has nothing that failed")
    inbox.record(convoy.bead.town, "convoy.retry", convoy.pk, {"reason": reason}, actor=who)


# -- review entries -------------------------------------------------------------------------------------------------


def submit(
    rig: Rig, branch: str, target: str | None, title: str | None, bead: Bead | None, priority: int, who: str
) -> tuple[ReviewEntry, bool]:
    """Enqueue an existing remote branch; returns the entry and whether it is new."""
    branch = check_branch(branch, "branch")
    target = check_branch(target or rig.default_branch, "target")
    if branch == target:
        raise Invalid("branch and target are the same", field="branch")
    if not 0 <= priority <= 4:
        raise Invalid(f"priority must be 0 to 4, not {priority}", field="priority")
    found = configs.usable(rig.town.config, rig.config)[1]
    if found:
        raise Invalid(found[0], field="config")
    if bead is not None:
        if bead.type != BeadType.ISSUE or bead.rig_id != rig.pk:
            raise Invalid(f"{bead.pk} is not an issue of rig {rig.slug}", field="bead")
        if is_final(bead.status):
            raise Conflict(f"{bead.pk} is {bead.status} already")
        if Run.objects.filter(LIVE_RUN, bead=bead).exists():
            raise Conflict(f"{bead.pk} is being worked on by an agent")
    try:
        repo = repo_of(rig)
        head = repo.ls_remote(rig.remote_url, branch)
        if head is None:
            raise Invalid(f"rig {rig.slug} has no branch {branch} on its remote", field="branch")
        onto = repo.ls_remote(rig.remote_url, target)
        if onto is None:
            raise Invalid(f"rig {rig.slug} has no branch {target} on its remote", field="target")
        repo.fetch_sha(rig.remote_url, head, branch)
        title = title or (bead.title if bead else "")
        if not title:
            repo.fetch_sha(rig.remote_url, onto, target)
            title = repo.title(onto, head) or f"Merge {branch}"
    except GitFailed as error:
        message = f"the remote of rig {rig.slug} cannot be read: {error.message}"
        raise Refused(message, code=error.kind, details={"field": "remote_url"}) from error
    with transaction.atomic():
        made = entries.submit(
            rig,
            branch=branch,
            head=head,
            target=target,
            title=title[:300].strip() or branch,
            author=who,
            priority=priority,
            source=bead,
        )
        inbox.wake(rig.town)
    return made


def _active(entry: ReviewEntry) -> None:
    if entry.kind == "check":
        raise Conflict(f"{entry.pk} is no change, but a check of {entry.target} itself: it can only be checked again")
    if entry.state != "active":
        raise Conflict(f"{entry.pk} {entry.ended}")


def approve(entry: ReviewEntry, who: str, *, head: str | None = None, merge_now: bool = True, mail: str = "") -> bool:
    """A person's approval, of exactly the head they saw. False, recording nothing, when they have given it already.

    Raises Conflict when the head moved (here, or on the remote as far as it can be asked) and Forbidden when `who`
    wrote the change: as its author by name, or with `mail` as the author of one of its commits.
    """
    given = entry.verdicts.filter(by=who, head_sha=entry.head_sha).last()
    again = given is not None and given.decision == "approve" and (given.merge_now or not merge_now)
    if again and entry.state == "merged":
        return False
    _active(entry)
    _same_head(entry, head)
    if is_own(entry.author, who) or (mail and mail.lower() in _author_mails(entry)):
        raise Forbidden(f"{entry.pk} is your own change: somebody else has to approve it")
    if again and not entry.held:
        return False
    _not_moved_outside(entry)
    return _record_verdict(entry, who, {"decision": "approve", "merge_now": merge_now})


def request_changes(
    entry: ReviewEntry, who: str, feedback: str, *, items: Sequence[Mapping[str, Any]] = (), head: str | None = None
) -> bool:
    """A person sends the change back, with `items` and the head's unresolved remarks. False when said before."""
    if entry.state == "failed":
        raise Conflict(f"{entry.pk} is failed: to bring it back with your words, mq retry {entry.pk} --reason TEXT")
    _active(entry)
    if entry.landings.filter(state="pushing").exists():
        raise Conflict(f"{entry.pk} is being pushed right now: it is too late to change it")
    _same_head(entry, head)
    told = [*(dict(i) for i in items), *comments.items(entry)]
    feedback = ledger.check_text("body", feedback, 64 * 1024, required=not told)
    feedback = feedback or f"{len(told)} {'remark' if len(told) == 1 else 'remarks'} on lines"
    last = entry.verdicts.filter(by=who, head_sha=entry.head_sha).last()
    said = last is not None and (last.decision, last.feedback, last.items) == ("request_changes", feedback, told)
    if said and not entry.held:
        return False
    return _record_verdict(entry, who, {"decision": "request_changes", "feedback": feedback, "items": told})


def _same_head(entry: ReviewEntry, head: str | None) -> None:
    if head is not None and (len(head) < 7 or not entry.head_sha.startswith(head)):
        raise Conflict(
            f"the head moved: it is {entry.head_sha[:12]}, not {head[:12]}", details={"head": entry.head_sha}
        )


def _not_moved_outside(entry: ReviewEntry) -> None:
    """Look at the remote: a push that nobody told us of makes a new head before anybody approves the old one.

    A remote that cannot be asked changes nothing: the approval is of the pinned head, and landing asks again.
    """
    if not entry.on_remote:
        return
    with suppress(GitFailed):
        found = repo_of(entry.rig).ls_remote(entry.rig.remote_url, entry.branch, timeout=REMOTE_PATIENCE)
        if found is not None and found != entry.head_sha:
            inbox.record(entry.rig.town, "entry.head_seen", entry.pk, {"head": found}, actor="gastown")
            raise Conflict(
                f"the head moved: {entry.branch} is at {found[:12]}, not {entry.head_sha[:12]}",
                details={"head": found},
            )


def _author_mails(entry: ReviewEntry) -> set[str]:
    """The authors of the change's commits. Raises Unavailable when git cannot tell: unknown is nobody's approval."""
    try:
        return {commit.mail.lower() for commit in ranges.commits(entry, limit=10_000)}
    except GitFailed as error:
        raise Unavailable(f"who wrote this change cannot be read, so it cannot be approved: {error.message}") from error


def _record_verdict(entry: ReviewEntry, who: str, told: dict[str, Any]) -> bool:
    """Record it once: the same decision by the same person, before anything came of the first, is a double click."""
    count = entry.verdicts.filter(by=who).count()
    said = json.dumps([entry.pk, entry.head_sha, who, count, told], sort_keys=True)
    key = f"verdict:{hashlib.sha256(said.encode()).hexdigest()}"
    told = {"head": entry.head_sha, **told}
    return inbox.record(entry.rig.town, "entry.verdict", entry.pk, told, actor=who, dedupe_key=key)


def comment(
    entry: ReviewEntry, who: str, *, head: str, file: str, side: str, line: int, body: str
) -> tuple[ReviewComment, bool]:
    """A remark on a line of the diff that a person saw; the same one twice is one. Raises Invalid naming the field."""
    _active(entry)
    _same_head(entry, head)
    body = ledger.check_text("body", body, comments.MAX_BODY, required=True)
    if entry.comments.filter(head_sha=entry.head_sha).count() >= comments.MAX_COMMENTS:
        raise Invalid(f"this head has {comments.MAX_COMMENTS} comments already", field="body")
    quote = ranges.line_text(entry, file, side, line)
    return comments.post(entry, head=entry.head_sha, file=file, side=side, line=line, quote=quote, body=body, by=who)


def resolve_comment(entry: ReviewEntry, key: int, who: str, *, resolved: bool) -> bool:
    """Say that a remark is dealt with, or open it again; False when it stood so already."""
    found = entry.comments.select_related("entry__bead", "entry__rig__town").filter(pk=key).first()
    if found is None:
        raise NotFound(f"{entry.pk} has no comment {key}")
    return comments.set_resolved(found, who, resolved)


def reject(entry: ReviewEntry, reason: str, who: str) -> None:
    """Take an entry out of the queue for good. Said twice, it is said once."""
    if entry.state == "failed" and entry.reason == "rejected":
        return
    _active(entry)
    reason = ledger.check_text("reason", reason, 2000, required=True)
    if not entry.reject_requested:
        inbox.record(entry.rig.town, "entry.reject", entry.pk, {"reason": reason}, actor=who)


def retry_entry(entry: ReviewEntry, who: str, reason: str = "") -> bool:
    """Clear an entry's hold, or bring a failed one back. False while that was said and is not carried out yet."""
    if entry.state == "merged" or (entry.kind == "check" and entry.state != "active"):
        raise Conflict(f"{entry.pk} {entry.ended}")
    working = entry.bead.blocked_by.filter(on__parent=entry.pk).exclude(on__status=BeadStatus.CLOSED)
    if entry.state == "active" and not entry.held and not working.exists():
        raise Conflict(f"{entry.pk} is not held: there is nothing to retry")
    with transaction.atomic():
        ledger.lock_town(entry.rig.town)
        return inbox.record_once(entry.rig.town, "entry.retry", entry.pk, {"reason": reason}, actor=who)


def requeue(entry: ReviewEntry, who: str, reason: str = "") -> None:
    """Take a car out of its lane's train; it is built and gated anew when its turn comes again, behind the others."""
    _active(entry)
    if entry.admitted_at is None:
        raise Conflict(f"{entry.pk} is in no train: it waits in the queue already")
    if entry.landings.filter(state="pushing").exists():
        raise Conflict(f"{entry.pk} is being pushed right now")
    inbox.record(entry.rig.town, "entry.requeue", entry.pk, {"reason": reason}, actor=who)


def promote(entry: ReviewEntry, who: str, reason: str = "", priority: int = 0) -> None:
    """Let an entry go before others: 0 is first."""
    _active(entry)
    if not 0 <= priority <= 4:
        raise Invalid(f"priority must be 0 to 4, not {priority}", field="priority")
    if entry.bead.priority == priority:
        raise Conflict(f"{entry.pk} has priority {priority} already")
    told = {"priority": priority, "reason": reason}
    inbox.record(entry.rig.town, "entry.promote", entry.pk, told, actor=who)


def land_now(entry: ReviewEntry, who: str, reason: str, *, skip_gates: bool = False, head: str | None = None) -> bool:
    """The emergency lane: to the front of the train, gated and reviewed as ever. False when that was said before.

    `skip_gates`: exactly this head lands without its gates, in the name of `who`, which its landing says for ever.
    Whoever opens this door for a person has asked whether they may. It is carried out here, under the town's lock, so
    that what is answered is what happens; the fact is its history and the wake-up. Raises Conflict when the entry has
    left the queue, its head has moved, or it waits for something that no waiver lifts.
    """
    _active(entry)
    _same_head(entry, head)
    reason = ledger.check_text("reason", reason, 2000, required=True)
    if skip_gates:
        _not_moved_outside(entry)
    with transaction.atomic():
        ledger.lock_town(entry.rig.town)
        seen = entry.head_sha
        entry = ReviewEntry.objects.select_related("bead", "source", "rig__town").get(pk=entry.pk)
        _active(entry)
        _same_head(entry, seen)
        if entry.landings.filter(state="pushing").exists():
            raise Conflict(f"{entry.pk} is being pushed right now")
        waived = entry.waivers.filter(head_sha=entry.head_sha).exists()
        if entry.land_now_at is not None and not entry.held and (waived or not skip_gates):
            return False
        if skip_gates:
            emergencies.check_head(entry)
        emergencies.carry_out(entry, who, reason, timezone.now(), head=entry.head_sha, skip_gates=skip_gates)
        told = {"reason": reason, "skip_gates": skip_gates, "head": entry.head_sha, "carried_out": True}
        return inbox.record(entry.rig.town, "entry.land_now", entry.pk, told, actor=who)


# -- runs and escalations -------------------------------------------------------------------------------------------


def stop_run(run: Run, reason: str, who: str) -> None:
    """Ask a live run to stop."""
    if run.state == RunState.ENDED:
        raise Conflict(f"{run.pk} has ended")
    inbox.record(run.town, "run.stop", run.pk, {"reason": reason or f"stopped by {who}"}, actor=who)


def fence_run(run: Run, who: str, reason: str = "") -> None:
    """Take a live run's token away: nothing it says counts any more, and its work is given to another run.

    Its process learns so at its next heartbeat and stops; until then two may be at work, on branches of their own.
    Prefer `stop_run`, or wait for the lease.
    """
    if run.state == RunState.ENDED:
        raise Conflict(f"{run.pk} has ended")
    inbox.record(run.town, "run.fence", run.pk, {"reason": reason}, actor=who)


def acknowledge(escalation: Escalation, who: str, reason: str = "") -> None:
    """A person has seen it."""
    if escalation.closed_at is not None:
        raise Conflict(f"{escalation.pk} is closed")
    inbox.record(escalation.town, "escalation.ack", escalation.pk, {"reason": reason}, actor=who)


def close_escalation(escalation: Escalation, who: str, reason: str = "") -> None:
    """It needs nobody any more."""
    if escalation.closed_at is not None:
        raise Conflict(f"{escalation.pk} is closed")
    inbox.record(escalation.town, "escalation.close", escalation.pk, {"reason": reason}, actor=who)
