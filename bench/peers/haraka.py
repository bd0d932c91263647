"""Haraka 3 with its DKIM plugin, a plugin of ours that gates and stamps (gate.js), and smtp_forward.

It does for a message what Assent does, except that nothing is kept: its 250 is the smarthost's, handed on.
It comes from npm by bench/package.json; better-sqlite3 is compiled against the headers of the Node that runs.
"""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

from bench.peers.postfix import write_access_map
from bench.process import Daemon, PassFailed, Unavailable, free_port, greets, program, run
from bench.workload import Workload

_PACKAGES = Path(__file__).parents[1]
_MODULES = _PACKAGES / "node_modules"
_SIGNED = (
    "From, To, Cc, Subject, Date, Reply-To, Sender, Message-ID, MIME-Version, Content-Type,"
    " Content-Transfer-Encoding, List-Id, List-Unsubscribe, List-Unsubscribe-Post"
)
_FILES = {
    "plugins": "gate\ndkim\nqueue/smtp_forward\n",
    "smtp.ini": "listen=127.0.0.1:{port}\nnodes=cpus\n",
    "log.ini": "level=warn\nformat=default\n",
    "me": "relay.example.com\n",
    "smtp_forward.ini": "host=127.0.0.1\nport={sink_port}\nenable_outbound=true\n",
    "gate.ini": "database={folder}/optin.db\nsecret=an HMAC-SHA-256 key of thirty-two bytes\nnodelay={nodelay}\n",
    "dkim.ini": "[sign]\nenabled=true\nselector={selector}\ndomain={domain}\nheaders={signed}\n"
    "[canon]\nbody=relaxed\n[verify]\nenabled=false\n",
}


class Haraka:
    """Haraka on every core."""

    name = "haraka"
    title = "Haraka"
    keeps = "not kept here"
    note = "gate.js looks up better-sqlite3 at RCPT and stamps; dkim signs; smtp_forward has no queue: not durable."
    _nodelay = False

    def __init__(self, workload: Workload) -> None:
        self.port = free_port()
        self._workload = workload

    def prepare(self, folder: Path) -> None:
        """Install the packages where they are missing, and write configuration, plugin and access map."""
        _install_packages()
        self._folder = folder
        shutil.copytree(_MODULES / "Haraka" / "config", folder / "config")
        (folder / "plugins").mkdir()
        (folder / "node_modules").symlink_to(_MODULES)
        for name, template in _FILES.items():
            (folder / "config" / name).write_text(template.format(**self._values()))
        shutil.copy(self._workload.key_file, folder / "config" / "dkim.private.key")
        shutil.copy(Path(__file__).with_name("gate.js"), folder / "plugins")
        write_access_map(folder / "optin.db", self._workload.all_readers())

    def version(self) -> str:
        """Haraka's, its DKIM plugin's, better-sqlite3's and Node's."""
        packages = [f"{name} {_package_version(name)}" for name in ("Haraka", "haraka-plugin-dkim", "better-sqlite3")]
        return ", ".join([*packages, f"Node {run([program('node'), '--version']).strip()}"])

    def start(self) -> None:
        """One process a core."""
        command = [program("node"), str(_MODULES / "Haraka" / "bin" / "haraka"), "-c", str(self._folder)]
        self._daemon = Daemon(command, self._folder / "haraka.log", cwd=self._folder)
        self._daemon.wait_until(partial(greets, self.port), "Haraka")

    def stop(self) -> None:
        """Ends the master and its workers."""
        self._daemon.stop()

    def _values(self) -> dict[str, object]:
        work = self._workload
        return {
            "folder": self._folder,
            "port": self.port,
            "sink_port": work.sink_port,
            "selector": work.selector,
            "domain": work.domain,
            "signed": _SIGNED,
            "nodelay": self._nodelay,
        }


class HarakaNoDelay(Haraka):
    """Haraka with TCP_NODELAY towards the smarthost, which it has no setting for."""

    name = "haraka-nodelay"
    title = "Haraka, patched"
    note = "as Haraka; gate.js also sets TCP_NODELAY on its connections, so that it need not wait for delayed ACKs."
    _nodelay = True


def _install_packages() -> None:
    """`npm install` in bench/, with the headers of the installed Node, so that nothing else is downloaded."""
    if (_MODULES / "Haraka").is_dir() and (_MODULES / "better-sqlite3" / "build").is_dir():
        return
    prefix = Path(program("node")).resolve().parents[1]
    env = dict(os.environ)
    if (prefix / "include" / "node" / "node.h").is_file():
        env["npm_config_nodedir"] = str(prefix)
    try:
        run([program("npm"), "install", "--no-audit", "--no-fund"], cwd=_PACKAGES, env=env)
    except PassFailed as error:
        raise Unavailable(f"its packages could not be installed: {error}") from None


def _package_version(name: str) -> str:
    return str(json.loads((_MODULES / name / "package.json").read_text())["version"])
