"""Mail a login's contact one summary a campaign, where a stream's refusals are not told by SMTP.

The rule that must not be broken: what was refused is forgotten only in the transaction that keeps its summary, so that
each refusal is told once and none is dropped. A campaign is over when nothing more has been refused of it for so long
as its stream says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from gateway.address import Address
from gateway.ids import Ids, spool_text
from gateway.model import (
    CampaignName,
    Company,
    MessageClass,
    Peer,
    Recipient,
    ReportedRefusal,
    SpooledMessage,
    SpooledRecipient,
    Stream,
)
from gateway.store import Now, Store
from gateway.summary import refusal_summary


class Summaries:
    """Sends what is due. One process of an installation does."""

    def __init__(
        self, hostname: str, company: Company, streams: Mapping[str, Stream], store: Store, ids: Ids, now: Now
    ) -> None:
        self._hostname = hostname
        self._company = company
        self._streams = streams
        self._store = store
        self._ids = ids
        self._now = now

    async def send_due(self) -> None:
        """Send the summary of every campaign that is over."""
        for campaign, latest in self._store.spool.refusals.campaigns():
            if self._is_over(campaign, latest):
                to = await self._reader_of(campaign)
                await self._store.spool.refusals.summarise(campaign, partial(self._mail, campaign, to))

    def _is_over(self, campaign: CampaignName, latest: datetime) -> bool:
        stream = self._streams.get(campaign.stream)
        return self._now() - latest >= (stream.summary_after if stream else timedelta(0))

    async def _reader_of(self, campaign: CampaignName) -> Address:
        """Return the login's contact; whoever the company named, where it has none any more."""
        record = await self._store.people.login(campaign.login)
        return (record.login.reader if record else None) or Address.parse(self._company.contact)

    def _mail(
        self, campaign: CampaignName, to: Address, refusals: Sequence[ReportedRefusal]
    ) -> tuple[SpooledMessage, SpooledRecipient]:
        spool_id, now, reader = self._ids.spool(), self._now(), Recipient(to)
        text = refusal_summary(
            self._hostname, self._company.help_url, to.text, campaign, refusals, spool_text(spool_id), now
        )
        message = SpooledMessage(
            id=spool_id,
            login="",
            stream=campaign.stream,
            message_class=MessageClass.SYSTEM,
            topics=(),
            reverse_path="",
            options=(),
            peer=Peer(self._hostname, "127.0.0.1", "ESMTP"),
            received_at=now,
            recipients=(reader,),
            message=text,
        )
        return message, SpooledRecipient(0, reader, "", self._ids.decision())
