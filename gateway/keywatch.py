"""The keeper's eye on DNS: does it publish the keys that we sign with?

The rule: only another key than ours, seen in DNS, stops promotion from being signed (DKIM-18). A name that is not
there and a server that does not answer are warned of, for that may be the view from here: split DNS, or none at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from gateway.published import KeyStanding, Publication, key_standing
from gateway.resolver import Resolver
from gateway.sign import SigningKey, dns_record
from gateway.store.condition import Condition

log = logging.getLogger(__name__)

SOON: Final = 60.0
"""Seconds until DNS is asked again while something is not as it should be."""

_LEVELS: Final = {
    Publication.RIGHT: logging.INFO,
    Publication.WRONG: logging.ERROR,
}


class KeyWatch:
    """Asks DNS about every signing key again and again, and tells all processes which ones it contradicts."""

    def __init__(self, keys: Sequence[SigningKey], resolver: Resolver, condition: Condition, every: timedelta) -> None:
        self._keys = keys
        self._resolver = resolver
        self._condition = condition
        self._every = every.total_seconds()
        self._known = dict[int, Publication]()

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            is_well = await self._look()
            await asyncio.sleep(self._every if is_well else min(self._every, SOON))

    async def _look(self) -> bool:
        """Look once; True where every key is published. What was seen holds until something else is seen."""
        found = await standings(self._keys, self._resolver)
        for key, standing in zip(self._keys, found, strict=True):
            if standing.publication is not self._known.get(key.mark):
                self._known[key.mark] = standing.publication
                log.log(_LEVELS.get(standing.publication, logging.WARNING), "%s", standing.told)
        self._condition.contradict(
            [key.mark for key, standing in zip(self._keys, found, strict=True) if self._is_contradicted(key, standing)]
        )
        return all(one.publication is Publication.RIGHT for one in found)

    def _is_contradicted(self, key: SigningKey, standing: KeyStanding) -> bool:
        if standing.publication is Publication.UNKNOWN:
            return self._condition.are_contradicted([key.mark])
        return standing.publication is Publication.WRONG


async def standings(keys: Sequence[SigningKey], resolver: Resolver) -> list[KeyStanding]:
    """Ask DNS about all keys at once."""
    texts = await asyncio.gather(*(resolver.texts(dns_record(key)[0]) for key in keys))
    return [key_standing(key, published) for key, published in zip(keys, texts, strict=True)]
