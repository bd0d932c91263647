"""What the ledger says, for others: as lines that can be verified, as records and receipts of consent, as a list.

The program is a separate process. Records are held against the published schemas in docs/schemas, leaves and roots are
worked out anew from docs/decisions/0004, and a receipt's signature is verified with the published key by openssl, which
has nothing of the program.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.gateway_under_test import TOPIC, Gateway, eventually
from tests.sink import Sink

Someone = Callable[[], str]
SCHEMAS = Path(__file__).parent.parent / "docs" / "schemas"
WORDS = "Yes, mail me Product announcements. I can stop this at any time.\n"


@pytest.fixture(scope="module")
def house(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("exports") / "house"
    running = Gateway(folder, shared_sink.url).prepare()
    (folder / "words.txt").write_text(WORDS)
    running.run(
        *("notices", "add", "box", "--topic", TOPIC, "--text", "words.txt", "--url", "https://example.com/join"),
        *("--control", "unticked", "--from", "2020-01-01", "--language", "de"),
        *("--states", "requester", "--states", "contact"),
    )
    yield running.start()
    running.close()


def opt_in(house: Gateway, *addresses: str, more: tuple[str, ...] = ()) -> None:
    house.run("consent", "record", *addresses, "--topic", TOPIC, "--basis", "express", "--notice", "box", *more)


def refuse_all(house: Gateway, address: str) -> None:
    house.run("suppressions", "add", address, "--scope", "all-marketing", "--reason", "objected")


def exported(house: Gateway, form: str, *more: str) -> list[dict[str, Any]]:
    lines = house.run("ledger", "export", "--format", form, *more).stdout.splitlines()
    return [json.loads(one) for one in lines]


def schema(name: str) -> jsonschema.Draft202012Validator:
    rules = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(rules)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(rules, format_checker=checker)


@pytest.mark.req("CON-10")
def test_a_record_of_each_consent_is_shaped_by_the_standard_and_tells_its_withdrawal(
    house: Gateway, someone: Someone
) -> None:
    reader, faithful, other = someone(), someone(), someone()
    opt_in(house, reader, faithful)
    house.run("consent", "record", reader, "--topic", "special-offers", "--basis", "confirmed")
    refuse_all(house, reader)
    refuse_all(house, other)
    rules = schema("consent-record")
    everybody = exported(house, "iso27560")
    for one in everybody:
        rules.validate(one)
    about = exported(house, "iso27560", "--person", reader)
    assert [one for one in everybody if one["pii_principal_id"] == about[0]["pii_principal_id"]] == about
    assert len({one["record_id"] for one in everybody}) == len(everybody)
    news, offers = about
    assert [one["event_state"] for one in news["event"]] == ["consent_given", "consent_withdrawn"]
    assert [one["event_state"] for one in offers["event"]] == ["consent_given", "consent_withdrawn"]
    assert [one["event_type"] for one in offers["event"]] == ["OPT_IN_CONFIRMED", "OBJECTION"]
    (processing,) = news["pii_processing"]
    assert processing["language"] == "de"
    assert processing["notice"]["text"] == WORDS
    assert processing["notice"]["sha256"] == hashlib.sha256(WORDS.encode()).hexdigest()
    (purpose,) = processing["purposes"]
    assert purpose["purpose"] == "Product announcements"
    assert purpose["pii_controllers"] == ["Example Software, Inc."]
    assert purpose["recipient_third_parties"] == ["Example Hosting Ltd."]
    assert purpose["storage_locations"] == ["US"]
    assert (purpose["collection_method"], purpose["lawful_basis"]) == ("web-form", "consent")
    (kept,) = exported(house, "iso27560", "--person", faithful)
    assert [one["event_state"] for one in kept["event"]] == ["consent_given"]
    assert exported(house, "iso27560", "--person", other) == [], "an objection alone is no consent"
    assert house.run("ledger", "export", "--person", "nobody@example.org", check=False).returncode == 1


@pytest.mark.req("CON-10")
def test_the_schema_refuses_what_is_no_record(house: Gateway, someone: Someone) -> None:
    reader = someone()
    opt_in(house, reader)
    (record,) = exported(house, "iso27560", "--person", reader)
    rules = schema("consent-record")
    for name in record:
        assert not rules.is_valid({field: one for field, one in record.items() if field != name}), name
    purpose = record["pii_processing"][0]["purposes"][0]
    for name in purpose:
        shorter = {field: one for field, one in purpose.items() if field != name}
        assert not rules.is_valid(
            {**record, "pii_processing": [{**record["pii_processing"][0], "purposes": [shorter]}]}
        )


@pytest.mark.req("CON-11")
def test_a_receipt_is_signed_and_verifies_with_the_published_key(
    house: Gateway, someone: Someone, tmp_path: Path
) -> None:
    reader, gone = someone(), someone()
    opt_in(house, reader, more=("--country", "CA"))
    opt_in(house, gone)
    refuse_all(house, gone)
    (told,) = exported(house, "kantara", "--person", reader)
    receipt = told["receipt"]
    schema("consent-receipt").validate(receipt)
    assert (receipt["piiPrincipalId"], receipt["jurisdiction"], receipt["language"]) == (reader, "CA", "de")
    (purpose,) = receipt["services"][0]["purposes"]
    assert (purpose["purpose"], purpose["consentType"]) == ("Product announcements", "EXPLICIT")
    assert purpose["thirdPartyDisclosure"] is False and purpose["primaryPurpose"] is True
    head, payload, signature = told["jws"].split(".")
    assert json.loads(octets(payload)) == receipt, "what is signed is what is shown"
    (published,) = house.json("ledger", "key")["keys"]
    assert json.loads(octets(head)) == {"alg": "EdDSA", "typ": "JWT", "kid": published["kid"]}
    assert receipt["publicKey"].endswith(published["kid"])
    (tmp_path / "key.pem").write_text(house.run("ledger", "key", "--pem").stdout)
    assert octets(published["x"]) == public_octets(tmp_path / "key.pem")
    signed = f"{head}.{payload}".encode()
    assert is_signed(tmp_path, signed, octets(signature))
    assert not is_signed(tmp_path, signed.replace(b".", b".A", 1), octets(signature))
    assert exported(house, "kantara", "--person", gone) == [], "there is no receipt of what was withdrawn"


def octets(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_octets(pem: Path) -> bytes:
    """Return the 32 octets of an Ed25519 public key, which end its DER form (RFC 8410 §4)."""
    done = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", str(pem), "-outform", "DER"], capture_output=True, check=True
    )
    return done.stdout[-32:]


def is_signed(folder: Path, message: bytes, signature: bytes) -> bool:
    (folder / "message").write_bytes(message)
    (folder / "signature").write_bytes(signature)
    files = ("-inkey", folder / "key.pem", "-in", folder / "message", "-sigfile", folder / "signature")
    done = subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", *map(str, files)], capture_output=True)
    return done.returncode == 0


def spelled(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def commitment_of(line: dict[str, Any]) -> str:
    octets = b"assent.commitment.v1\0" + bytes.fromhex(line["salt"]) + spelled(line["personal"])
    return hashlib.sha256(octets).hexdigest()


def leaf_of(line: dict[str, Any]) -> bytes:
    covered = ("v", "seq", "type", "who", "at", "recorded_at", "topic", "scope", "facts", "commitment")
    return hashlib.sha256(b"\0" + spelled({name: line[name] for name in covered})).digest()


def root_of(leaves: list[bytes]) -> bytes:
    """Merkle tree hash, written from RFC 9162 §2.1.1 as it stands there: split at the largest power of two below n."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


