"""The configuration: what a file says, and what is said about a file that is wrong.

The example file is the subject of most tests. Where each of its keys stands is found here by looking at single lines,
not by the locator under test.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, DkimDomain, ListenAddress, load, reference
from gateway.config.lines import Lines
from gateway.config.schema import NOT_YET_IN_FORCE, REQUIRED, SECTIONS, Key, Presence
from gateway.errors import ConfigError
from gateway.model import MessageClass
from gateway.sign import NEVER_SIGNED

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = (ROOT / "config.example.toml").read_text("utf-8")
# The same with every key in force, those too that the example shows as comments.
FULL = re.sub(r"(?m)^# (\w+ = )", r"\1", EXAMPLE)
FOOTER = (
    "<p>Example Software, Inc. 1 Main Street, Springfield IL 62701, USA privacy@example.com"
    ' <a href="{{unsubscribe_url}}">Unsubscribe</a></p>\n'
)
WRONG = "1979-05-27T07:32:00Z"

CONTRACT = {
    "": "hostname workers data_dir database",
    "company": "name postal_address contact privacy_policy region hosts help_url",
    "consent": "require markets",
    "submission": "listen listen_tls tls_certificate tls_key plaintext_from max_message_size max_recipients",
    "smarthosts": "urls username password_file processor connections rate messages_per_connection retry give_up_after",
    "feedback": "listen domain",
    "site": "listen public_url subscribe rights trusted_proxies tls_certificate tls_key",
    "console": "listen",
    "dkim": "selectors",
    "topics": "name partner",
    "streams": "class topics from return_paths smarthost refusals mode until tracking brake",
    "retention": "messages decisions evidence_ip backups",
}


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with RSA keys of three sizes, one of Ed25519, and two certificates with their keys."""
    folder = tmp_path_factory.mktemp("keys")
    for bits in (512, 1024, 2048):
        openssl("genrsa", "-out", folder / f"rsa{bits}.pem", bits)
    ed25519 = Ed25519PrivateKey.generate()
    (folder / "ed25519.pem").write_bytes(ed25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for name in ("server", "site"):
        pair = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", *pair, "-days", "2", "-subj", "/CN=relay.example.com")
    return folder


class House:
    """A folder with a configuration and everything that the example names; `text` is edited and then loaded."""

    def __init__(self, folder: Path, made: Path) -> None:
        self.folder = folder
        self.path = folder / "config.toml"
        self.text = EXAMPLE
        self.made = made
        for name in ("server.pem", "server.key", "site.pem", "site.key"):
            self.put(f"var/tls/{name}", (made / name).read_bytes())
        self.put("var/tls/ca.pem", (made / "server.pem").read_bytes())
        self.use_key("rsa2048.pem")
        self.put("var/smarthost.password", b"correct horse\n")
        self.put("var/console.password", b"correct horse\n")
        self.put("var/webhooks/crm.secret", b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")

    def put(self, name: str, content: bytes, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def use_key(self, name: str) -> Path:
        return self.put("var/dkim/example.com.s1.pem", (self.made / name).read_bytes())

    def change(self, old: str, new: str) -> House:
        assert old in self.text, f"{old!r} does not stand in the file"
        self.text = self.text.replace(old, new, 1)
        return self

    def drop(self, header: str) -> House:
        """Leave a section out, to the next header."""
        self.text, count = re.subn(rf"(?ms)^{re.escape(header)}.*?(?=^\[|\Z)", "", self.text, count=1)
        assert count, f"{header} does not stand in the file"
        return self

    def load(self, *, keys_may_be_missing: bool = False) -> Config:
        self.path.write_text(self.text, "utf-8")
        return load(self.path, keys_may_be_missing=keys_may_be_missing)

    def problems(self) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load()
        return caught.value.problems

    def only_problem(self) -> str:
        [problem] = self.problems()
        return problem

    def line(self, beginning: str) -> int:
        """The first line that begins so."""
        return next(n for n, line in enumerate(self.text.splitlines(), 1) if line.startswith(beginning))

    def at(self, beginning: str) -> str:
        """How a finding on that line begins."""
        return f"config.toml:{self.line(beginning)}: "

    def warnings_about(self, words: str) -> list[str]:
        return [warning for warning in self.load().warnings if words in warning]


@pytest.fixture
def house(tmp_path: Path, made: Path) -> House:
    house = House(tmp_path, made)
    house.put("rules/nz.toml", (ROOT / "gateway/regimes/au.toml").read_bytes().replace(b'"AU"', b'"NZ"'))
    for name in ("footer.txt", "footer.html"):
        house.put(name, FOOTER.encode())
    return house


def keys_of(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Yield each key of a file with one key a line: its line, its header's line, its section, its name."""
    section, header = "", 1
    for n, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\[(\w+)", line):
            section, header = found[1], n
        elif found := re.match(r"(\w+)\s*=", line):
            yield n, header, section, found[1]


KEYS = list(keys_of(FULL))
every_key = pytest.mark.parametrize(("line", "header", "section", "name"), KEYS, ids=lambda value: str(value))


def schema_keys() -> dict[tuple[str, str], Presence | object]:
    return {
        (section.name, key.name): key.default if isinstance(key, Key) else REQUIRED
        for section in SECTIONS
        for key in section.keys
    }


def with_line(text: str, line: int, change: Callable[[str], str]) -> str:
    lines = text.splitlines()
    lines[line - 1] = change(lines[line - 1])
    return "\n".join(lines) + "\n"


# What a good file says


def test_the_database_lies_in_the_data_folder_unless_it_is_told_where(house: House) -> None:
    line = next(one for one in EXAMPLE.splitlines(keepends=True) if one.startswith("database"))
    elsewhere = house.change(line, "").change('data_dir = "var"', 'data_dir = "/var/lib/assent"')
    assert elsewhere.load().database == "sqlite:/var/lib/assent/assent.db"


def test_the_example_loads_once_its_files_exist(house: House) -> None:
    config = house.load()
    assert config.hostname == "relay.example.com"
    assert config.workers >= 1
    assert config.data_dir == house.folder / "var"
    assert config.database == f"sqlite:{house.folder}/var/assent.db"
    assert config.company.hosts == ("example.com", "*.example.com")
    assert config.company.help_url == "https://wiki.example.com/mail"
    assert config.submission.listen == (ListenAddress(ip_address("127.0.0.1"), 2525),)
    assert config.submission.plaintext_from == (ip_network("127.0.0.0/8"), ip_network("::1"))
    assert config.submission.max_message_size == 25 * 1024 * 1024
    assert config.submission.tls and config.submission.tls.key == house.folder / "var/tls/server.key"
    assert config.feedback and config.feedback.domain == "bounce.example.com"
    assert config.site and config.site.public_url == "https://mail.example.com"
    assert config.site.trusted_proxies == (ip_network("127.0.0.1/32"),)
    assert config.console and [str(address) for address in config.console.listen] == ["127.0.0.1:8081"]
    assert config.dkim["example.com"].selectors[0].key.rsa_bits == 2048


def test_streams_and_topics_are_the_models_own(house: House) -> None:
    config = house.load()
    newsletter = config.streams["newsletter"]
    assert newsletter.message_class is MessageClass.PROMOTIONAL
    assert newsletter.senders == ("*@news.example.com",)
    assert newsletter.return_paths == ("*@bounces.news.example.com",)
    assert config.streams["partners"].smarthost == "default"
    assert [stream.name for stream in config.promotional_streams] == ["newsletter", "partners"]
    assert (topic := config.topic("partner-offers")) and topic.partner
    assert config.topic("gardening") is None


def test_a_smarthost_retries_as_the_file_says(house: House) -> None:
    house.change('retry = ["1m", "5m", "15m", "30m", "1h"]', 'retry = ["90s", "2h"]').change('"5d"', '"36h"')
    schedule = house.load().smarthosts["default"].schedule
    assert schedule.steps == (timedelta(seconds=90), timedelta(hours=2))
    assert schedule.give_up_after == timedelta(hours=36)


def test_a_smarthost_that_says_nothing_retries_as_the_standard_advises(house: House) -> None:
    house.text = re.sub(r"(?m)^(retry|give_up_after) = .*\n", "", house.text)
    schedule = house.load().smarthosts["default"].schedule
    assert schedule.steps == tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60))
    assert schedule.give_up_after == timedelta(days=5)


def test_a_small_file_has_safe_defaults(house: House) -> None:
    house.text = """
hostname = "relay.example.com"
[company]
name = "Example"
contact = "privacy@example.com"
privacy_policy = "https://example.com/privacy"
[smarthosts.default]
urls = ["maildir:var/outbox"]
[streams.billing]
class = "account"
from = ["billing@example.com"]
"""
    config = house.load()
    assert (config.feedback, config.site, config.console) == (None, None, None)
    assert [str(address) for address in config.submission.listen] == ["127.0.0.1:2525"]
    assert config.submission.listen_tls == () and config.submission.tls is None
    assert config.submission.plaintext_from == (ip_network("127.0.0.0/8"), ip_network("::1"))
    assert (config.submission.max_message_size, config.submission.max_recipients) == (25 * 2**20, 1000)
    assert config.smarthosts["default"].urls == (f"maildir:{house.folder}/var/outbox",)
    assert config.smarthosts["default"].connections == 20


def test_a_file_is_read_wherever_the_program_was_started(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.load()
    monkeypatch.chdir(house.folder)
    assert load(Path("config.toml")).data_dir == house.folder / "var"


def test_domains_are_kept_as_a_labels(house: House) -> None:
    config = house.change('"partners@offers.example.com"', '"*@BÜCHER.example.com"').load()
    assert config.streams["partners"].senders == ("*@xn--bcher-kva.example.com",)


@pytest.mark.parametrize(
    ("domain", "signs"),
    [
        ("example.com", "example.com"),
        ("news.example.com", "example.com"),
        ("a.offers.example.com", "offers.example.com"),
        ("evilexample.com", None),
        ("com", None),
    ],
)
def test_the_longest_domain_signs_and_a_dot_stands_between(house: House, domain: str, signs: str | None) -> None:
    dkim = {name: DkimDomain(name, ()) for name in ("example.com", "offers.example.com")}
    assert replace(house.load(), dkim=dkim).dkim_domain_for(domain) == signs


# The example and the documents


# What has come since, in the contract's spirit.
ADDED = {
    "company": "phone language footer_text footer_html list_help list_owner list_post",
    "consent": "policy_accepted_in corporate_in free_account_is_sale ask_again block_related rules",
    "dkim": "identity also_sign",
    "dns": "servers check_keys sending_ips",
    "smarthosts": "tls_authorities warn_after",
    "streams": "give_up_after summary_after product controller also_called reads_as_promotion claims_without_end"
    " other_recipients mailto_first language footer_text footer_html commercial",
    "console": "password_file",
    "retention": "evidence",
    "submission": "proxy_from max_hops timeout connections_per_address connection_rate message_rate",
    "topics": "families max_age also_called",
    "webhooks": "url secret_file events streams logins format retry tls_authorities",
}


def test_the_table_of_keys_is_the_contracts_and_what_has_come_since() -> None:
    promised = {(section, key) for section, keys in CONTRACT.items() for key in keys.split()}
    added = {(section, key) for section, keys in ADDED.items() for key in keys.split()}
    assert schema_keys().keys() - promised == added
    assert promised - schema_keys().keys() == set()


def test_every_key_stands_in_the_example() -> None:
    assert {(section, name) for _, _, section, name in KEYS} == set(schema_keys())


def test_the_example_loads_with_every_key_in_force(house: House) -> None:
    house.text = FULL
    config = house.load()
    assert "NZ" in [one.code for one in config.law.regimes]
    assert config.site and config.site.tls
    assert config.dkim["example.com"].identity == "@news.example.com"


def test_the_reference_is_what_the_program_says() -> None:
    said = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert said == reference(), "run: python -m gateway.config > docs/configuration.md"


def test_the_reference_is_printed_for_who_writes_it() -> None:
    done = subprocess.run([sys.executable, "-m", "gateway.config"], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode("utf-8") == reference()


def test_the_reference_tells_of_each_key_what_it_may_be_and_whether_it_works() -> None:
    sections = dict(re.findall(r"(?ms)^## `\[([a-z]+).*?\]`(.*?)(?=^## |\Z)", reference()))
    sections[""] = reference().partition("## Before the first section")[2].partition("\n## ")[0]
    for section, name in schema_keys():
        assert f"\n| `{name}` | " in sections[section]
        row = sections[section].partition(f"\n| `{name}` | ")[2].partition("\n")[0]
        assert ("Not yet in force" in row) == (f"{section}.{name}" in NOT_YET_IN_FORCE)


# The program, started with a wrong file


def assent(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    house.path.write_text(house.text, "utf-8")
    command = [sys.executable, "-m", "gateway", "--config", str(house.path), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def refused_at_start(house: House) -> list[str]:
    """Start everything; it must not come up, must change nothing, and must say what is wrong."""
    before = sorted(house.folder.rglob("*"))
    done = assent(house, "serve")
    assert done.returncode == 78, done.stderr
    assert sorted({*house.folder.rglob("*")} - {house.path}) == sorted({*before} - {house.path})
    return done.stderr.splitlines()


def warned(house: House) -> str:
    """Return the warnings of `assent check`, which also stand in the log at each start."""
    findings = json.loads(assent(house, "--json", "check").stdout)
    return "\n".join(one["told"] for one in findings if one["what"] == "configuration" and one["state"] == "warning")


@pytest.mark.req("OPS-05")
def test_the_program_tells_every_broken_key_of_a_file_and_does_not_start(house: House) -> None:
    lines = FULL.splitlines()
    for line, _, _, name in KEYS:
        lines[line - 1] = f"{name} = {WRONG}"
    house.text = "\n".join(lines)
    told = refused_at_start(house)
    assert {line for line, *_ in KEYS} <= {int(problem.split(":")[1]) for problem in told}


@pytest.mark.req("WEB-15")
def test_the_program_does_not_start_on_a_key_that_others_may_read(house: House) -> None:
    key = house.folder / "var/dkim/example.com.s1.pem"
    key.chmod(0o644)
    [told] = refused_at_start(house)
    assert told.endswith(f"run: chmod 600 {key}")


@pytest.mark.req("DKIM-06")
def test_the_program_refuses_512_bits_warns_of_1024_and_is_content_with_2048(house: House) -> None:
    house.use_key("rsa512.pem")
    assert "512 bits" in refused_at_start(house)[0]
    house.use_key("rsa1024.pem")
    assert "RSA of 1024 bits" in warned(house)
    house.use_key("rsa2048.pem")
    assert "RSA of" not in warned(house)


@pytest.mark.req("DKIM-14")
def test_the_program_does_not_start_with_an_identity_or_a_from_outside_of_the_signing_domain(house: House) -> None:
    house.change('# identity = "@news.example.com"', 'identity = "@evilexample.com"')
    house.change("partners@offers.example.com", "partners@evilexample.com")
    identity, sender = refused_at_start(house)
    assert "is not in example.com" in identity
    assert "no key signs mail from evilexample.com" in sender


@pytest.mark.req("BODY-07", "LAW-US-05")
def test_the_program_does_not_start_promotion_without_a_postal_address(house: House) -> None:
    house.change('postal_address = "1 Main Street, Springfield IL 62701, USA"', "")
    [told] = refused_at_start(house)
    assert "company.postal_address is missing, which promotional mail must show" in told


@pytest.mark.req("CLS-11")
def test_the_program_warns_of_promotion_and_account_mail_on_one_from_address(house: House) -> None:
    assert "share the From" not in warned(house)
    house.change('"billing@example.com"', '"billing@news.example.com"')
    assert "streams newsletter (promotional) and billing (account) share the From address" in warned(house)


# Every key, broken in each way


@every_key
def test_a_value_of_the_wrong_kind_is_told_with_its_line(
    house: House, line: int, header: int, section: str, name: str
) -> None:
    house.text = with_line(FULL, line, lambda text: f"{name} = {WRONG}")
    problem = house.only_problem()
    assert problem.startswith(f"config.toml:{line}: {section}")
    assert f"{name}" in problem and "; write" in problem


@every_key
def test_a_misspelt_key_is_told_with_its_line_and_what_was_meant(
    house: House, line: int, header: int, section: str, name: str
) -> None:
    house.text = with_line(FULL, line, lambda text: text.replace(name, f"{name}x", 1))
    [problem] = [one for one in house.problems() if f"{name}x is not a key" in one]
    assert problem.startswith(f"config.toml:{line}: {section}")
    assert f'did you mean "{name}"?' in problem


@pytest.mark.parametrize("key", [key for key in KEYS if schema_keys()[key[2:]] is REQUIRED], ids=str)
def test_a_required_key_that_is_missing_is_told_with_its_section(house: House, key: tuple[int, int, str, str]) -> None:
    line, header, section, name = key
    house.text = with_line(FULL, line, lambda text: "")
    problem = house.only_problem()
    assert problem.startswith(f"config.toml:{header}: {section}")
    assert f"{name} is missing; write" in problem


NEEDED_BY_ANOTHER = {"postal_address", "tls_certificate", "tls_key", "username", "password_file", "topics"}


@pytest.mark.parametrize("key", [key for key in KEYS if schema_keys()[key[2:]] is not REQUIRED], ids=str)
def test_any_other_key_may_be_missing_unless_another_needs_it(house: House, key: tuple[int, int, str, str]) -> None:
    line, header, section, name = key
    house.text = with_line(FULL, line, lambda text: "")
    if name in NEEDED_BY_ANOTHER and section != "console":
        problem = house.only_problem()
        assert re.match(rf"config\.toml:{header}: {section}\b", problem)
        assert name.removesuffix("s") in problem and "; " in problem
    else:
        assert house.load().hostname


def test_all_problems_are_told_at_once_in_the_order_of_the_file(house: House) -> None:
    house.change('hostname = "relay.example.com"', 'hostname = "relay"')
    house.change('region = "US"', 'region = "UK"').change("max_recipients = 1000", "max_recipients = 0")
    house.change('domain = "bounce.example.com"', "").change('smarthost = "default"', 'smarthost = "defualt"')
    house.text += '[retenton]\nmessages = "1d"\n'
    problems = house.problems()
    lines = [int(problem.split(":")[1]) for problem in problems]
    assert lines == sorted(lines)
    wanted = ["hostname", '"GB"', "max_recipients", "feedback.domain is missing", 'mean "default"', 'mean "retention"']
    assert len(problems) == len(wanted)
    assert all(words in problem for words, problem in zip(wanted, problems, strict=True))


def test_every_wrong_element_of_an_array_is_told(house: House) -> None:
    problem = house.change('["127.0.0.0/8", "::1"]', '["10.1.2.3/8", "::1", "lan"]').only_problem()
    assert 'write "10.0.0.0/8"' in problem and '"lan" is not a network' in problem


# Files that cannot be read at all


def test_a_syntax_error_is_told_with_its_line(house: House) -> None:
    house.text = with_line(house.text, house.line("max_recipients"), lambda text: "max_recipients = = 3")
    assert house.only_problem().startswith(f"config.toml:{house.line('max_recipients')}: not TOML: ")


def test_a_syntax_error_at_the_end_is_told_with_the_last_line(house: House) -> None:
    house.text = 'hostname = "relay.example.com"\nworkers = [1,\n'
    assert house.only_problem().startswith("config.toml:2: not TOML: ")


def test_a_key_that_stands_twice_is_told_with_its_line(house: House) -> None:
    house.text = 'hostname = "a.example.com"\n\nhostname = "b.example.com"\n'
    assert house.only_problem().startswith("config.toml:3: not TOML: ")


def test_a_file_in_another_encoding_is_told_with_the_line(house: House) -> None:
    house.path.write_bytes('hostname = "a.example.com"\n[company]\nname = "Müller"\n'.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load(house.path)
    assert caught.value.problems == ["config.toml:3: not UTF-8; save the file in that encoding"]


def test_a_file_that_is_not_there_names_who_makes_it(house: House) -> None:
    with pytest.raises(ConfigError, match="assent init"):
        load(house.folder / "nowhere.toml")


def test_windows_line_ends_are_fine(house: House) -> None:
    house.path.write_bytes(house.text.replace("\n", "\r\n").encode())
    assert load(house.path).hostname == "relay.example.com"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('company = "Example"\n', "1: company is a section; write [company]"),
        ("[streams]\nnewsletter = 3\n", "2: streams.newsletter stands in no table of its own; write [streams.NAME]"),
        ("[feedbak]\n", '1: feedbak is not a key that exists; did you mean "feedback"?'),
        ("zebra = 1\n", "1: zebra is not a key that exists; remove it"),
        ("\n[streams.News]\n", '2: [streams.News]: "News" is not a name; write'),
        ('[dkim."Example.com"]\n', '1: [dkim."Example.com"] is not how we write it; write [dkim."example.com"]'),
        ("", "1: [company] is missing; add it, with name, contact, privacy_policy"),
        ("", "1: [smarthosts.default] is missing; add it, with urls"),
    ],
)
def test_a_section_that_is_not_one_is_told(house: House, text: str, said: str) -> None:
    house.text = text
    assert any(problem.startswith(f"config.toml:{said}") for problem in house.problems())


# Kinds of values


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('workers  = "auto"', "workers = 0"),
        ('workers  = "auto"', "workers = true"),
        ('hostname = "relay.example.com"', 'hostname = "[127.0.0.1]"'),
        ('name = "Example Software, Inc."', 'name = "Example\\nBcc: all@example.com"'),
        ('name = "Example Software, Inc."', 'name = " "'),
        ('contact = "privacy@example.com"', 'contact = "privacy"'),
        ('privacy_policy = "https://example.com/privacy"', 'privacy_policy = "example.com/privacy"'),
        ('help_url = "https://wiki.example.com/mail"', 'help_url = "https://wiki.example.com/a b"'),
        ('hosts = ["example.com", "*.example.com"]', 'hosts = ["ex*.com"]'),
        ('markets = ["US"]', 'markets = ["EU"]'),
        ('markets = ["US"]', 'markets = ["XX"]'),
        ('markets = ["US"]', 'markets = "US"'),
        ('listen = ["127.0.0.1:2525"]', 'listen = ["localhost:2525"]'),
        ('listen = ["127.0.0.1:2525"]', 'listen = ["127.0.0.1:65536"]'),
        ('listen = ["127.0.0.1:2525"]', 'listen = ["127.0.0.1"]'),
        ('listen = ["127.0.0.1:2525"]', "listen = []"),
        ('max_message_size = "25MiB"', 'max_message_size = "25MB"'),
        ('max_message_size = "25MiB"', 'max_message_size = "1KiB"'),
        ('max_message_size = "25MiB"', "max_message_size = 26214400"),
        ("max_recipients = 1000", "max_recipients = true"),
        ('urls = ["smtp://mta.example.com:587"]', 'urls = ["http://mta.example.com"]'),
        ('urls = ["smtp://mta.example.com:587"]', 'urls = ["smtp://mta.example.com:none"]'),
        ('urls = ["smtp://mta.example.com:587"]', 'urls = ["maildir:"]'),
        ('rate = "none"', 'rate = "14"'),
        ('give_up_after = "5d"', 'give_up_after = "0d"'),
        ('give_up_after = "5d"', 'give_up_after = "99999999999d"'),
        ('give_up_after = "5d"', 'give_up_after = "5 days"'),
        ("subscribe = false", 'subscribe = "no"'),
        ('public_url = "https://mail.example.com"', 'public_url = "http://mail.example.com"'),
        ('public_url = "https://mail.example.com"', 'public_url = "https://mail.example.com/?u="'),
        ('class = "account"', 'class = "Account"'),
        ('from = ["billing@example.com"]', 'from = ["*"]'),
        ('from = ["billing@example.com"]', 'from = ["b?lling@example.com"]'),
        ('from = ["billing@example.com"]', 'from = ["billing@*"]'),
        ('brake = "80% of 500"', 'brake = "180% of 500"'),
        ("# until = 2026-12-31", 'until = "2026-12-31"'),
        ('database = "sqlite:var/assent.db"', 'database = "mysql://localhost/assent"'),
    ],
)
def test_a_value_that_cannot_be_meant_is_told_with_how_to_write_it(house: House, old: str, new: str) -> None:
    line = house.line(old)
    assert re.match(rf"config\.toml:{line}: .+; (?:write|list) ", house.change(old, new).only_problem())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('workers  = "auto"', "workers = 4"),
        ('listen = ["127.0.0.1:2525"]', 'listen = ["[::1]:25", "127.0.0.1:0"]'),
        ('max_message_size = "25MiB"', 'max_message_size = "1GiB"'),
        ('urls = ["smtp://mta.example.com:587"]', 'urls = ["smtps://[::1]:465", "lmtp://127.0.0.1:24"]'),
        ('rate = "none"', 'rate = "14/s"'),
        ('public_url = "https://mail.example.com"', 'public_url = "http://127.0.0.1:8080/"'),
        ('public_url = "https://mail.example.com"', 'public_url = "https://example.com/mail"'),
        ('markets = ["US"]', 'markets = ["US", "DE", "GB"]'),
        ('brake = "80% of 500"', 'brake = "none"'),
        ("# until = 2026-12-31", "until = 2026-12-31"),
        ('from = ["billing@example.com"]', 'from = ["*@*.shop.example.com", "o\'neil+*@example.com"]'),
    ],
)
def test_a_value_that_can_be_meant_is_taken(house: House, old: str, new: str) -> None:
    assert house.change(old, new).load().streams


def test_a_public_url_loses_its_last_slash(house: House) -> None:
    site = house.change('"https://mail.example.com"', '"https://mail.example.com/m/"').load().site
    assert site and site.public_url == "https://mail.example.com/m"


def test_postgresql_is_answered_plainly(house: House) -> None:
    problem = house.change("sqlite:var/assent.db", "postgresql://db.example.com/assent").only_problem()
    assert 'this version has no PostgreSQL store yet; write "sqlite:var/assent.db"' in problem


# Secrets


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
@pytest.mark.parametrize("name", ["var/smarthost.password", "var/dkim/example.com.s1.pem", "var/tls/server.key"])
def test_a_secret_that_others_may_read_is_refused_with_the_command_that_mends_it(
    house: House, name: str, mode: int
) -> None:
    (house.folder / name).chmod(mode)
    assert house.only_problem().endswith(f"run: chmod 600 {house.folder / name}")


def test_a_password_in_the_file_itself_is_refused_and_not_repeated(house: House) -> None:
    problem = house.change('password_file = "var/smarthost.password"', 'password = "hunter2"').problems()[-1]
    assert "name it with password_file" in problem and "hunter2" not in problem


@pytest.mark.parametrize("url", ["smtp://assent:hunter2@mta.example.com", "smtp://assent:hunter2@mta.example.com:x"])
def test_a_password_in_a_url_is_refused_and_not_repeated(house: House, url: str) -> None:
    problem = house.change("smtp://mta.example.com:587", url).only_problem()
    assert "password_file" in problem and "hunter2" not in problem


def test_no_secret_shows_in_a_repr(house: House) -> None:
    config = house.load()
    assert config.smarthosts["default"].password == "correct horse"
    assert "correct horse" not in repr(config)
    assert "PRIVATE KEY" not in repr(config) and config.dkim["example.com"].selectors[0].key.private


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"nul\0"])
def test_a_password_file_holds_one_line(house: House, content: bytes) -> None:
    house.put("var/smarthost.password", content)
    assert "on one line" in house.only_problem()


