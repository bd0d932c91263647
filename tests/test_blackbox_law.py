"""Which mail the started program lets go to whom, by what people have said and where they are.

Everything is told to it as an operator would, on the command line, and read from its replies; what has lapsed was
recorded with the date on which it happened.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest

from tests.gateway_under_test import TOPIC, Gateway, Program, eventually, newsletter, outcome_of, transact
from tests.sink import Sink

Someone = Callable[[], str]

TOPICS = """
    [topics.product-announcements]
    name = "Product announcements"
    families = ["editor"]
    [topics.software-updates]
    name = "Software updates"
    [topics.partner-offers]
    name = "Offers from our partners"
    partner = true
    """
STREAMS = """
    [streams.newsletter]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@news.example.com"]
    [streams.updates]
    class = "promotional"
    topics = ["software-updates"]
    from = ["*@updates.example.com"]
    [streams.partners]
    class = "promotional"
    topics = ["partner-offers"]
    from = ["*@partners.example.com"]
    [streams.cousins]
    class = "promotional"
    topics = ["product-announcements"]
    from = ["*@cousins.example.com"]
    controller = "Cousins GmbH"
    [streams.products]
    class = "product"
    from = ["products@example.com"]
    [streams.editor]
    class = "product"
    product = "editor"
    from = ["editor@example.com"]
    """
ESSENTIAL = {"account": "billing", "requested": "support", "policy-notice": "policy", "breach-notice": "breach"}
STREAMS += "".join(
    f"""
    [streams.{name}]
    class = "{kind}"
    from = ["{name}@example.com"]
    """
    for kind, name in ESSENTIAL.items()
)
LOGINS = ("newsletter", "updates", "partners", "cousins", "products", "editor", *ESSENTIAL.values())
SENDERS = {
    **{name: f"letters@{name}.example.com" for name in ("updates", "partners", "cousins")},
    **{name: f"{name}@example.com" for name in ("products", "editor", *ESSENTIAL.values())},
}


def made(folder: object, sink: Sink, consent: str) -> Gateway:
    sections = {"topics": TOPICS, "streams": STREAMS, "consent": f"[consent]\n{consent}\n"}
    house = Gateway(folder, sink.url, sections=sections).prepare()  # type: ignore[arg-type]
    for name in LOGINS:
        house.add_login(name, name)
    house.publish_policy("2026-1")
    return house.start()


@pytest.fixture(scope="module")
def promise(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Accepting the policy counts in the United States here, and British companies need no opt-in."""
    house = made(
        tmp_path_factory.mktemp("promise") / "house",
        shared_sink,
        'markets = ["US"]\npolicy_accepted_in = ["US"]\ncorporate_in = ["GB"]',
    )
    yield house
    house.close()


@pytest.fixture(scope="module")
def countries(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A company that lets each country's own rules decide, and mails in the United States and in Germany."""
    house = made(
        tmp_path_factory.mktemp("countries") / "house", shared_sink, 'require = "regime"\nmarkets = ["US", "DE"]'
    )
    yield house
    house.close()


@pytest.fixture(scope="module")
def shop(countries: Gateway) -> Program:
    """A program that tells what people said under the notice `box`."""
    words = ("--url", "https://example.com/join", "--control", "unticked", "--from", "2015-01-01")
    (countries.folder / "words.txt").write_text("Yes, send me news about your products.")
    countries.run("notices", "add", "box", "--topic", TOPIC, "--text", "words.txt", *words)
    return Program(countries, countries.json("tokens", "add", "shop", "--scopes", "record,read")["token"])


def outcome(house: Gateway, login: str, recipient: str, *headers: str) -> str:
    """Submit one mail of a login's only stream; return "sent", or the slug of its refusal."""
    author = SENDERS.get(login, "letters@news.example.com")
    content = "".join(f"{one}\r\n" for one in headers).encode() + newsletter(recipient, sender=author)
    with house.smtp(login) as client:
        (reply,) = transact(client, content, [recipient], author).values()
    return outcome_of(*reply)


def record(house: Gateway, who: str, basis: str, *more: str, topic: str = TOPIC) -> None:
    house.run("consent", "record", who, "--topic", topic, "--basis", basis, *more)


def ago(days: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=days)).isoformat()


