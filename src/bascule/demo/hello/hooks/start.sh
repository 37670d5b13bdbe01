#!/bin/sh
# ApplicationStart: returns once the port is open; the server has left this script's output then.
exec python3 "${SYSROOT:-}/opt/hello/server.py" start
