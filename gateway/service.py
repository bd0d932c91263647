"""Build everything from the configuration; start, drain, stop. The only file that knows all rooms.

A worker is one process with its own event loop, listeners, share of smarthost connections and delivery; the keeper is
one process that seals, checkpoints and answers the operators. The order at the end is the rule: first no new mail is
taken, then what is under way is settled, then the store is closed.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import uvloop

from gateway.bells import Bells
from gateway.campaigns import CampaignBoard, Campaigns
from gateway.config import MOST_WORKERS, Config, ListenAddress, load
from gateway.config.dialects import dialects
from gateway.console.api import Api
from gateway.console.app import create_app as create_console
from gateway.console.pages import Pages
from gateway.copies import CopyMaker, Links
from gateway.delivery import Delivery
from gateway.dialogue import Auth, Terms
from gateway.errors import ConfigError, StoreUnavailable
from gateway.housekeeping import DeadlineAlarms, Housekeeper
from gateway.ids import Ids
from gateway.installation import (
    KEEPER_SLOT,
    Clock,
    data_folder,
    open_store,
    prepare,
    published_keys,
    signers,
)
from gateway.keywatch import KeyWatch
from gateway.lanes import MEMORY_BUDGET, Lanes
from gateway.listener import Crowd, Limits, Listener, server_tls
from gateway.listener.desk import LoginDesk
from gateway.listener.feedback import FeedbackHandler
from gateway.listener.intake import House
from gateway.listener.preflight import Preflight, Surroundings
from gateway.listener.submission import SubmissionHandler
from gateway.metrics import Board
from gateway.model import Smarthost
from gateway.overview import lacking, overview
from gateway.probe import Probe
from gateway.resolver import Resolver
from gateway.shadow import ShadowAlarms, gauge_text, shadow_ends
from gateway.sign import dns_record
from gateway.smarthost import Pool, Turnstile
from gateway.store import Now, Store
from gateway.store.segments import Sealer
from gateway.summaries import Summaries
from gateway.supervisor import Crew, Main, Supervisor, bind
from gateway.tokens import UnsubscribeTokens
from gateway.watch import Watch
from gateway.webhooks import Webhooks
from unsubscribe_site.app import SiteSettings, create_app
from unsubscribe_site.server import start as start_site

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10
"""How long listeners, and then attempts under way, may take to finish; the supervisor waits for both."""

KEEP_SECONDS = 0.5
SHOWN_SINCE = timedelta(days=1)
"""What the console's first page is about."""

GARBAGE_THRESHOLD = 20_000
"""Objects between two searches for cycles: mail makes many objects and few cycles (2 % of a worker's time saved)."""

LARGE_MEMORY = 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

RUNNERS_A_CONNECTION = 4
"""Copies under way for each connection: while one is relayed, others are made, or written down."""


