#!/usr/bin/env bash
# Goal: what a new user sees first works. Method: the tour of `make run ONCE=1` on ports of its own;
# then a taken port, an even cluster, a node killed under `chronos dev`, and nothing left behind.
# Usage: test_tour.sh PATH-TO-chronos
set -euo pipefail
cd "$(dirname "$0")/../.."
chronos=$(realpath "${1:-build/release/chronos}")
base=${BASE_PORT:-19400}
work=$(mktemp -d)
dev=
trap '[[ -z $dev ]] || kill -TERM "$dev" 2>/dev/null || true; wait; rm -rf "$work"' EXIT

fail() { echo "$*" >&2; cat "$work"/*.err >&2 2>/dev/null || true; exit 1; }
wait_line() { # file text
    for _ in $(seq 300); do
        grep -q "$2" "$1" && return 0
        sleep 0.1
    done
    fail "\"$2\" never came in $1"
}

ONCE=1 BASE_PORT=$base NO_COLOR=1 tools/tour.sh "$chronos" >"$work/tour.out" 2>"$work/tour.err" ||
    fail "the tour failed: $(tail -n 20 "$work/tour.out")"
grep -q 'hello from a replicated log' "$work/tour.out" || fail "no output of the first job"
grep -q 'step 3 in' "$work/tour.out" || fail "no followed output"
grep -q 'exit code 3' "$work/tour.out" || fail "no exit code"

"$chronos" dev -o json --nodes 2 --base-port "$base" --data "$work/data" \
    >"$work/dev.out" 2>"$work/dev.err" &
dev=$!
wait_line "$work/dev.out" '"ready": true'
[[ $(grep -c '"server_pid"' "$work/dev.out") -eq 2 ]] || fail "one line a node is wanted"
grep -q 'majority of 2' "$work/dev.err" || fail "no warning about an even size"
code=0
"$chronos" dev --base-port "$base" >"$work/second.out" 2>"$work/second.err" || code=$?
[[ $code -eq 1 ]] || fail "a taken port gives exit code $code"
grep -q 'choose other ports with --base-port' "$work/second.err" || fail "no advice on ports"

export CHRONOS_ADDRESS=127.0.0.1:$base,127.0.0.1:$((base + 10))
expect() { # exit-code words...
    local want=$1 got=0
    shift
    "$chronos" "$@" >"$work/out" 2>"$work/cli.err" || got=$?
    [[ $got -eq $want ]] || fail "chronos $*: exit code $got, not $want"
}
expect 0 job submit --wait -- true
expect 1 job submit --wait -- false
expect 3 job get nothing-like-it
expect 3 job logs j9zzzzzz
expect 2 job submit -q 'bad queue!' -- true
id=$("$chronos" job submit -- printf 'raw\033[1mbytes\377')
expect 0 job submit --wait -- true
"$chronos" job logs -f "$id" | cmp - <(printf 'raw\033[1mbytes\377') || fail "the output is not raw"
"$chronos" job list -o json --contains printf | python3 -c '
import json, sys
jobs = json.load(sys.stdin)["jobs"]
assert [j["state"] for j in jobs] == ["JOB_STATE_COMPLETED"], jobs' || fail "the list is wrong"

mapfile -t pids < <(grep -oE '_pid":[0-9]+' "$work/dev.out" | cut -d: -f2)
kill -9 "${pids[0]}"
wait_line "$work/dev.err" 'killed by signal 9'
expect 4 job submit --call-timeout 2s -- true
kill -TERM "$dev"
code=0
wait "$dev" || code=$?
dev=
[[ $code -eq 0 ]] || fail "dev ended with $code"
for pid in "${pids[@]}"; do
    # A zombie has no program any more; it waits for its adoptive parent.
    [[ -z $(readlink "/proc/$pid/exe" 2>/dev/null) ]] || fail "process $pid is left over"
done
[[ -s $work/data/node2/server.log ]] || fail "--data keeps no log"
echo "the tour works"
