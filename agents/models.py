"""Agents, their runs, and what they tell one another.

Writers: `agents.roster` (Agent), `agents.runs` (Run), `agents.mail` (Mail, Nudge), `agents.api.tools` (ToolCall),
`agents.usage` (Usage, Allowance).

A `Run` is one supervised process (an agent, or a set of gates) with a lease and a fencing token.
`queued` → `starting` (a runner picked it) → `running` (the shim claimed it) → `ended`, with an `outcome`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from django.db import models
from django.db.models import Q

from agents.lifecycle import Channel, CostSource, Role, RunKind, RunOutcome, RunState
from beads.budget import CapScope
from beads.models import Bead, Convoy, Rig, Town, new_id

LIVE_RUN = Q(state__in=[RunState.QUEUED.value, RunState.STARTING.value, RunState.RUNNING.value])


def new_run_id() -> str:
    """A fresh run id such as `run-7x2k9fq3`."""
    return new_id("run")


def _choices(enum: type[StrEnum]) -> list[tuple[str, str]]:
    return [(m.value, m.value.replace("_", " ")) for m in enum]


class Agent(models.Model):
    """An identity that runs work under a role. `convoy` set: a convoy's own refinery."""

    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="agents")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="agents", null=True, blank=True)
    name = models.CharField(max_length=80)
    role = models.CharField(max_length=10, choices=_choices(Role))
    convoy = models.ForeignKey(Convoy, on_delete=models.PROTECT, related_name="refineries", null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["town", "name"], name="agent_name_once"),
            models.UniqueConstraint(
                fields=["rig"],
                name="one_rig_refinery_per_rig",
                condition=Q(role="refinery", convoy__isnull=True, retired_at__isnull=True),
            ),
            models.UniqueConstraint(
                fields=["convoy", "rig"],
                name="one_refinery_per_convoy",
                condition=Q(role="refinery", convoy__isnull=False, retired_at__isnull=True),
            ),
            models.CheckConstraint(name="agent_role_legal", condition=Q(role__in=[r.value for r in Role])),
        ]

    def __str__(self) -> str:
        return self.name


class Runs(models.QuerySet["Run"]):
    """Runs by where they stand."""

    def live(self) -> Self:
        """Those that have not ended."""
        return self.filter(LIVE_RUN)

    def ended(self) -> Self:
        """Those that have ended, in whatever way."""
        return self.filter(state=RunState.ENDED)


