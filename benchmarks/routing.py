"""How fast and how safely traffic moves between two pools at each proxy, under 200 requests/s.

``python benchmarks/routing.py [--rounds N] [PROVIDER ...]``: for each round all traffic goes to the
new pool and is then ordered back. Prints, of all rounds, median and maximum of the time from the
order to the end of the last answer of the pool that lost the traffic, as users saw it; the time
until the order returned; and how many requests failed. Then the weights go 0, 5, 50, 100 and the
shares that users saw are compared with their binomial interval.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ansible_collections.bascule.deploy.plugins.module_utils._shares import share_confirmed
from support.pools import START, Pools, pools

RATE = 200.0
SETTLE = 1.0


class Users(threading.Thread):
    """Users at a steady rate on connections that are kept alive; every answer is written down.

    :ivar answers: (monotonic time when the request was sent, when it was answered, who answered)
    """

    def __init__(self, url: str) -> None:
        """Prepare users of this URL."""
        super().__init__(daemon=True)
        self.answers: list[tuple[float, float, str]] = []
        self.failed: Counter[str] = Counter()
        self._url = urlsplit(url)
        self._over = threading.Event()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def run(self) -> None:
        """Send requests until ``end`` is called."""
        asyncio.run(self._load())

    def end(self) -> None:
        """Stop, and wait for the answers that are missing."""
        self._over.set()
        self.join()

    async def _load(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self._over.is_set():
            task = asyncio.create_task(self._ask())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += 1 / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if tasks:
            await asyncio.wait(tasks, timeout=30)

    async def _ask(self) -> None:
        began = time.monotonic()
        try:
            while self._idle and self._idle[0][0].at_eof():
                self._idle.pop(0)[1].close()
            # The connection that is free for the longest: each of them is in use.
            reader, writer = (
                self._idle.pop(0)
                if self._idle
                else await asyncio.open_connection(self._url.hostname, self._url.port)
            )
            writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length:")[2].split()[0])
            body = (await reader.readexactly(size)).decode()
        except (OSError, EOFError, ValueError) as error:
            self.failed[type(error).__name__] += 1
            return
        status = head.split(" ", 2)[1]
        if status != "200":
            self.failed[status] += 1
        self.answers.append((began, time.monotonic(), body))
        if "connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))


def measure(provider: str, rounds: int) -> None:
    """Measure one proxy and print what was seen."""
    with tempfile.TemporaryDirectory() as directory, pools(provider, Path(directory)) as site:
        site.share(blue=100, green=0)
        users = Users(site.proxy.url)
        users.start()
        moves, orders = [], []
        try:
            for number in range(rounds * 2):
                new, old = ("green", "blue") if number % 2 == 0 else ("blue", "green")
                began = time.monotonic()
                site.route({"weights": {new: 100.0, old: 0.0}})
                orders.append(time.monotonic() - began)
                time.sleep(SETTLE)
                late = [end for _sent, end, who in users.answers if who == old and end > began]
                moves.append(max(late, default=began) - began)
            shares = [_shares(site, users, green) for green in (0.0, 5.0, 50.0, 100.0)]
        finally:
            users.end()
    print(
        f"{provider}: {rounds * 2} moves, last answer of the old pool after "
        f"{statistics.median(moves):.3f} s (median), {max(moves):.3f} s (maximum); order returned "
        f"after {statistics.median(orders):.3f} s, {max(orders):.3f} s; "
        f"{len(users.answers)} requests, {sum(users.failed.values())} failed {dict(users.failed)}"
    )
    for line in shares:
        print("  " + line)


def _shares(site: Pools, users: Users, green: float) -> str:
    weights = {"blue": 100 - green, "green": green}
    site.route({"weights": weights})
    began = time.monotonic()
    time.sleep(10)
    seen = Counter(who for sent, _end, who in users.answers if sent >= began)
    shares = share_confirmed(seen, weights)
    return f"{'confirmed' if shares.confirmed else 'NOT CONFIRMED'}: {shares.describe()}"


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("providers", nargs="*", choices=[*sorted(START), []], metavar="PROVIDER")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    for provider in options.providers or sorted(START):
        measure(provider, options.rounds)


if __name__ == "__main__":
    main()
