"""What the API takes and gives, as types: the checks of every request and the schemas of openapi.json come from here.

The rule that must not be broken: what is not described is refused, and each refusal names its field (RFC 9457 §3).
What a request may mean beyond its form is not judged here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from gateway.address import Address
from gateway.config.names import COUNTRY
from gateway.errors import Malformed

MOST_ADDRESSES = 1000
"""Of one request."""

MOST_ON_A_PAGE = 1000


def _parsed(text: str) -> str:
    try:
        Address.parse(text)
    except Malformed as error:
        raise ValueError(str(error)) from error
    return text


def _of_one(text: str) -> str:
    if Address.parse(_parsed(text)).is_whole_domain:
        raise ValueError("stands for a whole domain, and is nobody's address")
    return text


def _in_utc(moment: datetime) -> datetime:
    """The ledger's times are UTC's, and so are the days on which permissions lapse."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is no time in UTC") from error


def _product(text: str) -> str:
    """Products are named in a header, where case is lost."""
    if not (name := text.strip().lower()):
        raise ValueError("names nothing")
    return name


def _country(text: str) -> str:
    """A code that no country has would put the person under nobody's rules."""
    return str(COUNTRY.read(text, Path())) if text else ""


Country = Annotated[str, AfterValidator(_country), Field(json_schema_extra={"pattern": "^([A-Z]{2})?$"})]
Mailbox = Annotated[
    str,
    AfterValidator(_of_one),
    Field(
        description="A mail address.",
        examples=["reader@example.org"],
        max_length=320,
        json_schema_extra={"format": "email"},
    ),
]
Covering = Annotated[
    str,
    AfterValidator(_parsed),
    Field(
        description="A mail address, or *@ and a domain for every address of it.",
        examples=["reader@example.org", "*@example.org"],
        max_length=320,
    ),
]
Moment = Annotated[
    AwareDatetime,
    AfterValidator(_in_utc),
    Field(description="A time with its zone (RFC 3339).", examples=["2026-11-22T10:00:00Z"]),
]
Slug = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$", examples=["product-announcements"])
]
Line = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
Nameless = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f@]*$")]
"""A line that stays on record for ever, and so holds nobody's address."""

Product = Annotated[Line, AfterValidator(_product), Field(min_length=1)]
Language = Annotated[str, Field(pattern=r"^([A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3})?$", examples=["de"])]
Scope = Literal["topic", "partner", "all-marketing", "address"]
Basis = Literal["express", "confirmed", "sale", "inquiry", "soft-opt-in", "policy-accepted", "corporate"]
Method = Literal["", "web-form", "app", "paper", "phone", "in-person", "email", "point-of-sale", "published"]
Why = Literal["unsubscribed", "objected", "complained", "bounced", "minor"]


class Document(BaseModel):
    """A JSON object of ours."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Problem(BaseModel):
    """What went wrong (RFC 9457), of media type application/problem+json."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    errors: list[FieldError] = []


class FieldError(BaseModel):
    """One field that is missing or wrong."""

    field: str
    detail: str


class ConsentRequest(Document):
    """What a person said when asked. All that is not said comes from the registered notice."""

    address: Mailbox
    notice: Annotated[Line, Field(min_length=1, description="The registered notice that the person met.")]
    at: Moment
    topics: Annotated[list[Slug], Field(max_length=50, description="The notice's own unless told.")] = []
    basis: Basis = "express"
    answer: Annotated[Literal["yes", "no"], Field(description='"no": the person was asked, and refused.')] = "yes"
    control_state: Annotated[Literal["", "unticked", "ticked"], Field(description="Before the person met it.")] = ""
    method: Annotated[Method, Field(description="How it was collected, if not as the notice says.")] = ""
    with_terms: Annotated[bool, Field(description="The same control accepted the terms.")] = False
    controllers: Annotated[list[Line], Field(max_length=20, description="Who may rely on it, each by name.")] = []
    family: Annotated[Line, Field(description="The product family of a sale.")] = ""
    free: Annotated[bool, Field(description="The sale was an account that cost nothing.")] = False
    country: Annotated[Country, Field(description="Declared by the person, ISO 3166-1.")] = ""
    seen_in: Annotated[
        Country, Field(description="Where the person's IP address is, as you have found: it can only add rules.")
    ] = ""
    language: Annotated[Language, Field(description="What the person reads (BCP 47), if not the notice's.")] = ""
    page: Annotated[Line, Field(description="Where the question stood, if not where the notice says.")] = ""
    ip: Line = ""
    user_agent: Line = ""


