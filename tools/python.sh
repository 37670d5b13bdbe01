#!/usr/bin/env bash
# Name the Python for virtual environments: python3, or the distribution's where it is of the same version.
# A distribution builds its own with the compiler's profiles; what a version manager has built on the machine
# itself takes a fifth longer for everything that the tests run.
set -euo pipefail
asked='import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])'
own=/usr/bin/python3
if version=$("$own" -c "$asked" 2>/dev/null) && [ "$version" = "$(python3 -c "$asked" 2>/dev/null)" ]; then
    echo "$own"
else
    echo python3
fi
