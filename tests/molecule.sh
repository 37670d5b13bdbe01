#!/usr/bin/env bash
# The Molecule scenarios that are named, two at a time; what one says is shown as a whole at its end.
set -euo pipefail
cd "$(dirname "$0")/.."
molecule=$PWD/.venv/bin/molecule

one() {
  local said status=0
  said=$(mktemp)
  # A run that was broken off counts as prepared, and its targets are no longer as they were.
  "$molecule" reset -s "$1" >"$said" 2>&1 || true
  "$molecule" test -s "$1" >"$said" 2>&1 || status=1
  if [ "$status" = 0 ]; then
    echo "Molecule scenario $1: passed"
  else
    # In one write, so that two scenarios do not mix.
    printf '%s\nMolecule scenario %s: FAILED\n' "$(<"$said")" "$1"
  fi
  rm -f "$said"
  return "$status"
}

if [ $# = 1 ]; then
  one "$1"
else
  printf '%s\n' "$@" | xargs -P 2 -n 1 bash tests/molecule.sh
fi
