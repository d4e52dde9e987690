"""The admin's site: who enters, what stands in its navigation, its dashboard, and *find by id*.

Operators of any town enter; every row they find is of a town of theirs (see `beads.consoles`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from unfold.sites import UnfoldAdminSite

from agents.models import Run
from beads import people
from beads.models import Bead, Effect, Fact, TownRole
from gastown_site import dashboard
from refinery.models import ReviewEntry

if TYPE_CHECKING:
    _Site = admin.AdminSite
else:
    _Site = UnfoldAdminSite

BEAD_PAGES = {
    "issue": "admin:beads_bead_change",
    "merge_request": "admin:refinery_reviewentry_change",
    "convoy": "admin:beads_convoy_change",
    "escalation": "admin:beads_escalation_change",
}


class ConsoleSite(_Site):
    """The ops console."""

    index_template = "console/index.html"
    enable_nav_sidebar = True

    def has_permission(self, request: HttpRequest) -> bool:
        """Operators of a town, staff and superusers."""
        return people.enters_console(request.user)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """There is one way in: the site's login. Who is in and may not enter is told so, and not asked again."""
        if self.has_permission(request):
            return HttpResponseRedirect(reverse("admin:index"))
        if request.user.is_authenticated:
            raise PermissionDenied("You are operator of no town.")
        wanted = request.GET.get("next", "")
        return redirect_to_login(wanted or reverse("admin:index"), reverse("login"))

    def get_urls(self) -> list[Any]:
        """Adds *find*."""
        return [path("find/", self.admin_view(self.find), name="find"), *super().get_urls()]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The dashboard."""
        most = dashboard.LIMIT
        if request.GET.get("all"):
            most = 0
        answer = super().index(request, {**dashboard.look(request.user, most), **(extra_context or {})})
        assert isinstance(answer, TemplateResponse)
        return answer

    def find(self, request: HttpRequest) -> HttpResponse:
        """To the page of whatever has this id, number or commit; back with a word when there is nothing."""
        wanted = request.GET.get("q", "").strip()
        where = page_of(request.user, wanted) if wanted else None
        if where is None:
            messages.warning(request, f"Nothing of your towns has the id, number or commit {wanted[:100]!r}.")
            where = reverse("admin:index")
        return HttpResponseRedirect(where)


def page_of(user: Any, wanted: str) -> str | None:
    """The console page of a bead, entry, convoy, escalation, run, commit, `fact N` or `effect N`; else None."""
    towns = people.towns(user, TownRole.OPERATOR)
    if "\x00" in wanted:
        return None
    bead = Bead.objects.filter(pk=wanted, town__in=towns).first()
    if bead is not None:
        return reverse(BEAD_PAGES.get(bead.type, "admin:beads_bead_change"), args=[bead.pk])
    if Run.objects.filter(pk=wanted, town__in=towns).exists():
        return reverse("admin:agents_run_change", args=[wanted])
    kind, _, number = wanted.lower().partition(" ")
    if number.isdigit() and len(number) < 19 and kind in ("fact", "effect"):
        rows: Any = (Fact if kind == "fact" else Effect).objects.filter(pk=int(number), town__in=towns)
        if rows.exists():
            return reverse(f"admin:beads_{kind}_change", args=[number])
        return None
    if len(wanted) >= 7:
        mine = ReviewEntry.objects.filter(rig__town__in=towns).order_by("-created_at")
        for field in ("head_sha", "merge_sha", "branch"):
            entry = mine.filter(**{f"{field}__startswith": wanted}).first()
            if entry is not None:
                return reverse("admin:refinery_reviewentry_change", args=[entry.pk])
    return None