def test_a_secret_that_is_not_there_is_told_with_who_makes_it(house: House) -> None:
    (house.folder / "var/smarthost.password").unlink()
    problem = house.only_problem()
    assert "there is no file" in problem and "write the secret into it" in problem


def test_a_dkim_key_that_is_not_there_is_a_warning_because_account_mail_goes_on(house: House) -> None:
    (house.folder / "var/dkim/example.com.s1.pem").unlink()
    [told] = [one for one in house.load().warnings if "there is no file" in one]
    assert "assent dkim new" in told and "451 4.7.5" in told


def test_whoever_makes_keys_may_read_the_file_before_there_are_any(house: House) -> None:
    for name in ("var/dkim/example.com.s1.pem", "var/tls/server.pem", "var/tls/server.key"):
        (house.folder / name).unlink()
    key = house.load(keys_may_be_missing=True).dkim["example.com"].selectors[0].key
    assert (key.path, key.private) == (house.folder / "var/dkim/example.com.s1.pem", None)


def test_a_folder_where_a_secret_should_be_is_told(house: House) -> None:
    (house.folder / "var/smarthost.password").unlink()
    (house.folder / "var/smarthost.password").mkdir()
    assert "cannot be read" in house.only_problem()


# Webhooks


@pytest.mark.parametrize(
    ("old", "new", "remedy"),
    [
        ('"https://crm.example.com/hooks/assent"', '"http://crm.example.com/hooks"', "write https://…"),
        ('"https://crm.example.com/hooks/assent"', '"ftp://crm.example.com/"', 'write "https://crm.example.com'),
        ('events = ["recipient.unsubscribed"', 'events = ["recipient.left"', "recipient.subscribed"),
        ('format = "standard"', 'format = "mandrill"', '"postmark"'),
        ('format = "standard"', 'format = "sendgrid"', "assent webhooks secret --format sendgrid"),
        ('format = "standard"', 'format = "ses"', "name:password"),
        ("streams = []      ", 'streams = ["newsleter"]', "newsletter"),
    ],
)
def test_what_a_webhook_cannot_be_is_told_with_what_to_write(house: House, old: str, new: str, remedy: str) -> None:
    problem = house.change(old, new).only_problem()
    assert "webhooks.crm" in problem and remedy in problem and "MfKQ9r8G" not in problem


