"""What reloads of nginx cost clients that keep their connections alive: lost requests per million.

``python benchmarks/reload.py [--minutes N] [--hogs N] [WAY ...]`` reloads nginx again and again
while clients ask, rest for a random time (exponential, 1.5 s in the mean) and ask again on the same
connection, and never repeat a request. As sound clients do, they close a connection themselves
that has rested for 4 s, before nginx's keepalive_timeout of 5 s does. The ways:

- ``none``: no reload, for comparison
- ``plain``: reloads of a configuration that does not ask for the file ``closing``
- ``half``: the file ``closing`` for half a second before each reload, and no more waiting
- ``documented``: the configuration of docs/load-balancers.md with the defaults

``--hogs`` processes that use up the processor run beside.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import proxies
from support.pools import START, Pools, pools

ASK = "if (-f /etc/nginx/bascule/closing) { return 418; }"
WAYS = ("none", "plain", "half", "documented")
REST, OWN_LIMIT = 1.5, 4.0
# Between two reloads, so that clients rest again.
PAUSE = 2.0


class Clients(threading.Thread):
    """Clients that rest between two requests on a connection.

    :ivar sent: requests
    :ivar lost: requests without an answer, by what was seen instead
    """

    def __init__(self, url: str, count: int) -> None:
        """Prepare so many clients of this URL."""
        super().__init__(daemon=True)
        self.sent = self.again = 0
        self.lost: Counter[str] = Counter()
        self._url, self._count = urlsplit(url), count
        self._over = threading.Event()

    def run(self) -> None:
        """Ask until ``end`` is called."""
        asyncio.run(self._all())

    def end(self) -> None:
        """Stop, and wait for the answers that are missing."""
        self._over.set()
        self.join()

    async def _all(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._count)))

    async def _client(self) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while not self._over.is_set():
            rest = random.expovariate(1 / REST)
            await asyncio.sleep(min(rest, OWN_LIMIT))
            if writer is not None and (rest >= OWN_LIMIT or (reader and reader.at_eof())):
                writer.close()
                reader = writer = None
            await asyncio.sleep(max(0.0, rest - OWN_LIMIT))
            self.sent += 1
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection(
                        self._url.hostname, self._url.port
                    )
                else:
                    self.again += 1
                writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.partition("content-length:")[2].split()[0])
                await reader.readexactly(size)
                if " 200 " not in head.splitlines()[0]:
                    self.lost[head.split(" ", 2)[1]] += 1
            except (OSError, EOFError, ValueError) as error:
                self.lost[type(error).__name__] += 1
                head = "connection: close"
            if "connection: close" in head:
                if writer is not None:
                    writer.close()
                reader = writer = None


def measure(way: str, minutes: float, count: int) -> None:
    """Measure one way and print what was seen."""
    with tempfile.TemporaryDirectory() as directory:
        changes = {ASK: ""} if way == "plain" else {}
        START["nginx"] = lambda *given: proxies.start_nginx_pools(*given, changes=changes)
        with pools("nginx", Path(directory)) as site:
            site.proxy.options["reload_wait"] = 0.5 if way == "half" else 6.0
            clients = Clients(site.proxy.url, count)
            clients.start()
            reloads, waited, warned = _reload(site, way, minutes * 60)
            clients.end()
        START["nginx"] = proxies.start_nginx_pools
    lost = sum(clients.lost.values())
    # With 95 % confidence the rate is below: exact for none (rule of three), normal beyond.
    bound = 3.0 if not lost else lost + 1.96 * lost**0.5 + 2
    print(
        f"{way}: {reloads} reloads, {clients.sent} requests, {clients.again} of them on a "
        f"connection that had rested, {lost} lost {dict(clients.lost)}: "
        f"{lost / clients.sent * 1e6:.0f} per million, below {bound / clients.sent * 1e6:.0f} "
        f"with 95 % confidence; an order took {waited:.1f} s; {warned} reloads told of "
        "connections that still rested",
        flush=True,
    )


def _reload(site: Pools, way: str, seconds: float) -> tuple[int, float, int]:
    """Return how often nginx was reloaded, how long an order took, how often it warned."""
    began = time.monotonic()
    reloads = warned = 0
    waited = 0.0
    while time.monotonic() - began < seconds:
        time.sleep(PAUSE)
        if way != "none":
            reloads += 1
            answer = site.share(blue=50 + reloads % 2, green=50 - reloads % 2)
            warned += any("rested for longer" in text for text in answer["warnings"])
            waited += float(answer["waited"])
    return reloads, waited / max(reloads, 1), warned


def _hog() -> None:
    while True:
        sum(range(10000))


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", choices=[*WAYS, []], metavar="WAY")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--clients", type=int, default=450)
    parser.add_argument("--hogs", type=int, default=0)
    options = parser.parse_args()
    hogs = [multiprocessing.Process(target=_hog, daemon=True) for _ in range(options.hogs)]
    for hog in hogs:
        hog.start()
    for way in options.ways or WAYS:
        measure(way, options.minutes, options.clients)
    for hog in hogs:
        hog.terminate()


if __name__ == "__main__":
    main()
