"""What all consoles share: rows that nobody can change, only of one's own towns, and actions that go through doors.

An action asks for a reason before it opens its door for each chosen row; who did it and why stands in the fact or in
the bead's history, and in Django's log of the console. Nothing else writes from here.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db import transaction
from django.db.models import JSONField, Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import ModelAdmin, TabularInline
from unfold.widgets import UnfoldAdminTextareaWidget

from beads import people
from beads.actors import Actor
from beads.errors import Forbidden, GastownError
from beads.forms import WayBack
from beads.models import Town, TownRole

Door = Callable[..., object]  # (row, *, by: Actor, reason: str)
if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[Any]
    _Inline = admin.TabularInline[Any, Any]
else:
    _Admin, _Inline = ModelAdmin, TabularInline


def who(request: HttpRequest) -> Actor:
    """The actor that a console's facts name."""
    return Actor("admin", request.user.get_username())


class ReadOnlyAdmin(_Admin):
    """No adding, changing or deleting: the console cannot invent a second write path.

    `town_path` is the lookup from a row to its town; rows of towns in which the user is no operator are not there.
    Empty: the row belongs to the installation, and every operator may look at it.
    """

    town_path = "town"
    list_per_page = 50
    show_full_result_count = False
    list_fullwidth = True
    change_form_outer_before_template = "console/subject.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """The rows of the user's towns."""
        rows: QuerySet[Any] = super().get_queryset(request)
        if not self.town_path or (request.user.is_active and getattr(request.user, "is_superuser", False)):
            return rows
        return rows.filter(**{f"{self.town_path}__in": people.towns(request.user, TownRole.OPERATOR)})

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Every column, also those that no form would offer; JSON as text, for unfold colours it by inline style."""
        hidden = set(self.exclude or ())
        columns = [f for f in self.model._meta.concrete_fields if f.name not in hidden]
        shown = [_as_text(f) if isinstance(f, JSONField) else f.name for f in columns]
        return [*self.readonly_fields, *shown]

    def town_of(self, row: Any) -> Town | None:
        """The town of a row; None when it belongs to the installation."""
        if not self.town_path:
            return None
        for part in [] if self.town_path == "pk" else self.town_path.split("__"):
            row = getattr(row, part)
        assert isinstance(row, Town)
        return row

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: rows are looked at."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may enter the console; `get_queryset` decides what is there."""
        return people.enters_console(request.user)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whoever may enter the console."""
        return self.has_view_permission(request)

    def subject_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What stands above a row's fields: what can be done, where to go; consoles add to it."""
        acts = [offered(action) for action in self.actions or () if offered(action).when(row)]
        links = []
        if self.page_of(row):
            links = [{"url": self.page_of(row), "text": "Open its page"}]
        return {"acts": acts, "links": links}

    def page_of(self, row: Any) -> str:
        """The people's page of a row, or nothing."""
        return ""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A row, with what can be done about it."""
        row = self.get_object(request, unquote(object_id))
        context = {}
        if row is not None:
            context = self.subject_context(request, row)
        meta = self.model._meta
        context["act_at"] = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})


def _as_text(field: JSONField[Any, Any]) -> Any:
    """A display of a JSON field; the same object each time, for Django compares fields."""
    return _shown(field.name, str(field.verbose_name))


@functools.cache
def _shown(name: str, words: str) -> Any:
    @admin.display(description=words)
    def _indented(row: Any) -> str:
        text = json.dumps(getattr(row, name), indent=2, sort_keys=True, ensure_ascii=False, default=str)
        return format_html('<pre class="gt-json" tabindex="0">{}</pre>', text)

    return _indented


class ReadOnlyInline(_Inline):
    """Rows of another table, to look at."""

    extra = 0
    max_num = 0
    can_delete = False
    show_change_link = True
    per_page = 50
    ordering = ("-pk",)
    related: tuple[str, ...] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """With the `related` rows that its columns name."""
        rows: QuerySet[Any] = super().get_queryset(request)
        if self.related:
            return rows.select_related(*self.related)
        return rows

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may enter the console."""
        return people.enters_console(request.user)


# -- actions --------------------------------------------------------------------------------------------------------


class ReasonForm(forms.Form):
    """Why an operator does it."""

    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "autofocus": True}),
        help_text="Kept with your name in the history of what it is done to.",
        error_messages={"required": "Say why: it is kept in the history."},
    )

    def clean_reason(self) -> str:
        """No control characters but line breaks."""
        reason: str = self.cleaned_data["reason"]
        if any(ord(c) < 32 and c not in "\r\n\t" for c in reason):
            raise forms.ValidationError("The reason contains control characters.")
        return reason


@dataclass(frozen=True)
class Offered:
    """An action as a button: its name, its words, what it warns of, and the rows for which it makes sense."""

    name: str
    description: str
    warning: str
    when: Callable[[Any], bool]


def offered(action: Any) -> Offered:
    """The button of an action that `door_action` made."""
    found = action.offered
    assert isinstance(found, Offered)
    return found


def door_action(
    name: str, description: str, door: Door, *, warning: str = "", when: Callable[[Any], bool] = lambda row: True
) -> Any:
    """An admin action: asks for a reason, then opens `door(row, by=…, reason=…)` for each chosen row.

    What a door refuses is said. `when` only hides the button where it would be refused; the door decides.
    """

    def action(console: Any, request: HttpRequest, rows: QuerySet[Model]) -> HttpResponse | None:
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if not form.is_valid():
            return _ask(console, request, rows, form, action)
        done = 0
        for row in rows:
            try:
                with transaction.atomic():
                    _check(console, request, row)
                    door(row, by=who(request), reason=form.cleaned_data["reason"])
                    console.log_change(request, row, f"{description}: {form.cleaned_data['reason']}")
            except GastownError as error:
                messages.error(request, f"{row}: {error.message}")
            else:
                done += 1
        if done:
            messages.success(request, f"{description}: recorded for {done}")
        back = WayBack(request).url
        if back:
            return HttpResponseRedirect(back)
        return None

    action.__name__ = name
    made: Any = admin.action(description=description)(action)
    made.offered = Offered(name, description, warning, when)
    return made


def _check(console: ReadOnlyAdmin, request: HttpRequest, row: Any) -> None:
    """The rows on offer are those of the user's towns already; a door is asked again all the same."""
    town = console.town_of(row)
    if town is not None and not people.may(request.user, town, TownRole.OPERATOR):
        raise Forbidden(f"you are no operator of town {town.slug}")


def _ask(console: Any, request: HttpRequest, rows: QuerySet[Model], form: ReasonForm, action: Any) -> TemplateResponse:
    context = {
        **console.admin_site.each_context(request),
        "title": offered(action).description,
        "opts": console.model._meta,
        "act": offered(action),
        "rows": rows[:100],
        "total": rows.count(),
        "form": form,
        "next": WayBack(request).url,
        "select_across": request.POST.get("select_across", "0"),
    }
    status = 200
    if form.is_bound:
        status = 400
    return TemplateResponse(request, "console/reason.html", context, status=status)
