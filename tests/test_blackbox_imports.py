"""Other systems' files, taken in by the command line and judged by what may be sent over SMTP afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pysqlite3 import dbapi2 as sqlite

from tests.gateway_under_test import TOPIC, Gateway, eventually, newsletter
from tests.sink import Sink

PARTNERS = "partner-offers"
ASKING = "confirm@example.com"
HEADER = "Email Address,First Name,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,{}LAST_CHANGED"
VENDORS = {
    "ses": "{0},BOUNCE\n{1},COMPLAINT\n",
    "sendgrid": 'status,reason,email,created\n5.1.1,"550 no, such\nuser",{0},1443651125\n5.0.0,gone,{1},1443651125\n',
    "mailgun": 'address,tag,created_at\n{0},*,"Thu, 13 Oct 2011 18:02:00 UTC"\n'
    '{1},news,"Thu, 13 Oct 2011 18:02:00 UTC"\n',
    "postmark": '{{"Suppressions":[{{"EmailAddress":"{0}","SuppressionReason":"HardBounce","Origin":"Recipient",'
    '"CreatedAt":"2019-12-17T08:58:33-05:00"}},{{"EmailAddress":"{1}","SuppressionReason":"SpamComplaint",'
    '"Origin":"Recipient","CreatedAt":"2019-12-17T08:58:33-05:00"}}]}}',
    "sparkpost": "recipient,type,description\n{0},non_transactional,Spam Complaint\n{1},transactional,Bounce Rule\n",
    "brevo": '{{"contacts":[{{"email":"{0}","senderEmail":"a@example.com","reason":{{"code":"hardBounce"}},'
    '"blockedAt":"2020-02-01T10:00:00Z"}},{{"email":"{1}","reason":{{"code":"unsubscribedViaMA"}},'
    '"blockedAt":"2020-02-01T10:00:00Z"}}],"count":2}}',
    "resend": '{{"data":[{{"id":"1","email":"{0}","origin":"bounce","created_at":"2024-01-01T00:00:00Z"}},'
    '{{"id":"2","email":"{1}","origin":"manual","created_at":"2024-01-01T00:00:00Z"}}],"has_more":false}}',
    "listmonk": 'email,name,attributes,status\n{0},Ann,"{{}}",blocklisted\n{1},Ben,"{{}}",blocklisted\n',
    "plain": "\ufeff{0}\r\n\r\n {1} \r\n",
}


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = Gateway(tmp_path_factory.mktemp("imports") / "house", shared_sink.url)
    topics = f"""
        [topics.{TOPIC}]
        name = "Product announcements"
        [topics.special-offers]
        name = "Special offers"
        [topics.{PARTNERS}]
        name = "Offers from our partners"
        partner = true
        [streams.partners]
        class = "promotional"
        topics = ["{PARTNERS}"]
        from = ["*@partners.example.com"]
        [streams.asking]
        class = "confirmation"
        from = ["{ASKING}"]
        """
    running.prepare_files()
    running.write_config(topics=topics)
    running.prepare_store()
    running.add_login("partners", "partners")
    running.add_login("asking", "asking")
    (running.folder / "notice.txt").write_text("Yes, send me news.")
    notice = ("--text", "notice.txt", "--url", "https://example.com/join", "--control", "unticked")
    running.run("notices", "add", "join", "--topic", TOPIC, *notice, "--from", "2015-01-01")
    running.start()
    yield running
    running.close()


def written(house: Gateway, name: str, text: str) -> str:
    path = house.folder / name
    path.write_text(text, "utf-8")
    return str(path)


EVERYTHING = ("--scope", "all-marketing")


def suppress(house: Gateway, text: str, *options: str, name: str = "list.txt") -> Any:
    return house.json("suppressions", "import", written(house, name, text), *EVERYTHING, *options)


def count_events(house: Gateway) -> int:
    with closing(sqlite.connect(str(house.folder / "var" / "assent.db"))) as connection:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


OLD = ",2020-01-01 10:00:00,192.0.2.1,,,2020-01-01 10:00:00"


def refusal(house: Gateway, address: str, login: str = "news", sender: str = "letters@news.example.com") -> str:
    """Return the slug with which a newsletter to somebody is refused, "" where it is accepted."""
    replies = house.submit(newsletter(address, sender=sender), [address], login=login, sender=sender)
    code, text = replies.get(address, replies.get("", (0, "")))
    return "" if code == 250 else text.split()[1].rstrip(":")


@pytest.mark.req("SUP-07")
@pytest.mark.parametrize("vendor", VENDORS)
def test_whoever_stands_in_a_vendors_file_gets_nothing_more(house: Gateway, vendor: str) -> None:
    people = [f"{vendor}{n}@example.org" for n in range(3)]
    house.opt_in(*people)
    told = suppress(house, VENDORS[vendor].format(*people))
    assert (told["format"], told["counts"]["suppressed"]) == (vendor, 2)
    assert all(refusal(house, one) in ("bounced", "complained", "unsubscribed") for one in people[:2])
    assert refusal(house, people[2]) == ""


SHAPES = {
    "SES contacts": (
        "emailAddress,unsubscribeAll,attributesData,topicPreferences.Sports,topicPreferences.Cycling\n"
        'in@example.org,false,{"Name": "John","Location": "Seattle"},OPT_IN,OPT_IN\n'
        "out@example.org,true,,OPT_OUT,OPT_OUT\nboth@example.org,false,,OPT_IN,OPT_OUT\n",
        ("ses", 1, 1),
    ),
    "SES contacts, a document each over several lines": (
        '{\n "emailAddress":"out@example.org",\n "unsubscribeAll":true,\n "topicPreferences":[]\n}\n'
        '{\n "emailAddress":"in@example.org",\n "unsubscribeAll":false,\n'
        ' "topicPreferences":[{"topicName":"Sports","subscriptionStatus":"OPT_IN"}]\n}\n',
        ("ses", 1, 0),
    ),
    "one line of JSON": ('{"emailAddress":"out@example.org","reason":"BOUNCE"}', ("ses", 1, 0)),
    "a line that is no JSON": (
        '{"emailAddress":"a@example.org","reason":"BOUNCE"}\n{"emailAddress":"b@exam\n'
        '{"emailAddress":"c@example.org","reason":"COMPLAINT"}\n',
        ("ses", 2, 1),
    ),
    "SendGrid blocks": (
        "status,reason,email,created\n5.7.1,spam,blocked@example.org,1443651125\n5.1.1,gone,out@example.org,1443651125\n",
        ("sendgrid", 1, 1),
    ),
    "SparkPost of old": (
        "recipient,description,transactional,non_transactional\nout@example.org,x,false,true\nno@example.org,x,false,false\n",
        ("sparkpost", 1, 1),
    ),
    "SparkPost addresses": ("recipient\nout@example.org\n", ("plain", 1, 0)),
    "Cloudflare": (
        "out@example.org,2999-01-01T00:00:00Z\nstays@example.org\nscoped@example.org,,zone\n"
        "lapsed@example.org,2020-01-01T00:00:00Z,account\n",
        ("cloudflare", 3, 1),
    ),
    "Cloudflare, its first line an address alone": (
        "stays@example.org\nout@example.org,2999-01-01T00:00:00Z\nlapsed@example.org,2020-01-01T00:00:00Z\n",
        ("cloudflare", 2, 1),
    ),
    "SES contacts, only some of whom have unsubscribed from all": (
        '{"emailAddress":"in@example.org","topicPreferences":[{"topicName":"A","subscriptionStatus":"OPT_IN"}]}\n'
        '{"emailAddress":"out@example.org","topicPreferences":[{"topicName":"A","subscriptionStatus":"OPT_OUT"}]}\n'
        '{"emailAddress":"all@example.org","unsubscribeAll":true}\n',
        ("ses", 2, 0),
    ),
    "Mailgun bounces, one without its code": (
        'address,code,error,created_at\nout@example.org,,,\nfull@example.org,452,,"Thu, 13 Oct 2011 18:02:00 UTC"\n',
        ("mailgun", 1, 1),
    ),
    "SendGrid in another order, with the empty columns of a spreadsheet": (
        "created,email,reason,status,,\r1443651125,out@example.org,gone,5.1.1,,\r,,,,,\r",
        ("sendgrid", 1, 0),
    ),
    "a list that was appended to another, with the mark of UTF-8 and with what a page puts between words": (
        "\ufeffout@example.org\n\ufeffout@example.org\nOut@example.org\u200b\n",
        ("plain", 1, 0),
    ),
    "listmonk subscribers who are disabled": (
        "email,name,attributes,status\nout@example.org,A,{},disabled\nin@example.org,B,{},enabled\n",
        ("listmonk", 1, 0),
    ),
}


@pytest.mark.req("SUP-07")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_vendors_file_says_what_it_says_there(house: Gateway, shape: str) -> None:
    text, (vendor, suppressed, unusable) = SHAPES[shape]
    told = suppress(house, text, "--dry-run", name="shape.txt")
    counts = told["counts"]
    assert (told["format"], counts["suppressed"]) == (vendor, suppressed)
    assert counts.get("rows that cannot be used", 0) == unusable


@pytest.mark.parametrize("empty", ['{"Suppressions":[]}', '{"contacts":[],"count":0}', "[]"])
def test_an_export_of_nobody_is_no_wrong_file(house: Gateway, empty: str) -> None:
    assert suppress(house, empty, "--dry-run", name="nobody.json")["counts"] == {}


@pytest.mark.req("CON-13")
@pytest.mark.parametrize("head", ["", "email,name,attributes\n"])
def test_whoever_is_merely_there_is_taken_for_what_the_file_is_taken_in_for(house: Gateway, head: str) -> None:
    person = f"there{len(head)}@example.org"
    file = written(house, "there.csv", f"{head}{person}{',A,{}' if head else ''}\n")
    proof = ("--notice", "join", "--attested-by", "Ann Example")
    assert house.json("consent", "import", file, "--topic", TOPIC, *proof)["counts"] == {"rows": 1, "unproven": 1}
    assert refusal(house, person) == "unproven"
    told = house.json("suppressions", "import", file, "--scope", "all-marketing")
    assert told["counts"] == {"rows": 1, "suppressed": 1}
    assert refusal(house, person) == "unsubscribed"


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_list_of_digests_names_those_who_are_known_and_those_who_come_later(house: Gateway, algorithm: str) -> None:
    known, later, other = (f"{algorithm}-{one}@example.org" for one in ("known", "later", "other"))
    house.opt_in(known)
    digests = [hashlib.new(algorithm, one.encode()).hexdigest() for one in (known, later)]
    told = suppress(house, "\ufeff" + "\r\n".join([digests[0].upper(), digests[1]]))
    assert (told["format"], told["counts"]["kept as a digest"]) == (algorithm, 2)
    assert [refusal(house, one, "asking", ASKING) for one in (known, later, other)] == ["unsubscribed"] * 2 + [""]
    (entry,) = house.json("suppressions", "check", later)
    assert entry["entry"] == f"the list of import {told['import']}"
    assert house.run("suppressions", "remove", later, *EVERYTHING, "--why", "a test", check=False).returncode == 1
    explained = json.loads(house.run("--json", "explain", later, "--topic", TOPIC, check=False).stdout)
    assert (explained["action"], explained["reason"]) == ("refuse", "unsubscribed"), "though nobody knows them yet"
    house.opt_in(later, other)
    assert [refusal(house, one) for one in (known, later, other)] == ["unsubscribed", "unsubscribed", ""]


def test_a_list_that_mixes_formats_is_told_line_by_line(house: Gateway) -> None:
    lines = [hashlib.md5(b"user@example.com").hexdigest(), "B58996c504c5638798eb6b511e6f49af", "a@example.org", "12ab"]
    assert lines[0] == "b58996c504c5638798eb6b511e6f49af"
    told = suppress(house, "\n".join(lines), name="mixed.txt")
    assert told["counts"]["rows that cannot be used"] == 3
    errors = Path(told["errors"]).read_text().splitlines()
    assert [one.split(",")[0] for one in errors] == ["line", "2", "3", "4"]


@pytest.mark.req("SUP-12")
@pytest.mark.parametrize("spelling", ["rené@bücher.example", "rené@xn--bcher-kva.example"])
def test_either_spelling_of_an_internationalised_domain_matches(house: Gateway, spelling: str) -> None:
    person = "rené@bücher.example"
    house.opt_in(person)
    number = suppress(house, hashlib.sha256(spelling.encode()).hexdigest())["import"]
    assert house.json("suppressions", "check", person)[0]["reason"] == "unsubscribed"
    house.run("suppressions", "undo", str(number))
    assert house.run("suppressions", "check", person, check=False).returncode == 1


@pytest.mark.req("CON-13")
def test_the_same_file_is_proof_only_under_a_notice_that_somebody_attests(house: Gateway) -> None:
    rows = [
        "single@example.org,A,2020-01-01 10:00:00,192.0.2.1,,,2020-01-01 10:00:00",
        "double@example.org,B,2020-01-01 10:00:00,192.0.2.1,2020-01-01 10:05:00,192.0.2.1,2020-01-01 10:05:00",
        "alone@example.org,C,,,2020-01-01 10:05:00,192.0.2.1,2020-01-01 10:05:00",
        "early@example.org,D,2014-01-01 10:00:00,192.0.2.1,,,2020-01-01 10:05:00",
    ]
    file = written(house, "subscribed.csv", "\n".join([HEADER.format(""), *rows]) + "\n")
    people = [one.split(",")[0] for one in rows]
    told = house.json("consent", "import", file, "--topic", TOPIC)
    assert told["counts"] == {"rows": 4, "unproven": 4}
    assert {refusal(house, one) for one in people} == {"unproven"}
    proof = ("--notice", "join", "--attested-by", "Ann Example")
    told = house.json("consent", "import", file, "--topic", TOPIC, *proof)
    assert told["counts"] == {"rows": 4, "express": 1, "confirmed": 1, "unproven": 2}
    assert [refusal(house, one) for one in people] == ["", "", "unproven", "unproven"]
    history = house.json("consent", "show", "single@example.org")
    assert history[-1]["facts"]["attested_by"] == "Ann Example"
    house.run("suppressions", "undo", str(told["import"]))
    assert {refusal(house, one) for one in people} == {"unproven"}


@pytest.mark.req("CON-13")
@pytest.mark.parametrize("name", ["nonsubscribed_members_export_1a2b.csv", "Non-Subscribed_email_audience_export.csv"])
def test_who_never_subscribed_is_no_opt_in_though_the_table_looks_the_same(house: Gateway, name: str) -> None:
    never, reader = (f"{who}-{name[:4].lower()}@example.org" for who in ("never", "reader"))
    row = ",A,2020-01-01 10:00:00,192.0.2.1,2020-01-01 10:05:00,192.0.2.1,2020-01-01 10:05:00\n"
    tables = {name: never, "subscribed_members_export_1a2b.csv": reader}
    with zipfile.ZipFile(house.folder / "mailchimp.zip", "w") as archive:
        for table, person in tables.items():
            archive.writestr(f"audience/{table}", f"{HEADER.format('')}\n{person}{row}")
    proof = ("--topic", TOPIC, "--notice", "join", "--attested-by", "Ann Example")
    alone = written(house, name, f"{HEADER.format('')}\n{never}{row}")
    for file in (str(house.folder / "mailchimp.zip"), alone):
        counts = house.json("consent", "import", file, *proof)["counts"]
        assert counts.pop("people who never subscribed passed over") == 1
        assert counts == ({"rows": 1} if file == alone else {"rows": 2, "confirmed": 1})
    assert (refusal(house, never), refusal(house, reader)) == ("no-consent", "")
    assert house.json("simulate", "--stream", "newsletter", alone)["recipients"] == 1


def test_a_sendgrid_report_of_spam_is_a_complaint(house: Gateway) -> None:
    suppress(house, '[{"created":1443651125,"email":"reporter@example.org","ip":"192.0.2.1"}]', name="spam.json")
    suppress(house, "ip,email,created\n192.0.2.1,second-reporter@example.org,1443651125\n", name="spam.csv")
    assert {refusal(house, f"{one}reporter@example.org") for one in ("", "second-")} == {"complained"}


@pytest.mark.req("CON-14")
@pytest.mark.req("SUP-06")
def test_no_import_ends_a_no_whatever_times_it_claims(house: Gateway) -> None:
    person, gone, dead = "said-no@example.org", "left@example.org", "dead@example.org"
    house.opt_in(person)
    house.run("suppressions", "add", person, "--scope", "all-marketing", "--reason", "objected")
    optin = "2026-11-20 10:00:00,192.0.2.1,2026-11-20 11:00:00,192.0.2.1"
    tables = {
        "subscribed_members.csv": [
            HEADER.format(""),
            *(f"{one},A,{optin},2026-11-20 11:00:00" for one in (person, gone)),
        ],
        "unsubscribed_members.csv": [HEADER.format("UNSUB_TIME,"), f"{gone},A,{optin},2026-11-19 10:00:00,x"],
        "cleaned_members.csv": [HEADER.format("CLEAN_TIME,"), f"{dead},A,{optin},2026-11-20 12:00:00,x"],
    }
    path = house.folder / "audience.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, lines in tables.items():
            archive.writestr(name, "\n".join(lines))
    command = ("consent", "import", str(path), "--topic", TOPIC, "--notice", "join", "--attested-by", "Ann")
    told = house.json(*command)
    assert told["counts"] == {"rows": 4, "suppressed": 2, "opt-in recorded, but a suppression stands": 2}
    assert [refusal(house, one) for one in (person, gone, dead)] == ["objected", "unsubscribed", "bounced"]


@pytest.mark.req("CON-14", "POL-30")
def test_an_old_list_brings_back_no_consent_that_has_ended_since(house: Gateway) -> None:
    person, other = "closed@example.org", "stayed@example.org"
    file = written(house, "old.csv", HEADER.format("") + "".join(f"\n{one},A{OLD}" for one in (person, other)) + "\n")
    command = ("consent", "import", file, "--topic", TOPIC, "--notice", "join", "--attested-by", "Ann Example")
    assert house.json(*command)["counts"] == {"rows": 2, "express": 2}
    house.run("customers", "remove", person, "--account-closed")
    assert house.json(*command)["counts"] == {"rows": 2, "express": 1, "opt-in recorded, but it has ended since": 1}
    assert [refusal(house, one) for one in (person, other)] == ["no-consent", ""]


@pytest.mark.req("LAW-US-06")
def test_who_stands_in_a_partners_list_gets_none_of_its_offers_and_all_of_ours(house: Gateway) -> None:
    people = ["partner1@example.org", "partner2@example.org"]
    house.opt_in(*people)
    house.opt_in(*people, topic=PARTNERS)
    house.run("suppressions", "import", written(house, "partner.txt", people[0]), "--scope", "partner")
    found = [refusal(house, one, "partners", "us@partners.example.com") for one in people]
    assert found == ["unsubscribed", ""]
    assert [refusal(house, one) for one in people] == ["", ""]


def test_a_preview_counts_what_the_import_will_do_and_changes_nothing(house: Gateway) -> None:
    people = ["preview1@example.org", "preview2@example.org", "preview3@example.org"]
    house.opt_in(*people[:2])
    house.run("suppressions", "add", people[1], "--scope", "all-marketing", "--reason", "unsubscribed")
    text = "\n".join([*people, people[0], "nobody"])
    expected = suppress(house, text, "--dry-run")
    assert expected["counts"] == {"rows": 5, "rows that cannot be used": 1, "suppressed": 2, "already suppressed": 1}
    assert refusal(house, people[0]) == ""
    assert suppress(house, text)["counts"] == expected["counts"]


def test_a_preview_names_whose_confirmed_opt_in_an_older_opt_out_overrides(house: Gateway) -> None:
    house.run("consent", "record", "back@example.org", "--topic", TOPIC, "--basis", "confirmed")
    text = 'address,tag,created_at\nback@example.org,*,"Thu, 13 Oct 2011 18:02:00 UTC"\n'
    told = suppress(house, text, "--dry-run", name="old.csv")
    assert told["confirmed_later"] == ["back@example.org"]
    suppress(house, text, name="old.csv")
    assert refusal(house, "back@example.org") == "unsubscribed"


@pytest.mark.parametrize("form", ["plain", "md5"])
def test_undoing_takes_back_what_followed_to_other_addresses(house: Gateway, form: str) -> None:
    before, after = pairs = [[f"{form}-{when}-{n}@example.org" for n in "12"] for when in ("before", "after")]
    house.opt_in(*before, *after)
    named = [old if form == "plain" else hashlib.md5(old.encode()).hexdigest() for old, _ in pairs]
    house.run("person", "link", *before)
    number = suppress(house, "\n".join(named))["import"]
    house.run("person", "link", *after)
    assert {refusal(house, one) for one in (*before, *after)} == {"unsubscribed"}
    house.run("suppressions", "undo", str(number))
    assert {refusal(house, one) for one in (*before, *after)} == {""}


@pytest.mark.req("DSR-05", "CON-14")
def test_who_asks_for_mail_again_may_be_asked_to_confirm_it_and_nobody_else(house: Gateway) -> None:
    people = {
        f"again@{no}.example": no for no in ("unsubscribed", "complained", "bounced", "erased", "minor", "objected")
    }
    house.opt_in(*people)
    for person, no in people.items():
        who = f"*@{no}.example" if no == "objected" else person
        if no == "erased":
            erase = partial(house.run, "person", "erase", who, check=False)
            eventually(lambda erase=erase: erase().returncode == 0)
        else:
            house.run("suppressions", "add", who, *EVERYTHING, "--reason", no)

    def asked() -> dict[str, str]:
        return {one: refusal(house, one, "asking", ASKING) for one in people}

    assert asked() == people, "their requests are older than their noes"
    lines = [f"{one},Ann,{(now := datetime.now(UTC))},,,,{now}" for one in people]
    listed = written(house, "new.csv", "\n".join([HEADER.format(""), *lines]))
    house.run("consent", "import", listed, "--topic", TOPIC, "--notice", "join", "--attested-by", "somebody")
    assert asked() == people, "what a file says is no request"
    house.opt_in(*people)
    final = {one: no if no in ("minor", "objected") else "" for one, no in people.items()}
    assert asked() == final, "a minor cannot ask, and a reader does not speak for a domain"
    assert {one: refusal(house, one) for one in people} == people, "nobody has confirmed anything"
    first = next(iter(people))
    house.run("suppressions", "add", first, *EVERYTHING, "--reason", "unsubscribed")
    assert asked() == final | {first: "unsubscribed"}, "who thinks better of it at once is heard"


def test_undoing_leaves_what_a_person_said_themselves_in_between(house: Gateway) -> None:
    people = ["undo1@example.org", "undo2@example.org"]
    house.opt_in(*people)
    first = suppress(house, "\n".join(people))["import"]
    house.run("suppressions", "add", people[1], "--scope", "all-marketing", "--reason", "unsubscribed")
    second = suppress(house, people[0])
    assert second["counts"]["already suppressed"] == 1
    refused = house.run("suppressions", "undo", str(first), check=False)
    assert (refused.returncode, f"import {second['import']}" in refused.stdout) == (1, True)
    for number in (second["import"], first):
        house.run("suppressions", "undo", str(number))
    assert [refusal(house, one) for one in people] == ["", "unsubscribed"]
    assert house.run("suppressions", "undo", str(first), check=False).returncode == 1
    assert house.json("ledger", "verify")["problems"] == []


def zipped(text: str) -> bytes:
    octets = io.BytesIO()
    with zipfile.ZipFile(octets, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("subscribed_members_export.csv", text)
    return octets.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        zipped(HEADER)[:-20],
        zipped(f"{HEADER}\n{'x' * 40_000_000}"),
        f"{HEADER}\na@example.org,Ann{OLD}".encode("utf-16-le"),
        b'status,reason,email,created\n5.1.1,"gone,a@example.org,1443651125\n5.1.1,gone,b@example.org,1443651125\n',
        b'status,reason,email,created\n5.1.1,"gone'
        + b",a@example.org,1443651125\n" * 10_000
        + b'5.1.1,"x",b@example.org,\n',
        b"id,email,created,plan\n1,a@example.org,2020-01-01,free\n",
        b"address,name,created_at\na@example.org,Ann,2020-01-01\n",
        b'[{"id": 1, "email": "a@example.org", "created": 1443651125}]',
        b"id,colour\n1,red\n",
        b'{"users": []}',
        b'{"emailAddress": "a@example.org", "reas',
        b"a@example.org\n\xff\xfe\xfa\n",
        b"PK\x03\x04 not really an archive",
        b"x" * 10_000_000,
    ],
)
def test_a_file_of_another_kind_gets_one_sentence_and_leaves_nothing(house: Gateway, content: bytes) -> None:
    before = house.json("suppressions", "imports")
    path = house.folder / "wrong.bin"
    path.write_bytes(content)
    done = house.run("--json", "suppressions", "import", str(path), "--scope", "all-marketing", check=False)
    assert done.returncode == 1
    assert "wrong.bin" in json.loads(done.stdout)["error"]
    assert done.stderr == ""
    assert house.json("suppressions", "imports") == before
    assert not list(house.folder.glob("wrong.bin.*"))


def test_a_file_of_another_vendor_than_was_said_is_refused(house: Gateway) -> None:
    file = written(house, "mailgun.csv", VENDORS["mailgun"].format("a@example.org", "b@example.org"))
    done = house.run("suppressions", "import", file, "--scope", "all-marketing", "--format", "ses", check=False)
    assert (done.returncode, "not in the format ses" in done.stdout) == (1, True)


def test_columns_that_might_be_anybodys_are_a_vendors_where_it_is_named(
    house: Gateway, someone: Callable[[], str]
) -> None:
    reader = someone()
    text = f"id,email,created,group\n1,{reader},1443651125,News\n"
    unnamed = house.run(
        "suppressions", "import", written(house, "x.csv", text), "--scope", "all-marketing", check=False
    )
    assert (unnamed.returncode, "in no format that we know" in unnamed.stdout) == (1, True)
    assert suppress(house, text, "--format", "sendgrid", name="x.csv")["counts"]["suppressed"] == 1


def test_suppressions_are_listed_from_a_day_on(house: Gateway) -> None:
    text = (
        "address,created_at\nlong-ago@example.org,2011-10-13T18:02:00Z\nlately@example.org,2026-01-02T01:00:00+02:00\n"
    )
    suppress(house, text, name="complaints.csv")
    found = {one["address"] for one in house.json("suppressions", "list", "--since", "2026-01-01")}
    assert "lately@example.org" in found
    assert "long-ago@example.org" not in found
    assert "lately@example.org" not in {
        one["address"] for one in house.json("suppressions", "list", "--since", "2026-01-02")
    }


@pytest.mark.req("SUP-10")
def test_an_old_no_is_found_after_two_new_address_keys(house: Gateway) -> None:
    people = ["rotated@example.org", "stays@example.org"]
    house.opt_in(*people)
    house.run("suppressions", "add", people[0], "--scope", "all-marketing", "--reason", "objected")
    ring = house.folder / "var" / "keys" / "addresses.keys"
    for kid in (2, 3):
        assert house.stop() == 0
        with ring.open("a") as keys:
            keys.write(f"{kid} {secrets.token_hex(32)}\n")
        house.start()
        assert [refusal(house, one) for one in people] == ["objected", ""]


def test_undoing_a_list_leaves_what_a_list_of_digests_says_too(house: Gateway) -> None:
    person = "both-lists@example.org"
    house.opt_in(person)
    plain = suppress(house, person)["import"]
    digests = suppress(house, hashlib.md5(person.encode()).hexdigest())["import"]
    house.run("suppressions", "undo", str(plain))
    assert refusal(house, person) == "unsubscribed"
    house.run("suppressions", "undo", str(digests))
    assert refusal(house, person) == ""


def test_an_interrupt_ends_all_that_an_import_has_begun(house: Gateway) -> None:
    file = written(house, "interrupted.txt", "\n".join(f"interrupted{n}@example.org" for n in range(40_000)))
    before = count_events(house)
    listens = ("env", "--default-signal=INT")  # also where whoever runs the tests ignores an interrupt
    command = [*listens, *house.command("suppressions", "import", file, "--scope", "all-marketing")]
    with subprocess.Popen(command, cwd=house.folder, stderr=subprocess.PIPE, start_new_session=True) as importing:
        eventually(lambda: count_events(house) > before + 200)
        os.killpg(importing.pid, signal.SIGINT)
        assert importing.stderr
        assert importing.stderr.read().strip() == b"Aborted!"
    assert importing.returncode == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(importing.pid, 0)
    last = house.json("suppressions", "imports")[-1]
    assert (last["file"], last["state"]) == (file, "applying")
    undone = house.json("suppressions", "undo", str(last["import"]))
    assert 200 < undone["people"] < 40_000
    assert house.json("ledger", "verify")["problems"] == []


def test_no_consent_of_an_import_counts_before_all_of_it_is_applied(house: Gateway) -> None:
    people = [f"many{n}@example.org" for n in range(40_000)]
    out, kept = "many-out@example.org", "many-kept@example.org"
    house.opt_in(out, kept)
    rows = [f"{one},Ann,{{}},enabled,2020-01-01T10:00:00Z" for one in (*people, kept)]
    rows.append(f"{out},Ann,{{}},blocklisted,2020-01-01T10:00:00Z")
    file = written(house, "many.csv", "\n".join(["email,name,attributes,status,created_at", *rows]))
    command = ("consent", "import", file, "--topic", TOPIC, "--notice", "join", "--attested-by", "Ann")
    before = count_events(house)
    with subprocess.Popen(house.command("--json", *command), cwd=house.folder, stdout=subprocess.PIPE) as importing:
        eventually(lambda: count_events(house) > before + 200)
        importing.kill()
    assert refusal(house, out) == "unsubscribed"
    last = house.json("suppressions", "imports")[-1]
    assert last["state"] == "applying"
    sample = people[::2000]
    assert {refusal(house, one) for one in sample} == {"no-consent"}
    assert refusal(house, kept) == ""
    assert house.json("ledger", "verify")["problems"] == []
    undone = house.json("suppressions", "undo", str(last["import"]))
    assert 100 < undone["people"] < len(people)
    assert refusal(house, out) == ""
    assert house.json(*command)["counts"]["express"] == len(people) + 1
    assert {refusal(house, one) for one in (*sample, kept)} == {""}
    assert refusal(house, out) == "unsubscribed"
