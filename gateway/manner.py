"""How a copy speaks to its one reader: in which language, what it has to tell, what it must not do behind their back.

Facts in, `Manner` out. The rule that must not be broken: what the law of any country that the reader may be in wants is
done; what we do not know of a reader takes nothing away.
"""

from __future__ import annotations

from gateway.consent import Standing
from gateway.law import Law
from gateway.model import Company, Manner, Stream, Verdict


def manner_of(standing: Standing, verdict: Verdict, law: Law, company: Company, stream: Stream | None) -> Manner:
    """Return how promotion speaks to whoever has this standing; `stream` is None for one that the file has no more."""
    demands = law.demands(standing.places)
    return Manner(
        language=language_of(standing, company, stream),
        is_advertising=verdict.is_unasked,
        states_objection=demands.states_objection and not standing.explained,
        is_untracked=demands.untracked,
    )


def commercial_manner_of(standing: Standing, law: Law, company: Company, stream: Stream | None) -> Manner | None:
    """Return how essential mail speaks to one whose law takes it for commercial; None for anybody else (LAW-CA-06)."""
    if stream is None or not stream.is_commercial or not law.demands(standing.places).commercial_footer:
        return None
    return Manner(language_of(standing, company, stream))


def language_of(standing: Standing, company: Company, stream: Stream | None) -> str:
    """Return the language that a person reads, as far as is known; else that of the stream, or of the company.

    Of a tag only the language counts ("de" of "de-AT"), so that copies differ no more than their words do.
    """
    tag = standing.language or (stream.language if stream else "") or company.language
    return tag.partition("-")[0].lower()