def test_an_endpoint_on_loopback_may_do_without_tls(house: House) -> None:
    house.change("https://crm.example.com/hooks/assent", "http://127.0.0.1:9000/hook")
    assert house.load().webhooks["crm"].url == "http://127.0.0.1:9000/hook"


@pytest.mark.parametrize("content", [b"", b"\n", b"whsec_\n", b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_a_webhooks_secret_is_one_of_its_format(house: House, content: bytes) -> None:
    house.put("var/webhooks/crm.secret", content)
    assert "secret" in house.only_problem()


@pytest.mark.req("SMTP-11")
def test_fewer_recipients_than_a_program_may_count_on_are_a_warning(house: House) -> None:
    assert not house.warnings_about("max_recipients")
    [warning] = house.change("max_recipients = 1000", "max_recipients = 99").warnings_about("max_recipients")
    assert warning.startswith(house.at("max_recipients"))


@pytest.mark.req("POL-22")
def test_backups_beyond_a_year_are_a_warning(house: House) -> None:
    assert not house.warnings_about("retention.backups")
    [warning] = house.change('backups = "365d"', 'backups = "366d"').warnings_about("retention.backups")
    assert warning.startswith(house.at("backups"))


# DKIM

ONE_KEY = '{ name = "s1", key = "var/dkim/example.com.s1.pem" }'


def test_an_rsa_key_below_1024_bits_is_refused(house: House) -> None:
    house.use_key("rsa512.pem")
    assert "an RSA key of 512 bits" in house.only_problem()


def test_an_rsa_key_below_2048_bits_is_a_warning(house: House) -> None:
    house.use_key("rsa1024.pem")
    [warning] = house.warnings_about("RSA of 1024 bits")
    assert warning.startswith(house.at("selectors"))
    house.use_key("rsa2048.pem")
    assert not house.warnings_about("RSA of")


def test_what_is_no_private_key_is_refused(house: House) -> None:
    house.put("var/dkim/example.com.s1.pem", (house.made / "server.pem").read_bytes())
    assert "holds no unencrypted RSA or Ed25519 key" in house.only_problem()


def test_an_ed25519_key_alone_is_a_warning_and_beside_an_rsa_key_none(house: House) -> None:
    house.put("ed.pem", (house.made / "ed25519.pem").read_bytes())
    house.change(ONE_KEY, f'{ONE_KEY}, {{ name = "e1", key = "ed.pem" }}')
    assert not house.warnings_about("Ed25519")
    house.change(f"{ONE_KEY}, ", "")
    assert house.warnings_about("there is no RSA key")


def test_a_selector_stands_once(house: House) -> None:
    assert '"s1" stands twice' in house.change(ONE_KEY, f"{ONE_KEY}, {ONE_KEY}").only_problem()


def test_a_selector_is_a_name_in_dns(house: House) -> None:
    assert '"s 1" is not a selector; write "s1"' in house.change('name = "s1"', 'name = "s 1"').only_problem()


@pytest.mark.parametrize("identity", ["@evilexample.com", "news@example.org", "@com.example"])
def test_an_identity_outside_of_its_domain_is_refused(house: House, identity: str) -> None:
    house.change('# identity = "@news.example.com"', f'identity = "{identity}"')
    assert "is not in example.com (RFC 6376 §3.5)" in house.only_problem()


@pytest.mark.parametrize("name", sorted(NEVER_SIGNED - {""}))
def test_a_header_field_that_must_not_be_signed_is_refused(house: House, name: str) -> None:
    house.change('# also_sign = ["X-Campaign"]', f'also_sign = ["X-Campaign", "{name.title()}"]')
    assert "must not be signed" in house.only_problem()


@pytest.mark.parametrize("domain", ["evilexample.com", "example.org"])
def test_promotional_mail_that_no_aligned_key_signs_is_refused(house: House, domain: str) -> None:
    house.change("partners@offers.example.com", f"partners@{domain}")
    problem = house.only_problem()
    assert problem.startswith(house.at('from = ["partners'))
    assert f'no key signs mail from {domain}; add [dkim."{domain}"], or a domain above it' in problem


def test_account_mail_may_leave_unsigned(house: House) -> None:
    assert house.change("billing@example.com", "billing@example.org").load()


# What must fit together


@pytest.mark.parametrize("address", ['postal_address = ""', "# none"])
def test_promotion_needs_a_postal_address(house: House, address: str) -> None:
    house.change('postal_address = "1 Main Street, Springfield IL 62701, USA"', address)
    assert "postal_address" in house.only_problem()


def test_account_mail_needs_no_postal_address(house: House) -> None:
    house.change('postal_address = "1 Main Street, Springfield IL 62701, USA"', "")
    assert house.drop("[streams.newsletter]").drop("[streams.partners]").load().company.postal_address == ""


def test_promotion_needs_a_site_a_topic_and_what_it_names(house: House) -> None:
    house.drop("[site]").drop("[topics.software-updates]").change('smarthost = "default"', 'smarthost = "bulk"')
    house.change('topics = ["partner-offers"]', "topics = []")
    site, topic, smarthost, partners = house.problems()
    assert "[site] is missing" in site and "newsletter, partners" in site
    assert 'there is no topic "software-updates"; add [topics.software-updates]' in topic
    assert topic.startswith(house.at("topics = "))
    assert 'there is no smarthost "bulk"; add [smarthosts.bulk]' in smarthost
    assert "streams.partners is promotional and has no topic" in partners


def test_promotion_and_account_mail_on_one_from_address_is_a_warning_that_names_both(house: House) -> None:
    assert not house.warnings_about("share the From address")
    [warning] = house.change('"billing@example.com"', '"billing@news.example.com"').warnings_about("share the From")
    assert "newsletter (promotional) and billing (account)" in warning
    assert warning.startswith(house.at('from = ["*@news'))


def test_a_smarthost_that_nobody_runs_is_a_warning(house: House) -> None:
    assert not house.warnings_about("processor")
    [warning] = house.change('processor = "Example Hosting Ltd."', "").warnings_about("processor is missing")
    assert warning.startswith(f"config.toml:{house.line('[smarthosts.default]')}: smarthosts.default.processor")


def test_a_feedback_domain_leaves_room_for_the_token_before_it(house: House) -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 12])
    assert len(longest) == 204
    house.change("bounce.example.com", longest).load()
    assert "leaves no room" in house.change(longest, f"{longest}b").only_problem()


