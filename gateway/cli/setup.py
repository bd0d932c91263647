"""`assent init` makes whatever a first start needs, `assent check` says whether what is there will do.

The rule that must not be broken: what exists stays as it is. Each thing is made only where it is missing, and a second
`init` changes nothing. Passwords are printed once; those of logins are kept nowhere but as hashes.
"""

from __future__ import annotations

import asyncio
import shlex
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import click

from gateway.cli import assent
from gateway.cli.certificates import Authority
from gateway.cli.checkup import examine
from gateway.cli.dkim_keys import make_key
from gateway.cli.output import Desk, pass_desk
from gateway.cli.rooms import room
from gateway.config import Config, TlsFiles, load
from gateway.config.names import HOST_NAME
from gateway.console import PAGES
from gateway.errors import ConfigError
from gateway.findings import Finding, State
from gateway.installation import data_folder, prepare
from gateway.model import Login, Stream
from gateway.passwords import hash_password, new_password
from gateway.store import LoginRecord, Store, disk
from gateway.store.keys import ADDRESS_RING, LEDGER_KEY, TOKEN_RING

FIRST_PORTS = {"submission": 2525, "feedback": 2526, "site": 8080, "console": 8081}
READER = "ann@example.net"
"""Who the line to try writes to."""


@assent.command()
@pass_desk
def init(desk: Desk) -> None:
    """Make what is missing: the configuration, keys, certificates, the store, two logins, the console's password."""
    ports = {} if desk.path.exists() else write_first_config(desk.path, FIRST_PORTS)
    config = load(desk.path, keys_may_be_missing=True)
    pages = _make_console_password(config)
    made = [desk.path] if ports else []
    made += [Path(pages["file"])] if pages else []
    made += [*_make_dkim_keys(config), *_make_certificates(desk, config), *_make_store(config)]
    passwords = desk.with_store(lambda store: _add_first_logins(store, config))
    moved = [name for name in ports if ports[name] != FIRST_PORTS[name]]
    _tell(desk, config, made, pages, passwords, moved)


@assent.command()
@click.option("--online", is_flag=True, help="Ask DNS too: DKIM, DMARC, SPF, the names of the sending addresses.")
@pass_desk
def check(desk: Desk, online: bool) -> None:
    """Look at everything that must be right before mail is taken; exit 1 where something is not."""
    try:
        config = desk.config()
    except ConfigError as error:
        if desk.as_json:
            _tell_findings(desk, [Finding("configuration", State.PROBLEM, problem) for problem in error.problems])
        raise
    findings = examine(config, desk.now())
    if online:
        findings += room("online").examine_online(config)
    _tell_findings(desk, findings)
    if any(one.state is State.PROBLEM for one in findings):
        raise SystemExit(1)


def _tell_findings(desk: Desk, findings: Sequence[Finding]) -> None:
    rows = [{"state": one.state.value, "what": one.what, "told": one.told} for one in findings]
    desk.list(rows, ["state", "what", "told"], "")


def write_first_config(path: Path, wanted: Mapping[str, int]) -> dict[str, int]:
    """Write a configuration for a first try, and return the ports: those that were wanted, free ones where taken."""
    ports = _free_ports(wanted)
    template = resources.files("gateway.cli").joinpath("first_config.toml").read_text("utf-8")
    with open(path, "x", encoding="utf-8", opener=disk.open_private) as file:
        file.write(Template(template).substitute(ports))
    return ports


def _free_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """All are held until the last is found, so that no two are the same."""
    with ExitStack() as held:
        found = {name: held.enter_context(closing(_listening(port))) for name, port in wanted.items()}
        return {name: bound.getsockname()[1] for name, bound in found.items()}


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return socket.create_server(("127.0.0.1", 0))


def _make_console_password(config: Config) -> dict[str, str]:
    """Make the password that opens the console's pages, where it is missing; return it, and where they are."""
    console = config.console
    if console is None or console.password is None or console.password.text:
        return {}
    password, path = new_password(), console.password.path
    disk.make_folder(path.parent)
    disk.write_new(path, f"{password}\n".encode("ascii"))
    return {"url": f"http://{console.listen[0]}{PAGES}", "password": password, "file": str(path)}


def _make_dkim_keys(config: Config) -> list[Path]:
    paths = {selector.key.path for domain in config.dkim.values() for selector in domain.selectors}
    missing = sorted(path for path in paths if not path.exists())
    for path in missing:
        make_key(path)
    return missing


