#!/bin/sh
# AfterInstall: can this release read this host's configuration?
exec python3 "${SYSROOT:-}/opt/hello/server.py" check
