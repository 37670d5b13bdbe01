#!/usr/bin/env bash
# Install the Debian packages named as arguments that are missing; without root only say which.
set -euo pipefail
missing=()
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "These Debian packages are needed by the tests and are missing: ${missing[*]}" >&2
    echo "Install them as root: apt-get install ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# A machine that has just been started may still install something of its own.
patient=(-o Acquire::Retries=5 -o DPkg::Lock::Timeout=600)
retry=$(dirname "$0")/retry.sh
bash "$retry" apt-get "${patient[@]}" update -qq
bash "$retry" apt-get "${patient[@]}" install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
