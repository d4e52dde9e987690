"""Every action of the console, by name: each opens one door, with who does it and why. There are no others."""

from __future__ import annotations

from typing import Any

from beads.consoles import door_action
from beads.lifecycle import is_final
from refinery.decisions import merge_queue, operators, towns, work

ACTIONS: dict[str, Any] = {
    "cancel_bead": door_action(
        "cancel_bead",
        "Cancel",
        lambda bead, who, why: work.cancel_bead(bead, why, who),
        warning="Its run is stopped and its review entry is withdrawn.",
        when=lambda bead: bead.type == "issue" and not is_final(bead.status),
    ),
    "release_bead": door_action(
        "release_bead",
        "Release: let an agent do it",
        work.release_bead,
        warning="An agent has filed it. Read what it asks for before another agent does it.",
        when=lambda bead: bead.type == "issue" and bead.unreleased and not is_final(bead.status),
    ),
    "retry_bead": door_action(
        "retry_bead",
        "Retry",
        work.retry_bead,
        when=lambda bead: bead.type == "issue" and bead.status == "failed",
    ),
    "confirm_bead": door_action(
        "confirm_bead",
        "Confirm: nothing was needed",
        work.confirm_bead,
        when=lambda bead: bead.status == "failed" and bead.resolution == "nothing_changed",
    ),
    "retry_entry": door_action(
        "retry_entry",
        "Retry: clear the hold, or bring it back",
        merge_queue.retry_entry,
        when=lambda entry: (entry.kind != "check" and entry.state == "failed") or bool(entry.held),
    ),
    "requeue_entry": door_action(
        "requeue_entry",
        "Requeue: begin anew",
        merge_queue.requeue,
        warning="It gets off its lane's train and on again behind the others, built and gated anew.",
        when=lambda entry: entry.state == "active" and entry.admitted_at is not None,
    ),
    "promote_entry": door_action(
        "promote_entry",
        "Promote to the front",
        merge_queue.promote,
        warning="Its priority becomes 0. It goes ahead of all that is not being pushed.",
        when=lambda entry: entry.kind != "check" and entry.state == "active" and entry.bead.priority != 0,
    ),
    "land_now_entry": door_action(
        "land_now_entry",
        "Land now: an emergency",
        merge_queue.land_now,
        warning="It goes to the front of the train, gated and reviewed as ever; the train starts again behind it.",
        when=lambda entry: entry.kind != "check" and entry.state == "active" and entry.land_now_at is None,
    ),
    "skip_gates_entry": door_action(
        "skip_gates_entry",
        "Land now WITHOUT its gates",
        lambda entry, who, why: merge_queue.land_now(entry, who, why, skip_gates=True),
        warning="This head lands although its gates have not passed. Your name and reason stay with its landing.",
        when=lambda entry: (
            entry.kind != "check"
            and entry.state == "active"
            and not entry.waivers.filter(head_sha=entry.head_sha).exists()
        ),
    ),
    "reject_entry": door_action(
        "reject_entry",
        "Reject for good",
        lambda entry, who, why: merge_queue.reject(entry, why, who),
        when=lambda entry: entry.kind != "check" and entry.state == "active",
    ),
    "stop_run": door_action(
        "stop_run",
        "Stop",
        lambda run, who, why: operators.stop_run(run, why, who),
        warning="It is asked to end and publishes what it has committed.",
        when=lambda run: run.state != "ended",
    ),
    "fence_run": door_action(
        "fence_run",
        "Fence: take its token away",
        operators.fence_run,
        warning="For a run that does not answer. Nothing it says counts any more, and its work is given to another "
        "run at once; its process stops at its next heartbeat. Stop it instead where you can wait.",
        when=lambda run: run.state != "ended",
    ),
    "pause_town": door_action(
        "pause_town",
        "Pause",
        lambda town, who, why: towns.pause(town, why, who),
        warning="Nothing new is dispatched or admitted; what runs goes on.",
        when=lambda town: town.paused_at is None,
    ),
    "resume_town": door_action("resume_town", "Resume", towns.resume, when=lambda town: town.paused_at is not None),
    "park_rig": door_action(
        "park_rig",
        "Park",
        towns.park,
        warning="Nothing new is dispatched or admitted in it; what runs goes on.",
        when=lambda rig: rig.parked_at is None,
    ),
    "unpark_rig": door_action("unpark_rig", "Unpark", towns.unpark, when=lambda rig: rig.parked_at is not None),
    "freeze_lane": door_action(
        "freeze_lane",
        "Freeze its default lane",
        lambda rig, who, why: merge_queue.freeze(rig, None, why, who),
        warning="Nothing is admitted to it and nothing lands in it until it is thawed.",
        when=lambda rig: not rig.lanes.filter(target=rig.default_branch, frozen_at__isnull=False).exists(),
    ),
    "thaw_lane": door_action(
        "thaw_lane",
        "Thaw",
        lambda lane, who, why: merge_queue.thaw(lane.rig, lane.target, who, why),
        when=lambda lane: lane.frozen_at is not None,
    ),
    "start_convoy": door_action(
        "start_convoy", "Start", work.start_convoy, when=lambda convoy: convoy.started_at is None
    ),
    "close_convoy": door_action(
        "close_convoy",
        "Close midway",
        work.close_convoy,
        warning="Its runs are stopped and its entries cancelled; its branch is kept.",
        when=lambda convoy: not is_final(convoy.bead.status),
    ),
    "retry_convoy": door_action(
        "retry_convoy",
        "Retry what failed",
        work.retry_convoy,
        when=lambda convoy: convoy.bead.status == "failed" or convoy.beads.filter(status="failed").exists(),
    ),
    "release_fact": door_action(
        "release_fact",
        "Release from quarantine",
        operators.release_fact,
        warning="The next tick tries it again. Mend the cause first: its error stands below.",
        when=lambda fact: fact.quarantined_at is not None,
    ),
    "replay_fact": door_action(
        "replay_fact",
        "Replay",
        operators.replay_fact,
        warning="The same observation is recorded once more, in your name.",
        when=lambda fact: fact.processed_at is not None and fact.kind in operators.REPLAYABLE,
    ),
    "run_effect_again": door_action(
        "run_effect_again",
        "Run a failed effect again",
        operators.run_effect_again,
        when=lambda effect: effect.state == "failed",
    ),
    "acknowledge": door_action(
        "acknowledge",
        "Acknowledge",
        operators.acknowledge,
        when=lambda one: one.closed_at is None and one.acknowledged_at is None,
    ),
    "close_escalation": door_action(
        "close_escalation",
        "Close",
        lambda one, who, why: operators.close_escalation(one, who, why),
        when=lambda one: one.closed_at is None,
    ),
}