@dataclass(frozen=True, slots=True)
class Plant:
    """What outlives a reload: which parts run, the sockets, the counters, the rates, where each crew's slots begin."""

    parts: Sequence[str]
    sockets: Sockets
    board: Board
    campaigns: CampaignBoard
    first_slots: Iterator[int]
    turnstiles: dict[str, Turnstile] = field(default_factory=dict)
    """By the smarthost's name, which may come with a reload; all are made before a crew is forked."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """What is listened on, bound once and inherited by every worker."""

    submission: Sequence[socket.socket]
    submission_tls: Sequence[socket.socket]
    feedback: Sequence[socket.socket]
    site: Sequence[socket.socket]
    console: Sequence[socket.socket]


@dataclass(frozen=True, slots=True)
class Crowds:
    """What the workers of one crew know together of those who come to each listener."""

    submission: Crowd
    feedback: Crowd

    @classmethod
    def of(cls, config: Config) -> Crowds:
        submission = config.submission
        return cls(Crowd(config.workers, submission.connection_rate, submission.message_rate), Crowd(config.workers))


def serve(config: Config, parts: Sequence[str], listening: Callable[[], None]) -> int:
    """Run the parts in the foreground until SIGTERM; return the exit status. Raises `ConfigError`, `OSError`.

    `listening` is called once every address is ours.
    """
    _warn(config)
    _prepare(config)
    _warn_of_keys(config)
    board, campaigns = Board(KEEPER_SLOT + 1), CampaignBoard(2 * MOST_WORKERS)
    plant = Plant(parts, _bound(config, parts), board, campaigns, cycle((0, MOST_WORKERS)))
    listening()
    return Supervisor(_crew(config, plant), lambda: _reloaded(config.path, plant)).run()


def _prepare(config: Config) -> None:
    """Make the store ready; while opt-outs wait that it does not know, wait for it, and serve nobody (UNS-23)."""
    while True:
        try:
            copies = asyncio.run(prepare(config))
        except StoreUnavailable as error:
            if not data_folder(config).has_journal:
                raise
            log.error("no listener opens before the people store has the journal's opt-outs: %s", error)
            time.sleep(KEEP_SECONDS)
        else:
            return _tell(copies)


def _tell(copies: Sequence[Path]) -> None:
    for copy in copies:
        log.warning("the store was brought up to date; what it was is kept in %s", copy)


def _reloaded(path: Path, plant: Plant) -> Crew | None:
    """Return the crew for the file as it is now; None, with every problem logged, where it is not fit to run."""
    try:
        config = load(path)
        asyncio.run(prepare(config))
    except (ConfigError, StoreUnavailable, OSError) as error:
        log.error("the configuration in force stays, because the new one cannot be taken:\n%s", error)
        return None
    _warn(config)
    _warn_of_addresses(config, plant)
    _warn_of_keys(config)
    log.info("the configuration has been reloaded")
    return _crew(config, plant)


def _warn_of_keys(config: Config) -> None:
    for told in data_folder(config).keys_not_in_force():
        log.warning("%s", told)


def _crew(config: Config, plant: Plant) -> Crew:
    """Return the processes of a configuration; their slots are not those of the crew that they take over from."""
    first = next(plant.first_slots)
    for name in config.smarthosts.keys() - plant.turnstiles.keys():
        plant.turnstiles[name] = Turnstile()
    crowds, bells = Crowds.of(config), Bells(config.workers)
    clock = Clock()
    mains: dict[str, Main] = {"keeper": lambda pipe: _run(pipe, _keep(config, plant, clock))}
    for number in range(config.workers):
        mains[f"worker {number}"] = _worker_main(config, plant, crowds, bells, clock, first, number)
    return Crew(mains)


def _worker_main(
    config: Config, plant: Plant, crowds: Crowds, bells: Bells, clock: Clock, first_slot: int, number: int
) -> Main:
    return lambda pipe: _run(pipe, Worker(config, plant, crowds, bells, clock, first_slot, number).work)


def _run(pipe: int, work: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run one process's work until SIGTERM, or until the supervisor's end of the pipe is closed."""

    async def until_told() -> None:
        leave = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leave.set)
        loop.add_reader(pipe, leave.set)
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        _give_memory_back()
        await work(leave)

    uvloop.run(until_told())
    return 0


