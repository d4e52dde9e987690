"""What is done at the host of a rig's pull requests. A host that does not say is a fact of its own: `host.unknown`.

Each handler looks before it acts, so that one that was killed in between does nothing twice: the branch's pull request
is looked for before one is made, our comment is found by its hidden mark, statuses are said again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from django.utils import timezone

from agents.models import Run
from agents.runtime.mirrors import has_commit
from agents.runtime.names import ref_of
from beads import config as configs
from beads import inbox
from beads.errors import Invalid, Refused
from beads.models import Rig
from refinery.core import effects, hosting, pullviews
from refinery.core.pullviews import Pull, PullState
from refinery.core.rules.pullreports import READY, mark, source_of
from refinery.core.states import EntryState
from refinery.executor import pulltexts
from refinery.executor.registry import Result, does
from refinery.git.mirror import repo_of
from refinery.hosts.base import Host, HostUnknown, Offer, Seen, Status
from refinery.hosts.opening import host_of
from refinery.models import HostedPull, Lane, ReviewEntry, RigHost


def asked(rig: Rig, act: Callable[[Host], Result | None], *, writes: bool = True) -> Result | None:
    """What comes of asking the rig's host. Raises Refused for what it will not do, however often it is asked: then it
    works but for that, also where it lacks the right to write just this."""
    try:
        return act(host_of(rig))
    except HostUnknown as error:
        if writes and error.kind in ("refused", "forbidden"):  # to look is never given up
            raise Refused(error.message) from error
        return "host.unknown", str(rig.pk), {"kind": error.kind, "error": error.message, "wait": error.wait}


def _row(pk: int) -> HostedPull:
    return HostedPull.objects.select_related("rig__town", "entry").get(pk=pk)


def _known(row: HostedPull) -> Pull:
    pull = pullviews.load(row.state)
    if pull is None:
        raise Refused(f"pull request #{row.number} was not read yet")
    return pull


@does(effects.PollHost)
def poll(work: effects.PollHost) -> Result | None:
    """Look what has changed."""
    rig = Rig.objects.select_related("town").get(pk=work.rig)
    known = RigHost.objects.filter(rig=rig).first()
    began = timezone.now()
    seen = Seen(known.etags) if known else Seen()

    def look(host: Host) -> Result:
        found = host.poll(seen)
        told = {"at": began.isoformat(), "etags": dict(found.etags), "calls": sorted(found.commanded)[:2000]}
        ours = set(HostedPull.objects.filter(rig=rig, ended_at=None).values_list("number", flat=True))
        told["pulls"] = {
            str(n): f"{updated} {head[:12]}"[:40] for n, (updated, head) in found.pulls.items() if n in ours
        }
        return "host.polled", str(rig.pk), told

    return asked(rig, look, writes=False)


@does(effects.ReadPull)
def read(work: effects.ReadPull) -> Result | None:
    """Read one, and see whether what it says it was merged as is on its base. One that is no more is over."""
    rig = Rig.objects.select_related("town").get(pk=work.rig)
    row = HostedPull.objects.get(rig=rig, number=work.number)
    began = timezone.now()

    def look(host: Host) -> Result:
        try:
            pull = host.read(work.number, pullviews.load(row.state))
        except HostUnknown as error:
            if error.kind != "gone":
                raise
            host.lacking()  # it raises where the whole repository is gone, and nothing is known of this one
            return "pull.ended", str(row.pk), {}
        if pull.state == PullState.OPEN:
            head = _head_of(rig, pull)
            same = head == pull.head  # else whose commits were read is not who wrote these
            pull = dataclasses.replace(pull, head=head, authors_known=pull.authors_known and same)
        if pull.merge_sha:
            pull = dataclasses.replace(pull, on_target=_is_on(rig, pull))
        return "pull.read", f"{rig.pk}#{work.number}", {"at": began.isoformat(), "state": pullviews.dump(pull)}

    return asked(rig, look, writes=False)


def _head_of(rig: Rig, pull: Pull) -> str:
    """The head of an open pull request, as git says: what a host's API answers may be older than the last push, and an
    old head would take back what a round of rework has made. Raises GitFailed."""
    config = configs.usable(rig.town.config, rig.config)[0]
    source = source_of(pull, hosting.repository(config, rig.remote_url))
    try:
        ref_of(source)
    except Invalid:
        return pull.head  # no branch that we take: it is said to whoever asks for it
    return repo_of(rig).ls_remote(rig.remote_url, source) or pull.head


def _is_on(rig: Rig, pull: Pull) -> bool:
    """True when git shows on the base what the host says that it was merged as; False when the base, which is there as
    a whole, has it not, or is gone. Raises GitFailed where git does not say."""
    repo = repo_of(rig)
    if repo.ls_remote(rig.remote_url, pull.base) is None:
        return False
    base = repo.fetch_branch(rig.remote_url, pull.base)
    return has_commit(repo.path, pull.merge_sha) and repo.is_ancestor(pull.merge_sha, base)


@does(effects.OfferPull)
def offer(work: effects.OfferPull) -> Result | None:
    """Show an entry by a pull request of its branch."""
    entry = ReviewEntry.objects.select_related("bead", "source", "convoy__bead", "rig__town").get(pk=work.entry)
    if entry.state != EntryState.ACTIVE:
        return None
    told = Offer(entry.branch, entry.target, pulltexts.title(entry), pulltexts.body(entry), draft=True)

    def _show(host: Host) -> Result:
        shown, answer = _of_its_agent(host, entry)
        if shown is not None:
            said = {"number": shown.number, "head": entry.head_sha, "branch": shown.branch}
            return "pull.offered", entry.pk, said
        return "pull.offered", entry.pk, {"number": host.offer(told), "head": entry.head_sha, "answer": answer}

    return asked(entry.rig, _show)


def _of_its_agent(host: Host, entry: ReviewEntry) -> tuple[Pull | None, str]:
    """The pull request that the agent has made itself and named (`gt_done`), when the host shows that it is for exactly
    this; or why it is not. What an agent says is a number to look at, and no more."""
    rig = entry.rig
    config = configs.usable(rig.town.config, rig.config)[0]
    run = Run.objects.filter(bead=entry.source_id, head_sha=entry.head_sha).order_by("created_at").last()
    number = 0
    if run is not None:
        url = str((inbox.payload_of(f"result:{run.pk}") or {}).get("pr_url") or "")
        number = hosting.numbered(config, rig.remote_url, url)
    if not number:
        return None, ""
    others = HostedPull.objects.filter(rig=rig, number=number).exclude(entry=None).exclude(entry=entry)
    if others.exists():
        return None, f"Its agent named pull request #{number}, which shows another change."
    try:
        pull = host.read(number)
    except HostUnknown as error:
        if error.kind != "gone":
            raise
        return None, f"Its agent named pull request #{number}, which is not there."
    if pull.branch == rig.default_branch or Lane.objects.filter(rig=rig, target=pull.branch).exists():
        return None, f"Its agent named pull request #{number}, whose branch {pull.branch} others land on."
    wrong = pullviews.unlike(pull, hosting.repository(config, rig.remote_url), entry.head_sha, entry.target)
    if wrong:
        return None, f"Its agent named another: {wrong}."
    return pull, ""


@does(effects.PushPull)
def push(work: effects.PushPull) -> Result | None:
    """Let its branch be where a round of rework has led, unless somebody else has pushed to it."""
    row = _row(work.pull)
    repo_of(row.rig).move_branch(row.rig.remote_url, _known(row).branch, work.old, work.new)
    return "pull.pushed", str(row.pk), {"head": work.new}


@does(effects.ReportPull)
def report(work: effects.ReportPull) -> Result | None:
    """Say how its checks are."""
    row = _row(work.pull)
    url = ""
    if row.entry is not None:
        url = pulltexts.url(row.entry)
    statuses = [Status(context, state, pulltexts.plain(text), url) for context, state, text in work.statuses]
    said = {context: mark(work.sha, state, text) for context, state, text in work.statuses}
    if work.ready:
        said[READY] = mark(work.sha)

    def _say(host: Host) -> Result:
        host.report(work.sha, statuses)
        if work.ready:
            host.ready(_known(row))
        return "pull.reported", str(row.pk), {"said": said, "ready": work.ready}

    return asked(row.rig, _say)


@does(effects.TellPull)
def tell(work: effects.TellPull) -> Result | None:
    """Let our comment say so."""
    row = _row(work.pull)
    hidden = pulltexts.mark(row.rig, row.number)
    text = pulltexts.comment(hidden, row.entry, work.lines)

    def _say(host: Host) -> Result:
        known = host.comment(row.number, hidden, text, row.comment)
        return "pull.told", str(row.pk), {"digest": work.digest, "comment": known}

    return asked(row.rig, _say)


@does(effects.EndPull)
def end(work: effects.EndPull) -> Result | None:
    """Close it, if it is open."""
    row = _row(work.pull)

    def _close(host: Host) -> Result:
        host.close(row.number)
        return "pull.ended", str(row.pk), {}

    return asked(row.rig, _close)
