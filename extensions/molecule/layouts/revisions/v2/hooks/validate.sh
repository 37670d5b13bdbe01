#!/bin/sh
echo "v2 is well."