class WithdrawalRequest(Document):
    """A person's "no", by whatever way it came."""

    address: Mailbox
    scope: Scope = "all-marketing"
    topic: Annotated[Slug | None, Field(description='With the scope "topic", and only with it.')] = None
    reason: Why = "unsubscribed"
    at: Moment | None = None
    channel: Annotated[Nameless, Field(description="How it came: phone, letter, another system.")] = "api"
    words: Annotated[Line, Field(description="What the person said, word for word.")] = ""


class SuppressionRequest(WithdrawalRequest):
    """A "no" of one person, or of whoever speaks for a domain."""

    address: Covering


class LiftRequest(Document):
    """An operator's decision that a suppression should not stand."""

    address: Covering
    scope: Scope
    topic: Slug | None = None
    why: Annotated[Nameless, Field(min_length=1, description="For ever; names nobody.")]


class CustomerRequest(Document):
    """What a person owns from now on, and what no more."""

    address: Mailbox
    products: Annotated[list[Product], Field(max_length=100)] = []
    ended: Annotated[list[Product], Field(max_length=100)] = []


class CheckRequest(Document):
    """Whom a message on a topic, or of a stream, would reach now."""

    topic: Slug | None = None
    stream: Slug | None = None
    product: Annotated[Line, Field(description="What mail of a product stream would be about.")] = ""
    policy_version: Annotated[Line, Field(description="What mail of a stream of policy notices would be about.")] = ""
    addresses: Annotated[list[Mailbox], Field(min_length=1, max_length=MOST_ADDRESSES)]


class LookupRequest(Document):
    """Whom to look up."""

    address: Mailbox


class Recorded(Document):
    """The events of the ledger that say it; none where it waits in this machine's journal."""

    events: list[int]


class Checked(Document):
    """The verdict for one address."""

    address: str
    action: Annotated[str, Field(json_schema_extra={"enum": ["send", "refuse", "defer"]})]
    reason: str | None
    sentence: str
    rules: str
    evidence: list[int]
    related: Annotated[
        list[str], Field(description="Suppressed addresses that are the same mailbox by its provider's rules.")
    ]


class Verdicts(Document):
    """A verdict for each address, in the order of the request."""

    verdicts: list[Checked]
    paused: Annotated[bool, Field(description="The stream takes no mail until an operator releases it.")] = False


class Permitted(Document):
    """What may allow promotional mail."""

    event: int
    basis: str
    topic: str
    at: datetime
    family: str
    controller: str


class Suppressed(Document):
    """A standing "do not send"; the address is null once it has been erased."""

    person: str
    address: str | None
    event: int
    scope: str
    topic: str
    reason: str
    at: datetime
    released: list[str]
    entry: Annotated[str, Field(description="The other address, or *@ and the domain, that it was said of.")]


class Entry(Document):
    """One event of the ledger; `personal` is null once it has been erased."""

    seq: int
    type: str
    person: str
    at: datetime
    recorded_at: datetime
    topic: str
    scope: Scope | None
    facts: dict[str, Any]
    personal: dict[str, Any] | None


class Person(Document):
    """Everything that stands for a person, and how it came about."""

    address: str
    person: str | None
    permissions: list[Permitted]
    suppressions: list[Suppressed]
    countries: list[str]
    products: list[str]
    related: Annotated[
        list[str],
        Field(
            description="The person's other addresses, where objections follow, and suppressed ones that are the same "
            "mailbox by its provider's rules."
        ),
    ]
    do_not_ask: Annotated[
        dict[str, datetime],
        Field(description="Topics that the person refused when asked, and until when."),
    ]
    history: list[Entry]


class SuppressionPage(Document):
    """Suppressions by person; `next` is the cursor of the page that follows, null at the end."""

    suppressions: list[Suppressed]
    next: str | None


class EventPage(Document):
    """Events in the order in which they were recorded; `next` may be asked for again later."""

    events: list[Entry]
    next: str


class Decision(Document):
    """The lines of one decision: at the door, and of each attempt to relay."""

    lines: list[dict[str, Any]]
