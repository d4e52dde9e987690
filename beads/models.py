"""The ledger's tables and the promises the database itself keeps. No workflow here.

Writers: `beads.ledger` (Town, Rig, Bead, Dependency, Convoy, ConvoyBranch, Escalation, BeadEvent, ConfigVersion),
`beads.inbox` (Fact), `beads.outbox` (Effect), `beads.ops` (Heartbeat), `beads.people` (Membership). Nobody else saves
these rows.

Columns are of three kinds: *desired* (set by people and tools, named `…_requested_at` or set at creation),
*observed* (set from facts), *decided* (status, resolution: set by the tick through the ledger).
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Q

from beads import lookups as lookups  # registers `__any`
from beads.lifecycle import FINAL, BeadStatus, BeadType, EffectState, Purpose, Resolution

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """A fresh readable id: prefix, dash, eight characters of Crockford's base 32 (2^40 values)."""
    return f"{prefix}-{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"


def new_bead_id() -> str:
    """A fresh bead id such as `gt-7x2k9fq3`."""
    return new_id("gt")


def choices(enum: type[BeadType | Purpose | BeadStatus | Resolution]) -> list[tuple[str, str]]:
    """Django choices of a StrEnum."""
    return [(m.value, m.value.replace("_", " ")) for m in enum]


class Town(models.Model):
    """One tenant. Its row is the lock of the reconcile tick."""

    slug = models.SlugField(max_length=50, unique=True)
    config = models.JSONField(default=dict, blank=True, help_text="validated overrides, see beads.config")
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_reason = models.CharField(max_length=300, blank=True)
    looked_at = models.DateTimeField(null=True, blank=True, help_text="when a tick last looked")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.slug


class Rig(models.Model):
    """One git repository under a town."""

    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="rigs")
    slug = models.SlugField(max_length=50, unique=True)
    remote_url = models.CharField(max_length=1000)
    default_branch = models.CharField(max_length=200)
    config = models.JSONField(default=dict, blank=True)
    parked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.slug


class Bead(models.Model):
    """One row of work. `id` is the public name, e.g. `gt-7x2k9fq3`."""

    id = models.CharField(primary_key=True, max_length=32, default=new_bead_id, editable=False)
    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="beads")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="beads", null=True, blank=True)
    type = models.CharField(max_length=20, choices=choices(BeadType), default=BeadType.ISSUE)
    purpose = models.CharField(max_length=20, choices=choices(Purpose), default=Purpose.WORK)
    status = models.CharField(max_length=20, choices=choices(BeadStatus), default=BeadStatus.OPEN)
    resolution = models.CharField(max_length=20, choices=choices(Resolution), blank=True)
    reason = models.TextField(blank=True, help_text="why it stands where it stands, for a person")
    title = models.CharField(max_length=300)
    body = models.TextField(blank=True)
    priority = models.PositiveSmallIntegerField(default=2, help_text="0 (first) to 4 (last)")
    convoy = models.ForeignKey("Convoy", on_delete=models.PROTECT, related_name="beads", null=True, blank=True)
    plan_key = models.CharField(max_length=100, blank=True, help_text="its key in the convoy's plan")
    parent = models.ForeignKey("self", on_delete=models.PROTECT, related_name="children", null=True, blank=True)
    context = models.JSONField(default=dict, blank=True, help_text="rework or conflict brief, for the agent")
    merge_sha = models.CharField(max_length=64, blank=True, help_text="commit on the target with its change")
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    retried_at = models.DateTimeField(null=True, blank=True, help_text="attempts before this do not count")
    created_by = models.CharField(max_length=100, blank=True)
    filed_by = models.CharField(max_length=32, blank=True, help_text="the run that filed it; blank: no agent did")
    depth = models.PositiveSmallIntegerField(default=0, help_text="0: a person's; n + 1: filed in work on one of n")
    released_at = models.DateTimeField(null=True, blank=True, help_text="null and filed by a run: waits for a person")
    released_by = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("created_at", "id")
        indexes = [
            models.Index(fields=["town", "type"], name="bead_live", condition=~Q(status__in=sorted(FINAL))),
            models.Index(fields=["convoy"], name="bead_convoy", condition=Q(convoy__isnull=False)),
            models.Index(fields=["town", "-created_at"], name="bead_recent"),
            models.Index(fields=["filed_by"], name="bead_filed", condition=~Q(filed_by="")),
        ]
        constraints = [
            models.CheckConstraint(name="bead_status_legal", condition=Q(status__in=[s.value for s in BeadStatus])),
            models.CheckConstraint(name="bead_type_legal", condition=Q(type__in=[t.value for t in BeadType])),
            models.CheckConstraint(name="bead_priority_range", condition=Q(priority__lte=4)),
            models.CheckConstraint(
                name="bead_final_has_resolution",
                condition=Q(status__in=sorted(FINAL)) & ~Q(resolution="")
                | ~Q(status__in=sorted(FINAL)) & Q(resolution=""),
            ),
            models.CheckConstraint(
                name="bead_merged_has_sha", condition=~Q(resolution=Resolution.MERGED) | ~Q(merge_sha="")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.title}"

    @property
    def unreleased(self) -> bool:
        """True while what an agent has filed waits for a person: no agent is given it."""
        return bool(self.filed_by) and self.released_at is None


class Dependency(models.Model):
    """`bead` waits until `on` is closed. (A convoy tracks by `Bead.convoy`, a child names its `parent`.)"""

    bead = models.ForeignKey(Bead, on_delete=models.CASCADE, related_name="blocked_by")
    on = models.ForeignKey(Bead, on_delete=models.CASCADE, related_name="blocks")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "dependencies"
        constraints = [
            models.UniqueConstraint(fields=["bead", "on"], name="dependency_once"),
            models.CheckConstraint(name="dependency_not_self", condition=~Q(bead=models.F("on"))),
        ]

    def __str__(self) -> str:
        return f"{self.bead_id} after {self.on_id}"


class Convoy(models.Model):
    """The convoy side of a convoy bead. `started_at` null means staged: nothing is dispatched."""

    bead = models.OneToOneField(Bead, on_delete=models.PROTECT, primary_key=True, related_name="convoy_detail")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="convoys")
    merge_mode = models.CharField(max_length=30)
    started_at = models.DateTimeField(null=True, blank=True)
    close_requested_at = models.DateTimeField(null=True, blank=True)
    landed_sha = models.CharField(max_length=64, blank=True)
    landed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.bead_id} convoy"


