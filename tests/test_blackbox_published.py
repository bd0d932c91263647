"""What DNS publishes about our mail, as the program sees it: keys that match or do not, policies, names.

The name server is the tests' own. The gateway that runs asks it every second, and the tests change what it says
meanwhile. What each record means is tests/test_published.py's to ask; here the program is, from outside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.sign import SigningKey, dns_record, generate_rsa_key
from tests.gateway_under_test import Gateway, eventually, invoice, newsletter
from tests.name_server import NameServer, Zone
from tests.sink import Sink

READER = "dns-a@example.org"
NAME = "s1._domainkey.example.com"
DMARC = "_dmarc.example.com"
REFUSED = (451, "4.7.5 cannot-sign: DNS publishes another DKIM key than ours, and no signature would verify by it")
STRANGERS = dns_record(SigningKey.load("example.com", "s1", generate_rsa_key()))[1]


@pytest.fixture(scope="module")
def server() -> Iterator[NameServer]:
    started = NameServer()
    yield started
    started.close()


@pytest.fixture(scope="module")
def house(server: NameServer, shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that asks the tests' name server each second, and does not run yet."""
    made = Gateway(tmp_path_factory.mktemp("published") / "house", shared_sink.url).prepare()
    made.write_config(dns=f'{server.section}sending_ips = ["192.0.2.25"]\n')
    made.opt_in(READER)
    yield made
    made.close()


@pytest.fixture(scope="module")
def records(house: Gateway) -> dict[str, str]:
    """Return what DNS must publish, by name."""
    return {one["name"]: one["record"] for one in house.json("dkim", "dns")}


@pytest.fixture
def dns(server: NameServer, records: dict[str, str]) -> NameServer:
    """The name server with a zone that nobody could find fault with."""
    texts = {"example.com": "v=spf1 -all", DMARC: "v=DMARC1; p=reject; rua=mailto:dmarc@example.com"} | records
    texts |= {f"{name}.example.com": "v=spf1 ip4:192.0.2.25 ~all" for name in ("news", "offers", "bounces.news")}
    zone: Zone = {("25.2.0.192.in-addr.arpa", "PTR"): ["mta.example.com"], ("mta.example.com", "A"): ["192.0.2.25"]}
    server.is_silent, server.zone = False, zone
    server.publish(texts)
    return server


@pytest.fixture
def running(house: Gateway, dns: NameServer) -> Gateway:
    """The gateway, running, and content with what DNS says."""
    if house.process is None:
        house.start()
    eventually(lambda: promoted(house)[0] == 250, 60)
    return house


