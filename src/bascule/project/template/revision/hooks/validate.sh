#!/bin/sh
# Does this very version answer?
home="${SYSROOT:-}/opt/PROJECT_NAME"
for _ in $(seq 50); do
  python3 - "http://127.0.0.1:${APP_PORT:-8080}/" "$home/index.html" <<'END' && exit 0
import pathlib, sys, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=2).read()
except OSError:
    sys.exit(1)
sys.exit(answer != pathlib.Path(sys.argv[2]).read_bytes())
END
  sleep 0.1
done
tail -n 5 "$home.log" >&2
exit 1
