#!/bin/sh
cd "$SITE" || exit 1
setsid "$PYTHON" -m http.server "$PORT" --bind 127.0.0.1 </dev/null >/dev/null 2>&1 &
echo $! >"$SITE.pid"
