"""The way in: the login page, the lock-out, and the first password, which is chosen by a link that works once."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.tokens import default_token_generator
from django.contrib.auth.views import LoginView, PasswordResetConfirmView
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse, reverse_lazy
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from gastown_site import home, lockout

log = structlog.get_logger(__name__)
FIRST = "admin"  # the account of a fresh installation


class Login(LoginView):
    """Django's login; without any account it explains the first run instead of asking in vain."""

    def post(self, request: HttpRequest, *args: str, **kwargs: Any) -> HttpResponse:
        """One guess of an address at a time; see `gastown_site.lockout`."""
        with lockout.in_turn(request):
            return super().post(request, *args, **kwargs)

    def get_template_names(self) -> list[str]:
        """The first-run page while nobody could log in."""
        users: type[Model] = get_user_model()
        if not users._default_manager.exists():
            return ["registration/first_run.html"]
        return super().get_template_names()

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """The title for either page."""
        return {**super().get_context_data(**kwargs), "title": "Log in"}


class FirstPassword(PasswordResetConfirmView):
    """Where a one-time link leads: choose a password, and be logged in.

    The link is signed, ends after `PASSWORD_RESET_TIMEOUT`, and with the first login or password, whichever comes
    first. Its token goes into the session at once, and out of the address. Nothing of the page is kept or told on.
    """

    template_name = "registration/first_password.html"
    post_reset_login = True
    post_reset_login_backend = "django.contrib.auth.backends.ModelBackend"
    success_url = reverse_lazy("towns")
    reset_url_token = "chosen"  # noqa: S105 - the word in the address in the token's place

    def dispatch(self, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """403 for a link that is no more, or never was."""
        answer = super().dispatch(*args, **kwargs)
        if not self.validlink and answer.status_code == 200:
            answer.status_code = 403
        answer["Cache-Control"] = "no-store"
        answer["Referrer-Policy"] = "no-referrer"
        return answer

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """The title, and the command for who has lost the way."""
        return {**super().get_context_data(**kwargs), "title": "Choose your password"}


def first_link(user: Any) -> str:
    """A link by which this person chooses a password, once."""
    where = {"uidb64": urlsafe_base64_encode(force_bytes(user.pk)), "token": default_token_generator.make_token(user)}
    return f"{settings.GASTOWN_URL}{reverse('first-password', kwargs=where)}"


def password_file() -> Path:
    """Where a fresh installation's first password lies until it is used."""
    return home.path() / "admin_password"


def first_account() -> list[str]:
    """Make the account `admin` when there is no user at all; what to tell whoever starts, while nobody has used it."""
    users = get_user_model()._default_manager
    file = password_file()
    if not users.exists():
        password = secrets.token_urlsafe(12)
        made: Any = users.create_superuser(FIRST, "", password)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(password + "\n")
    else:
        made = users.filter(username=FIRST, last_login=None, is_active=True).first()
    if made is None or not file.exists():
        return []
    hours = settings.PASSWORD_RESET_TIMEOUT // 3600
    return [
        f"first start: choose the password of {FIRST} here, once, within {hours} hours: {first_link(made)}",
        f"(or log in as {FIRST} with the password in {file}, which is removed at the first login)",
    ]


def forget_first_password(user: Any) -> None:
    """The first account has been used, or has another password: the file with the first one goes."""
    if user.get_username() != FIRST:
        return
    try:
        password_file().unlink(missing_ok=True)
    except OSError as error:
        log.warning("first_password.kept", file=str(password_file()), error=str(error))


def check_first_password(user: Any) -> None:
    """An account was written, perhaps with another password: then the file is right no more."""
    if user.get_username() != FIRST:
        return
    with contextlib.suppress(OSError):
        if not user.check_password(password_file().read_text().strip()):
            forget_first_password(user)
