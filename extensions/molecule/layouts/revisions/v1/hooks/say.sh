#!/bin/sh
# Releases share data/: what one writes there, the next one finds.
echo "$LIFECYCLE_EVENT"
if [ -n "$SHARED_DIRECTORY" ]; then
    echo "$LIFECYCLE_EVENT" >>"$SHARED_DIRECTORY/data/visits"
fi