def _give_memory_back() -> None:
    """Let freed memory leave the process, or serve any thread; by itself glibc learns to keep it (mallopt(3))."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE_MEMORY)
        libc.mallopt(_M_TRIM_THRESHOLD, 16 * LARGE_MEMORY)
        libc.mallopt(_M_ARENA_MAX, 1)


class Worker:
    """One process that takes mail, relays it, and serves the public site."""

    def __init__(
        self,
        config: Config,
        plant: Plant,
        crowds: Crowds,
        bells: Bells,
        clock: Clock,
        first_slot: int,
        number: int,
    ) -> None:
        self._config = config
        self._parts = plant.parts
        self._sockets = plant.sockets
        self._turnstiles = plant.turnstiles
        self._number = number
        self._metrics = plant.board.row(first_slot + number)
        self._campaign_rows = plant.campaigns.rows(first_slot, config.workers)
        self._submitters = crowds.submission.seen_by(number)
        self._strangers = crowds.feedback.seen_by(number)
        self._bell = bells.of(number)
        self._now = clock.now
        self._ids = Ids(first_slot + number, self._now)

    async def work(self, leave: asyncio.Event) -> None:
        """Serve until told to leave; then finish what is under way."""
        store = open_store(self._config, f"worker-{self._number}", self._ids, self._now)
        tokens = UnsubscribeTokens(data_folder(self._config).token_ring())
        closers = []
        if "relay" in self._parts:
            closers.append(await self._relay(store, tokens))
        if "site" in self._parts and self._config.site:
            closers.append(await self._site(store, tokens))
        await leave.wait()
        for close in closers:
            await close()
        await store.close()

    async def _relay(self, store: Store, tokens: UnsubscribeTokens) -> Callable[[], Awaitable[None]]:
        config = self._config
        copies = _copy_maker(config, store, tokens)
        pools = {name: self._pool(smarthost) for name, smarthost in config.smarthosts.items()}
        lanes = {name: self._lanes(name, pool) for name, pool in pools.items()}
        delivery = Delivery(
            *(store, copies, lanes, config.streams, config.topics, config.company, config.law),
            *(self._ids, self._bell, self._metrics, self._now),
        )
        house = _house(config)
        campaigns = Campaigns(self._campaign_rows, self._number, store.people, self._metrics, self._now)
        desk = LoginDesk(store.people, self._submitters, config.submission.message_rate)
        preflight = self._preflight(house, store, copies, tokens)
        handler = SubmissionHandler(
            house, desk, store, copies, delivery, campaigns, self._ids, self._metrics, self._now, preflight
        )
        listeners = [await self._submission(handler)]
        if config.feedback:
            listeners.append(await self._feedback(store, tokens))
        delivery.start(RUNNERS_A_CONNECTION)

        async def close() -> None:
            await asyncio.gather(*(listener.drain(DRAIN_SECONDS) for listener in listeners))
            await delivery.stop(DRAIN_SECONDS)
            await asyncio.gather(*(pool.close() for pool in pools.values()))

        return close

    def _preflight(self, house: House, store: Store, copies: CopyMaker, tokens: UnsubscribeTokens) -> Preflight | None:
        """Return who takes drafts; nobody where there is no feedback domain to send them to."""
        config, site = self._config, self._config.site
        if config.feedback is None:
            return None
        around = Surroundings(
            config.feedback.domain,
            config.company,
            dict(map(dns_record, published_keys(config))),
            site.public_url if site else "",
            store.people.topic_number,
            Probe(site.listen[0].host, site.listen[0].port, is_tls=site.tls is not None) if site else None,
        )
        return Preflight(around, house, store, copies, tokens, self._ids, self._now)

    async def _submission(self, handler: SubmissionHandler) -> Listener:
        submission = self._config.submission
        terms = Terms(
            self._config.hostname, submission.max_message_size, submission.max_recipients, auth=Auth.AFTER_TLS
        )
        tls = server_tls(submission.tls.certificate, submission.tls.key) if submission.tls else None
        limits = Limits(
            connections_per_address=submission.connections_per_address,
            arrivals=submission.connection_rate,
            idle=submission.timeout,
        )
        listener = Listener(
            handler,
            terms,
            tls=tls,
            plaintext_from=submission.plaintext_from,
            proxy_from=submission.proxy_from,
            limits=limits,
            census=self._submitters,
        )
        for bound in self._sockets.submission:
            await listener.serve(bound)
        for bound in self._sockets.submission_tls:
            await listener.serve(bound, implicit_tls=True)
        return listener

    async def _feedback(self, store: Store, tokens: UnsubscribeTokens) -> Listener:
        assert self._config.feedback is not None
        domain, contact = self._config.feedback.domain, self._config.company.contact
        handler = FeedbackHandler(domain, contact, store.people, tokens, self._metrics, self._now)
        listener = Listener(handler, Terms(self._config.hostname), census=self._strangers)
        for bound in self._sockets.feedback:
            await listener.serve(bound)
        return listener

    async def _site(self, store: Store, tokens: UnsubscribeTokens) -> Callable[[], Awaitable[None]]:
        site = self._config.site
        assert site is not None
        topics = {store.people.topic_number(slug): topic for slug, topic in self._config.topics.items()}
        settings = SiteSettings(self._config.company, site.public_url, topics, site.trusted_proxies)
        app = create_app(store=store.people, tokens=tokens, settings=settings, metrics=self._metrics, now=self._now)
        tls = server_tls(site.tls.certificate, site.tls.key) if site.tls else None
        runner = await start_site(app, self._sockets.site, tls=tls)
        return runner.cleanup

    def _pool(self, smarthost: Smarthost) -> Pool:
        return Pool(
            smarthost,
            hostname=self._config.hostname,
            connections=self._share(smarthost.connections),
            turnstile=self._turnstiles[smarthost.name],
        )

    def _lanes(self, name: str, pool: Pool) -> Lanes:
        smarthosts = self._config.smarthosts
        budget = MEMORY_BUDGET // len(smarthosts)
        return Lanes(pool, smarthosts[name], self._share(smarthosts[name].connections), budget)

    def _share(self, connections: int) -> int:
        """Return this worker's part of what the whole machine may open: none where there are not enough for all."""
        whole, rest = divmod(connections, self._config.workers)
        return whole + (self._number < rest)


