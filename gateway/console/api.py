"""The API for programs: one table of routes, from which the application and openapi.json are both made.

The rules that must not be broken: an answer of 201 is given after the store has committed; a "no" is taken even while
the people store is away; and an address stands in bodies only, never in a URL or a log. Who may call is for `access`,
what a request looks like for `documents`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway.address import Address
from gateway.classify import Unsaid, purposes_asked
from gateway.config import Config
from gateway.consent import Event, EventType, NewEvent, Standing
from gateway.console import problems
from gateway.console.access import holder_of, veiled
from gateway.console.documents import (
    MOST_ON_A_PAGE,
    Checked,
    CheckRequest,
    ConsentRequest,
    CustomerRequest,
    Decision,
    Document,
    Entry,
    EventPage,
    LiftRequest,
    LookupRequest,
    Permitted,
    Person,
    Recorded,
    Suppressed,
    SuppressionPage,
    SuppressionRequest,
    Verdicts,
    WithdrawalRequest,
)
from gateway.console.problems import Refused
from gateway.errors import KeyReused, StoreUnavailable
from gateway.evidence import Claim, events_of, not_to_be_asked, problems_of, wrong_with_time
from gateway.ids import ulid_milliseconds
from gateway.metrics import Metrics
from gateway.model import MessageClass, Purpose, Scope
from gateway.policy import refused_by_all, strictest
from gateway.store import ApiToken, Facts, Now, Once, Store

PREFIX: Final = "/api/v1"
BODY_LIMIT: Final = 1024 * 1024
RETRY_AFTER: Final = {"Retry-After": "30"}
_KEY_LIMIT = 255
_NUMBER = re.compile(r"[0-9]{1,18}")
_PERSON = re.compile(r"(?:[0-9a-f]{32})?")
"""The cursor of a page of people: the last one's id, or nobody's."""


NOTED_WITHIN: Final = timedelta(seconds=2)
"""A refusal is written down with the next commit; whoever asks sooner waits for it."""

_SUPPRESSING: Final = {
    "unsubscribed": EventType.UNSUBSCRIBE,
    "objected": EventType.OBJECTION,
    "complained": EventType.COMPLAINT,
    "bounced": EventType.HARD_BOUNCE,
    "minor": EventType.MINOR_FLAG,
}

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that may be made: by whom, what it brings, and under which key it is carried out only once."""

    request: web.Request
    caller: ApiToken
    document: Any
    once: Once | None