def test_without_feedback_no_mailto_is_stamped_and_a_warning_says_so(house: House) -> None:
    assert not house.warnings_about("mailto")
    assert house.drop("[feedback]").warnings_about("no mailto address is stamped")


def test_topics_on_account_mail_are_a_warning(house: House) -> None:
    house.change('class = "account"', 'class = "account"\ntopics = ["special-offers"]')
    assert house.warnings_about("topics mean nothing to mail of class account")


def test_what_happens_to_words_is_a_warning_on_mail_that_has_none_of_them(house: House) -> None:
    house.change('class = "account"', 'class = "account"\nclaims_without_end = "refuse"')
    assert house.warnings_about("claims_without_end means nothing to mail of class account")
    house.change('class = "promotional"', 'class = "promotional"\nreads_as_promotion = "hold"')
    assert house.warnings_about("reads_as_promotion means nothing to it")


def test_no_stream_at_all_is_a_warning(house: House) -> None:
    for name in ("newsletter", "partners", "products", "billing"):
        house.drop(f"[streams.{name}]")
    assert house.warnings_about("there is no stream")


@pytest.mark.parametrize(
    ("address", "collides"),
    [("127.0.0.1:2525", True), ("0.0.0.0:2525", True), ("[::]:2525", False), ("127.0.0.2:2525", False)],
)
def test_no_two_listeners_share_an_address(house: House, address: str, collides: bool) -> None:
    house.change('listen = ["127.0.0.1:8081"]', f'listen = ["{address}"]')
    if collides:
        problem = house.only_problem()
        line = house.line("[console]") + 1
        assert problem.startswith(f"config.toml:{line}: console.listen: {address} is already taken")
        assert "submission.listen; choose another port" in problem
    else:
        assert house.load()


