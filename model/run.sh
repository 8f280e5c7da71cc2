#!/bin/bash
# Searches the model of the protocol, and shows that it can fail.
#
#   model/run.sh [--full] [--only NAME] [--keep DIR]
#
# For each configuration below: all states within its bounds are searched; any broken assertion, any step or
# line that is never reached, is a failure. For each mutation - the model with one rule broken - a
# counterexample must be found. --full adds the larger configurations. --only: one configuration or mutation,
# by name. --keep: build there and keep what was built, and the trail of a counterexample
# (cd DIR/NAME && spin -t -p -g protocol.pml).
#
# Exit 0: all as it must be. Needs spin and gcc, one core, at most 3 GiB.
set -u
here=$(cd "$(dirname "$0")" && pwd)
full=0 only= keep=
while [ $# -gt 0 ]; do
    case $1 in
    --full) full=1 ;;
    --only) only=$2; shift ;;
    --keep) keep=$2; shift ;;
    *) echo "usage: model/run.sh [--full] [--only NAME] [--keep DIR]" >&2; exit 2 ;;
    esac
    shift
done
for tool in spin gcc; do
    command -v $tool >/dev/null || { echo "model/run.sh: $tool is missing (packages.txt)" >&2; exit 2; }
done
if [ -n "$keep" ]; then
    mkdir -p "$keep" && dir=$(cd "$keep" && pwd) || exit 2
else
    dir=$(mktemp -d) || exit 2
    trap 'rm -rf "$dir"' EXIT
fi

# name | bounds. 3 servers always. What a bound means: README.md.
configurations='
election       TERMS=3 LOG=2 CRASHES=1 COMMANDS=0 STEP_DOWN=1
replication    TERMS=3 LOG=3 CRASHES=0
durability     TERMS=2 LOG=3 CRASHES=1
old-terms      TERMS=4 LOG=2 CRASHES=0 COMMANDS=0
member-grow    TERMS=3 LOG=4 CRASHES=0 COMMANDS=0 SYMMETRIC=0 CHANGES=1 OLD_SET=1 NEW_SET=7
member-shrink  TERMS=3 LOG=3 CRASHES=0 COMMANDS=0 SYMMETRIC=0 CHANGES=1 OLD_SET=7 NEW_SET=1
member-crash   TERMS=2 LOG=4 CRASHES=1 COMMANDS=0 SYMMETRIC=0 CHANGES=1 OLD_SET=1 NEW_SET=6
snapshot       TERMS=2 LOG=3 CRASHES=0 SNAPSHOTS=1
snapshot-crash TERMS=2 LOG=2 CRASHES=1 SNAPSHOTS=1
'
larger='
election-2     TERMS=3 LOG=2 CRASHES=2 COMMANDS=0
election-log   TERMS=3 LOG=3 CRASHES=1 COMMANDS=0 STEP_DOWN=1
replication-4  TERMS=4 LOG=3 CRASHES=0
durability-2   TERMS=2 LOG=3 CRASHES=2
durability-3   TERMS=3 LOG=3 CRASHES=1
member-swap    TERMS=3 LOG=5 CRASHES=0 COMMANDS=0 SYMMETRIC=0 CHANGES=1 OLD_SET=3 NEW_SET=6
member-shrink+ TERMS=2 LOG=4 CRASHES=1 COMMANDS=0 SYMMETRIC=0 CHANGES=1 OLD_SET=7 NEW_SET=1
member-terms   TERMS=4 LOG=4 CRASHES=0 COMMANDS=0 SYMMETRIC=0 CHANGES=1 OLD_SET=7 NEW_SET=1
snapshot-3     TERMS=3 LOG=3 CRASHES=0 SNAPSHOTS=1
snapshot-log   TERMS=2 LOG=3 CRASHES=1 SNAPSHOTS=1
'
# mutation | the configuration that must find it
mutations='
VOTE_WITHOUT_LOG_CHECK    replication
VOTE_TWICE                replication
VOTE_BEFORE_DISK          election
VOTE_NOT_DURABLE          election
TERM_NOT_DURABLE          election
STALE_VOTES_COUNT         replication
COMMIT_OLD_TERM           old-terms
COMMIT_BEYOND_CHECKED     replication
APPEND_WITHOUT_PREV_CHECK replication
TRUNCATE_ALWAYS           replication
ACK_OWN_LAST              replication
ACK_BEFORE_DISK           durability
LEADER_COUNTS_MEMORY      durability
CHANGE_AT_ONCE            member-shrink
JOINT_COUNTS_NEW_ONLY     member-shrink
JOINT_COUNTS_OLD_ONLY     member-crash
LEAVE_JOINT_EARLY         member-grow
SNAPSHOT_BEYOND_COMMIT    snapshot
INSTALL_DROPS_TAIL        snapshot
INSTALL_KEEPS_TAIL        snapshot
'
# those that take longer
larger_mutations='
CONF_NOT_ROLLED_BACK      member-terms
'
failed=0
slots=24 # log2 of the hash table
[ $full = 1 ] && configurations+=$larger && mutations+=$larger_mutations && slots=26

