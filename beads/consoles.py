"""What all consoles share: rows that nobody can change, and actions that go through doors, with the actor named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from beads.errors import GastownError

Door = Callable[[Any, str], object]
if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[Any]
    _Inline = admin.TabularInline[Any, Any]
else:
    _Admin, _Inline = admin.ModelAdmin, admin.TabularInline


class ReadOnlyAdmin(_Admin):
    """No adding, changing or deleting: the console cannot invent a second write path."""

    list_per_page = 50
    show_full_result_count = False

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
        """Any operator."""
        return bool(request.user.is_active and request.user.is_staff)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Any operator."""
        return self.has_view_permission(request)


class ReadOnlyInline(_Inline):
    """Rows of another table, to look at."""

    extra = 0
    max_num = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Any operator."""
        return bool(request.user.is_active and request.user.is_staff)


def door_action(name: str, description: str, door: Door) -> Any:
    """An admin action that opens `door(row, who)` for each chosen row, and says what was refused."""

    def action(console: admin.ModelAdmin[Any], request: HttpRequest, rows: QuerySet[Model]) -> None:
        who = f"admin:{request.user.get_username()}"
        done = 0
        for row in rows:
            try:
                door(row, who)
            except GastownError as error:
                messages.error(request, f"{row}: {error.message}")
            else:
                done += 1
        if done:
            messages.success(request, f"{description}: recorded for {done}")

    action.__name__ = name
    return admin.action(description=description)(action)
