"""A copy's octets on the wire: dots doubled, the final dot last, in pieces that are neither too large nor too many.

The one rule: what was signed is what is sent, so a bare CR, bare LF or NUL is refused here, and never repaired. When it
is sent, and what is answered, is left to `conversation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.model import Segment

_CHUNK = 256 * 1024
_SMALL = 16 * 1024
_SMALL_AT_ONCE = 16


def wire(segments: Iterable[Segment]) -> Iterator[bytes]:
    """Yield the content as it goes on the wire: leading dots doubled, the final dot last (RFC 5321 §4.5.2).

    Pieces are at most a little over 256 KiB; small ones are joined, since each costs a system call. Raises `ValueError`
    at a bare CR, bare LF or NUL: nothing is repaired here, because it is signed already.
    """
    small = list[bytes]()
    for piece in _stuffed(segments):
        small.append(piece)
        if len(piece) > _SMALL or len(small) == _SMALL_AT_ONCE:
            yield b"".join(small)
            small.clear()
    yield b"".join(small)


def _stuffed(segments: Iterable[Segment]) -> Iterator[bytes]:
    last = b"\n"
    for chunk in _chunks(segments):
        _refuse_bare(chunk, last)
        if last == b"\n" and chunk.startswith(b"."):
            yield b"."
        yield chunk.replace(b"\n.", b"\n..")
        last = chunk[-1:]
    if last == b"\r":
        raise ValueError("bare CR at the end of the content")
    yield b".\r\n" if last == b"\n" else b"\r\n.\r\n"


def _chunks(segments: Iterable[Segment]) -> Iterator[bytes]:
    """Join segments while they are small, and cut those that are large."""
    small = list[Segment]()
    for segment in segments:
        if len(segment) <= _SMALL and len(small) < _SMALL_AT_ONCE:
            small.append(segment)
            continue
        yield from filter(None, [b"".join(small)])
        small.clear()
        for start in range(0, len(segment), _CHUNK):
            yield bytes(segment[start : start + _CHUNK])
    yield from filter(None, [b"".join(small)])


def _refuse_bare(chunk: bytes, last: bytes) -> None:
    """Raise unless every CR of `chunk` (after the byte `last`) has its LF, and no LF stands alone."""
    if last == b"\r":
        if not chunk.startswith(b"\n"):
            raise ValueError("bare CR in the content")
        chunk = chunk[1:]
    rest = chunk.removesuffix(b"\r").replace(b"\r\n", b"")
    if b"\r" in rest or b"\n" in rest or b"\0" in rest:
        raise ValueError("bare CR, bare LF or NUL in the content")


def header_of(segments: Iterable[Segment]) -> bytes:
    """Return the header of a copy, without joining the rest."""
    read = b""
    for chunk in _chunks(segments):
        read += chunk
        if b"\r\n\r\n" in read:
            break
    return read.partition(b"\r\n\r\n")[0]


def is_8bit(segments: Iterable[Segment]) -> bool:
    """True where a copy has an octet beyond ASCII."""
    return not all(map(_is_ascii, segments))


def _is_ascii(segment: Segment) -> bool:
    return segment.isascii() if isinstance(segment, bytes) else all(chunk.isascii() for chunk in _chunks([segment]))
