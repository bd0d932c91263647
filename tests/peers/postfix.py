"""A real Postfix: an instance of its own, beside any other of the machine, that delivers to Maildirs or relays.

Everything lies in one folder: configuration, queue, log, and the Maildirs of people at example.org.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.gateway_under_test import eventually, free_port

DOMAIN = "example.org"

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log/postfix.log
maillog_file_prefixes = {folder}
myhostname = {hostname}
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = none
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = texthash:{folder}/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
virtual   unix - n n - - virtual
smtp      unix - - n - - smtp
tlsmgr    unix - - n 1000? 1 tlsmgr
anvil     unix - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
"""


def why_not() -> str:
    """Say why there can be no Postfix here; "" where there can."""
    if not shutil.which("postfix"):
        return "Postfix is not installed (Debian package postfix)"
    return "" if os.geteuid() == 0 else "Postfix starts as root only"


class Postfix:
    """One instance, with a mailbox at example.org for each name, and `more` in its main.cf.

    Other users must be able to enter `folder`, as Postfix's parts do.
    """

    def __init__(
        self, folder: Path, names: Sequence[str] = (), *, hostname: str = "mx.example.org", more: str = ""
    ) -> None:
        self.folder = folder
        self.names = names
        self.hostname = hostname
        self.more = more
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def start(self) -> Postfix:
        owner = pwd.getpwnam("nobody")
        values = {"folder": self.folder, "port": self.port, "uid": owner.pw_uid, "gid": owner.pw_gid}
        values |= {"hostname": self.hostname, "domain": DOMAIN if self.names else ""}
        for part in ("queue", "data", "log", "mail"):
            (self.folder / part).mkdir(parents=True)
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.folder / "mail", owner.pw_uid, owner.pw_gid)
        (self.folder / "main.cf").write_text(_MAIN.format(**values) + self.more)
        (self.folder / "master.cf").write_text(_MASTER.format(**values))
        (self.folder / "mailboxes").write_text("".join(f"{one}@{DOMAIN} {one}/\n" for one in self.names))
        self._command("start")
        return self

    def stop(self) -> None:
        self._command("abort")

    def _command(self, word: str) -> None:
        done = subprocess.run(["postfix", "-c", str(self.folder), word], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def mailboxes(self) -> dict[str, list[bytes]]:
        """Return what has been delivered to each address, the oldest first, with CRLF lines as on the wire."""
        found: dict[str, list[Path]] = {}
        for file in sorted(self.folder.glob("mail/*/new/*"), key=lambda one: one.stat().st_mtime_ns):
            found.setdefault(f"{file.parent.parent.name}@{DOMAIN}", []).append(file)
        return {
            address: [file.read_bytes().replace(b"\n", b"\r\n") for file in files] for address, files in found.items()
        }

    def wait_for(self, address: str, count: int = 1) -> list[bytes]:
        """Return what an address got, once it is at least `count` messages."""
        eventually(lambda: len(self.mailboxes().get(address, [])) >= count)
        return self.mailboxes()[address]

    def is_idle(self) -> bool:
        """True while Postfix's queue is empty."""
        return self.waiting() == []

    def waiting(self) -> list[str]:
        """Return for each recipient in the queue why mail waits, "" where it was not tried yet."""
        command = ["postqueue", "-c", str(self.folder), "-j"]
        listed = subprocess.run(command, capture_output=True, check=True, timeout=60)
        messages = [json.loads(line) for line in listed.stdout.splitlines()]
        return [one.get("delay_reason", "") for message in messages for one in message["recipients"]]
