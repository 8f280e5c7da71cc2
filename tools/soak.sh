#!/usr/bin/env bash
# Goes on with fresh seeds, keeps what fails, and ends with a summary.
#
#   tools/soak.sh SIMULATOR [PART]       SECONDS_MAX: how long, 0 or nothing = until it is stopped
#
#   sim         the simulator in slices of seeds, on all cores, from where the clock says, so that two
#               machines or two nights do not repeat each other. A seed that fails is written to
#               build/soak/failures/seed-N.txt: seed, options, commit, message, the end of its trace;
#               then it goes on behind that seed.
#   schedules   real processes: 1,000 schedules every 10 s while the leader is killed every 7 s for
#               CHRONOS_FAILOVER_S (600 s); then 4,000 every 5 s for CHRONOS_LOAD_S (180 s), against
#               the goals for a machine with nothing else to do. Logs of what fails are kept, too.
# CHRONOS_SOAK_EVENTS: events of each seed's time of faults (2000). Exit 1 when anything failed.
set -euo pipefail
cd "$(dirname "$0")/.."
sim=${1:?the simulator}
chronos=$(dirname "$sim")/chronos
part=${2:-sim}
seconds=${SECONDS_MAX:-0}
events=${CHRONOS_SOAK_EVENTS:-2000}
kept=build/soak/failures
slice=2000
trace_lines=2000
began=$SECONDS
runs=0
failures=0
simulated=0
stopped=0

[[ $seconds =~ ^[0-9]+$ ]] || { echo "SECONDS=$seconds: a number of seconds expected" >&2; exit 2; }
[[ $events =~ ^[1-9][0-9]*$ ]] || { echo "CHRONOS_SOAK_EVENTS=$events: a number expected" >&2; exit 2; }
mkdir -p "$kept"
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
[[ -z $(git status --porcelain -- src proto 2>/dev/null) ]] || commit="$commit, with changes"

summary() {
    echo "soak: $runs runs, $simulated simulated events, $((SECONDS - began)) s, $failures failed" \
        "$([[ $failures -eq 0 ]] || echo "(kept in $kept)")"
    [[ $failures -eq 0 ]]
}

time_is_left() {
    [[ $stopped -eq 0 ]] && { [[ $seconds -eq 0 ]] || ((SECONDS - began < seconds)); }
}

# The seconds that are left, for what would run on; a day when there is no end.
left() {
    if [[ $seconds -eq 0 ]]; then echo 86400; else echo $((seconds - (SECONDS - began) + 1)); fi
}

keep_seed() { # seed, output of its slice
    local file=$kept/seed-$1.txt
    {
        echo "seed $1"
        echo "options --events $events"
        echo "commit $commit"
        date -u '+found %Y-%m-%dT%H:%M:%SZ'
        grep -vE 'events/s$' "$2" || true
        echo "--- the end of its trace"
        timeout 120 "$sim" --seed "$1" --events "$events" --trace 2>&1 | tail -n $trace_lines || true
    } >"$file"
    failures=$((failures + 1))
    echo "seed $1 failed: $file"
    grep -m 1 '^FAILED' "$2" || true
}

simulate() {
    local next out bad count code
    next=$(($(date +%s) * 10000))
    out=$(mktemp)
    trap 'rm -f "$out"' RETURN
    while time_is_left; do
        code=0
        timeout --foreground -s INT -k 60 "$(left)" \
            "$sim" --seeds "$next-$((next + slice - 1))" --events "$events" >"$out" 2>&1 || code=$?
        bad=$(sed -nE 's/^FAILED seed ([0-9]+):.*/\1/p' "$out" | head -n 1)
        count=$(sed -nE 's/^[0-9]+ seeds hold: ([0-9]+) events.*/\1/p; s/^held before: [0-9]+ seeds, ([0-9]+) events$/\1/p' "$out" | head -n 1)
        simulated=$((simulated + ${count:-0}))
        if [[ -n $bad ]]; then
            runs=$((runs + bad - next + 1))
            keep_seed "$bad" "$out"
            next=$((bad + 1))
            continue
        fi
        runs=$((runs + $(sed -nE 's/^([0-9]+) seeds hold:.*/\1/p' "$out" | head -n 1 | grep . || echo 0)))
        # 130: the time was over, or Ctrl-C; 124: timeout says that it ended it.
        [[ $code -eq 0 ]] || { [[ $code -eq 130 || $code -eq 124 ]] && return; cat "$out"; failures=$((failures + 1)); return; }
        next=$((next + slice))
        echo "$runs seeds, $simulated events, $failures failed"
    done
}

keep_log() { # name command...
    local name=$1 log code=0
    shift
    log=$kept/$name-$(date +%s).log
    timeout --foreground -s INT -k 60 "$(left)" "$@" >"$log" 2>&1 || code=$?
    runs=$((runs + 1))
    if [[ $code -eq 0 || $code -eq 130 || $code -eq 124 ]]; then
        rm -f "$log"
        return
    fi
    failures=$((failures + 1))
    echo "$name failed: $log"
}

schedules() {
    while time_is_left; do
        keep_log failover env CHRONOS_SCHEDULES=1000 CHRONOS_EVERY_S=10 CHRONOS_KILL_S=7 \
            "CHRONOS_FAILOVER_S=${CHRONOS_FAILOVER_S:-600}" \
            /usr/bin/python3 tests/system/test_schedule_failover.py "$chronos"
        time_is_left || break
        keep_log load env CHRONOS_STRICT=1 "CHRONOS_LOAD_S=${CHRONOS_LOAD_S:-180}" \
            /usr/bin/python3 tests/system/test_schedule_load.py "$chronos"
    done
}

[[ -x $sim ]] || { echo "$sim is not built" >&2; exit 1; }
trap 'stopped=1' INT TERM
case $part in
sim) simulate ;;
schedules)
    [[ -x $chronos ]] || { echo "$chronos is not built" >&2; exit 1; }
    schedules
    ;;
*) echo "PART=$part: sim or schedules" >&2; exit 2 ;;
esac
summary
