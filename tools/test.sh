#!/usr/bin/env bash
# Runs every test there is and ends with "N passed, N failed".
#
# Each ctest case, each check of tests/tools, each run of the simulator, each fuzz target, each system
# test and each case of chaos counts as one. A build that fails counts as one failure, and what needs
# it is counted as failed too, never skipped. Logs of what failed stay in build/test-logs.
set -uo pipefail
cd "$(dirname "$0")/.."

release=build/release
asan=build/asan
logs=build/test-logs
passed=0
failed=0
failures=()

mkdir -p "$logs"
rm -f "$logs"/*.log "$logs"/*.txt

note() { # name exit-code [log]
    if [[ $2 -eq 0 ]]; then
        passed=$((passed + 1))
        printf 'ok      %s\n' "$1"
    else
        failed=$((failed + 1))
        failures+=("$1")
        printf 'FAILED  %s (log: %s)\n' "$1" "${3:-$logs/${1//\//_}.log}"
    fi
}

run() { # name command...
    local name=$1 log="$logs/${1//\//_}.log" code=0
    shift
    "$@" >"$log" 2>&1 </dev/null || code=$?
    [[ $code -eq 0 ]] || tail -n 25 "$log"
    note "$name" "$code"
    return "$code"
}

build() { # preset
    local log="$logs/build_$1.log"
    if { cmake --preset "$1" && cmake --build --preset "$1"; } >"$log" 2>&1; then
        return 0
    fi
    grep -E 'error|FAILED|Error' "$log" | head -n 20
    note "build.$1" 1 "$log"
    return 1
}

unit() { # directory label
    local junit="$logs/$2.xml" log="$logs/ctest_$2.log" good bad before=$failed
    local counts
    (cd "$1" && ctest -j "$(nproc)" --timeout 300 --output-on-failure \
        --output-junit "$PWD/../../$junit") >"$log" 2>&1
    counts=$(python3 - "$junit" "$2" <<'PY'
import sys
import xml.etree.ElementTree as tree
good, bad = 0, []
try:
    for case in tree.parse(sys.argv[1]).getroot().iter("testcase"):
        if case.get("status") == "run":
            good += 1
        else:
            bad.append(case.get("name"))
except (OSError, tree.ParseError):
    bad.append("ctest")
print(good, len(bad), *bad)
PY
    )
    read -r good bad rest <<<"$counts"
    passed=$((passed + good))
    for name in $rest; do
        note "$2.$name" 1 "$log"
    done
    # No case at all is not a success.
    [[ $((good + bad)) -gt 0 ]] || note "$2.none" 1 "$log"
    printf '%-7s %s: %s unit tests passed, %s failed\n' \
        "$([[ $failed -eq $before ]] && echo ok || echo FAILED)" "$2" "$good" "$bad"
    [[ $failed -eq $before ]] || grep -E 'ERROR|Failure|error:|SUMMARY' "$log" | head -n 20
}

# What was measured on the way, for the end: a heading, then lines.
tell() { # heading file
    printf '\n== %s\n' "$1" >>"$logs/summary.txt"
    cat "$2" >>"$logs/summary.txt" 2>/dev/null || true
}

began=$SECONDS
phase() { # name: how long the one before took
    [[ -z ${phase_name:-} ]] || printf '        %s took %d s\n' "$phase_name" $((SECONDS - began))
    phase_name=$1
    began=$SECONDS
}

# ---- unit tests, golden files ------------------------------------------------------------------

phase "release: build and unit tests"
if build release; then
    have_release=1
    unit "$release" release
else
    have_release=0
fi
phase "asan: build and unit tests"
if build asan; then
    unit "$asan" asan
fi

# What has threads, under the thread sanitizer: only what it needs is built.
phase "tsan"
threads() {
    local names=(disk_queue kv_rocks_stage peer_net peer_net_bulk rpc rpc_chaos)
    cmake --preset tsan >/dev/null &&
        cmake --build --preset tsan --target "${names[@]/#/test_}" &&
        TSAN_OPTIONS="suppressions=$PWD/tools/tsan.supp" \
            ctest --test-dir build/tsan --output-on-failure --timeout 300 \
            -R "^unit\.($(IFS='|'; echo "${names[*]}"))\$"
}
run tsan.os threads

phase "checks of the tree"
shopt -s nullglob
for check in tests/tools/*.sh tests/tools/*.py; do
    name=tools.$(basename "$check")
    case $check in
    *.py) run "$name" /usr/bin/python3 "$check" "$release" ;;
    *) run "$name" bash "$check" "$release" ;;
    esac
done

run tools.mutants tools/mutate.py --check

# ---- the simulator, the model, coverage --------------------------------------------------------

phase "simulator"
sim=$release/chronos-sim
scenarios() {
    local name count=0
    for name in $("$sim" --help 2>&1 | sed -n '/^Scenarios:/,$s/^  \([a-z0-9-]*\) .*/\1/p'); do
        echo "$name"
        "$sim" --scenario "$name" --seeds 1-150 || return 1
        count=$((count + 1))
    done
    [[ $count -ge 10 ]]
}
# What failed once, by seed.
seeds() {
    local seed rest
    while read -r seed rest; do
        [[ $seed == \#* || -z $seed ]] && continue
        "$sim" --seed "$seed" || { echo "seed $seed: $rest"; return 1; }
    done <tests/seeds/sim.txt
}
if [[ -x $sim ]]; then
    run sim.seeds "$sim" --seeds "${CHRONOS_SIM_SEEDS:-1-20000}" --stats --require-counters 100
    tell "simulator: what happened, how often" "$logs/sim.seeds.log"
    run sim.scenarios scenarios
    run sim.regressions seeds
else
    note sim.seeds 1
fi
phase "model"
run model model/run.sh
tell "model of the protocol" "$logs/model.log"
phase "coverage"
run coverage tools/coverage.sh
tell "coverage" "$logs/coverage.log"

# ---- real processes ----------------------------------------------------------------------------

# Fuzzing takes what the tests of real processes, which mostly wait, leave of the processors.
phase "system tests, with fuzzing behind them"
nice -n 19 tools/fuzz.sh --ci >"$logs/fuzz.log" 2>&1 </dev/null &
fuzz_pid=$!
trap 'kill "$fuzz_pid" 2>/dev/null || true' EXIT

# A system test gets the binary as its argument. One whose first comment names CHRONOS_ADDRESSES wants
# a running cluster instead.
system() { # name file interpreter...
    local name=$1 file=$2
    shift 2
    if [[ $have_release -eq 0 ]]; then
        note "$name" 1 "$logs/build_release.log"
    elif head -n 20 "$file" | grep -q CHRONOS_ADDRESSES; then
        run "$name" timeout -k 10 600 tools/with_cluster.sh "$release/chronos" "$@" "$file"
    else
        run "$name" timeout -k 10 600 "$@" "$file" "$release/chronos"
    fi
}

for test in tests/system/test_*.sh tests/system/test_*.py; do
    if [[ ! -x $test ]]; then
        note "system.$(basename "$test").executable" 1 "$test" # or it would never run
        continue
    fi
    case $test in
    *.py) system "system.$(basename "$test")" "$test" /usr/bin/python3 ;;
    *) system "system.$(basename "$test")" "$test" bash ;;
    esac