Work = Callable[[Call], Awaitable[BaseModel]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: what it needs (a scope), takes (None for a GET) and gives; `status` is that of success."""

    method: str
    path: str
    scope: str
    takes: type[Document] | None
    gives: type[BaseModel]
    status: int
    work: Work
    parameters: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        return (self.work.__doc__ or "").splitlines()[0]


class Api:
    """The operations, over one store."""

    def __init__(
        self,
        config: Config,
        store: Store,
        decision_lines: Callable[[str], Sequence[bytes]],
        metrics: Metrics,
        now: Now,
    ) -> None:
        self._config = config
        self._store = store
        self._decision_lines = decision_lines
        self._metrics = metrics
        self._now = now

    def routes(self) -> tuple[Route, ...]:
        """Return every operation."""
        return (
            Route("POST", "/consents", "record", ConsentRequest, Recorded, 201, self.record_consent),
            Route("POST", "/withdrawals", "record", WithdrawalRequest, Recorded, 201, self.withdraw),
            Route("POST", "/customers", "record", CustomerRequest, Recorded, 201, self.record_customer),
            Route("POST", "/check", "read", CheckRequest, Verdicts, 200, self.check),
            Route("POST", "/people/lookup", "read", LookupRequest, Person, 200, self.look_up),
            Route(
                "GET", "/suppressions", "read", None, SuppressionPage, 200, self.list_suppressions, ("cursor", "limit")
            ),
            Route("POST", "/suppressions", "record", SuppressionRequest, Recorded, 201, self.suppress),
            Route("POST", "/suppressions/remove", "lift", LiftRequest, Recorded, 201, self.lift),
            Route("GET", "/decisions/{id}", "read", None, Decision, 200, self.explain),
            Route("GET", "/events", "read", None, EventPage, 200, self.list_events, ("cursor", "limit")),
        )

    async def answer(self, request: web.Request, route: Route) -> BaseModel:
        """Carry a request out, once; raises `Refused` for whoever may not, and for what cannot be done."""
        caller = await self._caller(request, route)
        if unknown := [one for one in request.query if one not in route.parameters]:
            raise problems.of_fields([(one, "is unknown") for one in unknown])
        if route.takes is None:
            return await route.work(Call(request, caller, None, None))
        body = await _body(request)
        once = _once(request, caller, body)
        done = await self._done(once) if once else None
        if done is not None:
            return Recorded(events=done)
        return await route.work(Call(request, caller, _document(route.takes, body), once))

    async def _caller(self, request: web.Request, route: Route) -> ApiToken:
        caller = holder_of(request.headers.get("Authorization", ""), await self._store.people.api_tokens(), self._now())
        if caller is None:
            headers = {"WWW-Authenticate": 'Bearer realm="Assent"'}
            raise Refused(401, "bring a valid token; an operator makes one with assent tokens add", headers=headers)
        if route.scope not in caller.scopes:
            headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{route.scope}"'}
            raise Refused(403, f"the token has not the scope {route.scope}", headers=headers)
        return caller

    async def _done(self, once: Once) -> list[int] | None:
        try:
            return await self._store.people.done(once)
        except KeyReused:
            raise Refused(422, "the Idempotency-Key has come with another request before") from None

    # what programs tell

    async def record_consent(self, call: Call) -> Recorded:
        """Record what a person said when asked for consent."""
        said: ConsentRequest = call.document
        notices = {one.name: one for one in await self._store.people.notices()}
        notice = notices.get(said.notice)
        if notice is None:
            raise problems.of_fields([("notice", "no such notice is registered")])
        places = (await self._facts(said.address)).standing.places
        claim = Claim(
            *(Address.parse(said.address), said.at, tuple(said.topics) or (notice.topic,), said.basis),
            refused=said.answer == "no",
            control_state=said.control_state,
            with_terms=said.with_terms,
            method=said.method,
            controllers=tuple(said.controllers),
            own_name=self._config.company.name,
            families=(said.family,) if said.family else (),
            free=said.free,
            country=said.country,
            seen_in=said.seen_in,
            must_state=self._config.law.request_states(places, said.country, said.seen_in),
            facts={**_source(call), **notice.facts, **_given(language=said.language)},
            personal=_given(page=said.page, ip=said.ip, user_agent=said.user_agent),
        )
        if wrong := problems_of(claim, self._config.topics, notice, self._now()):
            raise problems.of_fields(wrong)
        return await self._record(call, events_of(claim, self._config.topics))

    async def withdraw(self, call: Call) -> Recorded:
        """Record a person's "no"; it counts from now on, for mail that is queued too."""
        said: WithdrawalRequest = call.document
        scope = self._extent(said.scope, said.topic)
        if said.at and (wrong := wrong_with_time(said.at, self._now())):
            raise problems.of_fields([("at", wrong)])
        personal = {"address": said.address, **_given(words=said.words)}
        facts = {**_source(call), "channel": said.channel}
        at = min(said.at or self._now(), self._now())
        kind, person = _SUPPRESSING[said.reason], Address.parse(said.address)
        event = NewEvent(kind, person, at, said.topic or "", scope, facts, personal)
        try:
            recorded = await self._record(call, [event])
        except StoreUnavailable:
            await self._store.people.opt_out([event])
            recorded = Recorded(events=[])
        self._metrics.unsubscribed()
        return recorded

    async def suppress(self, call: Call) -> Recorded:
        """Add a suppression: the same as a withdrawal, and taken for a whole domain too."""
        said: SuppressionRequest = call.document
        if said.reason == "minor" and Address.parse(said.address).is_whole_domain:
            raise problems.of_fields([("reason", "a minor is one person, and no domain")])
        return await self.withdraw(call)

    async def lift(self, call: Call) -> Recorded:
        """Lift a suppression that should not stand; the ledger keeps both, and the reason."""
        said: LiftRequest = call.document
        scope = self._extent(said.scope, said.topic)
        facts = await self._facts(said.address)
        standing = [one for one in facts.standing.suppressions if (one.scope, one.topic) == (scope, said.topic or "")]
        if all(one.entry for one in standing):
            entry = standing[0].entry if standing else ""
            raise Refused(404, f"it is said by {entry}; lift that one" if entry else "there is no such suppression")
        told = {**_source(call), "why": said.why}
        kind = EventType.SUPPRESSION_LIFTED
        return await self._record(call, [NewEvent(kind, facts.person, self._now(), said.topic or "", scope, told)])

    async def record_customer(self, call: Call) -> Recorded:
        """Record what a person owns, and what no more; mail about a product goes to its owners only."""
        said: CustomerRequest = call.document
        person, now = Address.parse(said.address), self._now()
        events = [
            NewEvent(kind, person, now, facts={**_source(call), "product": name}, personal=_of(person))
            for kind, names in ((EventType.PRODUCT_OWNED, said.products), (EventType.PRODUCT_ENDED, said.ended))
            for name in names
        ]
        if not events:
            raise problems.of_fields([("products", "name what is owned, or what has ended")])
        return await self._record(call, events)

    # what programs ask

    async def check(self, call: Call) -> Verdicts:
        """Say whom a message on a topic, or of a stream, would reach now, and why not the others."""
        asked: CheckRequest = call.document
        purposes, now = self._purposes(asked), self._now()
        orders = self._store.people.orders()
        law = self._config.law.under(orders.policies)
        known = await self._store.people.facts([Address.parse(one) for one in asked.addresses])
        found = []
        for address, facts in zip(asked.addresses, known, strict=True):
            verdict = refused_by_all(purposes, facts.standing, law, now)
            verdict = verdict or strictest(purposes, facts.standing, law, now)
            reason = str(verdict.reason) if verdict.reason else None
            found.append(
                Checked(
                    address=address,
                    action=verdict.action.value,
                    reason=reason,
                    sentence=verdict.sentence,
                    rules=verdict.rules,
                    evidence=list(verdict.evidence),
                    related=await self._same_mailbox(Address.parse(address)),
                )
            )
        return Verdicts(verdicts=found, paused=asked.stream is not None and orders.is_paused(asked.stream))

    async def look_up(self, call: Call) -> Person:
        """Return everything that stands for a person, with the history that led to it."""
        asked: LookupRequest = call.document
        facts = await self._facts(asked.address)
        history = await self._store.people.history(facts.address_id) if facts.address_id else []
        standing = facts.standing
        others = [await self._store.people.address_of(bytes.fromhex(one)) for one in standing.links]
        same_mailbox = await self._same_mailbox(Address.parse(asked.address))
        return Person(
            address=asked.address,
            person=facts.address_id.hex() if facts.address_id else None,
            permissions=[
                Permitted(
                    event=one.event,
                    basis=one.basis,
                    topic=one.topic,
                    at=one.at,
                    family=one.family,
                    controller=one.controller,
                )
                for one in standing.permissions
            ],
            suppressions=_suppressions(facts.who, asked.address, standing),
            countries=sorted({one.country for one in standing.places}),
            products=list(standing.products),
            related=sorted({one.text for one in others if one} | set(same_mailbox)),
            do_not_ask=not_to_be_asked(history, self._config.ask_again),
            history=[_entry(one) for one in history],
        )

    async def list_suppressions(self, call: Call) -> SuppressionPage:
        """List suppressions, a page of people at a time."""
        cursor, limit = call.request.query.get("cursor", ""), _limit(call.request)
        if not _PERSON.fullmatch(cursor):
            raise problems.of_fields([("cursor", "is not one of ours")])
        people = await self._store.people.suppressed_after(bytes.fromhex(cursor), limit)
        found = [
            one
            for person, address, standing in people
            for one in _suppressions(person.hex(), address.text if address else None, standing)
        ]
        return SuppressionPage(suppressions=found, next=people[-1][0].hex() if len(people) == limit else None)

    async def list_events(self, call: Call) -> EventPage:
        """List the events of the ledger in the order in which they were recorded, a page at a time."""
        cursor, limit = call.request.query.get("cursor", "0"), _limit(call.request)
        if not _NUMBER.fullmatch(cursor):
            raise problems.of_fields([("cursor", "is not one of ours")])
        events = await self._store.people.events_after(int(cursor), limit)
        return EventPage(events=[_entry(one) for one in events], next=str(events[-1].seq if events else int(cursor)))

    async def explain(self, call: Call) -> Decision:
        """Return the lines of a decision, whose id a refusal names."""
        decision = call.request.match_info["id"]
        try:
            made = datetime.fromtimestamp(ulid_milliseconds(decision) / 1000, UTC)
        except (ValueError, OverflowError):
            raise Refused(404, "there is no such decision") from None
        while not (lines := await asyncio.to_thread(self._decision_lines, decision)):
            if not timedelta(0) <= self._now() - made <= NOTED_WITHIN:
                raise Refused(404, "there is no such decision")
            await asyncio.sleep(0.1)
        return Decision(lines=[json.loads(one) for one in lines])

    # common to several

    async def _record(self, call: Call, events: Sequence[NewEvent]) -> Recorded:
        if call.once is None:
            return Recorded(events=[one.seq for one in await self._store.people.record(events)])
        try:
            return Recorded(events=await self._store.people.record_once(call.once, events))
        except KeyReused:
            raise Refused(422, "the Idempotency-Key has come with another request before") from None

    async def _same_mailbox(self, address: Address) -> list[str]:
        return [other.text for _, other, _ in await self._store.people.related(address)]

    async def _facts(self, address: str) -> Facts:
        (facts,) = await self._store.people.facts([Address.parse(address)])
        return facts

    def _extent(self, scope: str, topic: str | None) -> Scope:
        if (scope == Scope.TOPIC) != (topic is not None):
            raise problems.of_fields([("topic", 'goes with the scope "topic", and only with it')])
        if topic is not None and topic not in self._config.topics:
            raise problems.of_fields([("topic", "there is no such topic")])
        return Scope(scope)

    def _purposes(self, asked: CheckRequest) -> Sequence[Purpose]:
        """Return what the message would be sent for: promotion on a topic, or whatever its stream is for."""
        topics, streams = self._config.topics, self._config.streams
        if asked.stream is None and asked.topic is None:
            raise problems.of_fields([("topic", "name a topic, or a stream")])
        if asked.topic is not None and asked.topic not in topics:
            raise problems.of_fields([("topic", "there is no such topic")])
        if asked.stream is None:
            return [Purpose(MessageClass.PROMOTIONAL, topics[asked.topic or ""])]
        if asked.stream not in streams:
            raise problems.of_fields([("stream", "there is no such stream")])
        purposes = purposes_asked(
            streams[asked.stream],
            topics,
            [one.version for one in self._store.people.orders().policies],
            topic=asked.topic or "",
            product=asked.product,
            policy_version=asked.policy_version,
        )
        if isinstance(purposes, Unsaid):
            raise problems.of_fields([purposes])
        return purposes


async def _body(request: web.Request) -> bytes:
    if request.content_type != "application/json":
        raise Refused(415, "the body must be application/json")
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Refused(415, "the body must not be compressed")
    if (request.content_length or 0) > BODY_LIMIT:
        raise Refused(413, f"the body may have {BODY_LIMIT} octets")
    try:
        return await request.read()
    except (web.RequestPayloadError, ConnectionError):
        raise Refused(400, "the body has not come whole") from None


def _document(kind: type[D], body: bytes) -> D:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise Refused(400, "the body is not JSON in UTF-8") from None
        raise problems.of_form(error) from None


def _once(request: web.Request, caller: ApiToken, body: bytes) -> Once | None:
    """Return what makes a request come only once: its key, and all that must be the same when it comes again.

    Either may hold an address, or be guessed from one, so that neither is kept as it is.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 0 < len(key) <= _KEY_LIMIT or not key.isprintable() or not key.isascii():
        raise Refused(400, f"an Idempotency-Key has 1 to {_KEY_LIMIT} printable characters")
    veil = partial(veiled, request.headers.get("Authorization", ""))
    return Once(caller.name, veil(key.encode()).hex(), veil(request.path.encode() + b"\n" + body))


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", "100")
    if not _NUMBER.fullmatch(text) or not 0 < int(text) <= MOST_ON_A_PAGE:
        raise problems.of_fields([("limit", f"is not a number from 1 to {MOST_ON_A_PAGE}")])
    return int(text)


def _source(call: Call) -> dict[str, Any]:
    return {"channel": "api", "token": call.caller.name}


def _given(**fields: str) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


def _of(person: Address) -> dict[str, str]:
    return {"address": person.text}


def _suppressions(person: str, address: str | None, standing: Standing) -> list[Suppressed]:
    return [
        Suppressed(
            person=person,
            address=address,
            event=one.event,
            scope=one.scope.value,
            topic=one.topic,
            reason=str(one.reason),
            at=one.at,
            released=list(one.released),
            entry=one.entry,
        )
        for one in standing.suppressions
    ]


def _entry(event: Event) -> Entry:
    return Entry(
        seq=event.seq,
        type=event.type,
        person=event.address_id.hex(),
        at=event.at,
        recorded_at=event.recorded_at,
        topic=event.topic,
        scope=event.scope.value if event.scope else None,
        facts=dict(event.facts),
        personal=None if event.personal is None else dict(event.personal),
    )
