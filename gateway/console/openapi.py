"""openapi.json: the same table that the routes are made of, as an OpenAPI 3.1 document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.console.access import SCOPES
from gateway.console.api import PREFIX, Route
from gateway.console.documents import MOST_ON_A_PAGE, Problem
from gateway.console.problems import MEDIA_TYPE

_IN: Final = "validation"
_OUT: Final = "serialization"
_REF: Final = "#/components/schemas/{model}"
_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "cursor": {"schema": {"type": "string"}, "description": "The `next` of the page before; left out for the first."},
    "limit": {
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_ON_A_PAGE, "default": 100},
        "description": "How many at most.",
    },
}
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[!-~]([ -~]*[!-~])?$"},
    "description": "The same key with the same body has one effect, within a week; with another body it is 422.",
}


_ID: Final = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Return the description of all operations."""
    routes = list(routes)
    given: list[type[BaseModel]] = [Problem, *(route.gives for route in routes)]
    taken: list[type[BaseModel]] = [route.takes for route in routes if route.takes]
    _, definitions = models_json_schema(
        [*((one, _OUT) for one in dict.fromkeys(given)), *((one, _IN) for one in dict.fromkeys(taken))],
        ref_template=_REF,
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Assent", "version": version, "description": "Consent, suppressions and decisions."},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _scopes()}},
        },
        "security": [{"token": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.work.__name__,
        "summary": route.summary,
        "description": f"Needs the scope `{route.scope}`.",
        "parameters": _parameters(route),
        "responses": {
            str(route.status): {"description": "Done.", "content": _content("application/json", route.gives)},
            **{
                status: {"description": why, "content": _content(MEDIA_TYPE, Problem)}
                for status, why in _failures(route)
            },
        },
    }
    if route.takes:
        operation["requestBody"] = {"required": True, "content": _content("application/json", route.takes)}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [_ID] if "{id}" in route.path else []
    in_query = [{"name": one, "in": "query", **_PARAMETERS[one]} for one in route.parameters]
    return [*in_path, *in_query, *([_KEY] if route.takes and route.status == 201 else [])]


def _failures(route: Route) -> list[tuple[str, str]]:
    always = [("401", "No valid token."), ("403", "The token has not the scope."), ("503", "Try again later.")]
    if route.takes:
        always += [("400", "Not JSON."), ("413", "Too large."), ("415", "Not application/json.")]
    return [*always, ("404", "There is no such thing."), ("422", "Fields are missing or wrong; each is named.")]


def _content(media_type: str, model: type[BaseModel]) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _scopes() -> str:
    return "; ".join(f"`{name}`: {what}" for name, what in SCOPES.items())
