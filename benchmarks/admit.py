"""What ``Record.admit`` adds to a target: 1,000 targets, 64 processes at once.

``python benchmarks/admit.py [--url URL | --postgresql] [--alone] [--targets N] [--processes N]``:
without a URL a SQLite record in a folder of its own, or a PostgreSQL server of its own. As with
Ansible, a process is forked for each target, and asks again as ``bascule.deploy.admit`` does; half
of them have to wait. A target works for 0.5 to 1.5 s. ``--alone`` leaves out the clerk, so that
each worker asks the server itself. Afterwards the events are gone through: the floor held at each.
Prints the time of one call (of all, and of those that admitted), and the CPU time that a fresh
worker spends on opening the record and its first ``admit``.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing.connection
import multiprocessing.process
import os
import statistics
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._plan import PlanTarget, make_plan
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    NewDeployment,
    Record,
    RevisionRow,
    ServedRecord,
    employ_clerk,
    warm,
)

SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
CALL, ADMITTED, FIRST = 0, 1, 2
SAMPLE = struct.Struct("=Bd")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url")
    parser.add_argument("--postgresql", action="store_true", help="a server of its own")
    parser.add_argument("--alone", action="store_true", help="without a clerk")
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=64)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = options.url or f"sqlite:///{folder}/record.db"
        if options.postgresql:
            sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
            from support.postgresql import server

            url = stack.enter_context(server(durable=True)).create("benchmark")
        measure(url, options.targets, options.processes, alone=options.alone)


def measure(url: str, targets: int, processes: int, *, alone: bool) -> None:
    """Carry a deployment out and print what was measured."""
    names = [f"target-{number:05}" for number in range(targets)]
    minimum = targets - processes // 2
    with Record.open(url) as record:
        plan = make_plan(
            "rolling",
            [PlanTarget(name) for name in names],
            digest="0" * 64,
            minimum=minimum,
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
    if not alone:
        employ_clerk(url)
    cpu = os.times()
    begun = time.perf_counter()
    samples = carry_out(url, deployment.id, names, processes)
    seconds = time.perf_counter() - begun
    used = os.times()
    with Record.open(url) as record:
        look_at_the_floor(record, deployment.id, targets, minimum)
        done = record.finish(deployment.id)
        print(f"{record.url.partition(':')[0]}: {targets} targets, {processes} processes,", end=" ")
        print(f"{seconds:.1f} s, {done.status} {done.overview}, the floor of {minimum} held")
    tell("every call of admit", samples[CALL])
    tell("calls that admitted", samples[ADMITTED])
    tell("CPU of open and first admit in a fresh worker", samples[FIRST])
    own = used.children_user + used.children_system - cpu.children_user - cpu.children_system
    print(f"  CPU of all workers: {1000 * own / targets:.1f} ms a target")


def look_at_the_floor(record: Record, deployment_id: str, targets: int, minimum: int) -> None:
    """Go through what has happened, in its order."""
    in_flight: set[str] = set()
    for event in record.events(deployment_id):
        if event.event == "Admitted":
            in_flight.add(event.target)
        elif event.event == "Settled":
            in_flight.remove(event.target)
        if targets - len(in_flight) < minimum:
            raise SystemExit(f"The floor was broken at event {event.sequence}.")


def carry_out(
    url: str, deployment_id: str, names: list[str], processes: int
) -> dict[int, list[float]]:
    """Fork a process for each target, so many at a time; returns what they measured."""
    samples: dict[int, list[float]] = {CALL: [], ADMITTED: [], FIRST: []}
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        running: list[multiprocessing.process.BaseProcess] = []
        for name in names:
            while len(running) == processes:
                multiprocessing.connection.wait([one.sentinel for one in running])
                running = [one for one in running if not ended(one)]
            worker = fork.Process(target=work, args=(url, deployment_id, name, Path(folder, name)))
            worker.start()
            running.append(worker)
        for worker in running:
            worker.join()
            ended(worker)
        for file in Path(folder).iterdir():
            for kind, seconds in SAMPLE.iter_unpack(file.read_bytes()):
                samples[kind].append(seconds)
    return samples


def ended(worker: multiprocessing.process.BaseProcess) -> bool:
    """Tell whether a worker has ended; ends the benchmark if it has failed."""
    if worker.exitcode:
        raise SystemExit("A worker failed.")
    return worker.exitcode is not None


def work(url: str, deployment_id: str, name: str, samples: Path) -> None:
    """Do in a child what the actions do for one target."""
    told = []
    cpu = time.process_time()
    record = ServedRecord.open(url)
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
