#!/bin/sh
# Gives back each value that it is given, as a file in the current folder.
set -eu

echo "progress: 10"
for argument in "$@"; do
    value=${argument#*=}
    case $argument in
        --literalInput=*) printf '%s' "$value" > literal.txt ;;
        --complexInput=*) cp -- "$value" complex.xml ;;
        --boundingboxInput=*) printf '%s' "$value" > box.txt ;;
        *) echo "[ERROR] unexpected argument: $argument"; exit 64 ;;
    esac
done
echo "progress: 100"
