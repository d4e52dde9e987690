"""The refinery's own tools, added to the agents' registry."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from agents.api.tools import Args, Call, tool
from agents.api.toolset.convoys import convoy_extras
from agents.api.toolset.shared import MAYOR, REFINERY
from agents.api.toolset.work import prime_extras, pull_checks
from agents.models import Run
from beads import config as configs
from beads import inbox
from beads.errors import Forbidden, Invalid, NotFound
from beads.limits import Provider
from beads.models import Convoy
from refinery.core import hosting
from refinery.models import Candidate, ReviewEntry
from refinery.pages import boards
from refinery.store.results import gate_results


class RunGatesArgs(Args):
    """gt_run_gates"""

    again: bool = False


def _candidate(run: Run) -> Candidate | None:
    return Candidate.objects.select_related("entry").filter(entry_id=run.bead_id, sha=run.start_sha).last()


@tool("gt_run_gates", REFINERY, RunGatesArgs)
def run_gates(call: Call, args: RunGatesArgs) -> dict[str, Any]:
    """The gate results of your candidate; with `again` they are run again before it may land. Who was called to look at
    red gates does not run them again: a person does (`mq retry`)."""
    if args.again and call.run.purpose == "triage":
        raise Forbidden("a look at red gates does not run them again: say what is wrong, or call gt_done")
    candidate = _candidate(call.run)
    if candidate is None:
        raise NotFound("this run reviews no candidate")
    if args.again:
        inbox.record(call.run.town, "gates.again", candidate.entry_id, {}, actor=call.run.pk)
    return {"candidate": candidate.sha, "again": args.again, "gates": gate_results(candidate.entry, candidate)}


def _review_context(run: Run) -> dict[str, Any]:
    """What `gt_prime` adds: the merge request that is reviewed, reworked or in conflict."""
    entry = ReviewEntry.objects.select_related("source").filter(pk__in=[run.bead_id, run.bead.parent_id or ""]).first()
    if entry is None:
        return {}
    source = entry.source
    return {
        "merge_request": {
            "id": entry.pk,
            "branch": entry.branch,
            "head": entry.head_sha,
            "target": entry.target,
            "kind": entry.kind,
            "source": {"id": source.pk, "title": source.title, "body": source.body} if source else None,
        }
    }


class QueueArgs(Args):
    """gt_queue"""

    rig: Annotated[str, Field(max_length=50)] | None = None


@tool("gt_queue", MAYOR, QueueArgs, reads=True)
def queue(call: Call, args: QueueArgs) -> dict[str, Any]:
    """The town's merge queue in order: where each change stands, what it waits for, and when it lands."""
    board = boards.Board(call.run.town)
    rigs = board.world.rigs
    rows = [
        boards.view_data(board, view) | {"rig": rigs[rig].slug, "target": target}
        for (rig, target), views in board.lanes.items()
        for view in views
        if args.rig in (None, rigs[rig].slug)
    ]
    moments = ("created_at", "admitted_at")
    return {"entries": [row | {k: boards.iso(row[k]) for k in moments} for row in rows]}


def _landing_time(convoy: Convoy) -> dict[str, Any]:
    """What `gt_convoy_status` adds: when it lands."""
    found = boards.Board(convoy.bead.town).convoy_lands(convoy)
    if found:
        return found.as_dict()
    return {}


convoy_extras.append(_landing_time)
prime_extras.append(_review_context)


def _check_pull(run: Run, url: str) -> None:
    """A pull request must be one of the rig's repository. Whether it shows the run's head is asked of the host when it
    is offered, for no host is waited for here."""
    rig = run.rig
    config = configs.usable(rig.town.config, rig.config)[0]
    if hosting.provider(config, rig.remote_url) != Provider.GITHUB:
        raise Invalid("pr_url: this rig's changes are reviewed on pages of Gastown: leave it out", field="pr_url")
    if not hosting.numbered(config, rig.remote_url, url):
        example = hosting.page(config, rig.remote_url, 1)
        raise Invalid(f"pr_url: it is no pull request of this repository, such as {example}", field="pr_url")


pull_checks.append(_check_pull)
