#!/bin/sh
# ValidateService: does this very release answer?
exec python3 "${SYSROOT:-}/opt/hello/server.py" validate
