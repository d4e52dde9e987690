"""The config of a town or rig, edited as TOML in the console: validated, shown as a diff, saved with who and why.

Two steps: *Show what changes* refuses what is wrong, naming the key, and shows the diff; *Save this* goes through
`towns.set_config`, which refuses when somebody else has saved meanwhile.
"""

from __future__ import annotations

import difflib
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from beads import config as configs
from beads import ledger, lists, people, secrets
from beads.consoles import ReadOnlyAdmin, who
from beads.errors import GastownError, Invalid
from beads.forms import Fields, Refusal
from beads.models import ConfigVersion, Rig, Town, TownRole
from refinery.decisions import towns

MAX_TEXT = 256 * 1024
_BASE = "not the number of a version"


def config_text(owner: Town | Rig) -> str:
    """An owner's overrides as TOML: as they were last written, comments and all, or else made from what is stored."""
    latest = ledger.latest_config(owner)
    if latest is not None and latest.text and latest.new == owner.config:
        return latest.text
    return configs.to_toml(owner.config)


def effective_text(owner: Town | Rig) -> str:
    """The whole config that holds for an owner, as TOML."""
    if isinstance(owner, Rig):
        config = configs.effective(owner.town.config, owner.config)
    else:
        config = configs.effective(owner.config, {})
    return configs.to_toml(config.model_dump(mode="json"))


def diff_of(old: str, new: str) -> list[tuple[str, str]]:
    """The change from one text to another, as (kind, line); kinds: add, del, hunk, same. Empty: nothing changes."""
    kinds = {"+": "add", "-": "del", "@": "hunk"}
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=3))[2:]
    return [(kinds.get(line[:1], "same"), line) for line in lines]


class ConfigForm(Fields):
    """One step of the editor. `base`: the number of the version that the text was made from."""

    text = forms.Field(required=False)  # whatever it holds: what TOML makes of it is told with the key
    base = forms.RegexField(r"^[0-9]{1,9}\Z", error_messages={"required": _BASE, "invalid": _BASE})
    reason = forms.CharField(required=False)
    step = forms.ChoiceField(choices=[(step, step) for step in ("diff", "save", "edit")])

    @property
    def shown(self) -> dict[str, Any]:
        """What was typed, to be shown again."""
        return {name: str(self.data.get(name, "")).replace("\r\n", "\n") for name in ("text", "base", "reason")}

    def clean_text(self) -> str:
        """With line ends of one kind."""
        text = str(self.shown["text"])
        if len(text) > MAX_TEXT:
            raise Refusal(Invalid(f"config: longer than {MAX_TEXT} characters", field="config"))
        return text

    def clean_reason(self) -> str:
        """What stays in the history: the editor's text may be gone back to without one."""
        try:
            needed = self.data.get("step") != "edit"
            return ledger.check_text("reason", self.cleaned_data["reason"], 500, required=needed)
        except Invalid as error:
            raise Refusal(error) from None


class ConfigEditor(ReadOnlyAdmin):
    """Adds the page `<row>/config/` to a console of towns or rigs."""

    def get_urls(self) -> list[URLPattern]:
        """The editor's route, before those of the rows."""
        page = self.admin_site.admin_view(self.config_view)
        return [path("<path:object_id>/config/", page, name=self._editor()), *super().get_urls()]

    def _editor(self) -> str:
        return f"{self.model._meta.app_label}_{self.model._meta.model_name}_config"

    def subject_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Adds the way to the editor."""
        context = super().subject_context(request, row)
        link = {"url": reverse(f"admin:{self._editor()}", args=[row.pk]), "text": "Edit its config"}
        return {**context, "links": [*context["links"], link]}

    def config_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show, check, show the diff, save."""
        owner = self.get_object(request, unquote(object_id))
        if owner is None:
            raise Http404
        town = self.town_of(owner)
        if town is None or not people.may(request.user, town, TownRole.OPERATOR):
            raise PermissionDenied
        latest = ledger.latest_config(owner)
        shown: dict[str, Any] = {
            "text": config_text(owner),
            "base": str(latest.number if latest else 0),
            "reason": "",
            "error": "",
            "diff": [],
        }
        if request.method == "POST":
            form = ConfigForm(request.POST)
            shown.update(form.shown)
            try:
                done = self._post(request, owner, form.values(), shown)
            except GastownError as error:
                shown.update(error=error.message, diff=[])
            else:
                if done is not None:
                    return done
        return self._page(request, owner, shown)

    def _post(
        self, request: HttpRequest, owner: Any, typed: dict[str, Any], shown: dict[str, Any]
    ) -> HttpResponse | None:
        """One step of the form: puts the diff into `shown`, or saves and returns the way back."""
        if typed["step"] == "edit":
            return None
        text, reason = typed.get("text", ""), typed["reason"]
        root = bool(getattr(request.user, "is_superuser", False))
        overrides = towns.check_config(owner, text, by_owner=root)
        before = config_text(owner)
        shown["diff"] = diff_of(before, text)
        if not shown["diff"] and overrides == owner.config:
            raise Invalid("Nothing changes: the text is what is saved already.", field="config")
        if typed["step"] != "save":
            return None
        made = towns.set_config(
            owner, by=who(request), text=text, reason=reason, expect=int(typed["base"]), by_owner=root
        )
        self.log_change(request, owner, f"Config version {made.number}: {reason}")
        messages.success(request, f"{owner}: config version {made.number} is saved")
        owner.refresh_from_db()
        for note in secrets.notes(owner):
            messages.warning(request, note)
        return HttpResponseRedirect(reverse(f"admin:{self._editor()}", args=[owner.pk]))

    def _page(self, request: HttpRequest, owner: Any, shown: dict[str, Any]) -> TemplateResponse:
        meta = self.model._meta
        if isinstance(owner, Rig):
            versions = ConfigVersion.objects.filter(rig=owner)
        else:
            versions = ConfigVersion.objects.filter(town=owner, rig=None)
        try:
            effective = effective_text(owner)
        except GastownError as error:
            effective = error.message
        context = {
            **self.admin_site.each_context(request),
            **shown,
            "title": f"Config of {meta.verbose_name} {owner}",
            "heading": "What changes" if shown["diff"] else f"{meta.verbose_name.title()} {owner}",
            "opts": meta,
            "versions": lists.first(versions, 0 if request.GET.get("all") else 50),
            "effective": effective,
            "effective_of": f"town {owner.town} with rig {owner}" if isinstance(owner, Rig) else "",
            "back": reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[owner.pk]),
        }
        return TemplateResponse(request, "console/config.html", context, status=400 if shown["error"] else 200)