bounds_of() { awk -v name="$1" '$1 == name { for (i = 2; i <= NF; i++) printf "-D%s ", $i }' <<<"$configurations$larger"; }

# search NAME LEVEL BOUNDS...: builds and runs the verifier; its output is in $dir/NAME/out
search() {
    local name=$1 level=$2
    shift 2
    mkdir -p "$dir/$name" && cd "$dir/$name" && cp "$here"/*.pml . || exit 2
    # HC4: a state is kept as a hash of 64 bits, or the larger configurations would not fit.
    spin -a "$@" protocol.pml >spin.out 2>&1 &&
        gcc "$level" -w -DSAFETY -DNOREDUCE -DHC4 -DNOFAIR -DNOCLAIM -DMEMLIM=3000 -o pan pan.c ||
        { cat spin.out; echo "model/run.sh: $name does not build"; exit 2; }
    { TIMEFORMAT=%U; time ./pan -m100000 -w$slots >out 2>&1; } 2>cpu
}

report() { # NAME: one row, from the verifier's output
    awk -v name="$1" -v s="$(tail -1 "$dir/$1/cpu")" '
        /states, stored/ { states = $1 }
        /transitions \(/ { transitions = $1 }
        /depth reached/ { sub(",", "", $6); depth = $6 }
        /total actual memory/ { mib = $1 }
        END { printf "%-16s %10d states %11d transitions %4d deep %7.1f s of CPU %6.0f MiB\n", name, states, transitions, depth, s, mib }
    ' "$dir/$1/out"
}

complain() {
    echo "FAILED: $1"
    failed=1
}

while read -r name bounds; do
    [ -z "$name" ] || { [ -n "$only" ] && [ "$only" != "$name" ]; } && continue
    search "$name" -O2 $(bounds_of "$name")
    report "$name"
    grep -q 'errors: 0' "$dir/$name/out" || complain "$name: $(grep -m1 '^pan:1:' "$dir/$name/out")"
    grep -qE 'reached -DMEMLIM|max search depth too small|Search not completed' "$dir/$name/out" &&
        complain "$name: not searched to the end"
    grep -A1000 '^unreached' "$dir/$name/out" | grep 'pml:' | grep -v -- '"-end-"' &&
        complain "$name: never reached, see above"
done <<<"$configurations"

while read -r name by; do
    [ -z "$name" ] || { [ -n "$only" ] && [ "$only" != "$name" ]; } && continue
    search "$name" -O1 "-D$name" $(bounds_of "$by")
    if grep -q '^pan:1: assertion violated' "$dir/$name/out"; then
        printf '%-26s found by %-14s after %s steps\n' "$name" "$by" \
            "$(grep -m1 '^pan:1:' "$dir/$name/out" | sed 's/.*at depth \([0-9]*\).*/\1/')"
    else
        complain "mutation $name is not found by $by"
    fi
done <<<"$mutations"
exit $failed
