"""How the API says no: problem documents of RFC 9457, for every failure there is.

The rule that must not be broken: a problem quotes no address and no secret, and a surprise tells nothing but that it
was one. What is logged of it is its type and place.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web
from pydantic import ValidationError

from gateway.console.documents import FieldError, Problem

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"


class Refused(Exception):
    """A request that is not carried out: why, which fields are to blame, and what the answer's headers say."""

    def __init__(
        self,
        status: int,
        detail: str = "",
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = headers


def answer(refused: Refused) -> web.Response:
    """Return the problem document of a refusal."""
    title = HTTPStatus(refused.status).phrase
    problem = Problem(title=title, status=refused.status, detail=refused.detail, errors=refused.errors)
    body = problem.model_dump_json(exclude_defaults=False)
    return web.Response(text=body, status=refused.status, headers=refused.headers, content_type=MEDIA_TYPE)


def of_fields(errors: Iterable[tuple[str, str]]) -> Refused:
    """Return the refusal of a document whose fields are missing or wrong, naming each."""
    return Refused(422, "fields are missing or wrong", [FieldError(field=field, detail=why) for field, why in errors])


def of_form(error: ValidationError) -> Refused:
    """Return the refusal of a document that is not of its type; what it holds is not quoted."""
    return of_fields(
        (".".join(map(str, one["loc"])) or "(document)", _sentence(one["type"], one["msg"])) for one in error.errors()
    )


def _sentence(kind: str, message: str) -> str:
    told = {"missing": "is missing", "extra_forbidden": "is unknown"}
    return told.get(kind, message.removeprefix("Value error, "))


def report(error: BaseException) -> None:
    """Log a surprise by type and place."""
    log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
