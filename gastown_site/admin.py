"""Accounts in the console, for superusers. Roles in towns are granted by `manage.py person`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from beads.consoles import ReadOnlyAdmin

if TYPE_CHECKING:
    _UserAdmin = UserAdmin[User]
else:

    class _UserAdmin(UserAdmin, ModelAdmin):
        """Django's, in unfold's clothes."""


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
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Account", {"fields": ("is_active", "is_superuser", "last_login", "date_joined")}),
    )
