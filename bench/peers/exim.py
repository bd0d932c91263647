"""Exim 4 doing all of it by itself: sqlite look-up, HMAC link, DKIM.

Debian's exim4-daemon-heavy cannot be installed beside Postfix, so its package and the libraries that are missing are
fetched by apt and unpacked into build/. In a mount namespace of its own they lie over /usr, and its user and
configuration over /etc: for Exim's processes it is installed, set-uid bit and all, and nothing of the system changes.

Two limits are lifted, because the load keeps its connections open: past `smtp_accept_max` (20) sessions would be
turned away, past `smtp_accept_queue_per_connection` (10) messages would wait for a queue run, half an hour on Debian.
"""

from __future__ import annotations

import os
import pwd
import shutil
from functools import partial
from pathlib import Path

from bench.peers.postfix import write_access_map
from bench.process import Daemon, PassFailed, Unavailable, free_port, greets, program, run
from bench.workload import Workload

_UNPACKED = Path(__file__).parents[2] / "build" / "bench" / "exim"
_PACKAGE = "exim4-daemon-heavy"
_PROGRAM = "/usr/sbin/exim4"
_INSTALL_AND_RUN = """\
mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr &&
mount -t overlay overlay -o "lowerdir=$2/etc:/etc" /etc && shift 2 && exec "$@"
"""
_USER = "nobody"
_FIXED_NAME = "Debian-exim"
_SIGNED = (
    "From:To:Cc:Subject:Date:Reply-To:Sender:Message-ID:MIME-Version:Content-Type:"
    "Content-Transfer-Encoding:List-Id:List-Unsubscribe:List-Unsubscribe-Post"
)
_CONFIG = """\
keep_environment =
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s.log
log_selector = -all
pid_file_path = {folder}/exim.pid
primary_hostname = relay.example.com
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
sqlite_dbfile = {folder}/optin.db
deliver_drop_privilege = {drop_privilege}
acl_smtp_rcpt = gate
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
tls_advertise_hosts =
chunking_advertise_hosts =
dkim_verify_signers =
host_lookup =
rfc1413_hosts =

begin acl
gate:
  accept condition = ${{lookup sqlite{{SELECT 1 FROM optin WHERE \\
    addr='${{quote_sqlite:${{lc:$local_part@$domain}}}}'}}{{yes}}{{no}}}}
  deny message = no opt-in

begin routers
smarthost:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out

begin transports
out:
  driver = smtp
  port = {sink_port}
  allow_localhost
  hosts_try_chunking =
  headers_add = List-Unsubscribe: <https://mail.example.com/u/\\
    ${{hmac{{sha1}}{{an HMAC key of thirty-two bytes more}}{{$local_part@$domain}}}}>\\n\\
    List-Unsubscribe-Post: List-Unsubscribe=One-Click
  dkim_domain = {domain}
  dkim_selector = {selector}
  dkim_private_key = {folder}/dkim.pem
  dkim_canon = relaxed
  dkim_sign_headers = {signed}
"""


class Exim:
    """As Debian installs it: the set-uid program executes itself anew for each delivery, to be root again."""

    name = "exim"
    title = "Exim"
    keeps = "on disk"
    note = (
        "sqlite look-up in the RCPT ACL, HMAC-SHA-1 link (it has no SHA-256) and DKIM in the smtp transport; "
        "set-uid, as Debian installs it: each delivery executes the program anew."
    )
    _drop_privilege = "false"

    def __init__(self, workload: Workload) -> None:
        self.port = free_port()
        self._workload = workload

    def prepare(self, folder: Path) -> None:
        """Unpack the packages where they are missing, and write configuration, users and access map."""
        if os.geteuid() != 0:
            raise Unavailable("Exim's daemon starts as root only")
        _unpack_packages()
        self._folder = folder
        for part in ("spool", "log", "etc/exim4"):
            (folder / part).mkdir(parents=True)
        _write_users(folder / "etc")
        shutil.copy(self._workload.key_file, folder / "dkim.pem")
        (folder / "etc" / "exim4" / "exim4.conf").write_text(_CONFIG.format(**self._values()))
        write_access_map(folder / "optin.db", self._workload.all_readers())
        for part in ("spool", "log", "dkim.pem"):
            shutil.chown(folder / part, _USER)

    def version(self) -> str:
        """What it says of itself."""
        words = run([*self._command, "-bV"]).split()
        return f"Exim {words[words.index('version') + 1]}"

    def start(self) -> None:
        """The daemon in the foreground."""
        self._daemon = Daemon([*self._command, "-bdf"], self._folder / "exim.log")
        self._daemon.wait_until(partial(greets, self.port), "Exim")

    def stop(self) -> None:
        """Ends the daemon; what it has accepted was delivered."""
        self._daemon.stop()

    @property
    def _command(self) -> list[str]:
        layers = [str(_UNPACKED), str(self._folder)]
        return [program("unshare"), "--mount", "sh", "-c", _INSTALL_AND_RUN, "sh", *layers, _PROGRAM]

    def _values(self) -> dict[str, object]:
        work = self._workload
        return {
            "folder": self._folder,
            "port": self.port,
            "sink_port": work.sink_port,
            "domain": work.domain,
            "selector": work.selector,
            "signed": _SIGNED,
            "drop_privilege": self._drop_privilege,
        }


class EximUnprivileged(Exim):
    """Exim that delivers without being root again, which is enough where no mail is delivered to local users."""

    name = "exim-unprivileged"
    title = "Exim, without re-execution"
    note = "as Exim; `deliver_drop_privilege`, off by default: who took a message only forks to deliver it."
    _drop_privilege = "true"


def _write_users(folder: Path) -> None:
    """Write the system's users and groups, and the name that Exim was built to run under, for a user that exists."""
    user = pwd.getpwnam(_USER)
    also = {
        "passwd": f"{_FIXED_NAME}:x:{user.pw_uid}:{user.pw_gid}::/nonexistent:/usr/sbin/nologin\n",
        "group": f"{_FIXED_NAME}:x:{user.pw_gid}:\n",
    }
    for name, line in also.items():
        (folder / name).write_text(Path("/etc", name).read_text() + line)


def _unpack_packages() -> None:
    """Fetch what apt would install, and unpack it with its modes; a folder that is there is whole."""
    if _UNPACKED.is_dir():
        return
    fresh = _UNPACKED.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "packages").mkdir(parents=True)
    try:
        plan = run([program("apt-get"), "install", "--simulate", "--no-install-recommends", _PACKAGE])
        wanted = {_PACKAGE, *(line.split()[1] for line in plan.splitlines() if line.startswith("Inst "))}
        run([program("apt-get"), "download", "-o", "APT::Sandbox::User=root", *wanted], cwd=fresh / "packages")
        for package in (fresh / "packages").glob("*.deb"):
            run([program("dpkg"), "-x", str(package), str(fresh)])
    except PassFailed as error:
        raise Unavailable(f"its packages could not be fetched: {error}") from None
    fresh.rename(_UNPACKED)
