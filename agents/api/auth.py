"""Bearer token → live run. A token speaks for exactly one run, and only while that run is live."""

from __future__ import annotations

from dataclasses import dataclass

from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from agents import tokens
from agents.api.headers import bearer_of
from agents.models import Run
from beads.errors import Superseded


@dataclass(frozen=True)
class RunPrincipal:
    """The caller that a run's token stands for."""

    run: Run
    is_authenticated: bool = True
    is_active: bool = True
    is_staff: bool = False


def bearer(request: Request) -> str | None:
    """The bearer token of a request, or None."""
    return bearer_of(get_authorization_header(request))


class RunTokenAuthentication(BaseAuthentication):
    """401 for an unknown token; `run_superseded` (409) for that of an ended run."""

    def authenticate(self, request: Request) -> tuple[RunPrincipal, Run] | None:
        """The run's principal; None leaves it to the next authentication class."""
        token = bearer(request)
        if token is None:
            return None
        run = tokens.live_run(token)
        if run is not None:
            return RunPrincipal(run), run
        if tokens.fenced_run(token) is not None:
            raise Superseded("this run has ended: its calls change nothing")
        raise AuthenticationFailed("unknown token")

    def authenticate_header(self, request: Request) -> str:
        """Makes a missing token a 401, not a 403."""
        return "Bearer"
