"""Processes that share one listening socket share its connections, and none waits for one that hangs.

Two listeners of one event loop stand in for two processes: each has its own descriptor of the same socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.dialogue import Terms
from gateway.listener import Crowd, Listener

GUESTS = 20


@asynccontextmanager
async def listening(sock: socket.socket, places: list[int]) -> AsyncIterator[list[Listener]]:
    """Serve a socket by a listener for each place of two; every one has its own copy of the descriptor."""
    crowd = Crowd(2)
    listeners = [Listener(object(), Terms("relay.example.com"), census=crowd.seen_by(place)) for place in places]
    for listener in listeners:
        await listener.serve(sock.dup())
    yield listeners
    for listener in listeners:
        await listener.drain(0.1)


async def greeted(port: int) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"220 ")
    return writer


async def test_two_processes_take_as_many_connections_each() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=GUESTS) as sock:
        async with listening(sock, [0, 1]) as (one, other):
            guests = await asyncio.gather(*(greeted(sock.getsockname()[1]) for _ in range(GUESTS)))
            assert one.traffic.guests + other.traffic.guests == GUESTS
            assert abs(one.traffic.guests - other.traffic.guests) <= 4
            for guest in guests:
                guest.close()


async def test_nobody_waits_for_a_process_that_hangs() -> None:
    """The second place is nobody's, and stays empty for ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=GUESTS) as sock:
        async with listening(sock, [0]) as (alone,):
            guests = await asyncio.gather(*(greeted(sock.getsockname()[1]) for _ in range(GUESTS)))
            assert alone.traffic.guests == GUESTS
            for guest in guests:
                guest.close()
