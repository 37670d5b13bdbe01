#!/usr/bin/env bash
# ansible-test sanity on the built and installed collection: in the checkout it would skip links.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD bin=$PWD/.venv/bin
export PATH="$bin:$PATH" LC_ALL=C.UTF-8
version=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# ansible-test would download pip's installer, for a dozen environments: they get a copy of our own pip, which is
# compiled already. Where it is gone, Python's own installer serves.
cache=$HOME/.ansible/test/cache
mkdir -p "$cache"
requirements=$("$bin/python" -c 'import ansible_test, pathlib
print(pathlib.Path(list(ansible_test.__path__)[0]) / "_internal/python_requirements.py")')
installer=get_pip_$(sed -n "s/^ *pip='\([0-9.]*\)',$/\1/p" "$requirements" | head -n 1 | tr . _).py
mark="# Written by Bascule's tests."
if [ ! -f "$cache/$installer" ] || grep -qF "$mark" "$cache/$installer"; then
  "$bin/python" - "$mark" >"$cache/$installer.$$" <<'END'
import pathlib, sys, pip

print(f"""{sys.argv[1]}
import ensurepip, pathlib, shutil, sysconfig

ours = pathlib.Path({str(pathlib.Path(pip.__file__).parent)!r})
if ours.is_dir():
    shutil.copytree(ours, pathlib.Path(sysconfig.get_path("purelib")) / "pip")
else:
    ensurepip.bootstrap()""")
END
  mv "$cache/$installer.$$" "$cache/$installer"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# From a copy: what other stages write into the checkout meanwhile comes and goes.
mkdir "$work/source"
tar -c --exclude=__pycache__ galaxy.yml README.md LICENSE CHANGELOG.md changelogs docs meta playbooks plugins roles \
  tests/unit | tar -x -C "$work/source"
"$bin/ansible-galaxy" collection build --force --output-path "$work" "$work/source" >/dev/null
"$bin/ansible-galaxy" collection install --force --no-deps --offline -p "$work" "$work"/*.tar.gz >/dev/null
cd "$work/ansible_collections/bascule/deploy"
# What it downloads comes first, so that only this is tried again.
bash "$root/tools/retry.sh" ansible-test sanity --prime-venvs --python "$version" "$@" >"$work/primed" 2>&1 ||
  { cat "$work/primed"; exit 1; }
ansible-test sanity --python "$version" "$@"
