#!/bin/sh
# Runs before the next deployment: a failure here would block it.
pid=$(cat "${SYSROOT:-}/opt/PROJECT_NAME.pid" 2>/dev/null) || exit 0
grep -qs http.server "/proc/$pid/cmdline" || exit 0
kill "$pid" 2>/dev/null || exit 0
for _ in $(seq 100); do
  kill -0 "$pid" 2>/dev/null || exit 0
  sleep 0.1
done
echo "process $pid does not end" >&2
exit 1