@pytest.mark.req("CON-06", "CON-10")
def test_an_exported_ledger_can_be_verified_by_others_against_the_anchor(house: Gateway, someone: Someone) -> None:
    reader, erased = someone(), someone()
    opt_in(house, reader, erased)
    house.run("person", "erase", erased)
    last = len(exported(house, "jsonl"))
    anchor = house.folder / "var" / "anchor.jsonl"

    def heads() -> list[dict[str, Any]]:
        return [one for one in map(json.loads, anchor.read_text().splitlines()) if one["chain"] == "ledger"]

    eventually(lambda: heads() and heads()[-1]["last"] >= last)
    lines = exported(house, "jsonl")
    assert [one["seq"] for one in lines] == list(range(1, len(lines) + 1))
    for line in lines:
        assert leaf_of(line).hex() == line["hash"]
        assert line["salt"] is None or commitment_of(line) == line["commitment"]
    assert any(one["salt"] is None and one["personal"] is None for one in lines), "erased: only its commitment is left"
    assert erased not in json.dumps(lines)
    for head in heads():
        sealed = [leaf_of(one) for one in lines if head["first"] <= one["seq"] <= head["last"]]
        assert root_of(sealed).hex() == head["root"]


def test_an_export_is_a_whole_file_or_none_and_who_took_it_is_recorded(house: Gateway, someone: Someone) -> None:
    reader = someone()
    opt_in(house, reader)
    done = house.run("ledger", "export", "--output", "taken.jsonl")
    taken = house.folder / "taken.jsonl"
    assert taken.stat().st_mode & 0o077 == 0
    assert [json.loads(one)["seq"] for one in taken.read_text().splitlines()]
    (line,) = house.json("explain", done.stderr.split()[-1])
    assert (line["kind"], line["format"], line["count"]) == (
        "export",
        "ledger jsonl",
        len(taken.read_text().splitlines()),
    )
    before = taken.read_bytes()
    again = house.run("ledger", "export", "--format", "kantara", "--output", "taken.jsonl", check=False)
    assert again.returncode == 1 and "never overwritten" in again.stdout
    assert taken.read_bytes() == before
    assert not [one.name for one in house.folder.iterdir() if one.name.startswith(".taken")]


