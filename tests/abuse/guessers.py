"""A crowd that guesses passwords, as a program of its own: so many addresses, guesses a second, and seconds.

    python guessers.py PORT ADDRESSES RATE SECONDS

Each connection tries three times, at three logins in turn; what was answered is printed as JSON, by code, and under 0
the connections that were refused or cut.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections import Counter


async def guess(port: int, addresses: int, rate: int, seconds: int) -> Counter[int]:
    """Guess evenly, whether answers come or not; return how often each code was the answer."""
    loop, codes, tasks = asyncio.get_running_loop(), Counter[int](), []
    began, each = loop.time(), 3 / rate
    for number in range(int(seconds / each)):
        await asyncio.sleep(max(0.0, began + number * each - loop.time()))
        source = f"127.1.{number % addresses // 250}.{number % addresses % 250 + 1}"
        tasks.append(asyncio.create_task(_guess_thrice(port, source, number, codes)))
    await asyncio.wait(tasks, timeout=60)
    return codes


async def _guess_thrice(port: int, source: str, number: int, codes: Counter[int]) -> None:
    name = ("shop", "news", "nobody")[number % 3]
    tries = [base64.b64encode(f"\0{name}\0guess {number} {n}".encode()).decode() for n in range(3)]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write("".join(["EHLO guess\r\n", *(f"AUTH PLAIN {one}\r\n" for one in tries)]).encode())
        heard = await reader.read(-1)
        writer.close()
    except OSError:
        codes[0] += 1
        return
    codes.update(int(line[:3]) for line in heard.split(b"\r\n") if line[:4] in (b"235 ", b"454 ", b"535 "))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(guess(*map(int, sys.argv[1:])))))