def test_a_certificate_needs_its_own_key(house: House) -> None:
    house.put("var/tls/server.key", (house.made / "site.key").read_bytes())
    problem = house.only_problem()
    assert problem.startswith(house.at("tls_key"))
    assert "are not a certificate and its key" in problem


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(house: House) -> None:
    locked = house.folder / "locked.key"
    openssl("rsa", "-in", house.made / "server.key", "-aes128", "-passout", "pass:secret", "-out", locked)
    house.put("var/tls/server.key", locked.read_bytes())
    assert "without a passphrase" in house.only_problem()


def test_authorities_must_be_certificates(house: House) -> None:
    named = house.change('# tls_authorities = "var/tls/ca.pem"', 'tls_authorities = "var/tls/ca.pem"')
    assert named.load().smarthosts["default"].authorities.startswith("-----BEGIN CERTIFICATE-----")
    ca = house.put("var/tls/ca.pem", b"no certificate")
    assert "holds no certificates in PEM" in named.only_problem()
    ca.unlink()
    assert "there is no file" in named.only_problem()


@pytest.mark.parametrize(("written", "a_second"), [("none", 0), ("14/s", 14), ("30/m", 0.5), ("3600/h", 1)])
def test_a_rate_is_so_many_a_second(house: House, written: str, a_second: float) -> None:
    changed = house.change('rate = "none"', f'rate = "{written}"')
    assert changed.load().smarthosts["default"].rate == a_second