class Run(models.Model):
    """One supervised process for one bead and attempt. All work is attributed to a run, never to an agent."""

    id = models.CharField(primary_key=True, max_length=32, default=new_run_id, editable=False)
    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="runs")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="runs")
    bead = models.ForeignKey(Bead, on_delete=models.PROTECT, related_name="runs")
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="runs", null=True, blank=True)
    kind = models.CharField(max_length=10, choices=_choices(RunKind))
    purpose = models.CharField(max_length=10, help_text="work, rework, conflict, review, resolve, triage or gates")
    attempt = models.PositiveIntegerField()
    account = models.ForeignKey(
        Bead,
        on_delete=models.PROTECT,
        related_name="+",
        null=True,
        blank=True,
        help_text="whose money it spends: of a review, rework or conflict, the bead whose change it is",
    )
    state = models.CharField(max_length=10, choices=_choices(RunState), default=RunState.QUEUED)
    outcome = models.CharField(max_length=15, choices=_choices(RunOutcome), blank=True)
    reason = models.TextField(blank=True)
    # what to run (fixed at creation)
    steps = models.JSONField(default=list, help_text="[{name, argv|run, timeout, retries, network}]")
    brief = models.JSONField(default=dict, help_text="what the agent is told; see agents.prompts")
    start_sha = models.CharField(max_length=64, blank=True, help_text="blank: the target's head at the start")
    branch = models.CharField(max_length=250, blank=True, help_text="published to; blank: detached")
    target = models.CharField(max_length=200)
    start_seconds = models.PositiveIntegerField(default=60)
    lease_seconds = models.PositiveIntegerField(default=60)
    heartbeat_seconds = models.PositiveIntegerField(default=10)
    # lease and fence
    runner = models.CharField(max_length=100, blank=True)
    claim_hash = models.CharField(max_length=64, blank=True)
    token_hash = models.CharField(max_length=64, null=True, blank=True, unique=True)
    shim_hash = models.CharField(
        max_length=64, null=True, blank=True, unique=True, help_text="the shim's own secret: heartbeat, exit, door"
    )
    fenced_hash = models.CharField(max_length=64, null=True, blank=True, db_index=True)  # noqa: DJ001 - null is "never had one"
    start_deadline = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    # desired
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    stop_reason = models.CharField(max_length=300, blank=True)
    stop_counts = models.BooleanField(default=False, help_text="being stopped uses up an attempt")
    # observed
    created_at = models.DateTimeField(auto_now_add=True)
    picked_at = models.DateTimeField(null=True, blank=True)
    claimed_at = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    activity_at = models.DateTimeField(null=True, blank=True)
    active_tool = models.CharField(max_length=100, blank=True)
    nudged_at = models.DateTimeField(null=True, blank=True, help_text="when the patrol last reminded it")
    status_message = models.CharField(max_length=280, blank=True)
    session = models.CharField(max_length=200, blank=True, help_text="of its CLI: by this name it can be resumed")
    checkpoint = models.JSONField(null=True, blank=True)
    result = models.CharField(max_length=20, blank=True, help_text="done or request_changes, from the tool")
    result_at = models.DateTimeField(null=True, blank=True)
    summary = models.TextField(blank=True)
    start_error = models.TextField(blank=True)
    fault = models.CharField(max_length=20, blank=True, help_text="the kind of its start's failure; see start_failed")
    exited_at = models.DateTimeField(null=True, blank=True, help_text="tools are refused from here on")
    exit_code = models.IntegerField(null=True, blank=True)
    exit_signal = models.IntegerField(null=True, blank=True)
    exit_error = models.TextField(blank=True)
    head_sha = models.CharField(max_length=64, blank=True)
    published = models.BooleanField(default=False, help_text="its head has arrived in the mirror")
    on_remote = models.BooleanField(default=False, help_text="its branch was pushed to the remote")
    work = models.CharField(max_length=12, blank=True, help_text="what it made; see agents.work")
    work_text = models.TextField(blank=True)
    publish_requested_at = models.DateTimeField(null=True, blank=True)
    salvage_ref = models.CharField(max_length=200, blank=True)
    sandbox = models.CharField(max_length=20, blank=True, help_text="bubblewrap, or unsandboxed")
    step_results = models.JSONField(default=list, blank=True)
    log_path = models.CharField(max_length=500, blank=True)
    resumed = models.CharField(max_length=100, blank=True, help_text="its agent's session that it went on with")
    pid = models.IntegerField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = Runs.as_manager()

    class Meta:
        ordering = ("created_at", "id")
        indexes = [
            models.Index(fields=["town"], name="run_live", condition=LIVE_RUN),
            models.Index(fields=["bead", "created_at"], name="run_of_bead"),
            models.Index(fields=["town", "-ended_at"], name="run_recent"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["bead"], name="one_live_agent_run_per_bead", condition=LIVE_RUN & ~Q(kind="gates")
            ),
            models.UniqueConstraint(
                fields=["bead"], name="one_live_gates_run_per_bead", condition=LIVE_RUN & Q(kind="gates")
            ),
            models.UniqueConstraint(  # a refinery may be at several: see agents.runs.queue_run
                fields=["agent"], name="one_live_run_per_agent", condition=LIVE_RUN & ~Q(kind="refinery")
            ),
            models.UniqueConstraint(fields=["bead", "kind", "attempt"], name="run_attempt_once"),
            models.CheckConstraint(name="run_state_legal", condition=Q(state__in=[s.value for s in RunState])),
            models.CheckConstraint(
                name="run_ended_has_outcome",
                condition=Q(state=RunState.ENDED) & ~Q(outcome="") | ~Q(state=RunState.ENDED) & Q(outcome=""),
            ),
            models.CheckConstraint(
                name="run_ended_has_no_token", condition=~Q(state=RunState.ENDED) | Q(token_hash__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def preset_step(self) -> dict[str, Any]:
        """Its step that is a preset's; empty where there is none."""
        return next((step for step in self.steps if step.get("preset")), {})

    @property
    def agent_name(self) -> str:
        """Its agent's name; empty for gates, which have none."""
        if self.agent is None:
            return ""
        return self.agent.name


class Usage(models.Model):
    """What a run used of one model in one day (UTC), as one channel saw it. What counts: see `agents.usage.counted`.

    `input` is without what was read from (`cached`) and written to (`written`) the provider's cache; `output` is with
    what was thought. `cost` is in dollars, null where no price is known; `uncounted` of the calls ended before it was
    known what they used. `bead` is the one whose money it was: see `Run.account`.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="usage")
    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="+")
    bead = models.ForeignKey(Bead, on_delete=models.PROTECT, related_name="+")
    day = models.DateField()
    model = models.CharField(max_length=200)
    source = models.CharField(max_length=10, choices=_choices(CostSource), help_text="where the cost is from")
    channel = models.CharField(max_length=10, choices=_choices(Channel), help_text="who saw it")
    calls = models.PositiveIntegerField(default=0)
    uncounted = models.PositiveIntegerField(default=0)
    input = models.PositiveBigIntegerField(default=0)
    cached = models.PositiveBigIntegerField(default=0)
    written = models.PositiveBigIntegerField(default=0)
    output = models.PositiveBigIntegerField(default=0)
    cost = models.DecimalField(max_digits=20, decimal_places=9, null=True, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("id",)
        verbose_name_plural = "usage"
        indexes = [
            models.Index(fields=["bead"], name="usage_of_bead"),
            models.Index(fields=["town", "day"], name="usage_of_day"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["run", "day", "model", "source", "channel"], name="usage_once"),
            models.CheckConstraint(name="usage_source_legal", condition=Q(source__in=[s.value for s in CostSource])),
            models.CheckConstraint(name="usage_channel_legal", condition=Q(channel__in=[c.value for c in Channel])),
            models.CheckConstraint(
                name="usage_unknown_has_no_cost",
                condition=Q(source=CostSource.UNKNOWN) & Q(cost__isnull=True)
                | ~Q(source=CostSource.UNKNOWN) & Q(cost__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id} {self.model} {self.channel}"


class Allowance(models.Model):
    """A person's word that a cap of `[budget]` is another one here: for one bead (or each run of it), convoy or day.
    The latest word counts. Never updated."""

    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="+")
    scope = models.CharField(max_length=10, choices=_choices(CapScope))
    subject = models.CharField(max_length=40, help_text="a bead, a convoy, or a day")
    amount = models.CharField(max_length=40, help_text='such as "10 USD"')
    by = models.CharField(max_length=150)
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        indexes = [models.Index(fields=["town", "scope", "subject"], name="allowance_of")]
        constraints = [
            models.CheckConstraint(name="allowance_scope_legal", condition=Q(scope__in=[s.value for s in CapScope]))
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.subject} {self.amount}"


class ToolCall(models.Model):
    """An answered tool call. Under an Idempotency-Key, its answer is kept, and the same key again gets it again."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="tool_calls")
    key = models.CharField(max_length=200, null=True, blank=True)  # noqa: DJ001 - null: came without one
    tool = models.CharField(max_length=60)
    request_hash = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    response = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "key"], name="tool_call_once")]

    def __str__(self) -> str:
        return f"{self.run_id} {self.tool}"


