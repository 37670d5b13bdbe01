"""What ``Record.admit`` adds to a target: 1,000 targets, 64 processes at once.

``python benchmarks/admit.py [--url URL] [--targets N] [--processes N]``: without a URL a SQLite
record in a folder of its own. As with Ansible, the processes are forked for each target, and ask
again as ``bascule.deploy.admit`` does; half of them have to wait. A target works for 0.5 to 1.5 s.
Prints the time of one call (of all, and of those that admitted), and the CPU time that a fresh
worker spends on ``Record.open`` and its first ``admit``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import tempfile
import time
import zlib
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._plan import PlanTarget, make_plan
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    NewDeployment,
    Record,
    RevisionRow,
    warm,
)

SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
CALL, ADMITTED, FIRST = 0, 1, 2
SAMPLE = struct.Struct("=Bd")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url")
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options.url or f"sqlite:///{folder}/record.db", options.targets, options.processes)


def measure(url: str, targets: int, processes: int) -> None:
    """Carry a deployment out and print what was measured."""
    with Record.open(url) as record:
        names = [f"target-{number:05}" for number in range(targets)]
        plan = make_plan(
            "rolling",
            [PlanTarget(name) for name in names],
            digest="0" * 64,
            minimum=targets - processes // 2,
            stages=[targets],
        )
        deployment = record.create_deployment(
            NewDeployment(
                application="benchmark",
                group=str(time.time()),
                strategy="rolling",
                revision=RevisionRow(digest="0" * 64),
                plan=plan,
            )
        )
    warm(url)
    begun = time.perf_counter()
    samples = carry_out(url, deployment.id, names, processes)
    seconds = time.perf_counter() - begun
    with Record.open(url) as record:
        done = record.finish(deployment.id)
        print(f"{record.url.partition(':')[0]}: {targets} targets, {processes} processes,", end=" ")
        print(f"{seconds:.1f} s, {done.status} {done.overview}")
    tell("every call of admit", samples[CALL])
    tell("calls that admitted", samples[ADMITTED])
    tell("CPU of open and first admit in a fresh worker", samples[FIRST])


def carry_out(
    url: str, deployment_id: str, names: list[str], processes: int
) -> dict[int, list[float]]:
    """Fork a process for each target, so many at a time; returns what they measured."""
    samples: dict[int, list[float]] = {CALL: [], ADMITTED: [], FIRST: []}
    with tempfile.TemporaryDirectory() as folder:
        running = 0
        for name in names:
            if running == processes:
                reap()
                running -= 1
            if os.fork() == 0:
                work(url, deployment_id, name, Path(folder, name))
            running += 1
        for _child in range(running):
            reap()
        for file in Path(folder).iterdir():
            for kind, seconds in SAMPLE.iter_unpack(file.read_bytes()):
                samples[kind].append(seconds)
    return samples


def reap() -> None:
    """Wait until one child has ended."""
    if os.wait()[1]:
        raise SystemExit("A worker failed.")


def work(url: str, deployment_id: str, name: str, samples: Path) -> None:
    """Do in a child what the actions do for one target; never returns."""
    status = 1
    try:
        told = []
        cpu = time.process_time()
        record = Record.open(url)
        pause = SHORTEST_PAUSE
        while True:
            begun = time.perf_counter()
            verdict = record.admit(deployment_id, name).verdict
            seconds = time.perf_counter() - begun
            if not told:
                told.append(SAMPLE.pack(FIRST, time.process_time() - cpu))
            told.append(SAMPLE.pack(CALL, seconds))
            if verdict != "wait":
                break
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 1.5)
        told.append(SAMPLE.pack(ADMITTED, seconds))
        time.sleep(0.5 + zlib.crc32(name.encode()) % 1000 / 1000)
        record.settle(deployment_id, name, "Succeeded")
        samples.write_bytes(b"".join(told))
        status = 0
    finally:
        os._exit(status)


def tell(what: str, seconds: list[float]) -> None:
    """Print the median and the tail."""
    ordered = sorted(seconds)
    last = ordered[int(len(ordered) * 0.99)]
    print(
        f"  {what}: median {1000 * statistics.median(ordered):.1f} ms, "
        f"99 % below {1000 * last:.1f} ms ({len(ordered)})"
    )


if __name__ == "__main__":
    main()
