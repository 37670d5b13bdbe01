#!/bin/sh
echo "v3 does not answer." >&2
exit 1
