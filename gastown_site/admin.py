"""Accounts in the console, and their roles in towns, for superusers. `gastown person` does the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from beads import people
from beads.consoles import ReadOnlyAdmin, ReasonForm, who
from beads.models import Membership, Town, TownRole

if TYPE_CHECKING:
    _UserAdmin = UserAdmin[User]
else:

    class _UserAdmin(UserAdmin, ModelAdmin):
        """Django's, in unfold's clothes."""


class RolesForm(ReasonForm):
    """A choice of role for each town, and why."""

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.towns = {f"town-{town.pk}": town for town in Town.objects.order_by("slug")}
        held = dict(Membership.objects.filter(user=user).values_list("town_id", "role"))
        choices = [("", "no role"), *((str(role), str(role)) for role in TownRole)]
        for name, town in self.towns.items():
            self.fields[name] = forms.ChoiceField(
                label=town.slug, choices=choices, required=False, initial=held.get(town.pk, "")
            )
        self.order_fields([*self.towns, "reason"])

    def carry_out(self, by: str) -> Iterator[str]:
        """Grant and revoke what differs; says each change."""
        for name, town in self.towns.items():
            old, new = self.fields[name].initial, self.cleaned_data[name]
            if new == old:
                continue
            if new:
                people.grant(self.user, town, people.role_named(new), by)
            else:
                people.revoke(self.user, town)
            yield f"town {town.slug}: {old or 'no role'} → {new or 'no role'}"


@admin.register(LogEntry)
class AuditAdmin(ReadOnlyAdmin):
    """Everything that was done from the console. Of all towns, so it is for superusers."""

    town_path = ""
    list_display = ("action_time", "user", "content_type", "object_repr", "change_message")
    list_filter = ("user", "content_type")
    list_select_related = ("user", "content_type")
    search_fields = ("user__username", "object_id", "object_repr", "change_message")
    search_help_text = "who, id, reason"
    date_hierarchy = "action_time"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Superusers."""
        return bool(request.user.is_active and getattr(request.user, "is_superuser", False))


admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class AccountAdmin(_UserAdmin):
    """Accounts: names, passwords, who is active. What one may do follows from roles in towns."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "is_active", "is_superuser", "last_login")
    list_filter = ("is_active", "is_superuser")
    filter_horizontal = ()
    change_form_outer_before_template = "console/subject.html"
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Account", {"fields": ("is_active", "is_superuser", "last_login", "date_joined")}),
    )

    def get_urls(self) -> list[Any]:
        """Adds the roles of an account."""
        page = self.admin_site.admin_view(self.roles_view)
        return [path("<path:object_id>/roles/", page, name="auth_user_roles"), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The account, with the way to its roles."""
        links = [{"url": reverse("admin:auth_user_roles", args=[object_id]), "text": "Its roles in towns"}]
        return super().change_view(request, object_id, form_url, {"links": links, **(extra_context or {})})

    def roles_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """One role in each town, with a reason."""
        user = self.get_object(request, unquote(object_id))
        if user is None:
            raise Http404
        if not self.has_change_permission(request, user):
            raise PermissionDenied
        form = RolesForm(user, request.POST or None)
        if request.method == "POST" and form.is_valid():
            with transaction.atomic():
                for told in form.carry_out(str(who(request))):
                    self.log_change(request, user, f"{told}: {form.cleaned_data['reason']}")
            messages.success(request, f"The roles of {user} are saved")
            return HttpResponseRedirect(request.path)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Roles of {user}",
            "opts": self.model._meta,
            "person": user,
            "form": form,
            "back": reverse("admin:auth_user_change", args=[user.pk]),
        }
        return TemplateResponse(request, "console/roles.html", context, status=400 if form.errors else 200)
