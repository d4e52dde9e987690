"""The HTTP doors of agents and shims: parse, one call, reply. One envelope for everything, errors included."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Annotated, Any, Literal, cast

from django.core.exceptions import RequestDataTooBig
from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from rest_framework import exceptions
from rest_framework.parsers import JSONParser
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from agents import mail, reports, runs, tokens, usage, work
from agents.api import calls, tools
from agents.api.auth import RunPrincipal, RunTokenAuthentication, bearer
from agents.api.headers import KEY
from agents.models import Run
from agents.presets import PRESETS
from agents.runtime import transcript
from agents.runtime.crashpoints import crashpoint
from beads import inbox
from beads.budget import Spent
from beads.errors import Forbidden, Invalid


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Every error → the envelope."""
    told = calls.refusal(error)
    error_data = {"code": told.code, "message": told.message, "details": dict(told.details)}
    answer = Response({"ok": False, "error": error_data}, told.http)
    if header := getattr(error, "auth_header", None):
        answer["WWW-Authenticate"] = header
    return answer


class StrictJSONParser(JSONParser):
    """JSON as RFC 8259 has it: UTF-8, no NaN, and nothing that is nested too deep to be read."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The body's value. Raises Invalid for what is no JSON."""
        try:
            return json.loads(stream.read().decode("utf-8"), parse_constant=_no_number)
        except RecursionError:
            raise Invalid("the body is nested too deep", field="body") from None
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ones
            raise Invalid(f"the body is not JSON: {error}"[:300], field="body") from None


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


class IsRun(BasePermission):
    """Only a run's token."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """True for a run."""
        return isinstance(request.user, RunPrincipal)


class Door(APIView):
    """Base: refuses large bodies before they are read."""

    parser_classes = [StrictJSONParser]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the length, then authenticate and authorise."""
        try:
            length = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = 0
        super().initial(request, *args, **kwargs)
        if length > calls.MAX_BODY:
            raise RequestDataTooBig
        if (
            request.method == "POST"
            and request.META.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked"
            and not length
        ):
            raise Invalid("send a Content-Length", field="Content-Length")


class ToolView(Door):
    """POST /api/tools/<name>"""

    schema = None  # agents.api.schema tells of each tool
    authentication_classes = [RunTokenAuthentication]
    permission_classes = [IsRun]

    def post(self, request: Request, name: str) -> Response:
        """Run one tool for the token's run."""
        run = cast(Run, request.auth)
        key = request.headers.get("Idempotency-Key")
        if key is not None and not KEY.fullmatch(key):
            raise Invalid("Idempotency-Key: 1 to 200 visible ASCII characters", field="Idempotency-Key")
        body = request.data if request.META.get("CONTENT_LENGTH") not in (None, "", "0") else {}
        http, data = calls.carry_out(run, name, body, key)
        return Response({"ok": True, "data": data}, http)


class ToolsView(Door):
    """GET /api/tools"""

    permission_classes = [IsAuthenticated]

    @extend_schema(responses={200: OpenApiResponse(description="all tools with their JSON Schema")})
    def get(self, request: Request) -> Response:
        """All tools with their JSON Schema."""
        return Response({"ok": True, "data": {"tools": tools.describe()}})


