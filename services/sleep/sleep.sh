#!/bin/sh
# Sleeps for the given number of seconds (fractions are allowed), says how far it is at least once a second, and writes
# one sentence to result.txt in the current folder.
set -eu

seconds=${1#--seconds=}

# At least one step a second, at most five: `steps` naps of `nap` seconds.
plan=$(awk -v seconds="$seconds" 'BEGIN {
    if (seconds !~ /^[0-9]+([.][0-9]+)?$/) exit 1
    steps = int(seconds) + 1
    if (seconds <= 20) steps = int(seconds * 5) + 1
    printf "%d %.3f", steps, seconds / steps
}') || { echo "[ERROR] not a number of seconds: $seconds"; exit 64; }
steps=${plan% *}
nap=${plan#* }

step=0
while [ "$step" -lt "$steps" ]; do
    echo "progress: $((step * 100 / steps))"
    sleep "$nap"
    step=$((step + 1))
done
printf 'slept for %s seconds\n' "$seconds" > result.txt
echo "progress: 100"
