"""The page about how well the reading of messages does: judged anew whenever it is written."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.promotion.signals import Kind, our_signals
from tests.classification.gather import corpus
from tests.classification.judge import PROMOTIONAL, RULES, TRANSACTIONAL, Judged, by_source, flagged, judged

_OPENING = """# Mail that reads as promotion

Written by `make docs`, which reads every message of `tests/classification/corpus.jsonl.xz` anew.

Mail that a login declares essential is read once: its subject, and its body as a reader sees it. The words speak for
purposes by signals (`gateway/promotion/signals.toml`), each with an id, a weight, phrases in its language, and a sample
that a test reads. By the test of 16 CFR 316.3(a)(2) it is promotion where the subject alone weighs enough, or where
nothing transactional begins the body and what speaks for promotion weighs enough. The rules of a recipient's country
may be stricter (`advertising` and `surveys_advertise` in `gateway/regimes/`): significant promotional material anywhere
(UK), one promotional line (CA, DE, AT), a survey (DE, AT). What follows is the stream's to say (`reads_as_promotion`);
by class, `account` and `requested` mail is relayed and reported, and `product` mail is held.
"""

_LIMITS = """## What the figures do not say

* The promotional mail that is judged is real mail to people who had opted in, of 2002 and nearly all of it English; it
  is newsletters for the most part. Of one sender there are twelve at most. How much promotion in other languages is
  caught is not judged, for want of any whose licence lets it be kept here; tests of their own read their signals.
* The transactional mail that is judged is templates, many of them in several translations, so that it is worth fewer
  messages than it counts, and the intervals are too narrow. Each template stands with all of its branches at once.
* The labels are ours: opted-in mail counts as promotional but for discussions, personal mail, notices and reminders,
  which `tests/classification/sources.toml` names. Whoever gave them saw the subjects before the last signals were
  written; nothing was changed for what was missed. After a first judgement some signals were made lighter, because
  they stand in everybody's notifications; what that cost was not won back. The signals were tuned on the other part:
  transactional templates of other packages, and unsolicited mail of 2002 without what is fraud or obscene.
"""


def page() -> str:
    """Return the page as Markdown."""
    messages = corpus()
    judging = judged(one for one in messages if one.part == "judging")
    tuning = judged(one for one in messages if one.part == "tuning")
    return "\n".join(
        [_OPENING, *_signals(), *_figures(judging), *_missed(judging), *_sources(judging, tuning), _LIMITS]
    )


def _signals() -> Iterator[str]:
    known = our_signals()
    counts = {kind: [one for one in known.all if one.kind is kind] for kind in Kind}
    told = ", ".join(f"{len(those)} for {kind}" for kind, those in counts.items())
    phrases = sum(one.phrases for one in known.all)
    languages = ", ".join(sorted({one.id.rpartition("/")[2] for one in known.all}))
    yield f"Version `{known.version}`: {told}; {phrases} phrases in {languages}.\n"


def _figures(judging: list[Judged]) -> Iterator[str]:
    yield "## Judged\n"
    yield "Of the part that the signals were not tuned on, read as promotion (95 % intervals by Wilson's score):\n"
    yield "| by the rules of | promotional, called essential: caught | transactional: flagged in error |"
    yield "|---|---|---|"
    for rules in RULES:
        yield f"| {rules} | {flagged(judging, PROMOTIONAL, rules)} | {flagged(judging, TRANSACTIONAL, rules)} |"
    yield ""
    yield "The bars are at least 90 % caught and at most 1 % of transactional mail stopped, by the rules of the US, the"
    yield "measure that counts everywhere. Where a stream says `refuse`, what is flagged is stopped. Where it says"
    yield "nothing, no `account` or `requested` mail is.\n"


def _missed(judging: list[Judged]) -> Iterator[str]:
    missed = [one.labelled for one in judging if one.labelled.label == PROMOTIONAL and one.found() is None]
    wrong = [one for one in judging if one.labelled.label == TRANSACTIONAL and any(map(one.found, RULES))]
    yield "## Missed\n"
    yield f"Promotional, and not caught by the rules of the US ({len(missed)}):\n"
    yield from (f"* `{one.path.rpartition('/')[2][:12]}` of {one.source}: {_cell(one.subject)}" for one in missed)
    yield f"\nTransactional, and flagged by the rules of some country ({len(wrong)}):\n"
    for one in wrong:
        rules = "; ".join(f"{name}: {one.found(name)}" for name in RULES if one.found(name))
        yield f"* `{one.labelled.path}` of {one.labelled.source}: {_cell(one.labelled.subject)} ({rules})"
    yield ""


def _sources(judging: list[Judged], tuning: list[Judged]) -> Iterator[str]:
    for title, those in (("Sources that are judged", judging), ("Sources that were tuned on", tuning)):
        yield f"## {title}\n"
        yield "| label | source | licence | messages | read as promotion |"
        yield "|---|---|---|---|---|"
        for label, source, licence, share in by_source(those):
            yield f"| {label} | `{source}` | {licence} | {share.total} | {share.count} |"
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or "(no subject)"
