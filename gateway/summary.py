"""Write the summary that tells a login's contact who was refused of a campaign.

It is for streams whose refusals are not told by SMTP: then it is the only word that the submitter hears, so nobody is
left out of its count. One message, from the null sender, so that it is never answered by a machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime

from gateway.model import CampaignName, ReportedRefusal

MOST_LISTED = 5000
"""Recipients that are listed; those beyond are counted, and stand in the decision log."""


def refusal_summary(
    hostname: str,
    help_url: str,
    to: str,
    campaign: CampaignName,
    refusals: Sequence[ReportedRefusal],
    summary_id: str,
    now: datetime,
) -> bytes:
    """Return the whole summary as CRLF lines."""
    header = (
        f"From: Mail gateway <postmaster@{hostname}>",
        f"To: <{to}>",
        f"Subject: {_so_many(refusals, 'of a campaign ')}not sent to",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{summary_id}@{hostname}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    )
    body = (*_told(campaign, refusals), *_counted(refusals), *_listed(refusals, help_url))
    return "".join(f"{line}\r\n" for line in (*header, "", *body)).encode("utf-8", "replace")


def _told(campaign: CampaignName, refusals: Sequence[ReportedRefusal]) -> tuple[str, ...]:
    named = f', campaign "{_plain(campaign.name)}"' if campaign.name else ""
    return (
        f"Login {campaign.login}, stream {campaign.stream}{named}:",
        f"{_so_many(refusals)}answered 250 and not sent to, as this stream's configuration asks.",
        "",
    )


def _so_many(refusals: Sequence[ReportedRefusal], of: str = "") -> str:
    return f"1 recipient {of}was " if len(refusals) == 1 else f"{len(refusals)} recipients {of}were "


def _counted(refusals: Sequence[ReportedRefusal]) -> tuple[str, ...]:
    counts = Counter(one.reason for one in refusals).most_common()
    return (*(f"{count:8}  {reason}" for reason, count in counts), "")


def _listed(refusals: Sequence[ReportedRefusal], help_url: str) -> tuple[str, ...]:
    lines = [f"{one.address}\t{one.reason}\tdecision {one.decision}" for one in refusals[:MOST_LISTED]]
    beyond = len(refusals) - len(lines)
    more = [f"and {beyond} more, each of them in the decision log"] if beyond else []
    return (*lines, *more, *(("", f"See {help_url}") if help_url else ()))


def _plain(text: str) -> str:
    """Return a name without what could break out of its line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