class _Body(BaseModel):
    """A shim's report. What a newer shim adds is ignored; what is known must have its type."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class ClaimBody(_Body):
    """What the shim says of itself."""

    pid: int | None = None
    secrets: Annotated[int, Field(ge=1, le=2)] = 1
    host: Annotated[str, Field(max_length=300)] | None = None


class Used(_Body):
    """What a CLI's output says that the run has used of one model so far. The shim keeps to the bounds, whatever is
    said: `agents.runtime.transcript`."""

    model: Annotated[str, Field(max_length=300)] = ""
    input: Annotated[int, Field(ge=0, le=transcript.MOST_TOKENS)]
    cached: Annotated[int, Field(ge=0, le=transcript.MOST_TOKENS)]
    output: Annotated[int, Field(ge=0, le=transcript.MOST_TOKENS)]
    cost: Annotated[Decimal, Field(strict=False, ge=0, le=transcript.MOST_USD, allow_inf_nan=False)] | None = None

    def reading(self, asked: str) -> usage.Reading:
        """As it is booked. `asked`: the model that the run was started with."""
        spent = Spent(input=self.input, cached=self.cached, output=self.output)
        return usage.Reading(self.model, spent, asked, self.cost)


class _Told(_Body):
    """What a CLI's output has told so far: the name of its session, and its usage."""

    session: Annotated[str, Field(max_length=200, pattern=f"^(?:{transcript.SESSION.pattern})?$")] = ""
    usage: Annotated[list[Used], Field(max_length=transcript.MOST_MODELS)] = []


class HeartbeatBody(_Told):
    """What the shim has observed."""

    activity_at: Annotated[AwareDatetime, Field(strict=False)] | None = None
    active_tool: Annotated[str, Field(max_length=100)] | None = None


_Number = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class HowItEnded(_Body):
    """How one step's process ended. `limit`: which one it had reached, in words."""

    exit_code: _Number | None = None
    signal: _Number | None = None
    timed_out: bool = False
    limit: Annotated[str, Field(max_length=200)] = ""


class Report(_Body):
    """A JUnit report of a gate: base64 of zlib of its XML."""

    path: Annotated[str, Field(max_length=500)]
    data: Annotated[str, Field(max_length=512 * 1024)]


class Try(_Body):
    """One attempt at a step. `note`: which reports were left out, and why."""

    outcome_raw: HowItEnded
    duration_ms: Annotated[int, Field(ge=0, lt=2**31)] = 0
    reports: Annotated[list[Report], Field(max_length=200)] = []
    note: Annotated[str, Field(max_length=1000)] = ""


class StepResult(_Body):
    """What came of one step. `words`: an agent's last ones, from its transcript."""

    name: Annotated[str, Field(max_length=200)]
    outcome_raw: HowItEnded
    duration_ms: Annotated[int, Field(ge=0, lt=2**31)] = 0
    output: Annotated[str, Field(max_length=64 * 1024)] = ""
    words: Annotated[str, Field(max_length=2000)] = ""
    attempts: Annotated[int, Field(ge=0, lt=2**31)] = 1
    tries: Annotated[list[Try], Field(max_length=11)] = []


_Sha = Annotated[str, Field(max_length=64, pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})?$")]


class ExitBody(_Told):
    """How the command ended, and what it left: `work` as in `agents.work`, `branches` beside its head."""

    exit_code: _Number | None = None
    signal: _Number | None = None
    head_sha: _Sha | None = None
    salvage_ref: Annotated[str, Field(max_length=200)] | None = None
    published: bool = False
    work: Literal["new", "nothing", "uncommitted", "refused", "unsaved"] | None = None
    work_text: Annotated[str, Field(max_length=4000)] = ""
    branches: Annotated[dict[Annotated[str, Field(max_length=250)], _Sha], Field(max_length=50)] = {}
    error: Annotated[str, Field(max_length=4000)] | None = None
    steps: Annotated[list[StepResult], Field(max_length=50)] = []
    session_lost: bool = False


SHIM_DOORS: dict[str, tuple[str, type[BaseModel]]] = {
    "claim": ("The shim's claim, once and before the start deadline; gives the token.", ClaimBody),
    "heartbeat": ("Renew the lease; hear what is wanted.", HeartbeatBody),
    "exit": ("How the command ended. A repeat changes nothing.", ExitBody),
}


