#!/usr/bin/env bash
# Runs the simulator in slices of 1,000 seeds, without end, each slice from where the clock says, so
# that two machines or two nights do not repeat each other. Stops at the first failing seed.
set -euo pipefail
sim=${1:?the simulator}
[[ -x $sim ]] || { echo "$sim is not built" >&2; exit 1; }
start=$(($(date +%s) * 1000))
while true; do
    echo "seeds $start-$((start + 999))"
    "$sim" --seeds "$start-$((start + 999))"
    start=$((start + 1000))
done
