#!/usr/bin/env bash
# Unit tests and the main end-to-end test with every Python and every ansible-core that fit together.
set -euo pipefail
cd "$(dirname "$0")/.."
candidates=(python3.11 python3.12 python3.13)
shopt -s nullglob
found=()
for name in "${candidates[@]}"; do
    minor=${name#python3.}
    for path in "$(command -v "$name" || true)" "$HOME"/.pyenv/versions/3."$minor".*/bin/"$name"; do
        if [ -n "$path" ] && "$path" -c "import sys; sys.exit(sys.version_info[:2] != (3, $minor))" 2>/dev/null; then
            found+=("$path")
            break
        fi
    done
done
[ ${#found[@]} -gt 0 ] || { echo "No Python 3.11, 3.12 or 3.13 found" >&2; exit 1; }
grep -v '^ansible-core==' constraints.txt >.matrix-constraints.txt
trap 'rm -f .matrix-constraints.txt' EXIT
for python in "${found[@]}"; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    cores=(2.19)
    [ "$version" = 3.11 ] || cores=(2.19 2.20 2.21)
    for core in "${cores[@]}"; do
        venv=.matrix/$version-$core
        echo "== Python $version, ansible-core $core"
        [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            -c .matrix-constraints.txt -e '.[dev]' "ansible-core~=$core.0"
        # The tests start the commands of this environment, not those of the one that make uses.
        PATH="$PWD/$venv/bin:$PATH" "$venv/bin/python" -m pytest -q -n 2 tests/unit
        PATH="$PWD/$venv/bin:$PATH" "$venv/bin/python" -m pytest -q tests/e2e/test_rolling_ssh.py
    done
done
echo "The matrix passed: ${found[*]}"
