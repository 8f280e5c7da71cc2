#!/usr/bin/env bash
# Runs every test there is and ends with "N passed, N failed".
#
# Each ctest case, each check of tests/tools, the simulator and each system test counts as one. A
# build that fails counts as one failure, and what needs it is counted as failed too, never skipped.
# Logs of what failed stay in build/test-logs.
set -uo pipefail
cd "$(dirname "$0")/.."

release=build/release
asan=build/asan
logs=build/test-logs
passed=0
failed=0
failures=()

mkdir -p "$logs"
rm -f "$logs"/*.log

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

if build release; then
    have_release=1
    unit "$release" release
else
    have_release=0
fi
if build asan; then
    unit "$asan" asan
fi

# The folders with threads, under the thread sanitizer: only what they need is built.
threads() {
    local targets=(test_disk_queue test_peer_net test_rpc)
    cmake --preset tsan >/dev/null &&
        cmake --build --preset tsan --target "${targets[@]}" &&
        ctest --test-dir build/tsan --output-on-failure --timeout 300 \
            -R '^unit\.(disk_queue|peer_net|rpc)$'
}
run tsan.os threads

shopt -s nullglob
for check in tests/tools/*.sh tests/tools/*.py; do
    name=tools.$(basename "$check")
    case $check in
    *.py) run "$name" /usr/bin/python3 "$check" "$release" ;;
    *) run "$name" bash "$check" "$release" ;;
    esac
done

if [[ -x $release/chronos-sim ]]; then
    run sim.seeds "$release/chronos-sim" --seeds "${CHRONOS_SIM_SEEDS:-1-2000}"
elif [[ -f src/cmd/chronos_sim.c ]]; then
    note sim.seeds 1
fi

# What failed once, by seed.
seeds() {
    local seed rest
    while read -r seed rest; do
        [[ $seed == \#* || -z $seed ]] && continue
        "$release/chronos-sim" --seed "$seed" || { echo "seed $seed: $rest"; return 1; }
    done <tests/seeds/sim.txt
}
if [[ -x $release/chronos-sim ]]; then
    run sim.regressions seeds
fi

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