def test_implicit_tls_needs_a_certificate(house: House) -> None:
    house.text = re.sub(r"(?m)^tls_(certificate|key) = .*\n", "", house.text)
    assert "submission.listen_tls has no certificate to show" in house.only_problem()


def test_a_door_to_the_world_without_tls_is_a_warning(house: House) -> None:
    house.text = re.sub(r"(?m)^tls_(certificate|key) = .*\n", "", house.text)
    house.change('listen_tls = ["127.0.0.1:4650"]', "")
    assert not house.warnings_about("offers no TLS")
    assert house.change('"127.0.0.1:2525"', '"0.0.0.0:2525"').warnings_about("only the networks of plaintext_from")


# Keys that do nothing yet

ASKED_FOR = {
    "site.subscribe": "true",
    "site.rights": "true",
    "retention.messages": '"7d"',
}


def test_the_keys_that_do_nothing_yet_are_these() -> None:
    assert set(NOT_YET_IN_FORCE) == set(ASKED_FOR)
    assert {tuple(name.split(".")) for name in NOT_YET_IN_FORCE} <= set(schema_keys())


@pytest.mark.parametrize("key", ASKED_FOR)
def test_a_key_that_does_nothing_yet_is_never_taken_silently(house: House, key: str) -> None:
    section, name = key.split(".")
    line = next(line for line, _, *found in KEYS if found == [section, name])
    house.text = with_line(FULL, line, lambda text: f"{name} = {ASKED_FOR[key]}")
    [warning] = [one for one in house.load().warnings if one.startswith(f"config.toml:{line}: ")]
    assert "is understood but not yet in force in this version: " in warning
    assert warning.endswith(NOT_YET_IN_FORCE[key].instead)