def _make_certificates(desk: Desk, config: Config) -> list[Path]:
    """Make each certificate that the configuration names and that is not there, all by one authority."""
    named = {config.submission.tls, config.site.tls if config.site else None} - {None}
    missing = [tls for tls in named if tls and not (tls.certificate.exists() and tls.key.exists())]
    if not missing:
        return []
    authority = Authority(config.data_dir / "tls", desk.now())
    made = [authority.certificate_path] if authority.is_new else []
    for tls in missing:
        _refuse_half_a_pair(tls)
        authority.issue(tls.certificate, tls.key, _host_names(config))
        made += [tls.certificate, tls.key]
    return made


def _refuse_half_a_pair(tls: TlsFiles) -> None:
    for there, missing in ((tls.certificate, tls.key), (tls.key, tls.certificate)):
        if there.exists():
            raise click.ClickException(f"{there} is there without {missing}; bring that back, or remove the one left")


def _host_names(config: Config) -> list[str]:
    """Return every name by which this machine may be reached in a first try."""
    public = urlsplit(config.site.public_url).hostname if config.site else None
    names = ["localhost", "127.0.0.1", "::1", config.hostname, *filter(None, [public]), *_machine_name()]
    return list(dict.fromkeys(names))


def _machine_name() -> list[str]:
    name = socket.gethostname().lower()
    try:
        return [str(HOST_NAME.read(f"{name}.invalid", Path())).removesuffix(".invalid")]
    except ValueError:
        return []


def _make_store(config: Config) -> list[Path]:
    folder = data_folder(config)
    keys = [folder.keys / name for name in (ADDRESS_RING, TOKEN_RING, LEDGER_KEY)]
    missing = [path for path in (folder.people, folder.spool, *keys) if not path.exists()]
    if missing:
        asyncio.run(prepare(config))
    return missing


async def _add_first_logins(store: Store, config: Config) -> dict[Login, str]:
    """Add a login for promotion and one for the rest where there is none at all; return their passwords."""
    if await store.people.logins():
        return {}
    promotional = config.promotional_streams
    others = [stream for stream in config.streams.values() if not stream.is_promotional]
    passwords = dict[Login, str]()
    for name, streams in (("marketing", promotional), ("shop", others)):
        if streams:
            login, password = Login(name, tuple(stream.name for stream in streams)), new_password()
            await store.people.put_login(LoginRecord(login, hash_password(password)))
            passwords[login] = password
    return passwords


def _tell(
    desk: Desk,
    config: Config,
    made: Sequence[Path],
    pages: Mapping[str, str],
    passwords: Mapping[Login, str],
    moved: list[str],
) -> None:
    addresses = _addresses(config)
    logins = [{"name": one.name, "password": passwords[one], "streams": one.streams} for one in passwords]
    line = _line_to_try(config, logins)
    facts = {"made": made, "moved_ports": moved, "logins": logins, "addresses": addresses, "pages": pages, "try": line}
    told = [f"made        {_short(path)}" for path in made] or ["nothing was missing, and nothing has been changed"]
    told += [f"the usual port of {name} is taken: a free one was chosen" for name in moved]
    told += [f"{name:12}{', '.join(where)}" for name, where in addresses.items()]
    told += [f"login       {one['name']}, password {one['password']} (shown this once)" for one in logins]
    told += [f"look at     {pages['url']}, any name, password {pages['password']}"] if pages else []
    told += [f"\ntry, while assent serve runs:\n{line}"] if line else []
    desk.say("\n".join(told), **facts)


def _addresses(config: Config) -> dict[str, list[str]]:
    sections = {"submission": config.submission, "feedback": config.feedback, "console": config.console}
    addresses = {name: list(map(str, section.listen)) for name, section in sections.items() if section}
    addresses |= {"site": [config.site.public_url]} if config.site else {}
    return addresses | {"smarthost": list(config.smarthosts["default"].urls)}


def _line_to_try(config: Config, logins: Sequence[Mapping[str, Any]]) -> str:
    """Return a shell line that submits a newsletter; its refusal says what is missing."""
    streams = config.promotional_streams
    if not logins or not streams:
        return ""
    sender, user = _sender(streams[0]), shlex.quote(f"{logins[0]['name']}:{logins[0]['password']}")
    message = f"From: {sender}\\r\\nTo: {READER}\\r\\nSubject: News\\r\\n\\r\\nHello Ann\\r\\n"
    url = f"smtp://{config.submission.listen[0]}"
    return f"printf '{message}' | curl -v {url} --user {user} --mail-from {sender} --mail-rcpt {READER} -T -"


def _sender(stream: Stream) -> str:
    return stream.senders[0].replace("*@*.", "news@").replace("*", "news")


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
