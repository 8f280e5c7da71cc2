#!/usr/bin/env bash
# Lines and branches of the pure folders that their tests reach: raft, storage, fsm, sched.
#
#   tools/coverage.sh [REPORT]     REPORT: an HTML page per file below that directory
#
# Builds preset "coverage", runs the unit tests of these folders and of node/ above them, the golden
# tests and some hundred seeds of the simulator, and prints each folder and each file below the goal.
# Exit 1 when a folder is below 95% of lines. CHRONOS_COVERAGE_SEEDS sets the seeds (1-300).
#
# Not counted, because no run that goes on can reach it: the failing side of an ASSERT, and lines that
# say "unreachable:" with the reason.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/coverage
goal=95
folders=(raft storage fsm sched)
seeds=${CHRONOS_COVERAGE_SEEDS:-1-300}
log=$build/run.log

# What is not about these folders, or has threads and real disks: tests of os, api, cli and above.
others='^(api|args|backup|bench|cli|client|clock_watch|config|crontab|disk_posix|disk_queue|histogram|kv_rocks|linear|os_|peer_|rpc|schedule_yaml|spawn|tzdir|units|worker)'

cmake --preset coverage >/dev/null
mapfile -t tests < <(ctest --test-dir $build -N | sed -nE 's/^ *Test +#[0-9]+: unit\.//p' | grep -vE "$others")
[[ ${#tests[@]} -gt 20 ]] || { echo "only ${#tests[@]} tests found: this looks at nothing" >&2; exit 1; }
cmake --build --preset coverage --target chronos-sim "${tests[@]/#/test_}" \
    test_raft_golden test_state_golden test_storage_golden >$build/build.log 2>&1 ||
    { grep -E 'error|FAILED' $build/build.log | head -n 20; exit 1; }
find $build -name '*.gcda' -delete
names=$(IFS='|'; echo "${tests[*]}")
ctest --test-dir $build -j "$(nproc)" --timeout 240 --output-on-failure \
    -R "^(unit\.($names)|golden\.(raft|state|storage)\..*)\$" >$log 2>&1 ||
    { grep -E 'Failed|\*\*\*' $log | head -n 20; echo "the tests fail: $log"; exit 1; }
$build/chronos-sim --seeds "$seeds" >>$log 2>&1 || { tail -n 5 $log; exit 1; }

report() { # options of gcovr
    local paths=()
    for folder in "${folders[@]}"; do
        paths+=("$build/src/CMakeFiles/chronos_$folder.dir")
    done
    gcovr --root . --object-directory $build --filter "src/($(IFS='|'; echo "${folders[*]}"))/" \
        --exclude-unreachable-branches --exclude-lines-by-pattern '.*unreachable:.*' \
        --exclude-branches-by-pattern '.*\bASSERT\(.*' "$@" "${paths[@]}" >>$log 2>&1 ||
        { tail -n 5 $log; exit 1; }
}
report --json-summary $build/report.json
if [[ $# -gt 0 ]]; then
    mkdir -p "$1"
    report --html-details "$1/index.html"
fi
/usr/bin/python3 - $goal "${folders[@]}" <<'PY'
import json
import sys

goal, below = float(sys.argv[1]), []
with open("build/coverage/report.json") as f:
    files = sorted(json.load(f)["files"], key=lambda f: f["filename"])


def percent(part, whole):
    return 100.0 * part / whole if whole else 0.0


def row(name, of):
    numbers = [sum(f[k] for f in of) for k in ("line_covered", "line_total", "branch_covered", "branch_total")]
    lines = percent(*numbers[:2])
    print("%-36s %5d/%-5d %5.1f%% %6d/%-5d %5.1f%%" % (name, *numbers[:2], lines, *numbers[2:], percent(*numbers[2:])))
    return lines


print("%-36s %18s %19s" % ("", "lines", "branches"))
for folder in sys.argv[2:]:
    inside = [f for f in files if f["filename"].startswith("src/%s/" % folder)]
    if row("src/" + folder, inside) < goal:
        below.append(folder)
    for f in inside:
        if f["line_total"] and f["line_percent"] < goal:
            row("  " + f["filename"], [f])
for folder in below:
    print("FAILED src/%s: below %.0f%% of lines" % (folder, goal))
sys.exit(1 if below else 0)
PY