def test_what_happens_anyway_may_be_written_without_a_warning(house: House) -> None:
    house.drop("[retention]").change('tracking = "strip"', 'tracking = "allow"')
    assert house.load().warnings == ()


# Where keys stand


def test_lines_are_found_through_every_form_of_toml() -> None:
    text = r"""# a comment with [brackets] and key = 1
first = 1
"quoted key" . inner = '''
[no.header]
no_key = 1'''''
[ spaced . "dotted.name" ] # a comment
array = [ # ]
  "]", 'x = [',
  { in = "}" },
]
text = '''
[still.no.header] \'''
dotted.path.key = 1979-05-27T07:32:00Z
[[hosts]]
name = 1
[[hosts]]
name = 2
[hosts.inside]
name = {a = 1, b = [2]}
last = 0xff"""
    assert tomllib.loads(text)["hosts"][1]["inside"]["last"] == 255
    lines = Lines(text)
    found = {
        ("first",): 2,
        ("quoted key", "inner"): 3,
        ("spaced", "dotted.name"): 6,
        ("spaced", "dotted.name", "array"): 7,
        ("spaced", "dotted.name", "array", 2, "in"): 7,
        ("spaced", "dotted.name", "text"): 11,
        ("spaced", "dotted.name", "dotted", "path", "key"): 13,
        ("hosts",): 14,
        ("hosts", 0, "name"): 15,
        ("hosts", 1): 16,
        ("hosts", 1, "name"): 17,
        ("hosts", 1, "inside", "name", "b"): 19,
        ("hosts", 1, "inside", "last"): 20,
        ("hosts", 1, "inside", "missing"): 18,
        ("nowhere", "at", "all"): 1,
    }
    assert {place: lines.of(place) for place in found} == found


