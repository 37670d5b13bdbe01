#!/usr/bin/env bash
# The pip package as a user gets it: a built wheel in an empty virtual environment, far from the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/.venv/bin/python" -m build --quiet --no-isolation --outdir "$work/dist" . >/dev/null
"$root/.venv/bin/python" -m venv "$work/venv"
bash tools/retry.sh "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$work"/dist/*.whl
mkdir "$work/elsewhere"
cd "$work/elsewhere"
export HOME=$work/elsewhere PATH=$work/venv/bin:/usr/bin:/bin
unset ANSIBLE_CONFIG ANSIBLE_COLLECTIONS_PATH
bascule --version
bascule --help >help.txt
python -c 'import bascule; print(bascule.deploy.__name__)'
ansible-doc bascule.deploy.lifecycle >lifecycle.txt
grep -q 'lifecycle events' lifecycle.txt
ansible-doc -t callback bascule.deploy.progress >/dev/null
ansible-playbook bascule.deploy.rolling --syntax-check -i localhost, >/dev/null
# The playbook runs from the wheel, and refuses an empty group in words.
if ansible-playbook bascule.deploy.rolling -i localhost, -e deploy_application=x -e deploy_targets=nobody \
    -e deploy_revision=. -e deploy_state_directory="$work/state" >refusal.txt 2>&1; then
    echo "An empty group was not refused" >&2
    exit 1
fi
grep -q 'has no targets' refusal.txt || { cat refusal.txt >&2; exit 1; }
# Schemas, a new project and a deployment to this host, with nothing but the wheel.
python -c 'import bascule.schemas as s; assert all(s.read(name)["$schema"] for name in s.NAMES)'
bascule init shop >/dev/null
bascule validate shop/revision
bascule local -l shop/revision --sysroot "$work/host" -e DownloadBundle,Install >/dev/null
test -f "$work/host/opt/shop/index.html"
rm -r shop
# The README's first deployment, pasted as it stands but for the installation.
python - "$root/README.md" >first.sh <<'END'
import pathlib, sys

part = pathlib.Path(sys.argv[1]).read_text().partition("## A first deployment\n")[2].partition("\n`bascule init")[0]
lines = [line[4:] for line in part.splitlines() if line.startswith("    ")]
print("\n".join(line for line in lines if "venv" not in line and not line.startswith("pip ")))
END
test "$(grep -c '^bascule ' first.sh)" = 5
# Its last deployment fails, and is rolled back.
BASCULE_STATE=$work/state bash first.sh >first.txt 2>&1 || { cat first.txt >&2; exit 1; }
grep -q 'nothing to do: 2 targets already' first.txt || { cat first.txt >&2; exit 1; }
grep -q 'rollback succeeded in .* 1 of 1 target' first.txt || { cat first.txt >&2; exit 1; }
test "$(cat fleet/*/opt/shop/index.html | sort -u)" = 'Hello, 1.0'
echo "The wheel works in an empty virtual environment."
