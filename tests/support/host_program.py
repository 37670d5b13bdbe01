"""Revisions and requests for tests of the host program, and a host that keeps its folders."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from ansible_collections.bascule.deploy.plugins.module_utils import _appspec
from ansible_collections.bascule.deploy.plugins.module_utils._host import _entry, _events

MODULE_UTILS = Path(__file__).parents[2] / "plugins" / "module_utils"

# What an action plugin does on a host, without Ansible: the package from its source folder, a
# request from standard input, the bundle from a file.
RUNNER = """
import json, sys, types
for name in ("ansible_collections", "ansible_collections.b", "ansible_collections.b.m"):
    module = types.ModuleType(name)
    module.__path__ = [sys.argv[1]] if name.endswith(".m") else []
    sys.modules[name] = module
from ansible_collections.b.m._host import _entry
bundle = open(sys.argv[2], "rb") if sys.argv[2] else None
json.dump(_entry.run(json.load(sys.stdin), bundle), sys.stdout)
"""


def manifest_of(files: dict[str, Any]) -> list[dict[str, Any]]:
    """Describe files as the controller does for a check."""
    result = []
    for path, spec in files.items():
        content, mode = spec if isinstance(spec, tuple) else (spec, 0o644)
        data = content.encode() if isinstance(content, str) else content
        result.append(
            {
                "path": path,
                "type": "file",
                "mode": mode,
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "target": None,
            }
        )
    return result


def pack(files: dict[str, Any], kind: str = "tgz") -> bytes:
    """Pack ``{path: text | bytes | (content, mode) | Path(target of a link) | None (folder)}``."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for path, spec in files.items():
                content, mode = spec if isinstance(spec, tuple) else (spec, 0o644)
                info = zipfile.ZipInfo(path)
                info.create_system = 3
                info.external_attr = (0o100000 | mode) << 16
                if isinstance(content, Path):
                    info.external_attr = 0o120777 << 16
                    content = str(content)
                archive.writestr(info, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, spec in files.items():
            content, mode = spec if isinstance(spec, tuple) else (spec, 0o644)
            member = tarfile.TarInfo(path)
            member.mode = mode
            member.mtime = 1_700_000_000
            if content is None:
                member.type = tarfile.DIRTYPE
                member.mode = mode if isinstance(spec, tuple) else 0o755
                archive.addfile(member)
            elif isinstance(content, Path):
                member.type = tarfile.SYMTYPE
                member.linkname = str(content)
                archive.addfile(member)
            else:
                data = content.encode() if isinstance(content, str) else content
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    # Without the time of packing: the same files are the same revision.
    return gzip.compress(buffer.getvalue(), mtime=0) if kind == "tgz" else buffer.getvalue()


class Host:
    """A host below a folder: deployment root, sysroot, and calls that look like deployments."""

    def __init__(self, folder: Path, interpreter: str | None = None) -> None:
        self.root = folder / "root"
        self.sysroot = folder / "sys"
        self.sysroot.mkdir(parents=True)
        self.group_id = "group-1"
        self.interpreter = interpreter
        self.outside_links = False
        self._number = 0
        self._folder = folder

    def path(self, absolute: str) -> Path:
        """Return where an absolute destination is on this host."""
        return self.sysroot / absolute.lstrip("/")

    def request(self, files: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], bytes]:
        """Make a request and its bundle; a new deployment each time."""
        bundle = pack(files, changes.pop("kind", "tgz"))
        text = files["appspec.yml"]
        self._number += 1
        digest = hashlib.sha256(bundle).hexdigest()
        request: dict[str, Any] = {
            "operation": "stage",
            "check": False,
            "diff": False,
            "root": str(self.root),
            "sysroot": str(self.sysroot),
            "target": "host-1",
            "deployment": {
                "id": changes.pop("deployment_id", f"d-{self._number:09}"),
                "group_id": self.group_id,
                "application": "shop",
                "group": "production",
                "creator": changes.pop("creator", "user"),
            },
            "revision": {
                "digest": digest,
                "bundle": {"sha256": digest, "size": len(bundle), "type": "tgz"},
                "appspec": _appspec.parse_appspec(text),
                "environment": {"BUNDLE_COMMIT": "abc"},
            },
            "options": {
                "outside_links": self.outside_links,
                **changes.pop("options", {}),
            },
            "gates": changes.pop("gates", []),
        }
        request.update(changes)
        return request, bundle

    def run(self, request: dict[str, Any], bundle: bytes | None = None) -> dict[str, Any]:
        """Run the host program here, or with another interpreter."""
        if self.interpreter is None:
            return _entry.run(
                json.loads(json.dumps(request)), io.BytesIO(bundle) if bundle is not None else None
            )
        path = ""
        if bundle is not None:
            path = str(self._folder / "bundle.sent")
            Path(path).write_bytes(bundle)
        result = subprocess.run(
            [self.interpreter, "-c", RUNNER, str(MODULE_UTILS), path],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=300,
            check=False,
        )
        if result.returncode:
            raise AssertionError(result.stderr.decode())
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    def deploy(self, files: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Stage and run a whole deployment; return the last result."""
        events = changes.pop("events", list(_events.IN_PLACE))
        request, bundle = self.request(files, **changes)
        staged = self.run(request, bundle)
        if staged.get("failed") or staged["current"]:
            return staged
        return self.run(dict(request, operation="lifecycle", events=events, final=True))


def here() -> str:
    """Return this interpreter."""
    return sys.executable
