"""The only writer of Membership, and the one place that answers *may this person do that in this town?*

Roles are ordered: viewer, reviewer (approve, request changes, merge, reject, retry an entry), operator (everything,
and the console). Superusers may all; whoever has no role in a town sees nothing of it. The checks come in two tastes:
questions (`may`, `towns`) and guards for doors (`see`, `act`, `act_in`), which raise what Django answers with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.utils.functional import SimpleLazyObject

from beads.errors import Conflict, Invalid, NotFound
from beads.models import Membership, Town, TownRole

_ORDER = (TownRole.VIEWER, TownRole.REVIEWER, TownRole.OPERATOR)
_CACHE = "_gastown_roles"


def _roles(user: Any) -> dict[int, TownRole]:
    """A person's roles by town, read once for each user object, which lives as long as a request."""
    if not getattr(user, "is_authenticated", False) or user.pk is None:
        return {}
    known: dict[int, TownRole] | None = getattr(user, _CACHE, None)
    if known is None:
        rows = Membership.objects.filter(user_id=user.pk).values_list("town_id", "role")
        known = {town: TownRole(role) for town, role in rows}
        setattr(user, _CACHE, known)
    return known


def _is_root(user: Any) -> bool:
    return bool(getattr(user, "is_active", False) and getattr(user, "is_superuser", False))


def _reaches(held: TownRole | None, wanted: TownRole) -> bool:
    return held is not None and _ORDER.index(held) >= _ORDER.index(wanted)


# -- questions ------------------------------------------------------------------------------------------------------


def may(user: Any, town: Town | int, role: TownRole = TownRole.VIEWER) -> bool:
    """True when `user` has at least `role` in `town` (a town or its primary key)."""
    if _is_root(user):
        return True
    key = town
    if isinstance(key, Town):
        key = key.pk
    return bool(getattr(user, "is_active", False)) and _reaches(_roles(user).get(key), role)


def may_anywhere(user: Any, role: TownRole = TownRole.VIEWER) -> bool:
    """True when `user` has at least `role` in some town."""
    if _is_root(user):
        return True
    return bool(getattr(user, "is_active", False)) and any(_reaches(r, role) for r in _roles(user).values())


def towns(user: Any, role: TownRole = TownRole.VIEWER) -> QuerySet[Town]:
    """The towns in which `user` has at least `role`, by slug."""
    found = Town.objects.order_by("slug")
    if _is_root(user):
        return found
    if not getattr(user, "is_active", False):
        return found.none()
    return found.filter(pk__in=[town for town, held in _roles(user).items() if _reaches(held, role)])


def enters_console(user: Any) -> bool:
    """True for superusers, staff, and operators of any town. What they find there is their towns' rows only."""
    if not getattr(user, "is_active", False):
        return False
    return bool(_is_root(user) or getattr(user, "is_staff", False) or may_anywhere(user, TownRole.OPERATOR))


def for_templates(request: HttpRequest) -> dict[str, Any]:
    """Context processor: `enters_console`, asked only when a template uses it."""
    return {"enters_console": SimpleLazyObject(lambda: enters_console(getattr(request, "user", None)))}


# -- guards for doors -----------------------------------------------------------------------------------------------


def see(user: Any, town: Town) -> None:
    """Guard of a page: raises Http404 for whoever has no role in the town, so that nothing tells that it exists."""
    if not may(user, town):
        raise Http404(f"no town {town.slug}")


def act(user: Any, role: TownRole) -> None:
    """First guard of an acting door, before anything is looked up: raises PermissionDenied for who may so nowhere."""
    if not may_anywhere(user, role):
        raise PermissionDenied


def act_in(user: Any, town: Town, role: TownRole) -> None:
    """Second guard of an acting door: Http404 for who does not see the town, PermissionDenied for a lesser role."""
    see(user, town)
    if not may(user, town, role):
        raise PermissionDenied


# -- the writer -----------------------------------------------------------------------------------------------------


def role_named(name: str) -> TownRole:
    """The role of that name; raises Invalid naming the field."""
    try:
        return TownRole(name)
    except ValueError:
        raise Invalid(f"role {name!r} is not one of {', '.join(TownRole)}", field="role") from None


def create(name: str, password: str, *, superuser: bool = False) -> Any:
    """Make an account. Raises Invalid for a bad name or a weak password, Conflict when the name is taken."""
    model = get_user_model()
    user = model(username=name, is_staff=superuser, is_superuser=superuser)
    try:
        user.full_clean(exclude=["password"], validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        raise Invalid(f"name {name!r}: {' '.join(error.messages)}", field="name") from None
    _check_password(password, user)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise Conflict(f"there is a person {name} already", details={"field": "name"}) from None
    return user


def set_password(user: Any, password: str) -> None:
    """Give a person a new password, which ends their sessions; raises Invalid for a weak one."""
    _check_password(password, user)
    user.set_password(password)
    user.save(update_fields=["password"])


def _check_password(password: str, user: Any) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid(f"password: {' '.join(error.messages)}", field="password") from None


def person(name: str) -> Any:
    """An account by name; raises NotFound."""
    found = get_user_model().objects.filter(username=name).first()
    if found is None:
        raise NotFound(f"no person {name}", details={"field": "name"})
    return found


def grant(user: Any, town: Town, role: TownRole, by: str) -> Membership:
    """Give a person a role in a town, in place of the one they had."""
    made, _ = Membership.objects.update_or_create(
        user=user, town=town, defaults={"role": role.value, "granted_by": by[:150]}
    )
    _forget(user)
    return made


NOTICES = {"needs_you": "something needs a person", "landed": "a convoy has landed", "failed": "something failed"}


def set_notices(user: Any, town: Town, kinds: Iterable[str]) -> None:
    """Choose what a person hears of a town by mail. Raises Invalid for an unknown kind, Conflict without a role."""
    wanted = list(dict.fromkeys(kinds))
    for kind in wanted:
        if kind not in NOTICES:
            raise Invalid(f"notice {kind!r} is not one of {', '.join(NOTICES)}", field="kind")
    if not Membership.objects.filter(user=user, town=town).update(notices=wanted):
        raise Conflict(f"{user.get_username()} has no role in town {town.slug}")


def listeners(town: Town, kind: str) -> list[str]:
    """The mail addresses of those who want to hear of this."""
    found = Membership.objects.filter(town=town, notices__contains=[kind], user__is_active=True).exclude(user__email="")
    return sorted(set(found.values_list("user__email", flat=True)))


def set_mail(user: Any, address: str) -> None:
    """Set a person's mail address; raises Invalid."""
    try:
        validate_email(address)
    except ValidationError:
        raise Invalid(f"mail {address!r} is not a mail address", field="mail") from None
    user.email = address
    user.save(update_fields=["email"])


def revoke(user: Any, town: Town) -> None:
    """Take a person's role in a town away; raises Conflict when there is none."""
    count, _ = Membership.objects.filter(user=user, town=town).delete()
    _forget(user)
    if not count:
        raise Conflict(f"{user.get_username()} has no role in town {town.slug}")


def _forget(user: Any) -> None:
    if hasattr(user, _CACHE):
        delattr(user, _CACHE)