class ConvoyBranch(models.Model):
    """The feature branch of a `review-then-land` convoy in one rig.

    `base_sha` is where it was cut; `head_sha` what the remote held when it was looked at, and `observed_at` the
    `asked_at` of the request which that look answered.
    """

    convoy = models.ForeignKey(Convoy, on_delete=models.PROTECT, related_name="branches")
    rig = models.ForeignKey(Rig, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=200)
    base_sha = models.CharField(max_length=64, blank=True)
    head_sha = models.CharField(max_length=64, blank=True)
    observed_at = models.DateTimeField(null=True, blank=True)
    asked_at = models.DateTimeField(null=True, blank=True, help_text="when a look at the remote was asked for")
    landed_sha = models.CharField(max_length=64, blank=True)

    class Meta:
        verbose_name_plural = "convoy branches"
        constraints = [
            models.UniqueConstraint(fields=["convoy", "rig"], name="convoy_branch_once_per_rig"),
            models.UniqueConstraint(fields=["rig", "name"], name="convoy_branch_name_once"),
        ]

    def __str__(self) -> str:
        return self.name


class Escalation(models.Model):
    """The escalation side of an escalation bead: something a person should see. One open per (town, key)."""

    bead = models.OneToOneField(Bead, on_delete=models.PROTECT, primary_key=True, related_name="escalation_detail")
    town = models.ForeignKey(Town, on_delete=models.PROTECT, related_name="escalations")
    key = models.CharField(max_length=200)
    severity = models.CharField(max_length=10, default="medium")
    about = models.ForeignKey(Bead, on_delete=models.PROTECT, null=True, blank=True, related_name="escalations")
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=100, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["town", "key"], name="escalation_once_open", condition=Q(closed_at__isnull=True)
            )
        ]

    def __str__(self) -> str:
        return f"{self.bead_id} {self.severity}"


class BeadEvent(models.Model):
    """History of a bead: written in the same transaction as the change it tells of. Never updated."""

    bead = models.ForeignKey(Bead, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=40)
    from_status = models.CharField(max_length=20, blank=True)
    to_status = models.CharField(max_length=20, blank=True)
    actor = models.CharField(max_length=100)
    reason = models.TextField(blank=True)
    data = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.bead_id} {self.kind}"


