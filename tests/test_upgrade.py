"""Start today's program on data folders that earlier versions left behind: what they promised still holds.

The archives stand in tests/upgrades, whose README says how they were made.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.store.migrate import is_up_to_date
from gateway.store.schema import DECISIONS, PEOPLE, SPOOL
from gateway.store.writer import connect
from tests.gateway_under_test import Gateway, eventually, newsletter
from tests.sink import Sink
from tests.upgrades.make import LEFT, OBJECTS, STAYS, hash_of

ARCHIVES = sorted(Path(__file__).with_name("upgrades").glob("*.tar.xz"))
FOR_EVER = """
    [smarthosts.default]
    urls = ["{url}"]
    processor = "Example Hosting Ltd."
    give_up_after = "36500d"
    """
"""The mail in the archives grows older every day; no retry schedule of a real smarthost would wait so long."""


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def house(request: pytest.FixtureRequest, sink: Sink, tmp_path: Path) -> Iterator[Gateway]:
    """An earlier version's data folder under today's program, which has not been started on it yet."""
    gateway = Gateway(tmp_path / "house", sink.url, sections={"smarthosts": FOR_EVER.format(url=sink.url)})
    gateway.prepare_files()
    with tarfile.open(request.param) as packed:
        packed.extractall(gateway.folder)
    gateway.passwords = story_of(gateway)["passwords"]
    yield gateway
    gateway.close()


def story_of(gateway: Gateway) -> dict[str, Any]:
    return dict(json.loads((gateway.folder / "story.json").read_text()))


def version_of(path: Path) -> int:
    with closing(connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def recipients_in(spool: Path) -> int:
    with closing(connect(spool)) as connection:
        return int(connection.execute("SELECT count(*) FROM recipients").fetchone()[0])


@pytest.mark.req("OPS-07")
def test_what_an_earlier_version_promised_is_kept_by_this_one(house: Gateway, sink: Sink) -> None:
    story = story_of(house)
    house.start()
    house.submit(newsletter(OBJECTS), [OBJECTS])
    invoices = story["waiting"]
    received = {one.recipients[0]: one.content for one in sink.wait_for(1 + len(invoices), 30)}
    eventually(lambda: house.json("queue", "list") == [])
    assert set(received) == {STAYS, *invoices}, "the one who left while mail waited gets none"
    assert {reader: hash_of(received[reader]) for reader in invoices} == invoices
    for address, reason in ((LEFT, "unsubscribed"), (OBJECTS, "objected")):
        code, text = house.submit(newsletter(address), [address])[address]
        assert (code, text.startswith(f"5.7.1 {reason}:")) == (550, True)


@pytest.mark.req("OPS-07")
def test_links_decisions_and_ledger_of_an_earlier_version_are_good_for_ever(house: Gateway) -> None:
    story = story_of(house)
    house.start()
    assert house.json("explain", story["decision"])
    assert house.submit(newsletter(STAYS), [STAYS])[""][0] == 250
    assert house.one_click(story["tokens"][STAYS]).status == 200
    assert house.submit(newsletter(STAYS), [STAYS])[STAYS][0] == 550
    eventually(lambda: house.run("ledger", "verify", "--anchor", "var/anchor.jsonl", check=False).returncode == 0)


@pytest.mark.req("OPS-07")
def test_an_upgrade_keeps_what_each_file_was(house: Gateway) -> None:
    var = house.folder / "var"
    months = sorted((var / "decisions").glob("*.db"))
    files = {var / "assent.db": PEOPLE, var / "spool.db": SPOOL, **dict.fromkeys(months, DECISIONS)}
    versions = {path: version_of(path) for path in files}
    told = house.json("migrate")
    due = [path for path, migrations in files.items() if versions[path] < len(migrations)]
    copies = [path.with_name(f"{path.name}.schema-{versions[path]}") for path in due]
    assert told["copies"] == [str(path) for path in copies]
    assert [version_of(path) for path in copies] == [versions[path] for path in due]
    assert all(is_up_to_date(path, migrations) for path, migrations in files.items())
    assert house.json("status")["queued_recipients"] == recipients_in(var / "spool.db.schema-1") > 0
