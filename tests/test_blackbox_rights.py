"""A person's rights, judged as the person would: what is shown, and what somebody finds who has stolen the disk.

The search of the data folder here is the test's own, and reads every octet of every file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import quopri
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway_under_test import TOPIC, Gateway, eventually, invoice, link_of, newsletter
from tests.sink import Sink

Someone = Callable[[], str]


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    smarthost = f"""
        [smarthosts.default]
        urls = ["{shared_sink.url}"]
        processor = "Example Hosting Ltd."
        retry = ["1h"]
        """
    folder = tmp_path_factory.mktemp("rights") / "house"
    running = Gateway(folder, shared_sink.url, sections={"smarthosts": smarthost}).prepare().start()
    yield running
    running.close()


def files_naming(house: Gateway, address: str) -> list[str]:
    """Return the files of the data folder that hold an address, in whatever of the usual spellings."""
    octets = address.encode()
    bare = [base64.b64encode(b"x" * shift + octets)[4 if shift else 0 :].rstrip(b"=")[:-2] for shift in range(3)]
    spelled = [octets, octets.hex().encode(), quopri.encodestring(octets, quotetabs=True), *bare]
    spelled += [b"".join(b"=%02X" % one for one in octets), octets.replace(b"@", b"=40"), octets.replace(b"@", b"%40")]
    found = []
    for path in sorted((house.folder / "var").rglob("*")):
        content = path.read_bytes().lower() if path.is_file() else b""
        found += [path.name] if any(one.lower() in content for one in spelled) else []
    return found


def relayed(sink: Sink, address: str) -> bytes:
    return eventually(lambda: next((one.content for one in sink.messages if address in one.recipients), None))


def history(house: Gateway, address: str) -> list[dict]:
    return json.loads(house.run("--json", "consent", "show", address, check=False).stdout or "[]")


@pytest.mark.req("DSR-01", "POL-25", "POL-26")
def test_an_export_tells_a_person_everything_that_is_known_and_nothing_of_others(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    reader, other = someone(), someone()
    house.opt_in(reader, other)
    house.submit(newsletter(reader), [reader, other])
    message = relayed(sink, reader)
    house.one_click(link_of(message).rpartition("/")[2])
    assert house.submit(newsletter(reader), [reader])[reader][0] == 550

    def told() -> dict | None:
        found = json.loads(house.run("person", "export", reader).stdout)
        return found if len(found["decisions"]) == 2 and found["deliveries"] else None

    export = eventually(told)
    assert [one["type"] for one in export["evidence"]] == ["EXPRESS_OPT_IN", "UNSUBSCRIBE"]
    assert export["evidence"][1]["personal"]["ip"] == "127.0.0.1"
    assert [one["collection_method"] for one in export["evidence"]] == ["operator", "one-click"]
    assert export["evidence"][0]["address"] == reader and export["evidence"][0]["purposes"][0]["topic"] == TOPIC
    assert export["evidence"][0]["controllers"] == ["Example Software, Inc."]
    assert [one["action"] for one in export["decisions"]] == ["send", "refuse"]
    assert export["deliveries"][0]["outcome"] == "relayed"
    assert [(one["scope"], one["topic"]) for one in export["suppressions"]] == [("topic", TOPIC)]
    assert export["processors"][0]["name"] == "Example Hosting Ltd."
    assert export["region"] == "US"
    assert {"operator", "one-click"} <= set(export["sources"])
    assert export["retention"]["suppressions"]
    assert other not in json.dumps(export)
    page = house.run("person", "export", reader, "--html").stdout
    assert page.startswith("<!DOCTYPE html>")
    assert all(one in page for one in (reader, "Example Hosting Ltd.", "EXPRESS_OPT_IN", "UNSUBSCRIBE", "127.0.0.1"))


@pytest.mark.req("POL-26")
def test_a_smarthost_without_a_named_processor_is_warned_of(house: Gateway, sink: Sink) -> None:
    unnamed = f'[smarthosts.default]\nurls = ["{sink.url}"]'
    other = Gateway(house.folder.parent / "unnamed", sink.url, sections={"smarthosts": unnamed})
    other.prepare_files()
    other.run("migrate")
    checked = other.run("check", check=False)
    assert "processor" in checked.stdout + checked.stderr


@pytest.mark.req("CON-07", "DSR-04", "SUP-08", "SUP-09")
def test_an_erasure_leaves_no_trace_but_the_keyed_no(house: Gateway, sink: Sink, someone: Someone) -> None:
    reader = f"erased-{someone()}"
    house.opt_in(reader)
    house.submit(newsletter(reader), [reader])
    relayed(sink, reader)
    assert files_naming(house, reader), "the search finds what is there"
    told = house.json("person", "erase", reader)
    assert told["traces"] == []
    assert files_naming(house, reader) == []
    assert house.submit(newsletter(), [reader])[reader][0] == 550
    eventually(lambda: files_naming(house, reader) == [])
    assert house.run("ledger", "verify", "--anchor", str(house.folder / "var" / "anchor.jsonl")).returncode == 0
    (kept,) = house.json("suppressions", "check", reader)
    assert kept["reason"] == "erased"
    assert [(one["type"], one["personal"]) for one in history(house, reader)] == [
        ("EXPRESS_OPT_IN", None),
        ("ERASURE", None),
    ]


@pytest.mark.req("DSR-04", "POL-22")
def test_nothing_that_stays_on_record_for_ever_takes_an_address(house: Gateway, someone: Someone) -> None:
    reader = f"quoted-{someone()}"
    covering = ("--scope", "all-marketing")
    for command in (
        ("suppressions", "add", reader, *covering, "--reason", "objected", "--why"),
        ("suppressions", "remove", reader, *covering, "--why"),
        ("suppressions", "export", "--purpose"),
        ("person", "hold", reader, "--why"),
        ("person", "erase", reader, "--why"),
        ("breach", "open", "leak", "--what"),
        ("streams", "pause", "newsletter", "--why"),
    ):
        done = house.run(*command, f"a letter of {reader}", check=False)
        assert (done.returncode, "must not hold an address" in done.stderr) == (2, True), command
    assert house.run("person", "hold", reader, "--why", " ", check=False).returncode == 2
    assert files_naming(house, reader) == []


@pytest.mark.req("DSR-04", "POL-22")
def test_an_address_in_a_campaigns_name_or_a_reason_is_not_sealed_into_the_decision_log(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = f"campaign-{someone()}"
    house.opt_in(reader)
    sink.on("RCPT", "451 4.2.0 later", containing=reader)
    named = newsletter(reader).replace(b"MIME-Version:", f"Assent-Campaign: welcome {reader}\r\nMIME-Version:".encode())
    house.submit(named, [reader])
    (waits,) = eventually(lambda: [one for one in house.json("queue", "list") if one["recipient"] == reader])
    house.run("queue", "drop", waits["message"], "--why", f"{reader} has moved")
    eventually(lambda: house.run("person", "erase", reader, check=False).returncode == 0)
    assert files_naming(house, reader) == []


@pytest.mark.req("DSR-04", "SUP-09")
def test_an_erasure_takes_the_digest_of_an_imported_list_with_it(house: Gateway, someone: Someone) -> None:
    reader = f"digested-{someone()}"
    digest = hashlib.md5(reader.encode())
    listed = house.folder / "digests.txt"
    listed.write_text(f"{digest.hexdigest()}\n")
    house.run("suppressions", "import", str(listed), "--scope", "all-marketing")
    listed.unlink()
    assert files_holding(house, digest.digest())
    house.opt_in(reader)
    house.run("person", "erase", reader)
    assert files_holding(house, digest.digest()) == files_holding(house, digest.hexdigest().encode()) == []
    (kept,) = [one for one in house.json("suppressions", "check", reader) if one["reason"] == "erased"]
    assert kept["scope"] == "all-marketing"


def files_holding(house: Gateway, octets: bytes) -> list[str]:
    files = [path for path in (house.folder / "var").rglob("*") if path.is_file()]
    return [path.name for path in files if octets in path.read_bytes()]


@pytest.mark.req("DSR-04")
def test_mail_that_waits_for_an_erased_person_is_dropped_and_the_submitter_told(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = f"waiting-{someone()}"
    sink.on("RCPT", "451 4.2.0 later", containing=reader)
    house.submit(invoice(reader), [reader], login="shop", sender="billing@example.com")
    eventually(lambda: [one for one in house.json("queue", "list") if one["recipient"] == reader])
    told = house.json("person", "erase", reader)
    assert told["dropped"] == 1
    assert relayed(sink, "billing@example.com")
    assert house.json("queue", "list") == []
    assert files_naming(house, reader) == []


@pytest.mark.req("DSR-04")
def test_an_address_that_the_smarthost_repeats_is_not_sealed_into_the_decision_log(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = f"repeated-{someone()}"
    house.opt_in(reader)
    sink.on("RCPT", f"550 5.1.1 <{reader}> is unknown here", containing=reader)
    house.submit(newsletter(reader), [reader])
    assert relayed(sink, "letters@news.example.com")
    (attempt,) = eventually(lambda: house.json("person", "export", reader)["deliveries"])
    assert attempt["reply"] == "550 5.1.1 <(address)> is unknown here"
    house.run("person", "erase", reader)
    assert files_naming(house, reader) == []


@pytest.mark.req("DSR-05")
def test_whoever_was_erased_is_not_sent_to_by_an_old_list_but_may_opt_in_anew(
    house: Gateway, sink: Sink, someone: Someone
) -> None:
    reader = f"back-{someone()}"
    house.opt_in(reader)
    house.run("person", "erase", reader)
    house.opt_in(reader)
    assert house.submit(newsletter(), [reader])[reader][0] == 550
    house.run("person", "erase", reader)
    assert files_naming(house, reader) == []
    house.run("consent", "record", reader, "--topic", TOPIC, "--basis", "confirmed")
    assert house.submit(newsletter(reader), [reader])[""][0] == 250
    assert relayed(sink, reader)
    assert house.json("person", "export", reader)["person"]["address_on_record"] == reader


@pytest.mark.req("POL-18")
def test_what_is_known_of_a_minor_is_erased_with_the_flag(house: Gateway, someone: Someone) -> None:
    child = f"minor-{someone()}"
    house.opt_in(child)
    house.run("suppressions", "add", child, "--scope", "all-marketing", "--reason", "minor")
    export = house.json("person", "export", child)
    assert export["permissions"] == []
    assert export["person"]["address_on_record"] is None
    assert {one["personal"] for one in export["evidence"]} == {None}
    assert house.submit(newsletter(), [child])[child][0] == 550


@pytest.mark.req("POL-32")
def test_a_legal_hold_stops_an_erasure_until_it_is_released(house: Gateway, someone: Someone) -> None:
    reader = f"held-{someone()}"
    house.opt_in(reader)
    house.run("person", "hold", reader, "--why", "court order 4711")
    refused = house.run("person", "erase", reader, check=False)
    assert refused.returncode == 1
    assert "held" in refused.stdout
    kept = history(house, reader)
    assert kept[0]["personal"] == {"address": reader}
    assert (kept[1]["type"], kept[1]["facts"]["why"]) == ("HOLD_PLACED", "court order 4711")
    house.run("person", "release", reader, "--why", "order lifted")
    assert house.json("person", "erase", reader)["traces"] == []
    assert files_naming(house, reader) == []


@pytest.mark.req("POL-32")
def test_a_minor_who_is_held_is_forgotten_when_the_hold_ends(house: Gateway, someone: Someone) -> None:
    child = f"held-{someone()}"
    house.opt_in(child)
    house.run("person", "hold", child, "--why", "court order 4712")
    house.run("suppressions", "add", child, "--scope", "all-marketing", "--reason", "minor")
    assert history(house, child)[0]["personal"] == {"address": child}
    house.run("person", "release", child, "--why", "order lifted")
    assert {one["personal"] for one in history(house, child)} == {None}


@pytest.mark.req("SUP-09")
def test_a_stolen_database_does_not_tell_an_erased_address_to_whoever_hashes_guesses(
    house: Gateway, someone: Someone
) -> None:
    reader = f"guessed-{someone()}"
    house.opt_in(reader)
    house.run("person", "erase", reader)
    stolen = [path.read_bytes() for path in Path(house.folder / "var").glob("*.db*")]
    for name in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(name, reader.encode()).digest()
        assert not any(digest in one or digest.hex().encode() in one for one in stolen)


@pytest.mark.req("DSR-07", "DSR-10", "POL-25")
def test_the_record_of_processing_follows_from_the_configuration(house: Gateway) -> None:
    told = json.loads(house.run("processing").stdout)
    assert told["controller"]["name"] == "Example Software, Inc."
    purposes = {one["stream"]: (one["class"], one["legal_basis"]) for one in told["purposes"]}
    assert purposes["newsletter"][0] == "promotional" and "consent" in purposes["newsletter"][1]
    assert purposes["billing"] == ("account", "the contract")
    assert [one["name"] for one in told["recipients"]] == ["Example Hosting Ltd."]
    assert told["region"] == "US"
    assert told["retention"]["decisions and deliveries"].startswith("1095 days")
    assert told["categories_of_data"] and told["categories_of_people"] and told["measures"]
    assert told["automated_decisions"].startswith("none")
    page = house.run("processing", "--html").stdout
    assert page.startswith("<!DOCTYPE html>") and "Record of processing" in page and "Example Hosting Ltd." in page