class ShimDoor(Door):
    """Base of the shim's doors. They open with the shim's own secret, which the run's command never has; a claim with
    the one that its runner was given."""

    authentication_classes = []
    permission_classes = []
    schema = None

    def secret(self, request: Request) -> str:
        """The bearer secret, or 401."""
        token = bearer(request)
        if not token:
            raise exceptions.NotAuthenticated("a bearer token is needed")
        return token

    def get_authenticate_header(self, request: Request) -> str:
        """Makes a missing or unknown token a 401, not a 403."""
        return "Bearer"

    def own(self, request: Request, run_id: str) -> Run:
        """The run whose shim's secret this is, which must be the one of the path."""
        secret = self.secret(request)
        run = tokens.shim_run(secret)
        if run is None:
            if tokens.live_run(secret) or tokens.fenced_run(secret):
                raise Forbidden("a run's token opens no door of its shim")
            raise exceptions.AuthenticationFailed("unknown token")
        if run.pk != run_id:
            raise Forbidden("this secret belongs to another run")
        return run


def _book(run: Run, body: _Told, now: dt.datetime) -> None:
    """Note what a run's CLI says that it has used."""
    step = run.preset_step
    preset = PRESETS.get(str(step.get("preset")))
    readings = [one.reading(str(step.get("model") or "")) for one in body.usage]
    same = bool(run.resumed) and run.resumed == (body.session or run.session)  # not where it was lost
    adds_up = preset is not None and preset.adds_up and same
    calls.insisted(lambda: usage.hear(run, readings, now, adds_up=adds_up))


class ClaimView(ShimDoor):
    """POST /api/runs/<id>/claim"""

    def post(self, request: Request, run_id: str) -> Response:
        """Claim the run, once, before its deadline."""
        secret = self.secret(request)
        body: ClaimBody = tools.parse(ClaimBody, request.data)
        claimed = runs.claim(run_id, secret, timezone.now(), own_secret=body.secrets > 1)
        crashpoint("door.claimed")
        run = Run.objects.get(pk=run_id)
        data = {
            "token": claimed.token,
            "secret": claimed.secret,
            "lease_until": claimed.lease_until.isoformat(),
            "lease_seconds": run.lease_seconds,
            "heartbeat_seconds": run.heartbeat_seconds,
        }
        return Response({"ok": True, "data": data})


class HeartbeatView(ShimDoor):
    """POST /api/runs/<id>/heartbeat"""

    def post(self, request: Request, run_id: str) -> Response:
        """Renew the lease; hear what is wanted."""
        run = self.own(request, run_id)
        body: HeartbeatBody = tools.parse(HeartbeatBody, request.data)
        now = timezone.now()
        run = runs.heartbeat(
            run.pk, now, activity_at=body.activity_at, active_tool=body.active_tool, session=body.session
        )
        _book(run, body, now)
        reported = bool(run.result) or inbox.kind_of(f"result:{run.pk}") is not None
        data = {
            "lease_until": run.lease_until.isoformat() if run.lease_until else None,
            "lease_seconds": run.lease_seconds,
            "finish": reported,
            "stop": run.stop_requested_at is not None,
            "nudges": mail.take_nudges(run, now),
        }
        return Response({"ok": True, "data": data})


class ExitView(ShimDoor):
    """POST /api/runs/<id>/exit"""

    def post(self, request: Request, run_id: str) -> Response:
        """Note how it ended. Also a fenced run's saved work is noted, and answered with 409."""
        run = self.own(request, run_id)
        body: ExitBody = tools.parse(ExitBody, request.data)
        told = body.model_dump(exclude={"usage"})
        _book(run, body, timezone.now())  # also of a run that has ended meanwhile: the money is spent
        reports.read_steps(told["steps"])
        settled = work.settle(run, told)
        calls.insisted(lambda: runs.record_exit(run.pk, settled, timezone.now()))
        crashpoint("door.exited")
        return Response({"ok": True, "data": {}})


class UnknownView(Door):
    """Whatever else is asked for under /api/."""

    permission_classes = [IsAuthenticated]
    schema = None

    def _missing(self, request: Request, **kwargs: Any) -> Response:
        raise Http404

    get = post = put = patch = delete = _missing
