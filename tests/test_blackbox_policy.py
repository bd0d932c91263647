"""Versions of the privacy policy from outside: published, shown, named in notices, and asking for consent anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.gateway_under_test import TOPIC, Gateway, eventually, invoice, newsletter, transact
from tests.sink import Sink

Someone = Callable[[], str]

STREAMS = f"""
    [streams.newsletter]
    class = "promotional"
    topics = ["{TOPIC}"]
    from = ["*@news.example.com"]
    [streams.billing]
    class = "policy-notice"
    from = ["billing@example.com"]
    """


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    sections = {"streams": STREAMS, "consent": '[consent]\nmarkets = ["US"]\n'}
    running = Gateway(tmp_path_factory.mktemp("policy") / "house", shared_sink.url, sections=sections, workers=2)
    yield running.prepare().start()
    running.close()


def outcome(house: Gateway, recipient: str) -> str:
    with house.smtp("news") as client:
        ((_, (code, text)),) = transact(client, newsletter(recipient), [recipient], "letters@news.example.com").items()
    return "sent" if code == 250 else text.split()[1].rstrip(":")


@pytest.mark.req("POL-33")
def test_the_site_lists_every_version_with_its_date(house: Gateway) -> None:
    assert "No version has been published here" in house.get("/policy").text
    house.publish_policy("2025-1", effective="2025-05-01", text="We mail you <b>nothing</b> unasked.")
    house.publish_policy("2099-1", effective="2099-07-01", text="The one after.")
    page = house.get("/policy")
    assert page.status == 200 and "Set-Cookie" not in page.headers
    for told in (
        "Version 2025-1",
        "01 May 2025</time>, in force",
        "Version 2099-1",
        "01 July 2099</time></p>",
        "&lt;b&gt;",
    ):
        assert told in page.text
    assert page.text.index("2099-1") < page.text.index("2025-1"), "the newest first"
    assert [one["version"] for one in house.json("policy", "list")] == ["2099-1", "2025-1"]


def test_a_published_version_never_changes(house: Gateway) -> None:
    house.publish_policy("fixed", effective="2025-06-01")
    again = house.run("policy", "publish", "fixed", "--text", "policy.txt", "--effective", "2026-06-01", check=False)
    assert again.returncode == 1 and "never changes" in again.stdout


@pytest.mark.req("POL-11")
def test_a_notice_names_the_version_that_it_is_about(house: Gateway, sink: Sink, someone: Someone) -> None:
    house.publish_policy("2025-7", effective="2025-07-01")
    reader = someone()
    for named, code in (
        (b"", 550),
        (b"Assent-Policy-Version: 1999\r\n", 550),
        (b"Assent-Policy-Version: 2025-7\r\n", 250),
    ):
        replies = house.submit(named + invoice(reader), [reader], login="shop", sender="billing@example.com")
        assert replies[""][0] == code, replies
        assert code == 250 or replies[""][1].startswith("5.7.0 class-mismatch: ")
    (received,) = sink.wait_for(1)
    assert b"Assent-Policy-Version" not in received.content


@pytest.mark.req("POL-12")
def test_a_version_that_asks_anew_ends_older_consent_in_its_countries_from_its_hour_on(
    house: Gateway, someone: Someone
) -> None:
    german, later, american = someone(), someone(), someone()
    for person, country in ((german, "DE"), (later, "DE"), (american, "US")):
        house.run("consent", "record", person, "--topic", TOPIC, "--basis", "confirmed", "--country", country)
    begins = datetime.now(UTC) + timedelta(seconds=6)
    house.publish_policy("asks", "--reconsent", "DE", effective=f"{begins:%Y-%m-%dT%H:%M:%S}")
    assert [outcome(house, one) for one in (german, later, american)] == ["sent"] * 3, "it is not in force yet"
    eventually(lambda: datetime.now(UTC) > begins)
    assert [outcome(house, one) for one in (german, later, american)] == ["expired", "expired", "sent"]
    at = (begins - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S")
    assert house.run("explain", german, "--topic", TOPIC, "--at", at, check=False).returncode == 0
    house.run("policy", "agreed", "asks", german)
    house.run("consent", "record", later, "--topic", TOPIC, "--basis", "confirmed")
    assert [outcome(house, one) for one in (german, later, american)] == ["sent"] * 3
    assert house.run("policy", "agreed", "no such version", german, check=False).returncode == 1