@pytest.mark.req("POL-01", "POL-02")
def test_only_an_opt_in_opens_the_door(promise: Gateway, someone: Someone) -> None:
    stranger, accepted, opted_in = someone(), someone(), someone()
    record(promise, accepted, "policy-accepted")
    record(promise, opted_in, "express")
    assert [outcome(promise, "newsletter", one) for one in (stranger, accepted, opted_in)] == [
        *("no-consent", "no-consent", "sent"),
    ]


@pytest.mark.req("POL-02")
def test_accepting_the_policy_counts_where_it_was_switched_on_and_the_person_is_known_to_be(
    promise: Gateway, someone: Someone
) -> None:
    american, german = someone(), someone()
    record(promise, american, "policy-accepted", "--country", "US")
    record(promise, german, "policy-accepted", "--country", "DE")
    assert outcome(promise, "newsletter", american) == "sent"
    assert outcome(promise, "newsletter", german) == "no-consent"
    assert outcome(promise, "partners", american) == "no-consent"


@pytest.mark.req("POL-02")
def test_accepting_the_policy_cannot_be_switched_on_where_it_is_no_consent(promise: Gateway) -> None:
    text = promise.config.read_text()
    promise.config.write_text(text.replace('policy_accepted_in = ["US"]', 'policy_accepted_in = ["DE"]'))
    done = promise.run("check", check=False)
    promise.config.write_text(text)
    assert done.returncode == 78
    assert "accepting a policy is no consent to mail in DE" in done.stdout + done.stderr


@pytest.mark.req("LAW-UK-01")
def test_a_british_company_needs_no_opt_in_where_that_is_switched_on_and_its_no_is_a_no(
    promise: Gateway, countries: Gateway, someone: Someone
) -> None:
    company, german, trader, objector = someone(), someone(), someone(), someone()
    for house in (promise, countries):
        for who, country in ((company, "GB"), (german, "DE"), (objector, "GB")):
            record(house, who, "corporate", "--country", country)
        record(house, trader, "express", "--country", "GB", "--at", ago(10), topic="software-updates")
        house.run("suppressions", "add", objector, "--scope", "all-marketing", "--reason", "objected")
    told = [outcome(promise, "newsletter", one) for one in (company, german, trader, objector)]
    assert told == ["sent", "no-consent", "no-consent", "objected"]
    assert outcome(promise, "partners", company) == "no-consent", "nor is it an opt-in to other companies' offers"
    assert outcome(countries, "newsletter", company) == "no-consent", "it is off unless somebody switches it on"


LIMBS = {
    "(i) confirm a transaction": ("billing", "Your order 4711 is confirmed"),
    "(ii) warranty, recall, safety, security": ("products", "A security fix for your editor"),
    "(iii) terms, standing, balance of an account": ("billing", "Your subscription ends in March"),
    "(iv) employment or a benefit plan": ("billing", "Your pension statement"),
    "(v) goods, services, updates that one is entitled to": ("products", "Your update is ready"),
}
"""The limbs of 15 USC 7702(17)(A), each with the login of the class that it is; docs/standards.md says the same."""


