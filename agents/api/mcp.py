"""`/mcp`: the same tools by the Model Context Protocol (streamable HTTP), for agents without a shell.

Stateless: each request shows its run's token, and any web process answers it. A call is the very same as one over
HTTP: `calls.carry_out`. The protocol itself is the package `mcp`'s, which takes a second to import and some memory:
it is loaded when the first request comes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import OperationalError, close_old_connections, connection

from agents import tokens
from agents.api import calls, tools
from agents.api.headers import KEY, bearer_of
from agents.models import Run
from beads.errors import Invalid

if TYPE_CHECKING:
    from mcp import types
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from starlette.types import Receive, Scope, Send

NOBODY = "this token opens nothing here: it is unknown, or its run has ended"
_RUN = "gastown.run"  # where a request's run is kept


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """One request, as ASGI has it."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    if scope["method"] != "POST":
        await _refuse(send, 405, "method_not_allowed", "only POST is spoken here", {"allow": "POST"})
        return
    async with ThreadSensitiveContext():  # a thread of its own for what waits for the database, as Django has it
        try:
            run = await sync_to_async(_entering)(headers.get("authorization", ""))
        except OperationalError as error:
            told = calls.refusal(error)
            await _refuse(send, told.http, told.code, told.message)
            return
        if run is None:
            await _refuse(send, 401, "unauthenticated", NOBODY, {"www-authenticate": "Bearer"})
            return
        await (await asyncio.to_thread(_serving))({**scope, _RUN: run}, receive, send)


def _let_go() -> None:
    """Give this thread's connection to the database back, as Django does before and after a request."""
    if not connection.in_atomic_block:
        close_old_connections()


def _entering(authorization: str) -> Run | None:
    """The live run whose token is shown."""
    _let_go()
    try:
        token = bearer_of(authorization.encode())
        return tokens.live_run(token) if token else None
    finally:
        _let_go()


async def _refuse(send: Send, status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None) -> None:
    error = {"code": code, "message": sentence, "details": {}}
    body = json.dumps({"ok": False, "error": error}).encode()
    told = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    pairs = [(name.encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


@cache
def _serving() -> Any:
    """Serves requests whose run is known."""
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings

    server = _server()
    open_to_all_hosts = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # a token is shown each time

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        """A manager lives as long as its request: nothing is to be kept, and no process need start or stop one."""
        manager = StreamableHTTPSessionManager(
            server,
            json_response=True,
            stateless=True,
            security_settings=open_to_all_hosts,
            max_request_body_size=calls.MAX_BODY,
        )
        async with manager.run():
            await manager.handle_request(scope, receive, send)

    return serve


def _server() -> Server[Any]:
    from mcp.server.lowlevel import Server

    return Server(
        "gastown",
        version="1",
        instructions="How you talk to Gastown. Call gt_prime first: it tells what you are to do.",
        on_list_tools=_list,
        on_call_tool=_call,
    )


def _run_of(context: ServerRequestContext[Any, Any]) -> Run:
    run: Run = context.request.scope[_RUN]  # type: ignore[union-attr]
    return run


async def _list(context: ServerRequestContext[Any, Any], params: object) -> types.ListToolsResult:
    """The tools of the run's role."""
    from mcp import types

    role = _run_of(context).kind
    mine = [one for _, one in sorted(tools.REGISTRY.items()) if role in one.roles]
    return types.ListToolsResult(
        tools=[
            types.Tool(
                name=one.name,
                description=one.doc,
                input_schema=one.args.model_json_schema(),
                annotations=types.ToolAnnotations(read_only_hint=one.reads, open_world_hint=False),
            )
            for one in mine
        ]
    )


async def _call(context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams) -> types.CallToolResult:
    """Run a tool. What is refused is an answer, too: one sentence, which the agent reads."""
    from mcp import types

    key = context.request.headers.get("idempotency-key")  # type: ignore[union-attr]
    data, sentence = await sync_to_async(_carried_out)(_run_of(context), params.name, params.arguments or {}, key)
    text = sentence or json.dumps(data, ensure_ascii=False)
    content: list[Any] = [types.TextContent(type="text", text=text)]
    return types.CallToolResult(content=content, structured_content=data, is_error=bool(sentence))


def _carried_out(run: Run, name: str, arguments: object, key: str | None) -> tuple[dict[str, Any], str]:
    """A call's data; or its error, with the sentence that says it."""
    _let_go()
    try:
        if key is not None and not KEY.fullmatch(key):
            raise Invalid("Idempotency-Key: 1 to 200 visible ASCII characters", field="Idempotency-Key")
        return calls.carry_out(run, name, arguments, key)[1], ""
    except Exception as error:
        told = calls.refusal(error)
        return {"error": {"code": told.code, "message": told.message, "details": dict(told.details)}}, told.message
    finally:
        _let_go()
