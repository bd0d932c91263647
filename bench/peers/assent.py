"""Assent itself, installed and started like anybody's: a configuration file and its own commands.

Default settings throughout, on a login bound to loopback because smtp-source cannot authenticate. Each message
is looked up, decided, written to disk, decided again, stamped, signed and relayed.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from bench.process import Daemon, Unavailable, free_port, greets, run
from bench.workload import Workload

_CONFIG = """\
hostname = "relay.example.com"
data_dir = "{data}"
database = "sqlite:{data}/assent.db"

[company]
name = "Example Software, Inc."
postal_address = "1 Main Street, Springfield IL 62701, USA"
contact = "privacy@example.com"
privacy_policy = "https://www.example.com/privacy"
region = "US"
hosts = ["example.com", "*.example.com"]
help_url = "https://wiki.example.com/mail"

[consent]
require = "express"
markets = ["US"]

[submission]
listen = ["127.0.0.1:{port}"]
plaintext_from = ["127.0.0.0/8"]
connections_per_address = 1000

[smarthosts.default]
urls = ["smtp://127.0.0.1:{sink_port}"]

[feedback]
listen = ["127.0.0.1:{feedback_port}"]
domain = "bounce.example.com"

[site]
listen = ["127.0.0.1:{site_port}"]
public_url = "https://mail.example.com"

[console]
listen = ["127.0.0.1:{console_port}"]

[dkim."{domain}"]
selectors = [{{ name = "{selector}", key = "{key_file}" }}]

[topics.product-announcements]
name = "Product announcements"

[streams.newsletter]
class = "promotional"
topics = ["product-announcements"]
from = ["*@news.example.com"]
return_paths = ["*@news.example.com"]
smarthost = "default"
"""


class Assent:
    """The gateway under `workers = "auto"`."""

    name = "assent"
    title = "Assent"
    keeps = "on disk"
    note = "default settings; gates, spools, stamps links and footer, signs, relays."

    def __init__(self, workload: Workload, data: Path | None = None) -> None:
        self.port = free_port()
        self._workload = workload
        self._data = data

    def prepare(self, folder: Path) -> None:
        """Write the configuration, let the program make its keys, add the login, and record the readers' opt-ins.

        A `data` folder that is filled already keeps all of it.
        """
        if not self._program.is_file():
            raise Unavailable("assent is not installed")
        self._folder = folder
        (folder / "config.toml").write_text(_CONFIG.format(**self._values()))
        if self._data is None or not self._data.exists():
            self._assent("init")
            self._assent("logins", "add", "bench", "--streams", "newsletter", "--network", "127.0.0.0/8")
            self._record_opt_ins()

    def version(self) -> str:
        """What the program says."""
        return run([str(self._program), "--version"]).strip()

    def start(self) -> None:
        """`assent serve`."""
        self._daemon = Daemon(self.command("serve"), self._folder / "assent.log", cwd=self._folder)
        self._daemon.wait_until(partial(greets, self.port), "Assent")

    def stop(self) -> None:
        """Ends the supervisor and its workers."""
        self._daemon.stop()

    def memory(self) -> int:
        """How many octets its processes hold now, what they share counted once."""
        return self._daemon.memory()

    _program = Path(sys.executable).with_name("assent")

    def _record_opt_ins(self) -> None:
        notice, topic = self._folder / "notice.txt", ["--topic", "product-announcements"]
        notice.write_text("Yes, send me product announcements by e-mail.\n")
        place = ["--text", str(notice), "--url", "https://www.example.com/news", "--control", "unticked"]
        self._assent("notices", "add", "news", *topic, *place, "--from", "2026-01-01")
        readers = self._workload.all_readers()
        self._assent("consent", "record", *readers, *topic, "--basis", "express", "--notice", "news")

    def _assent(self, *arguments: str) -> str:
        return run(self.command(*arguments), cwd=self._folder)

    def command(self, *arguments: str) -> list[str]:
        return [str(self._program), "--config", str(self._folder / "config.toml"), *arguments]

    def _values(self) -> dict[str, object]:
        ports = {f"{part}_port": free_port() for part in ("feedback", "site", "console")}
        work = self._workload
        dkim = {"domain": work.domain, "selector": work.selector, "key_file": work.key_file}
        data = self._data or self._folder / "var"
        return {"port": self.port, "sink_port": work.sink_port, "data": data} | ports | dkim
