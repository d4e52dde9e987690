"""OpenAPI: each tool and each shim door as a path of its own, from the models that check the bodies."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from pydantic import BaseModel

from agents.api import tools, views

_CODES = {
    "200": "done",
    "400": "invalid: which field, and why",
    "401": "unauthenticated",
    "403": "forbidden for this role, or another run's token",
    "404": "not found",
    "409": "run superseded, or conflict",
    "413": "too large",
    "415": "not JSON",
    "429": "too many calls",
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "the same key again gets the first answer again",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
}
_RUN = {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 32}}


class RunTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The run's token as a bearer scheme."""

    target_class = "agents.api.auth.RunTokenAuthentication"
    name = "runToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """HTTP bearer."""
        return {"type": "http", "scheme": "bearer"}


def add_tools(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Post-processing hook: add a path for each tool and for each of the shim's doors."""
    paths = result["paths"]
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Answer"] = {
        "type": "object",
        "required": ["ok"],
        "properties": {
            "ok": {"type": "boolean"},
            "data": {"type": "object"},
            "error": {
                "type": "object",
                "required": ["code", "message", "details"],
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "details": {"type": "object"},
                },
            },
        },
    }
    for name, found in sorted(tools.REGISTRY.items()):
        operation = _operation(schemas, name, found.doc, found.args, sorted(found.roles))
        paths[f"/api/tools/{name}"] = {"post": {**operation, "parameters": [_KEY]}}
    for verb, (doc, body) in views.SHIM_DOORS.items():
        operation = _operation(schemas, f"run_{verb}", doc, body, ["shim"])
        paths[f"/api/runs/{{run_id}}/{verb}"] = {"post": {**operation, "parameters": [_RUN]}}
    return result


def _operation(schemas: dict[str, Any], name: str, doc: str, body: type[BaseModel], tags: list[str]) -> dict[str, Any]:
    """One POST of a JSON object; its schema goes among the components."""
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    for key, part in schema.pop("$defs", {}).items():
        schemas[key] = part
    schemas[f"{name}_arguments"] = schema
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}
    return {
        "operationId": name,
        "description": doc,
        "tags": tags,
        "requestBody": {
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}_arguments"}}},
            "required": False,
        },
        "security": [{"runToken": []}],
        "responses": {code: {"description": text, "content": answer} for code, text in _CODES.items()},
    }
