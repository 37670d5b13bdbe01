"""Revisions for the tests: a small web application in the shape of an AWS CodeDeploy bundle."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PORT = 8080
HOME = "/opt/web"

SERVER = '''\
"""Answers every request with its version and host; /health says whether it feels well.

After SIGUSR1 every answer is the last one on its connection.
"""

import http.server
import os
import signal
import socket
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "VERSION")) as text:
    VERSION = text.read().strip()
LEAVING = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one packet, not two of which the second waits for an acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.partition("/slow/")[2] or 0.5))
        body = "{} {}\\n".format(VERSION, socket.gethostname()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", VERSION)
        if LEAVING.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        # A client may close a connection whenever it likes.
        pass


server = Server((os.environ.get("ADDRESS", ""), int(os.environ.get("PORT", "8080"))), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
signal.signal(signal.SIGUSR1, lambda *_: LEAVING.set())
server.serve_forever(poll_interval=0.05)
'''

# Before the traffic is blocked: whoever keeps a connection alive is asked to open another.
LET_GO = """\
#!/bin/sh
pid=$(cat {home}/web.pid 2>/dev/null) || exit 0
kill -USR1 "$pid" 2>/dev/null
exit 0
"""

STOP = """\
#!/bin/sh
pid=$(cat {home}/web.pid 2>/dev/null) || exit 0
kill "$pid" 2>/dev/null || exit 0
for _ in $(seq 100); do
  kill -0 "$pid" 2>/dev/null || exit 0
  sleep 0.05
done
echo "the application $pid does not end" >&2
exit 1
"""

START = """\
#!/bin/sh
cd {home}/app || exit 1
setsid {python} server.py </dev/null >{home}/web.log 2>&1 &
echo $! >{home}/web.pid
"""

VALIDATE = """\
#!/bin/sh
for _ in $(seq 100); do
  {python} - <<'END' && exit 0
import sys, urllib.request
try:
    said = urllib.request.urlopen("http://127.0.0.1:{port}/health", timeout=2).read().decode()
except OSError:
    sys.exit(1)
sys.exit(said.split()[0] != "{version}")
END
  sleep 0.05
done
echo "the application does not answer as {version}" >&2
exit 1
"""

APPSPEC = """\
version: 0.0
os: linux
files:
  - source: app
    destination: {home}/app
permissions:
  - object: {home}/app
    pattern: "*.py"
    mode: "0644"
    type: [file]
hooks:
  ApplicationStop:
    - location: hooks/stop.sh
      timeout: 20
  ApplicationStart:
    - location: hooks/start.sh
      timeout: 20
  ValidateService:
    - location: hooks/validate.sh
      timeout: 30
"""


def web(
    folder: Path,
    version: str,
    *,
    python: str = "/usr/bin/python3",
    hooks: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
) -> Path:
    """Write a revision of the web application and return its folder.

    :param hooks: text that replaces a script, by its file name, such as ``validate.sh``; every
        script can use ``{home}``, ``{port}``, ``{python}`` and ``{version}``
    :param more: scripts of further lifecycle events, by event
    """
    (folder / "app").mkdir(parents=True)
    (folder / "hooks").mkdir()
    (folder / "app" / "server.py").write_text(SERVER)
    (folder / "app" / "VERSION").write_text(f"{version}\n")
    values = {"home": HOME, "port": str(PORT), "python": python, "version": version}
    scripts = {"stop.sh": STOP, "start.sh": START, "validate.sh": VALIDATE, **(hooks or {})}
    appspec = APPSPEC
    for event, text in (more or {}).items():
        scripts[f"{event}.sh"] = text
        appspec += f"  {event}:\n    - location: hooks/{event}.sh\n      timeout: 20\n"
    (folder / "appspec.yml").write_text(_fill(appspec, values))
    for name, text in scripts.items():
        path = folder / "hooks" / name
        path.write_text(_fill(dedent(text), values))
        path.chmod(0o755)
    return folder


def files(
    folder: Path, contents: Mapping[str, str], hooks: Mapping[str, str] | None = None
) -> Path:
    """Write a revision that only brings files to ``/opt/files``, for hosts where nothing runs.

    :param contents: text by path
    :param hooks: a shell script by lifecycle event
    """
    for name, text in contents.items():
        path = folder / "content" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    appspec = "version: 0.0\nos: linux\nfiles:\n  - source: content\n    destination: /opt/files\n"
    appspec += "hooks:\n" if hooks else ""
    for event, text in (hooks or {}).items():
        (folder / f"{event}.sh").write_text(f"#!/bin/sh\n{dedent(text)}")
        (folder / f"{event}.sh").chmod(0o755)
        appspec += f"  {event}:\n    - location: {event}.sh\n      timeout: 60\n"
    (folder / "appspec.yml").write_text(appspec)
    return folder


def _fill(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
