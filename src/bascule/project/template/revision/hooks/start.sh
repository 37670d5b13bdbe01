#!/bin/sh
# SYSROOT is empty on a real host.
set -eu
home="${SYSROOT:-}/opt/PROJECT_NAME"
cd "$home"
# What goes on running must leave this script's output, or the event waits for it.
setsid python3 -m http.server --bind 127.0.0.1 "${APP_PORT:-8080}" >"$home.log" 2>&1 </dev/null &
echo $! >"$home.pid"