def looked(house: Gateway, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit status of a check, and its rows."""
    done = house.run("--json", *arguments, check=False)
    return done.returncode, json.loads(done.stdout)


def promoted(house: Gateway) -> tuple[int, str]:
    """Return what a newsletter is answered, without the decision that the reply names."""
    code, text = house.submit(newsletter(READER), [READER])[""]
    return code, text.partition(" (decision ")[0]


def billed(house: Gateway) -> tuple[int, str]:
    return house.submit(invoice(), [READER], login="shop", sender="billing@example.com")[""]


# keys


@pytest.mark.req("DKIM-18")
def test_a_key_that_is_published_is_found(house: Gateway, dns: NameServer) -> None:
    dns.asked.clear()
    status, (row,) = looked(house, "dkim", "check", "example.com")
    assert (status, row["state"], row["published"]) == (0, "ok", "published")
    assert row["told"] == f"{NAME} publishes our key"
    assert dns.asked == [(NAME, "TXT")]


@pytest.mark.req("DKIM-18")
def test_another_key_or_none_fails_the_check_and_silence_does_not(house: Gateway, dns: NameServer) -> None:
    dns.publish({NAME: STRANGERS})
    status, (row,) = looked(house, "dkim", "check")
    assert (status, row["state"], row["published"]) == (1, "problem", "contradicted")
    assert row["told"] == f"{NAME} publishes another key than ours; publish what assent dkim dns prints"
    del dns.zone[NAME, "TXT"]
    status, (row,) = looked(house, "dkim", "check")
    assert (status, row["state"], row["published"]) == (1, "problem", "missing")
    dns.is_silent = True
    status, (row,) = looked(house, "dkim", "check")
    assert (status, row["state"], row["published"]) == (0, "warning", "unknown")


@pytest.mark.req("DKIM-18")
def test_only_another_key_seen_in_dns_stops_promotion_and_nothing_else(
    running: Gateway, dns: NameServer, sink: Sink
) -> None:
    """Promotion waits for the right record, which needs no restart; essential mail flows all the while."""
    dns.publish({NAME: STRANGERS})
    assert eventually(lambda: (said := promoted(running))[0] != 250 and said, 60) == REFUSED
    assert billed(running)[0] == 250
    assert "assent dkim check" in [one["command"] for one in running.json("status")["alarms"]]
    before = len(running.log.read_text())
    dns.is_silent = True
    eventually(lambda: f"whether {NAME} publishes our key cannot be seen" in running.log.read_text()[before:], 60)
    assert promoted(running) == REFUSED, "silence takes back nothing that was seen"
    assert f"ERROR gateway.keywatch: {NAME} publishes another key than ours" in running.log.read_text()


@pytest.mark.req("DKIM-18")
def test_promotion_in_the_queue_waits_too(
    running: Gateway, dns: NameServer, records: dict[str, str], sink: Sink
) -> None:
    eventually(lambda: running.json("queue", "list") == [], 60)
    sink.on("RCPT", "451 4.2.0 later", containing=READER)
    sink.clear()
    assert promoted(running)[0] == 250
    dns.publish({NAME: STRANGERS})
    eventually(lambda: promoted(running) == REFUSED, 60)
    sink.normal()
    eventually(lambda: REFUSED[1] in json.dumps(running.json("queue", "list")), 60)
    assert sink.messages == []
    dns.publish(records)
    sink.wait_for(1, timeout=60)


@pytest.mark.req("DKIM-18")
@pytest.mark.parametrize("is_silent", [True, False])
def test_without_an_answer_or_a_name_promotion_flows_and_the_log_warns(
    running: Gateway, dns: NameServer, is_silent: bool
) -> None:
    before = len(running.log.read_text())
    del dns.zone[NAME, "TXT"]
    dns.is_silent = is_silent
    told = f"whether {NAME} publishes our key cannot be seen" if is_silent else f"{NAME} publishes no key"
    eventually(lambda: f"WARNING gateway.keywatch: {told}" in running.log.read_text()[before:], 60)
    assert promoted(running)[0] == 250


# policies, SPF and names


@pytest.mark.req("DMARC-02", "DMARC-01", "DKIM-18")
def test_check_online_reports_keys_policies_spf_and_the_name_of_the_sending_address(
    house: Gateway, dns: NameServer
) -> None:
    status, rows = looked(house, "check", "--online")
    told = [(row["what"], row["state"], row["told"]) for row in rows]
    assert status == 0 and "problem" not in {state for _, state, _ in told}, told
    for domain in ("news.example.com", "offers.example.com", "example.com"):
        assert (f"DMARC of {domain}", "ok", f"{DMARC} says p=reject") in told
        assert (f"DMARC of {domain}", "ok", "aligned by DKIM: d=example.com signs") in told
    assert ("DNS of DKIM key s1 of example.com", "ok", f"{NAME} publishes our key") in told
    assert ("SPF of bounces.news.example.com", "ok", "v=spf1 ip4:192.0.2.25 ~all") in told
    assert ("name of 192.0.2.25", "ok", "mta.example.com, which leads back to it") in told


@pytest.mark.req("DMARC-02", "DMARC-01")
def test_check_online_says_what_is_wrong(house: Gateway, dns: NameServer) -> None:
    """The newsletter's domain is an organisation of its own (psd=n), so that the parent's signature is not aligned."""
    dns.publish({NAME: STRANGERS, "_dmarc.news.example.com": "v=DMARC1; psd=n; t=y; fo=1; pct=50; rf=afrf; ri=60"})
    dns.zone[DMARC, "TXT"] = ["v=DMARC1; p=none", "v=DMARC1; p=reject"]
    dns.zone["offers.example.com", "TXT"] = ["v=spf1 -all", "v=spf1 ~all"]
    dns.zone["mta.example.com", "A"] = ["192.0.2.99"]
    status, rows = looked(house, "check", "--online")
    told = {(row["what"], row["state"], row["told"].partition(";")[0]) for row in rows}
    news = "_dmarc.news.example.com"
    assert status == 1
    assert told >= {
        ("DNS of DKIM key s1 of example.com", "problem", f"{NAME} publishes another key than ours"),
        ("DMARC of news.example.com", "warning", f"{news} says no p=: it counts as none"),
        (
            "DMARC of news.example.com",
            "warning",
            f"{news} has no rua=, so that nobody tells how its mail fares",
        ),
        ("DMARC of news.example.com", "warning", f"{news} has pct=, rf=, ri=, which RFC 9989 has removed"),
        (
            "DMARC of news.example.com",
            "problem",
            "d=example.com signs, which is of example.com, and news.example.com of news.example.com: not aligned",
        ),
        ("DMARC of offers.example.com", "problem", f"{DMARC} has several records, and none counts"),
        ("SPF of offers.example.com", "problem", "offers.example.com has 2 SPF records, which is an error"),
        (
            "name of 192.0.2.25",
            "problem",
            "mta.example.com does not lead back to it, and large providers refuse its mail",
        ),
    }, told


@pytest.mark.req("DMARC-02")
def test_where_dns_is_silent_check_online_warns_and_finds_no_fault(house: Gateway, dns: NameServer) -> None:
    dns.is_silent = True
    status, rows = looked(house, "check", "--online")
    silent = [row for row in rows if "DNS does not answer" in row["told"]]
    assert (status, {row["state"] for row in silent}) == (0, {"warning"})
    assert len(silent) == 1 + 3 + 4 + 1