def _keep(config: Config, plant: Plant, clock: Clock) -> Callable[[asyncio.Event], Awaitable[None]]:
    """Seal and checkpoint as often as there is something to, tell programs, and answer the operators."""

    async def work(leave: asyncio.Event) -> None:
        now = clock.now
        ids = Ids(KEEPER_SLOT, now)
        store = open_store(config, "keeper", ids, now)
        sealer = data_folder(config).sealer(now)
        watch = Watch(store, ids, clock, data_folder(config), config.submission.max_message_size)
        summaries = Summaries(config.hostname, config.company, config.streams, store, ids, now)
        webhooks = Webhooks(
            config.webhooks, config.streams, config.topics, config.retention, store, sealer.elected, now
        )
        ends = shadow_ends(config.streams)
        alarms = ShadowAlarms(ends, lambda name: lacking(config, data_folder(config), store, name, now()), now)
        housekeeper = Housekeeper(data_folder(config), config.retention, sealer.elected, leave.is_set, now)
        signing = published_keys(config, is_signing=True)
        key_watch = KeyWatch(signing, Resolver(config.dns.addresses), store.condition, config.dns.check_keys)
        deadlines = DeadlineAlarms(data_folder(config), now)
        looks = (housekeeper.look, deadlines.look, watch.look_at_people, watch.look_at_machine, alarms.look)
        closers = []
        if "console" in plant.parts and config.console:
            app = create_console(
                lambda: _metrics(plant, store) + gauge_text(ends, now().date()) + webhooks.metrics(),
                lambda: _is_ready(store),
                Api(
                    config, store, partial(data_folder(config).decision_lines, "id"), plant.board.row(KEEPER_SLOT), now
                ),
                _pages(config, store, now),
            )
            runner = await start_site(app, plant.sockets.console)
            closers.append(runner.cleanup)
        async with asyncio.TaskGroup() as duties:
            for duty in (lambda: _seal(sealer), lambda: _summarise(summaries), *looks):
                duties.create_task(_repeat(duty, leave))
            watching = duties.create_task(key_watch.watch())
            duties.create_task(webhooks.run(leave))
            await leave.wait()
            watching.cancel()
        for close in closers:
            await close()
        await sealer.close()
        await store.close()

    return work