class Mail(models.Model):
    """A message to an agent (by name), to whoever works on `bead`, to `mayor`, or to `overseer`: the people.

    Names are used again by other beads, so what is for an agent belongs to the work that it is about, and is told to
    that work's runs alone.
    """

    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="mail")
    sender = models.CharField(max_length=100)
    recipient = models.CharField(max_length=100)
    kind = models.CharField(max_length=40, default="NOTE")
    subject = models.CharField(max_length=300)
    body = models.TextField(blank=True)
    about = models.ForeignKey(Bead, on_delete=models.PROTECT, related_name="mail", null=True, blank=True)
    bead = models.ForeignKey(
        Bead, on_delete=models.PROTECT, related_name="+", null=True, blank=True, help_text="whose work it belongs to"
    )
    run = models.ForeignKey(
        Run, on_delete=models.PROTECT, related_name="+", null=True, blank=True, help_text="the run that was told it"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("id",)
        verbose_name_plural = "mail"
        indexes = [models.Index(fields=["town", "recipient", "id"], name="mail_of_recipient")]

    def __str__(self) -> str:
        return f"{self.pk} {self.subject}"


class Nudge(models.Model):
    """A short-lived hint to one run, shown once at its next heartbeat or tool call."""

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="nudges")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="nudges", null=True, blank=True)
    sender = models.CharField(max_length=100)
    message = models.CharField(max_length=1000)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    delivered_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.agent_id} {self.message[:40]}"
