#!/usr/bin/env bash
# Runs without end, and stops at the first failure.
#   sim         the simulator in slices of 1,000 seeds, each from where the clock says, so that two
#               machines or two nights do not repeat each other
#   schedules   real processes: 1,000 schedules every 10 s while the leader is killed every 7 s for
#               CHRONOS_FAILOVER_S (600 s); then 4,000 every 5 s for CHRONOS_LOAD_S (180 s), against
#               the goals for a machine with nothing else to do
set -euo pipefail
sim=${1:?the simulator}
chronos=$(dirname "$sim")/chronos
part=${2:-sim}

simulate() {
    local start=$(($(date +%s) * 1000))
    while true; do
        echo "seeds $start-$((start + 999))"
        "$sim" --seeds "$start-$((start + 999))"
        start=$((start + 1000))
    done
}

schedules() {
    while true; do
        CHRONOS_SCHEDULES=1000 CHRONOS_EVERY_S=10 CHRONOS_KILL_S=7 \
            CHRONOS_FAILOVER_S=${CHRONOS_FAILOVER_S:-600} \
            /usr/bin/python3 tests/system/test_schedule_failover.py "$chronos"
        CHRONOS_STRICT=1 CHRONOS_LOAD_S=${CHRONOS_LOAD_S:-180} \
            /usr/bin/python3 tests/system/test_schedule_load.py "$chronos"
    done
}

[[ -x $sim && -x $chronos ]] || { echo "$sim and $chronos are not built" >&2; exit 1; }
case $part in
sim) simulate ;;
schedules) schedules ;;
*) echo "PART=$part: sim or schedules" >&2; exit 2 ;;
esac