def test_selectors_as_an_array_of_tables_have_lines_of_their_own(house: House) -> None:
    house.change(f"selectors = [{ONE_KEY}]", "")
    house.text += '[[dkim."example.com".selectors]]\nname = "s1"\nkey = "var/dkim/example.com.s1.pem"\n'
    assert house.load().dkim["example.com"].selectors[0].name == "s1"
    house.text += '[[dkim."example.com".selectors]]\nname = "s2"\nkey = 3\n'
    problem = house.only_problem()
    assert problem.startswith(f'config.toml:{len(house.text.splitlines())}: dkim."example.com".selectors[2].key: ')


VALUES = [
    "1",
    "true",
    "1979-05-27 07:32:00",
    r'"# [a] = \" b"',
    "'C:\\'",
    "''",
    '""',
    '""""""',
    '"""\n[x]\ny = "" # \\""" """""',
    "'''\n'[x]\n''\n'''''",
    "[\"]\", # [\n'[',\n]",
    '{ a = "}", b.c = [1] }',
    "[{ x = 1 },\n# }\n{ y = '{' }]",
]
BETWEEN = st.sampled_from(["", "\n", "# c = 1\n", "  \t# [c]\n\n"])
ENTRIES = st.tuples(BETWEEN, st.booleans(), st.sampled_from(VALUES), st.sampled_from(["", " # ]}"]))


@given(st.lists(ENTRIES, max_size=12))
def test_lines_are_found_in_any_mixture(entries: list[tuple[str, bool, str, str]]) -> None:
    text, table = "", ()
    expected: dict[tuple[str | int, ...], int] = {}
    for n, (between, opens, value, comment) in enumerate(entries):
        text += between
        if opens:
            table = (f"t{n}",)
            text += f"[t{n}]{comment}\n"
        expected[(*table, f"k{n}")] = text.count("\n") + 1
        text += f"k{n} = {value}{comment}\n"
    tomllib.loads(text)
    lines = Lines(text)
    assert {place: lines.of(place) for place in expected} == expected


@pytest.mark.req("LAW-UK-01")
def test_a_country_where_companies_are_protected_like_anybody_cannot_be_switched_on(house: House) -> None:
    house.change("corporate_in = []", 'corporate_in = ["GB"]')
    assert house.load().law.corporate_in == {"GB"}
    house.change('corporate_in = ["GB"]', 'corporate_in = ["GB", "DE"]')
    assert "corporate_in: companies need an opt-in like anybody in DE; remove it" in house.only_problem()


@pytest.mark.req("POL-02")
def test_a_country_where_accepting_a_policy_is_no_consent_cannot_be_switched_on(house: House) -> None:
    house.change("policy_accepted_in = []", 'policy_accepted_in = ["US"]')
    assert house.load().law.policy_accepted_in == {"US"}
    house.change('policy_accepted_in = ["US"]', 'policy_accepted_in = ["US", "DE", "CA"]')
    assert "policy_accepted_in: accepting a policy is no consent to mail in CA, DE (GDPR 7(2))" in house.only_problem()
