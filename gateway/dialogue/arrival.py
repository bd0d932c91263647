"""A message on its way in: found, counted and bounded while it arrives, handed over whole or refused.

The rule that must not be broken: only CRLF.CRLF ends a message, and one with a bare CR, a bare LF or a NUL is refused,
never repaired (SMTP-06). Nothing is kept of a message that will be refused.
"""

from __future__ import annotations

from typing import Final

from gateway.model import Reply

_TAIL: Final = len("\r\n.\r\n") - 1
_NUL, _LF, _CR = b"\0\n\r"
_BARE: Final = Reply(554, "5.6.0", "the message has a bare CR, a bare LF or a NUL; every line must end with CRLF")


class Arrival:
    """A message that is arriving at the front of a buffer.

    Each octet is counted once, as it comes, so that the last packet finds little to do. Sizes are those of the message
    without transparency dots (RFC 1870 §3).
    """

    __slots__ = ("_buffer", "_counted", "_dots", "_end", "_is_bare", "_max_size", "_refusal")

    def __init__(self, buffer: bytearray, max_size: int) -> None:
        self._buffer = buffer
        self._buffer[:0] = b"\r\n"  # the end of the DATA line may begin the end of an empty message
        self._max_size = max_size
        self._refusal: Reply | None = None
        self._end = self._counted = self._dots = 0
        self._is_bare = False

    def is_complete(self) -> bool:
        """Look at what has come; drop what need not be kept. Only CRLF.CRLF completes a message (RFC 5321 §4.1.1.4)."""
        found = self._buffer.find(b"\r\n.\r\n", self._counted)
        self._end = len(self._buffer) - _TAIL if found < 0 else found + 2
        self._count()
        if not self._refusal and self._counted - 2 - self._dots > self._max_size:
            self._refusal = too_big(self._max_size)
        if found < 0 and self._refusal:
            self.refuse(self._refusal)
        return found >= 0

    def refuse(self, reply: Reply) -> None:
        """Keep no more of the message than the end may need to be found; `take` will return the reply."""
        self._refusal = reply
        del self._buffer[:-_TAIL]
        self._counted = 0

    def take(self) -> bytes | Reply:
        """Remove the complete message from the buffer and return it without transparency dots, or its refusal."""
        refusal = self._refusal or (_BARE if self._is_bare else None)
        message = b"" if refusal else self._copy()
        del self._buffer[: self._end + 3]
        return refusal or (message.replace(b"\r\n.", b"\r\n") if self._dots else message)

    def _count(self) -> None:
        buffer, start, end = self._buffer, self._counted, self._end
        if end <= start:
            return
        end -= buffer[end - 1] == _CR  # whose LF may still be to come
        rest = buffer[start:end].replace(b"\r\n", b"")
        self._is_bare = self._is_bare or _CR in rest or _LF in rest or _NUL in rest
        self._dots += buffer.count(b"\r\n.", max(start - 2, 0), end)
        self._counted = end

    def _copy(self) -> bytes:
        """Return the message; of its dots, the one that begins it is left out."""
        start = 2 + self._buffer.startswith(b".", 2)
        with memoryview(self._buffer) as view:
            return bytes(view[start : self._end])


def too_big(max_size: int) -> Reply:
    return Reply(552, "5.3.4", f"the message is larger than {max_size} octets")
