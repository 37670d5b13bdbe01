#!/usr/bin/env bash
# Run a command that downloads something, again if it fails: networks fail for moments.
set -uo pipefail
for pause in 5 20 60; do
    "$@" && exit 0
    echo "$1 failed with status $?; trying again in $pause s" >&2
    sleep "$pause"
done
exec "$@"
