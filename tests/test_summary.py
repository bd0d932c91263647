"""The summary of refusals: everybody is counted, and nothing that a sender named breaks out of its line."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy

from gateway.model import CampaignName, ReportedRefusal
from gateway.summary import MOST_LISTED, refusal_summary

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CAMPAIGN = CampaignName("news", "newsletter", "Frühling")


def summary(refusals: list[ReportedRefusal], campaign: CampaignName = CAMPAIGN, help_url: str = "") -> str:
    written = refusal_summary("relay.example.com", help_url, "me@example.com", campaign, refusals, "0ABC", NOW)
    assert b"\n" not in written.replace(b"\r\n", b"")
    message = message_from_bytes(written, policy=policy.default)
    assert (message["To"], message["Auto-Submitted"]) == ("me@example.com", "auto-generated")
    assert message["Message-ID"] == "<0ABC@relay.example.com>"
    return str(message.get_content())


def refused(n: int, reason: str = "no-consent") -> ReportedRefusal:
    return ReportedRefusal(f"reader{n}@example.org", reason, f"decision{n}")


def test_everybody_is_named_with_reason_and_decision_and_counted_by_reason() -> None:
    text = summary([refused(1), refused(2, "unsubscribed"), refused(3)], help_url="https://wiki.example.com/mail")
    assert 'Login news, stream newsletter, campaign "Frühling":' in text
    assert "       2  no-consent" in text
    assert "       1  unsubscribed" in text
    assert "reader2@example.org\tunsubscribed\tdecision decision2" in text
    assert text.rstrip().endswith("See https://wiki.example.com/mail")


def test_who_is_beyond_the_list_is_counted_all_the_same() -> None:
    text = summary([refused(n) for n in range(MOST_LISTED + 3)])
    assert text.count("\tno-consent\t") == MOST_LISTED
    assert "and 3 more, each of them in the decision log" in text
    assert f"{MOST_LISTED + 3} recipients were answered 250" in text


def test_one_recipient_is_one() -> None:
    assert "\n1 recipient was answered 250 and not sent to" in summary([refused(1)])


def test_a_campaign_without_a_name_has_none_and_a_name_stays_on_its_line() -> None:
    assert "campaign " not in summary([refused(1)], CampaignName("news", "newsletter", "")).splitlines()[0]
    first = summary([refused(1)], CampaignName("news", "newsletter", "a\r\nb\x85c")).splitlines()[0]
    assert first == 'Login news, stream newsletter, campaign "a  b c":'
