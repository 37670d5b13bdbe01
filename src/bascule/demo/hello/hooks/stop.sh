#!/bin/sh
# ApplicationStop, of the revision that is in place: requests in flight are answered first.
exec python3 "${SYSROOT:-}/opt/hello/server.py" stop
