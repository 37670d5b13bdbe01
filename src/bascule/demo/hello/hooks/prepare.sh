#!/bin/sh
# BeforeInstall: the folders that the application writes to. SYSROOT is empty on a real host.
set -eu
mkdir -p "${SYSROOT:-}/etc/hello" "${SYSROOT:-}/var/log/hello" "${SYSROOT:-}/var/run/hello"
