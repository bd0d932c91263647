"""What notices must be before they are kept: without marketing, and one of a policy about a published version.

The rule that must not be broken: a notice goes to people who have said no to marketing, so it is refused as a whole
where it holds any (POL-13, POL-20). To whom it goes is the policy's part.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.classify import Mismatch
from gateway.headers import HeaderBlock
from gateway.law import PolicyVersion
from gateway.lexicon import marketing_in
from gateway.model import PolicyNotice, Reason
from gateway.prose import subject_of, texts_of
from gateway.reconsent import PLACEHOLDER, asks


def read_notice(
    message: bytes, block: HeaderBlock, recipients: int, published: Iterable[PolicyVersion]
) -> PolicyNotice | Mismatch:
    """Return what a notice for so many recipients is about, or why it is none."""
    named = block.first("assent-policy-version")
    version = named.value.decode("utf-8", "replace").strip() if named else ""
    if all(one.version != version for one in published):
        sentence = "a policy notice names a published version in Assent-Policy-Version"
        return Mismatch(Reason.CLASS_MISMATCH, "5.7.0", sentence)
    if marketing := marketing_in_notice(message, block, "policy"):
        return marketing
    links = asks(message, block)
    if links > 1 or (links and recipients > 1):
        return _unfit(f"{PLACEHOLDER.decode()} stands once in a notice to one recipient")
    return PolicyNotice(version, asks=bool(links))


def marketing_in_notice(message: bytes, block: HeaderBlock, kind: str) -> Mismatch | None:
    """Return why a notice is refused that sells something; None for one that does not."""
    for text in (subject_of(block), *texts_of(message, block)):
        if words := marketing_in(text):
            return _unfit(f"a {kind} notice holds no marketing, and this one says {_printable(words)}")
    return None


def _unfit(sentence: str) -> Mismatch:
    return Mismatch(Reason.CONTENT, "5.7.0", sentence)


def _printable(words: str) -> str:
    return '"' + words.encode("ascii", "replace").decode("ascii")[:60] + '"'
