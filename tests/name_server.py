"""A name server for tests: answers from a table over UDP on loopback, and can fall silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = dict[tuple[str, str], Sequence[str]]
"""By name and type: the texts of TXT records, or what A, AAAA and PTR records lead to."""


class NameServer:
    """Serves a zone that a test may change at any time; a name that is not in it does not exist."""

    def __init__(self) -> None:
        self.zone: Zone = {}
        self.is_silent = False
        self.asked: list[tuple[str, str]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def section(self) -> str:
        """What config.toml must say to ask this server, and often."""
        return f'[dns]\nservers = ["{self.address}"]\ncheck_keys = "1s"\n'

    def publish(self, texts: Mapping[str, str]) -> None:
        """Put one TXT record at each name, in place of those that are there."""
        self.zone |= {(name, "TXT"): [text] for name, text in texts.items()}

    def close(self) -> None:
        """Stop; the server's thread ends with its next packet, which is an empty one."""
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            packet, client = self._socket.recvfrom(4096)
            if not packet:
                return
            query = dns.message.from_wire(packet)
            name = query.question[0].name.to_text(omit_final_dot=True).lower()
            kind = dns.rdatatype.to_text(query.question[0].rdtype)
            self.asked.append((name, kind))
            if not self.is_silent:
                self._socket.sendto(self._answer(query, name, kind).to_wire(), client)

    def _answer(self, query: dns.message.Message, name: str, kind: str) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        written = [_written(kind, value) for value in self.zone.get((name, kind), ())]
        if written:
            response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", kind, *written))
        elif name not in {known for known, _ in self.zone}:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response


def _written(kind: str, value: str) -> str:
    """Return a record as a zone file has it: a text in strings of at most 255 octets, a name with a dot at its end."""
    if kind == "TXT":
        return " ".join(f'"{value[at : at + 255]}"' for at in range(0, len(value), 255)) or '""'
    return f"{value}." if kind == "PTR" else value