@pytest.mark.req("LAW-US-07")
def test_each_limb_of_transactional_mail_has_its_class_and_everything_else_is_promotion(
    promise: Gateway, someone: Someone
) -> None:
    left = someone()
    promise.run("customers", "add", left, "--product", "editor")
    promise.run("suppressions", "add", left, "--scope", "all-marketing", "--reason", "unsubscribed")
    for limb, (login, subject) in LIMBS.items():
        product = ["Assent-Product: editor"] if login == "products" else []
        assert outcome(promise, login, left, f"X-Subject: {subject}", *product) == "sent", limb
        assert outcome(promise, login, left, "Assent-Class: promotional", *product) != "sent", "stricter, if it says so"
        assert outcome(promise, login, left, "Assent-Class: transactional", *product) == "class-mismatch"
    for kind in ("account", "product", "requested", "system"):
        assert outcome(promise, "newsletter", left, f"Assent-Class: {kind}") == "unsubscribed", (
            "refused before its word"
        )
        stranger = someone()
        record(promise, stranger, "express")
        assert outcome(promise, "newsletter", stranger, f"Assent-Class: {kind}") == "class-mismatch", "never looser"
    text = promise.config.read_text()
    promise.config.write_text(text.replace('class = "account"', 'class = "transactional"', 1))
    done = promise.run("check", check=False)
    promise.config.write_text(text)
    assert done.returncode == 78, "there are no classes but those"


@pytest.mark.req("POL-03", "POL-05")
def test_consent_to_one_topic_releases_no_other(promise: Gateway, someone: Someone) -> None:
    updates, partners = someone(), someone()
    record(promise, updates, "express", topic="software-updates")
    record(promise, partners, "express", topic="partner-offers")
    told = {name: (outcome(promise, name, updates), outcome(promise, name, partners)) for name in LOGINS[:3]}
    assert told == {
        "newsletter": ("no-consent", "no-consent"),
        "updates": ("sent", "no-consent"),
        "partners": ("no-consent", "sent"),
    }


@pytest.mark.req("POL-05", "LAW-EU-03")
def test_what_a_sale_allows_never_reaches_partners_offers(countries: Gateway, someone: Someone) -> None:
    customer = someone()
    record(countries, customer, "soft-opt-in", "--country", "FR")
    assert outcome(countries, "newsletter", customer) == "sent"
    assert outcome(countries, "partners", customer) == "no-consent"
    assert outcome(countries, "updates", customer) == "no-consent", "another product family"


@pytest.mark.req("POL-31")
def test_another_controller_cannot_use_the_companys_consent(promise: Gateway, someone: Someone) -> None:
    reader = someone()
    record(promise, reader, "express")
    assert outcome(promise, "newsletter", reader) == "sent"
    assert outcome(promise, "cousins", reader) == "no-consent"


# products


@pytest.mark.req("POL-04")
def test_product_mail_goes_to_who_owns_the_product(promise: Gateway, someone: Someone) -> None:
    owner, other = someone(), someone()
    promise.run("customers", "add", owner, "--product", "Editor")
    promise.run("customers", "add", other, "--product", "hosting")
    assert outcome(promise, "products", owner, "Assent-Product: editor") == "sent"
    assert outcome(promise, "products", other, "Assent-Product: editor") == "not-customer"
    assert outcome(promise, "products", someone(), "Assent-Product: editor") == "not-customer"
    assert outcome(promise, "products", owner) == "class-mismatch", "it names no product"
    assert outcome(promise, "editor", owner) == "sent", "its stream names the product"
    assert outcome(promise, "editor", owner, "Assent-Product: hosting") == "class-mismatch"


@pytest.mark.req("POL-09", "SUP-14")
def test_after_an_unsubscribe_from_everything_essential_mail_still_comes(promise: Gateway, someone: Someone) -> None:
    for is_customer, has_left in product((True, False), repeat=2):
        person = someone()
        record(promise, person, "express")
        if is_customer:
            promise.run("customers", "add", person, "--product", "editor")
        if has_left:
            promise.run("suppressions", "add", person, "--scope", "all-marketing", "--reason", "unsubscribed")
        assert outcome(promise, "newsletter", person) == ("unsubscribed" if has_left else "sent")
        assert outcome(promise, "editor", person) == ("sent" if is_customer else "not-customer")
        told = {outcome(promise, name, person, "Assent-Policy-Version: 2026-1") for name in ESSENTIAL.values()}
        assert told == {"sent"}