def _pages(config: Config, store: Store, now: Now) -> Pages | None:
    """Return the pages of the console, if it has a password."""
    if config.console is None or config.console.password is None:
        return None

    async def look() -> Mapping[str, Any]:
        moment = now()
        return await overview(config, data_folder(config), store, moment - SHOWN_SINCE, moment)

    return Pages(config.console.password.text, store, look, now)


def _metrics(plant: Plant, store: Store) -> str:
    return plant.board.text() + store.condition.text()


async def _repeat(duty: Callable[[], Awaitable[object]], leave: asyncio.Event) -> None:
    """Do a duty again and again: after a pause, or at once where it says that more waits."""
    while not leave.is_set():
        if not await duty():
            await _wait(leave, KEEP_SECONDS)


async def _seal(sealer: Sealer) -> bool:
    """Seal a segment of what has been committed; True where more waits."""
    try:
        if sealer.elected():
            await sealer.seal()
            await sealer.checkpoint()
            return sealer.is_behind
    except StoreUnavailable as error:
        log.warning("sealing waits: %s", error)
    return False


async def _summarise(summaries: Summaries) -> None:
    try:
        await summaries.send_due()
    except StoreUnavailable as error:
        log.warning("summaries of refusals wait: %s", error)


async def _is_ready(store: Store) -> bool:
    try:
        await store.people.logins()
        store.spool.due()
    except StoreUnavailable:
        return False
    return True


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _copy_maker(config: Config, store: Store, tokens: UnsubscribeTokens) -> CopyMaker:
    links = Links(
        config.site.public_url if config.site else "",
        config.feedback.domain if config.feedback else "",
        tokens,
        store.people.topic_number,
    )
    are_contradicted = store.condition.are_contradicted
    return CopyMaker(
        config.hostname,
        config.company,
        config.topics,
        config.streams,
        links,
        signers(config),
        dialects(),
        are_contradicted,
    )


def _house(config: Config) -> House:
    return House(
        hostname=config.hostname,
        max_hops=config.submission.max_hops,
        max_recipients=config.submission.max_recipients,
        help_url=config.company.help_url,
        streams=config.streams,
        topics=config.topics,
        law=config.law,
        dialects=dialects(),
    )


def _bound(config: Config, parts: Sequence[str]) -> Sockets:
    places = _addresses(config, parts)
    ipv4_ports = {one.port for addresses in places.values() for one in addresses if one.ip.version == 4}
    return Sockets(
        **{name: bind([(one.host, one.port) for one in addresses], ipv4_ports) for name, addresses in places.items()}
    )


def _addresses(config: Config, parts: Sequence[str]) -> Mapping[str, Sequence[ListenAddress]]:
    """Return what is to be listened on, by the names of `Sockets`."""
    relay, site, pages = ("relay" in parts, "site" in parts, "console" in parts)
    return {
        "submission": config.submission.listen if relay else (),
        "submission_tls": config.submission.listen_tls if relay else (),
        "feedback": config.feedback.listen if relay and config.feedback else (),
        "site": config.site.listen if site and config.site else (),
        "console": config.console.listen if pages and config.console else (),
    }


def _warn_of_addresses(config: Config, plant: Plant) -> None:
    """Name what a reload cannot change: sockets are bound once, by whoever may bind low ports."""
    for name, addresses in _addresses(config, plant.parts).items():
        bound = {one.getsockname()[:2] for one in getattr(plant.sockets, name)}
        if bound != {(one.host, one.port) for one in addresses}:
            section = name.partition("_")[0]
            log.warning("[%s] names other addresses to listen on; that takes a restart, and the old ones stay", section)


def _warn(config: Config) -> None:
    for warning in config.warnings:
        log.warning("%s", warning)
