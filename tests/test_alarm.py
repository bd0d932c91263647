"""A time-out that is set again and again: only the last one counts, and the event loop is hardly troubled."""

from __future__ import annotations

import asyncio

from gateway.smarthost.alarm import Alarm


async def test_it_goes_off_once_when_what_it_was_last_set_to_is_due() -> None:
    rung: list[str] = []
    done = asyncio.Event()
    alarm = Alarm(asyncio.get_running_loop())
    alarm.set(60, lambda: rung.append("late"))
    alarm.set(0.03, lambda: rung.append("early"))
    alarm.set(0.01, lambda: (rung.append("now"), done.set()))
    async with asyncio.timeout(5):
        await done.wait()
    await asyncio.sleep(0.05)
    assert rung == ["now"]


async def test_setting_it_later_again_moves_it() -> None:
    rung: list[float] = []
    loop = asyncio.get_running_loop()
    began, done = loop.time(), asyncio.Event()
    alarm = Alarm(loop)
    alarm.set(0.01, done.set)
    alarm.set(0.05, lambda: (rung.append(loop.time() - began), done.set()))
    async with asyncio.timeout(5):
        await done.wait()
    assert rung and rung[0] >= 0.05


async def test_cleared_it_never_goes_off() -> None:
    rung: list[str] = []
    alarm = Alarm(asyncio.get_running_loop())
    alarm.set(0.01, lambda: rung.append("?"))
    alarm.clear()
    await asyncio.sleep(0.03)
    assert not rung


async def test_a_timer_is_asked_for_only_when_the_one_that_runs_would_come_too_late() -> None:
    loop = asyncio.get_running_loop()
    alarm, asked = Alarm(loop), 0
    real = loop.call_later

    def counted(*arguments: object) -> asyncio.TimerHandle:
        nonlocal asked
        asked += 1
        return real(*arguments)  # type: ignore[arg-type]

    loop.call_later = counted  # type: ignore[method-assign, assignment]
    for _ in range(1000):
        alarm.set(300, lambda: None)
        alarm.set(60, lambda: None)
    assert asked <= 2
    alarm.drop_timer()