done

# Packages of JavaScript tests come from a registry, not from apt: without them it says so.
javascript() { # name folder script
    local name=$1 js=$2 script=$3
    if command -v node >/dev/null && { [[ -d $js/node_modules ]] ||
        (cd "$js" && timeout 120 npm ci --silent --no-audit --no-fund) >"$logs/npm.log" 2>&1; }; then
        system "$name" "$js/$script" node
    else
        echo "not run  $name: node and its packages (npm ci in $js) are not here"
    fi
}
javascript system.client_js tests/system/client_js test_client.js
javascript system.cron_js tests/system/cron_js test_cron.js

phase "chaos"
chaos() {
    if [[ $have_release -eq 0 ]]; then
        note chaos 1 "$logs/build_release.log"
        return
    fi
    local log="$logs/chaos.log" name rest
    tools/chaos.sh "$release/chronos" >"$log" 2>&1 </dev/null || true
    while read -r name rest; do
        case $name in
        ok) note "chaos.${rest%% *}" 0 ;;
        FAILED) note "chaos.${rest%% *}" 1 "$log" ;;
        esac
    done < <(grep -E '^(ok|FAILED) ' "$log")
    # Its last line is its own count; without it, it did not come to its end.
    tail -n 1 "$log" | grep -qE '^[0-9]+ passed, [0-9]+ failed' || note chaos.end 1 "$log"
    tell "chaos" "$log"
}
chaos

phase "the rest of fuzzing"
wait "$fuzz_pid"
note fuzz $? "$logs/fuzz.log"
trap - EXIT
tell "fuzzing" "$logs/fuzz.log"
phase ""

cat "$logs/summary.txt"
if [[ $failed -gt 0 ]]; then
    printf '\nFailed:\n'
    for name in "${failures[@]}"; do
        printf '  %s\n' "$name"
        # What of it failed, for whoever sees only the end of this output.
        grep -hE '^(FAILED|not ok)|\[  FAILED  \]|ERROR|Traceback|Failure' \
            "$logs/${name//\//_}.log" 2>/dev/null | cut -c1-300 | head -n 8 | sed 's/^/      /'
    done
fi
printf '%d passed, %d failed\n' "$passed" "$failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
