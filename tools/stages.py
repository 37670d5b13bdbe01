"""Run stages of the Makefile, some side by side, and tell in the end what each took.

``stages.py 2 A B C`` makes A and B, and C as soon as one of them has ended. Every stage is run
whatever became of the others, so one run tells of all that is wrong. What a stage says is shown as
a whole when it has passed; what a failed one said comes last, followed by the list of all stages
with their seconds, elapsed and of CPU, and by the names of what failed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

# What names a failure in one line, for the list at the very end.
FAILURE = re.compile(r"^(?:(?:FAILED|ERROR) \S+|Molecule scenario \S+: FAILED|FATAL:)")
LINES = 400
WIDTH = 300


@dataclass
class Stage:
    """A stage that has ended: seconds elapsed, seconds of CPU of all its processes, its output."""

    name: str
    status: int
    elapsed: float
    computed: float
    said: str

    def failures(self) -> list[str]:
        """Name what failed, a line each; the last lines where nothing has a name."""
        lines = self.said.splitlines()
        named = [line for line in lines if FAILURE.match(line)]
        return [line[:WIDTH] for line in named or lines[-15:]]


class Run:
    """All stages; what they print does not mix."""

    def __init__(self, make: str, names: list[str]) -> None:
        """Take the command ``make`` with its options, and the names of its targets."""
        self.make = shlex.split(make)
        self.began = time.monotonic()
        self.left = list(names)
        self.ended: list[Stage] = []
        self._lock = threading.Lock()

    def work(self) -> None:
        """Run one stage after the other, as long as there are any left."""
        while True:
            with self._lock:
                if not self.left:
                    return
                name = self.left.pop(0)
            self.tell(f"{name} begins")
            stage = self.stage(name)
            with self._lock:
                self.ended.append(stage)
            if stage.status:
                self.tell(f"{name} FAILED in {stage.elapsed:.0f} s; what it said is at the end")
            else:
                self.tell(f"{name} passed in {stage.elapsed:.0f} s", stage.said)

    def stage(self, name: str) -> Stage:
        """Make one target."""
        began = time.monotonic()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(  # noqa: S603 - make, and a name from our own Makefile
                [*self.make, "--no-print-directory", name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            # Not process.wait(): it does not tell what the process and its children used.
            _pid, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            said = output.read().decode(errors="replace")
        return Stage(
            name,
            process.returncode,
            time.monotonic() - began,
            used.ru_utime + used.ru_stime,
            said,
        )

    def tell(self, line: str, said: str = "") -> None:
        """Print a line with the time, and what a stage said before it."""
        with self._lock:
            seconds = time.monotonic() - self.began
            sys.stdout.write(f"{said}[{seconds:4.0f} s] {line}\n")
            sys.stdout.flush()

    def close(self) -> int:
        """Print what failed and the list of all stages; return the exit status."""
        failed = [stage for stage in self.ended if stage.status]
        for stage in failed:
            lines = stage.said.splitlines()
            if len(lines) > LINES:
                lines = [f"({len(lines) - LINES} lines before these)", *lines[-LINES:]]
            print(f"\n--- {stage.name}", *lines, sep="\n")
        print()
        for stage in self.ended:
            verdict = f"FAILED with status {stage.status}" if stage.status else "passed"
            print(
                f"{stage.name:18} {stage.elapsed:6.0f} s {stage.computed:6.0f} s of CPU  {verdict}"
            )
        computed = sum(stage.computed for stage in self.ended)
        elapsed = time.monotonic() - self.began
        print(f"{'together':18} {elapsed:6.0f} s {computed:6.0f} s of CPU")
        for stage in failed:
            print(f"\n{stage.name} failed:", *stage.failures(), sep="\n  ")
        return 1 if failed else 0


def main() -> int:
    """Run the stages that are named; the status is 1 if any failed."""
    width, names = int(sys.argv[1]), sys.argv[2:]
    run = Run(os.environ.get("MAKE", "make"), names)
    threads = [threading.Thread(target=run.work, daemon=True) for _ in range(width)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = run.close()
    # A thread that broke off must not let its stage pass.
    lost = set(names) - {stage.name for stage in run.ended}
    for name in sorted(lost):
        print(f"{name} did not end")
    return 1 if lost else status


if __name__ == "__main__":
    sys.exit(main())