ON_A_FULL_DISK = """
    mkdir -p out && mount -t tmpfs -o size=16k tmpfs out && printf before > out/old.csv || exit 99
    "$@" > /dev/null
    echo $? $(ls -A out) $(cat out/old.csv)
    """
MANY = [f"reader{n}@full-disk.example" for n in range(1500)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
@pytest.mark.parametrize(
    "command",
    [
        "suppressions export --purpose agency --output out/new.csv",
        "breach affected leak --file many.txt --output out/new.csv",
        "simulate --stream newsletter many.txt --write out/new.csv,out/old.csv",
    ],
)
def test_a_list_for_which_there_is_no_room_is_not_there_and_an_older_one_stays(house: Gateway, command: str) -> None:
    if not (house.folder / "many.txt").exists():
        (house.folder / "many.txt").write_text("\n".join(MANY))
        house.run("suppressions", "import", "many.txt", "--scope", "partner")
        house.run("breach", "open", "leak", "--what", "a list got out")
    shell = ["unshare", "-m", "sh", "-c", ON_A_FULL_DISK, "sh", *house.command(*command.split())]
    done = subprocess.run(shell, cwd=house.folder, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "old.csv", "before"]
    assert done.stderr.splitlines()[-1].endswith("No space left on device") and "Traceback" not in done.stderr


def test_the_opt_ins_that_stand_are_listed_and_can_be_taken_in_again(house: Gateway, someone: Someone) -> None:
    reader, gone, twice = someone(), someone(), someone()
    opt_in(house, reader, gone, twice)
    house.run("consent", "record", twice, "--topic", "special-offers", "--basis", "confirmed")
    refuse_all(house, gone)
    done = house.run("consent", "export")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert done.stderr.startswith(f"{len(rows)} lines, recorded as"), "the header is nobody's consent"
    told = {(one["address"], one["topic"], one["basis"], one["notice"]) for one in rows}
    assert (reader, TOPIC, "express", "box") in told
    assert (twice, "special-offers", "confirmed", "") in told
    assert gone not in {one["address"] for one in rows}
    narrow = list(csv.DictReader(io.StringIO(house.run("consent", "export", "--topic", "special-offers").stdout)))
    assert {one["topic"] for one in narrow} == {"special-offers"}
    proofs = [json.loads(one) for one in house.run("consent", "export", "--format", "jsonl").stdout.splitlines()]
    (proof,) = [one for one in proofs if one["address"] == reader]
    assert proof["notice"]["text"] == WORDS and proof["canonical_key"]["version"] == 1