REFUSED_BY = {
    "topic": {"newsletter"},
    "partner": {"partners"},
    "all-marketing": {"newsletter", "partners"},
    "address": {"newsletter", "partners", "editor"},
}
"""Which mail each scope of a "no" stops; nothing stops what a person must be told, or has asked for."""


@pytest.mark.req("SUP-14", "POL-09")
def test_each_scope_stops_its_own_classes_and_no_other(promise: Gateway, someone: Someone) -> None:
    people = {scope: someone() for scope in REFUSED_BY}
    promise.opt_in(*people.values())
    promise.opt_in(*people.values(), topic="partner-offers")
    listed = promise.folder / "owners.csv"
    listed.write_text("\n".join(["address,product", *(f"{one},editor" for one in people.values())]))
    promise.run("customers", "import", str(listed))
    for scope, person in people.items():
        kind = ("--topic", TOPIC) if scope == "topic" else ()
        reason = "bounced" if scope == "address" else "unsubscribed"
        promise.run("suppressions", "add", person, "--scope", scope, *kind, "--reason", reason)
    mail = ("newsletter", "partners", "editor", *ESSENTIAL.values())
    stopped = {
        scope: {one for one in mail if outcome(promise, one, person, "Assent-Policy-Version: 2026-1") != "sent"}
        for scope, person in people.items()
    }
    assert stopped == REFUSED_BY
    with promise.smtp("billing") as client:
        client.mail("billing@example.com")
        code, text = client.rcpt(people["address"])
        assert (code, b"come back before" in text) == (250, True), "its login is warned"
        assert client.rcpt(people["topic"]) == (250, b"2.1.5 ok")


@pytest.mark.req("POL-30")
def test_whoever_has_closed_the_account_is_no_customer_and_has_agreed_to_nothing(
    promise: Gateway, someone: Someone
) -> None:
    person = someone()
    record(promise, person, "express")
    promise.run("customers", "add", person, "--product", "editor")
    promise.run("customers", "remove", person, "--account-closed")
    assert outcome(promise, "newsletter", person) == "no-consent"
    assert outcome(promise, "editor", person) == "not-customer"


def test_a_file_of_owners_is_recorded_whole_or_not_at_all(promise: Gateway, someone: Someone) -> None:
    one, other = someone(), someone()
    file = promise.folder / "owners.csv"
    file.write_text(f"address,product\n{one},Editor\nnot an address,editor\n{other},editor\n")
    refused = promise.run("customers", "import", str(file), check=False)
    assert refused.returncode == 2 and "owners.csv:3:" in refused.stderr
    assert outcome(promise, "editor", one) == "not-customer"
    file.write_text(f"Product,Address\nEditor,{one}\neditor,{other}\n")
    assert promise.json("customers", "import", str(file))["owners"] == 2
    assert outcome(promise, "editor", one) == outcome(promise, "editor", other) == "sent"


# countries


@pytest.mark.req("POL-14", "LAW-DE-01")
def test_whose_country_is_not_known_gets_the_strictest_of_the_markets_rules(
    countries: Gateway, someone: Someone
) -> None:
    undeclared, american, german, confirmed = someone(), someone(), someone(), someone()
    record(countries, undeclared, "express")
    record(countries, american, "express", "--country", "US")
    record(countries, german, "express", "--country", "DE")
    record(countries, confirmed, "confirmed")
    assert outcome(countries, "newsletter", undeclared) == "no-consent"
    assert outcome(countries, "newsletter", american) == "sent"
    assert outcome(countries, "newsletter", german) == "no-consent"
    assert outcome(countries, "newsletter", confirmed) == "sent"