class Fact(models.Model):
    """Something that happened, waiting for (or drained by) a tick. Quarantined after three failed tries."""

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="facts")
    kind = models.CharField(max_length=40)
    subject = models.CharField(max_length=100, blank=True)
    payload = models.JSONField(default=dict)
    actor = models.CharField(max_length=100, blank=True)
    dedupe_key = models.CharField(max_length=200, null=True, blank=True, unique=True)
    recorded_at = models.DateTimeField(auto_now_add=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    processed_at = models.DateTimeField(null=True, blank=True)
    quarantined_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        ordering = ("id",)
        indexes = [
            models.Index(
                fields=["town", "id"],
                name="fact_pending",
                condition=Q(processed_at__isnull=True, quarantined_at__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.pk} {self.kind} {self.subject}"


class Effects(models.QuerySet["Effect"]):
    """Effects by where they stand."""

    def pending(self) -> Self:
        """Those that are still to be done."""
        return self.filter(state=EffectState.PENDING)

    def failed(self) -> Self:
        """Those that were given up."""
        return self.filter(state=EffectState.FAILED)


class Effect(models.Model):
    """Something to be done outside the database: at least once, under a deterministic key.

    `state`: pending, done, failed (gave up: its failure was recorded as a fact).
    """

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="effects")
    kind = models.CharField(max_length=40)
    key = models.CharField(max_length=200, unique=True)
    rig = models.ForeignKey(
        Rig, on_delete=models.CASCADE, related_name="effects", null=True, blank=True, help_text="whose share it has"
    )
    payload = models.JSONField(default=dict)
    state = models.CharField(max_length=10, default=EffectState.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    failing_since = models.DateTimeField(null=True, blank=True, help_text="an outage of the remote does not count")
    next_try_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    objects = Effects.as_manager()

    class Meta:
        ordering = ("id",)
        indexes = [
            models.Index(fields=["next_try_at"], name="effect_pending", condition=Q(state=EffectState.PENDING)),
            models.Index(fields=["town", "state"], name="effect_open", condition=~Q(state=EffectState.DONE)),
            models.Index(fields=["town", "finished_at"], name="effect_ended"),
        ]
        constraints = [models.CheckConstraint(name="effect_state_legal", condition=Q(state__in=list(EffectState)))]

    def __str__(self) -> str:
        return f"{self.pk} {self.key}"


class Outage(models.Model):
    """Something outside that does not work now, for one rig or for all that have their remote on one host.

    `kind`: as in `agents.runtime.failures`. One row while it lasts; `next_look_at`: when it is tried again.
    """

    key = models.CharField(max_length=300, primary_key=True, help_text="rig:<id> or host:<host>")
    rig = models.ForeignKey(Rig, on_delete=models.CASCADE, related_name="outages", help_text="who met it last")
    kind = models.CharField(max_length=20)
    error = models.TextField()
    at_work = models.BooleanField(default=False, help_text="a look at the remote does not show it, only work does")
    failures = models.PositiveIntegerField(default=1)
    since = models.DateTimeField()
    failed_at = models.DateTimeField()
    next_look_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.key} {self.kind}"


class Heartbeat(models.Model):
    """When a part of the installation (reconciler, cluster, runner) was last seen alive."""

    name = models.CharField(max_length=60, primary_key=True)
    at = models.DateTimeField()
    detail = models.CharField(max_length=300, blank=True)

    def __str__(self) -> str:
        return self.name


class Installation(models.Model):
    """A running `up`: which home on which host works on this database."""

    home_key = models.CharField(max_length=64)  # of GASTOWN_HOME
    boot = models.CharField(max_length=64)  # of the kernel that it runs on
    host = models.CharField(max_length=255)
    home = models.TextField()
    since = models.DateTimeField()
    at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["home_key", "boot"], name="one_row_for_a_running_up")]

    def __str__(self) -> str:
        return f"{self.host}: {self.home}"


class TownRole(StrEnum):
    """What a person may do in one town. Each may do what the one before it may."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    OPERATOR = "operator"


class Membership(models.Model):
    """A person's role in a town. Without one, a person sees nothing of it; superusers need none."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=[(r.value, r.value) for r in TownRole])
    notices = models.JSONField(default=list, blank=True, help_text="kinds of notices the person wants by mail")
    granted_by = models.CharField(max_length=150, blank=True)
    granted_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "town"], name="one_role_per_person_and_town"),
            models.CheckConstraint(name="town_role_legal", condition=Q(role__in=[r.value for r in TownRole])),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.town}"


class ConfigVersion(models.Model):
    """One change of a town's config, or (`rig` set) of a rig's: who, when, why, from what, to what. Never updated."""

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="config_versions")
    rig = models.ForeignKey(Rig, on_delete=models.CASCADE, related_name="config_versions", null=True, blank=True)
    number = models.PositiveIntegerField(help_text="1 is the first change of this town or rig")
    who = models.CharField(max_length=150)
    why = models.TextField(blank=True)
    old = models.JSONField(default=dict)
    new = models.JSONField(default=dict)
    text = models.TextField(blank=True, help_text="the TOML as it was written, with its comments")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=["rig", "number"], name="config_version_of_rig_once"),
            models.UniqueConstraint(
                fields=["town", "number"], name="config_version_of_town_once", condition=Q(rig__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rig or self.town} config {self.number}"


class Secret(models.Model):
    """A secret of a town, sealed with a key that is in no database: see `beads.secrets`. Its value is never shown."""

    town = models.ForeignKey(Town, on_delete=models.CASCADE, related_name="secrets")
    name = models.CharField(max_length=100)
    ciphertext = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ("name",)
        constraints = [models.UniqueConstraint(fields=["town", "name"], name="secret_name_once")]

    def __str__(self) -> str:
        return self.name
