"""Postfix with an sqlite access map, with OpenDKIM as its milter or alone.

This is what most people would put together. It gates and (with the milter) signs, and stamps nothing. It runs
beside any Postfix of the machine: own configuration, queue and data folders, no chroot, no log.
"""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path

from bench.process import Daemon, Unavailable, accepts, free_port, greets, program, run
from bench.workload import Workload

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
myhostname = relay.example.com
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
relayhost = [127.0.0.1]:{sink_port}
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access sqlite:{folder}/optin.cf, reject
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtp_connection_cache_on_demand = yes
default_process_limit = 100
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
in_flow_delay = 0
smtpd_tls_security_level = none
smtp_tls_security_level = none
"""
_MILTER = """\
smtpd_milters = {milter}
milter_default_action = tempfail
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
smtp      unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
"""
_ACCESS = """\
dbpath = {folder}/optin.db
query = SELECT ok FROM optin WHERE addr = '%s'
"""
_OPENDKIM = """\
Mode s
Domain {domain}
Selector {selector}
KeyFile {key_file}
RequireSafeKeys no
Canonicalization relaxed/simple
SignatureAlgorithm rsa-sha256
OversignHeaders From,List-Unsubscribe,List-Unsubscribe-Post
InternalHosts 127.0.0.1
Socket {socket}
UMask 000
Syslog no
Background no
"""


class Postfix:
    """Postfix with neither signing nor stamping: the access map and the relay."""

    name = "postfix"
    title = "Postfix alone"
    keeps = "on disk"
    note = "sqlite access map at RCPT; neither signs nor stamps."
    _milter = ""

    def __init__(self, workload: Workload) -> None:
        self.port = free_port()
        self._workload = workload

    def prepare(self, folder: Path) -> None:
        """Write the configuration and the access map; only root can start a Postfix."""
        program("postfix")
        if os.geteuid() != 0:
            raise Unavailable("Postfix starts as root only")
        self._folder = folder
        for part in ("queue", "data"):
            (folder / part).mkdir()
        run(["chown", "postfix", str(folder / "data")])
        self._write("main.cf", _MAIN + self._milter)
        self._write("master.cf", _MASTER)
        self._write("optin.cf", _ACCESS)
        write_access_map(folder / "optin.db", self._workload.all_readers())
        run([program("postfix"), "-c", str(folder), "check"])  # makes the queue's folders

    def version(self) -> str:
        """What `postconf` says."""
        return "Postfix " + run([program("postconf"), "-h", "-d", "mail_version"]).strip()

    def start(self) -> None:
        """Postfix's master in the foreground, and a greeting on the port."""
        command = [
            run([program("postconf"), "-h", "daemon_directory"]).strip() + "/master",
            "-c",
            str(self._folder),
            "-d",
        ]
        self._postfix = Daemon(command, self._folder / "postfix.log")
        self._postfix.wait_until(partial(greets, self.port), "Postfix")

    def stop(self) -> None:
        """Ends the master and its processes; at the end of a turn the queue is empty."""
        self._postfix.stop()

    def _values(self) -> dict[str, object]:
        return {"folder": self._folder, "port": self.port, "sink_port": self._workload.sink_port}

    def _write(self, file: str, template: str) -> None:
        (self._folder / file).write_text(template.format(**self._values()))


class PostfixOpenDKIM(Postfix):
    """Postfix with OpenDKIM as milter."""

    name = "postfix-opendkim"
    title = "Postfix + OpenDKIM"
    note = "sqlite access map at RCPT, OpenDKIM as milter over TCP; stamps nothing."
    _milter = _MILTER

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self._milter_port = free_port()

    def prepare(self, folder: Path) -> None:
        """As Postfix, and OpenDKIM's configuration."""
        program("opendkim")
        super().prepare(folder)
        self._write("opendkim.conf", _OPENDKIM)

    def version(self) -> str:
        """Both programs' versions."""
        return f"{super().version()}, OpenDKIM {run([program('opendkim'), '-V']).splitlines()[0].split()[-1]}"

    def start(self) -> None:
        """OpenDKIM first, so that Postfix's first message finds it."""
        command = [program("opendkim"), "-f", "-x", str(self._folder / "opendkim.conf")]
        self._opendkim = Daemon(command, self._folder / "opendkim.log")
        self._opendkim.wait_until(self._milter_is_ready, "OpenDKIM")
        super().start()

    def stop(self) -> None:
        """Postfix first, then its milter."""
        super().stop()
        self._opendkim.stop()

    def _values(self) -> dict[str, object]:
        work = self._workload
        dkim = {"domain": work.domain, "selector": work.selector, "key_file": work.key_file}
        return super()._values() | dkim | self._sockets()

    def _sockets(self) -> dict[str, object]:
        return {"socket": f"inet:{self._milter_port}@127.0.0.1", "milter": f"inet:127.0.0.1:{self._milter_port}"}

    def _milter_is_ready(self) -> bool:
        return accepts(self._milter_port)


class PostfixOpenDKIMUnix(PostfixOpenDKIM):
    """The same over a Unix socket, where the milter protocol's small writes never wait for a delayed ACK."""

    name = "postfix-opendkim-unix"
    title = "Postfix + OpenDKIM, Unix socket"
    note = "as Postfix + OpenDKIM, with a Unix socket between the two instead of TCP."

    def _sockets(self) -> dict[str, object]:
        return {"socket": f"local:{self._socket}", "milter": f"unix:{self._socket}"}

    def _milter_is_ready(self) -> bool:
        return self._socket.is_socket()

    @property
    def _socket(self) -> Path:
        return self._folder / "opendkim.sock"


def write_access_map(file: Path, addresses: list[str]) -> None:
    """Write the table of those who opted in, as every peer but Assent reads it."""
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE optin (addr TEXT PRIMARY KEY, ok TEXT NOT NULL) WITHOUT ROWID")
        database.executemany("INSERT INTO optin VALUES (?, 'OK')", [(address,) for address in addresses])
    database.close()
    file.chmod(0o644)