def years_ago(years: int, *, plus_days: int) -> str:
    today = datetime.now(UTC).date()
    day = 28 if (today.month, today.day) == (2, 29) else today.day
    return (date(today.year - years, today.month, day) + timedelta(days=plus_days)).isoformat()


@pytest.mark.req("LAW-CA-01", "LAW-CA-02")
def test_in_canada_what_a_sale_and_an_inquiry_imply_lapses_to_the_day(countries: Gateway, someone: Someone) -> None:
    def told(*dealings: tuple[str, str]) -> str:
        person = someone()
        for basis, at in dealings:
            record(countries, person, basis, "--at", at, "--country", "CA")
        return outcome(countries, "newsletter", person)

    assert told(("sale", years_ago(2, plus_days=2))) == "sent"
    assert told(("sale", years_ago(2, plus_days=-1))) == "expired"
    assert told(("sale", years_ago(4, plus_days=0)), ("sale", ago(30))) == "sent"
    assert told(("inquiry", ago(170))) == "sent"
    assert told(("inquiry", ago(190))) == "expired"
    assert told(("express", years_ago(9, plus_days=0))) == "sent"


@pytest.mark.req("LAW-EU-03")
def test_in_the_union_each_condition_of_the_soft_opt_in_is_needed(countries: Gateway, someone: Someone) -> None:
    def told(basis: str, *more: str) -> str:
        person = someone()
        record(countries, person, basis, "--country", "FR", *more)
        return outcome(countries, "newsletter", person)

    assert told("soft-opt-in") == "sent"
    assert told("soft-opt-in", "--family", "editor") == "sent"
    assert told("sale") == "no-consent"
    assert told("soft-opt-in", "--family", "hosting") == "no-consent"
    assert told("soft-opt-in", "--free") == "no-consent"


@pytest.mark.req("LAW-EU-03")
def test_an_opt_out_that_was_offered_at_another_sale_is_no_offer_at_this_one(
    countries: Gateway, someone: Someone
) -> None:
    person = someone()
    record(countries, person, "sale", "--family", "editor", "--country", "FR")
    record(countries, person, "soft-opt-in", "--family", "hosting")
    assert outcome(countries, "newsletter", person) == "no-consent"
    record(countries, person, "soft-opt-in", "--family", "editor")
    assert outcome(countries, "newsletter", person) == "sent"


@pytest.mark.req("LAW-EU-04")
def test_an_account_that_cost_nothing_is_a_sale_once_a_company_says_so(countries: Gateway, someone: Someone) -> None:
    person, other = someone(), someone()
    record(countries, person, "soft-opt-in", "--free", "--country", "FR")
    record(countries, other, "sale", "--free", "--country", "FR")
    assert outcome(countries, "newsletter", person) == "no-consent"
    text = countries.config.read_text()
    countries.config.write_text(text.replace("[consent]\n", "[consent]\nfree_account_is_sale = true\n"))
    countries.stop()
    countries.start()
    told = [outcome(countries, "newsletter", one) for one in (person, other)]
    countries.config.write_text(text)
    countries.stop()
    countries.start()
    assert told == ["sent", "no-consent"], "nobody offered the other one to opt out"


@pytest.mark.req("LAW-EU-03")
def test_an_objection_always_succeeds(countries: Gateway, someone: Someone) -> None:
    person = someone()
    record(countries, person, "soft-opt-in", "--country", "FR")
    countries.run("suppressions", "add", person, "--scope", "all-marketing", "--reason", "objected")
    assert outcome(countries, "newsletter", person) == "objected"
    record(countries, person, "sale")
    assert outcome(countries, "newsletter", person) == "objected"


def next_second() -> str:
    """Wait until it has come; the command line knows no fractions."""
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    eventually(lambda: datetime.now(UTC) > moment)
    return moment.isoformat().removesuffix("+00:00")


