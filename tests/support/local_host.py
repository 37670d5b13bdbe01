"""A host for ``bascule local``: bundles from a dictionary, deployments, and what they left."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import stat
from pathlib import Path
from typing import Any

from support.host_program import pack

from bascule.cli import main

HEADER = "version: 0.0\nos: linux\n"
STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", re.MULTILINE)


class Outcome:
    """One deployment: what was printed, and what its log holds."""

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.json: dict[str, Any] = json.loads(stdout) if stdout.startswith("{") else {}

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def failed_event(self) -> str | None:
        error = self.json["error"]
        return str(error["event"]) if error else None

    @property
    def message(self) -> str:
        error = self.json["error"]
        return str(error["message"]) if error else ""

    @property
    def log(self) -> list[str]:
        """The lines of scripts.log without their times; none where there is no log."""
        path = Path(self.json["log"])
        return STAMP.sub("", path.read_text()).splitlines() if path.exists() else []

    @property
    def folder(self) -> Path:
        return Path(self.json["log"]).parents[1]


class LocalHost:
    """``top`` is where bundles install: ``{d}`` in an AppSpec or a script stands for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.top = folder / "srv"
        self.top.mkdir()
        self.root = folder / "root"
        self._number = 0

    def bundle(self, files: dict[str, Any]) -> Path:
        """Write a bundle of type directory: ``{path: text, (text, mode), Path (link) or None}``."""
        self._number += 1
        top = self.folder / f"bundle-{self._number}"
        top.mkdir()
        for name, spec in files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content, mode = spec if isinstance(spec, tuple) else (spec, None)
            if content is None:
                path.mkdir()
            elif isinstance(content, Path):
                path.symlink_to(content)
            else:
                path.write_text(self.fill(content))
            if mode is not None:
                path.chmod(mode)
        return top

    def archive(self, files: dict[str, Any], kind: str = "tgz") -> Path:
        """Write a bundle as an archive."""
        self._number += 1
        path = self.folder / f"bundle-{self._number}.{kind}"
        filled = {
            name: (self.fill(spec[0]), spec[1])
            if isinstance(spec, tuple) and isinstance(spec[0], str)
            else self.fill(spec)
            if isinstance(spec, str)
            else spec
            for name, spec in files.items()
        }
        path.write_bytes(pack(filled, kind))
        return path

    def fill(self, text: str) -> str:
        return text.replace("{d}", str(self.top))

    def run(self, *arguments: str) -> Outcome:
        """Run the command in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(["local", "--root", str(self.root), *arguments])
            except SystemExit as error:
                status = int(error.code or 0)
        return Outcome(status, out.getvalue(), err.getvalue())

    def deploy(self, files: dict[str, Any] | Path, *arguments: str) -> Outcome:
        """Deploy and read the outcome as JSON."""
        bundle = files if isinstance(files, Path) else self.bundle(files)
        return self.run("--format", "json", "-l", str(bundle), *arguments)

    def install(self, files: dict[str, Any] | Path, *arguments: str) -> Outcome:
        """Run DownloadBundle and Install only."""
        return self.deploy(files, "-e", "DownloadBundle,Install", *arguments)

    def tree(self) -> dict[str, str]:
        """Describe what is installed: a file's text, ``-> target`` of a link, ``/`` of a folder."""
        found = {}
        for path in sorted(self.top.rglob("*")):
            name = str(path.relative_to(self.top))
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            else:
                found[name] = "/" if path.is_dir() else path.read_text()
        return found

    def mode(self, name: str) -> str:
        return f"{stat.S_IMODE((self.top / name).lstat().st_mode):04o}"

    def clear(self) -> None:
        shutil.rmtree(self.top)
        self.top.mkdir()


def appspec(files: str = "", rest: str = "") -> str:
    """Return an AppSpec: ``files`` as ``SOURCE DESTINATION`` lines, then more sections."""
    entries = "".join(
        f"  - source: {source}\n    destination: {destination}\n"
        for source, destination in (line.split() for line in files.splitlines())
    )
    return HEADER + (f"files:\n{entries}" if entries else "") + rest


def hooks(**events: str) -> str:
    """Return a hooks section: each event's scripts, with blanks between them."""
    text = "hooks:\n"
    for event, scripts in events.items():
        text += f"  {event}:\n" + "".join(f"    - location: {one}\n" for one in scripts.split())
    return text
