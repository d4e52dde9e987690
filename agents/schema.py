"""OpenAPI: each tool as a path of its own, from the registry's JSON Schemas."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension

from agents import tools


class RunTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The run's token as a bearer scheme."""

    target_class = "agents.auth.RunTokenAuthentication"
    name = "runToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """HTTP bearer."""
        return {"type": "http", "scheme": "bearer"}


def add_tools(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Post-processing hook: replace the generic tool path by one path for each tool."""
    paths = result["paths"]
    paths.pop("/api/tools/{name}", None)
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Answer"] = {
        "type": "object",
        "required": ["ok"],
        "properties": {
            "ok": {"type": "boolean"},
            "data": {"type": "object"},
            "error": {
                "type": "object",
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "details": {"type": "object"},
                },
            },
        },
    }
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}
    codes = {
        "200": "done",
        "400": "invalid: which field, and why",
        "401": "unauthenticated",
        "403": "forbidden for this role",
        "404": "not found",
        "409": "run superseded, or conflict",
        "413": "too large",
        "429": "too many calls",
    }
    for name, found in sorted(tools.REGISTRY.items()):
        schema = found.args.model_json_schema(ref_template="#/components/schemas/{model}")
        for key, part in schema.pop("$defs", {}).items():
            schemas[key] = part
        schemas[f"{name}_arguments"] = schema
        body = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}_arguments"}}}
        paths[f"/api/tools/{name}"] = {
            "post": {
                "operationId": name,
                "description": found.doc,
                "tags": sorted(found.roles),
                "requestBody": {"content": body, "required": False},
                "security": [{"runToken": []}],
                "responses": {code: {"description": text, "content": answer} for code, text in codes.items()},
            }
        }
    return result