@pytest.mark.req("LAW-XX-03")
def test_a_decision_is_explained_by_what_was_known_then(countries: Gateway, someone: Someone) -> None:
    person = someone()
    record(countries, person, "express", "--country", "US")
    events = countries.json("consent", "show", person)
    opted_in = next(one for one in events if one["type"] == "EXPRESS_OPT_IN")
    then = next_second()
    countries.run("suppressions", "add", person, "--scope", "topic", "--topic", TOPIC, "--reason", "unsubscribed")
    before = countries.json("explain", person, "--topic", TOPIC, "--at", then)
    assert (before["action"], before["evidence"]) == ("send", [opted_in["seq"]])
    assert before["rules"].endswith("US/2026-11")
    now = countries.run("--json", "explain", person, "--topic", TOPIC, check=False)
    assert now.returncode == 1 and '"unsubscribed"' in now.stdout


KOREA = """
code = "KR"
name = "Korea"
version = "2026-12"
countries = ["KR"]
bases = ["confirmed"]
citations = ["Network Act, Art. 50(1)"]

[[examples]]
says = "an opt-in that the mailbox has not confirmed"
events = [{ type = "EXPRESS_OPT_IN", at = 2026-01-01, topic = "news" }]
now = 2026-11-22
expect = "no-consent"
"""


@pytest.mark.req("LAW-XX-01", "LAW-XX-03")
def test_a_country_is_added_by_a_file_and_judges_from_the_reload_on(
    sink: Sink, tmp_path: Path, someone: Someone
) -> None:
    folder = tmp_path / "house"
    rules = folder / "rules"
    rules.mkdir(parents=True)
    house = made(folder, sink, 'require = "regime"\nmarkets = ["US"]\nrules = "rules"')
    try:
        unconfirmed, confirmed = someone(), someone()
        record(house, unconfirmed, "express", "--country", "KR")
        record(house, confirmed, "confirmed", "--country", "KR")
        assert outcome(house, "newsletter", unconfirmed) == "sent", (
            "where no rules are known the company's promise holds"
        )
        (rules / "kr.toml").write_text(KOREA.replace("bases", "basis"))
        broken = house.run("check", check=False)
        assert broken.returncode == 78 and "kr.toml" in broken.stdout + broken.stderr
        (rules / "kr.toml").write_text(KOREA)
        assert house.process is not None
        before = set(house.children())
        house.process.send_signal(signal.SIGHUP)
        eventually(lambda: house.children() and not before & set(house.children()), 60)
        assert outcome(house, "newsletter", unconfirmed) == "no-consent"
        assert outcome(house, "newsletter", confirmed) == "sent"
        told = house.json("explain", confirmed, "--topic", TOPIC)
        assert (told["action"], told["rules"].split()[-1]) == ("send", "KR/2026-12")
        eventually(lambda: any(confirmed in one.recipients for one in sink.messages))
    finally:
        house.close()


@pytest.mark.req("LAW-CA-01", "CON-09", "CON-15")
def test_what_is_told_with_another_zone_lapses_on_the_day_that_is_shown(
    countries: Gateway, shop: Program, someone: Someone
) -> None:
    reader, evening = someone(), f"{years_ago(2, plus_days=0)}T23:30:00-11:00"
    told = {"address": reader, "notice": "box", "country": "CA", "basis": "sale", "at": evening}
    assert shop.post("/consents", told).status == 201
    assert outcome(countries, "newsletter", reader) == "sent", "in UTC the anniversary is tomorrow"
    (proof,) = countries.json("explain", reader, "--topic", TOPIC)["proof"]
    assert proof["lapses_at"].startswith(f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}T00:00:00")


