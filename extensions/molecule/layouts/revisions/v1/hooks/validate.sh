#!/bin/sh
echo "v1 is well."