@pytest.mark.req("CON-12", "LAW-EU-03")
def test_whoever_refused_when_asked_is_not_mailed_because_of_a_sale(
    countries: Gateway, shop: Program, someone: Someone
) -> None:
    for basis, country in (("soft-opt-in", "FR"), ("sale", "US")):
        reader = someone()
        told = {"address": reader, "notice": "box", "country": country}
        sale = {**told, "basis": basis, "family": "editor", "at": "2026-02-01T10:00:00Z"}
        assert shop.post("/consents", sale).status == 201
        assert outcome(countries, "newsletter", reader) == "sent"
        assert shop.post("/consents", {**told, "answer": "no", "at": "2026-02-02T10:00:00Z"}).status == 201
        assert outcome(countries, "newsletter", reader) == "no-consent"
        assert shop.post("/consents", sale).status == 201
        assert outcome(countries, "newsletter", reader) == "no-consent", "told once more"
        assert shop.post("/consents", {**sale, "at": "2026-02-03T10:00:00Z"}).status == 201
        assert outcome(countries, "newsletter", reader) == "sent", "a later sale"


# one person, several addresses


@pytest.mark.req("CON-16")
def test_consent_stays_with_its_address_and_an_objection_follows(promise: Gateway, someone: Someone) -> None:
    old, new, third = someone(), someone(), someone()
    record(promise, old, "express")
    promise.run("person", "link", old, new)
    promise.run("person", "link", new, third)
    assert outcome(promise, "newsletter", old) == "sent"
    assert outcome(promise, "newsletter", new) == "no-consent", "until it is confirmed itself"
    record(promise, new, "confirmed")
    assert outcome(promise, "newsletter", new) == "sent"
    promise.run("suppressions", "add", old, "--scope", "all-marketing", "--reason", "objected")
    record(promise, third, "express")
    assert {outcome(promise, "newsletter", one) for one in (old, new, third)} == {"objected"}, "however far away"
    assert promise.run("person", "link", old, new, check=False).returncode == 1, "on record already"
    assert promise.json("person", "export", new)["related"] == sorted([old, third])


@pytest.mark.req("CON-16")
def test_what_was_objected_to_before_the_addresses_were_linked_holds_too(promise: Gateway, someone: Someone) -> None:
    old, new = someone(), someone()
    record(promise, old, "express")
    record(promise, new, "express")
    promise.run("suppressions", "add", old, "--scope", "all-marketing", "--reason", "objected")
    assert outcome(promise, "newsletter", new) == "sent"
    promise.run("person", "link", old, new)
    assert outcome(promise, "newsletter", new) == "objected"
    record(promise, new, "confirmed")
    assert outcome(promise, "newsletter", new) == "sent", "a newer confirmed opt-in of that address"
    assert outcome(promise, "newsletter", old) == "objected"


@pytest.mark.req("SUP-05")
def test_an_unsubscribe_follows_where_the_law_goes_by_person(countries: Gateway, someone: Someone) -> None:
    brazilian = ("--country", "BR", "--seen-in", "US")
    french, american = ("--country", "FR"), ("--country", "US")
    for at_old, at_new, told in (
        (french, french, "unsubscribed"),
        (american, american, "sent"),
        (french, american, "unsubscribed"),
        (american, brazilian, "unsubscribed"),
    ):
        old, new = someone(), someone()
        record(countries, old, "confirmed", *at_old)
        record(countries, new, "confirmed", *at_new)
        countries.run("person", "link", old, new)
        countries.run("suppressions", "add", old, "--scope", "all-marketing", "--reason", "unsubscribed")
        assert outcome(countries, "newsletter", old) == "unsubscribed"
        assert outcome(countries, "newsletter", new) == told, (at_old, at_new)


@pytest.mark.req("CON-16")
def test_erasing_one_address_leaves_the_others_objection(promise: Gateway, someone: Someone) -> None:
    old, new = someone(), someone()
    record(promise, new, "express")
    promise.run("person", "link", old, new)
    promise.run("suppressions", "add", old, "--scope", "all-marketing", "--reason", "objected")
    assert f"{new} is known as theirs too" in promise.run("person", "erase", old).stdout, "nothing leads to it now"
    assert outcome(promise, "newsletter", new) == "objected"
    assert promise.json("person", "export", new)["related"] == []
