#!/usr/bin/env bash
# The fuzz targets of tests/fuzz:
#
#   tools/fuzz.sh SECONDS [TARGET...]   each for so long, JOBS at once (one a processor)
#   tools/fuzz.sh --ci [SECONDS]        all of them, 60 s each, two at once: a bounded time. From the
#                                       same seed each time ($FUZZ_SEED, 1): two runs of one commit
#                                       agree, but for how far they come. The rest draw their own
#   tools/fuzz.sh --keep TARGET...      add to tests/fuzz/seeds what the grown corpus reaches beyond
#
# A TARGET is a name such as wal. Seeds and dictionaries lie in tests/fuzz; the corpus grows in
# $FUZZ_BUILD/corpus (build/fuzz), and what is found lies in $FUZZ_BUILD/findings. Copy it to
# tests/fuzz/seeds/TARGET/regress-WHAT when it is mended: make test replays every seed.
set -euo pipefail
cd "$(dirname "$0")/.."

build=${FUZZ_BUILD:-build/fuzz}
jobs=${JOBS:-$(nproc)}
mode=run
seconds=60
seed=${FUZZ_SEED:-}
case ${1:-} in
--ci)
    jobs=2
    seed=${FUZZ_SEED:-1}
    seconds=${2:-60}
    set -- ;;
--keep)
    mode=keep
    shift ;;
*)
    seconds=${1:-60}
    shift || true ;;
esac

[[ -f $build/build.ninja ]] || cmake --preset fuzz -B "$build" >/dev/null
began=$SECONDS
cmake --build "$build" --target fuzz_targets >"$build/build.log" 2>&1 || {
    grep -E 'error|FAILED' "$build/build.log" | head -n 20
    exit 1
}
echo "built in $((SECONDS - began)) s"

shopt -s nullglob
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=("$build"/tests/fuzz_*)
names=()
for target in "${targets[@]}"; do
    name=$(basename "$target")
    name=${name#fuzz_}
    [[ -x $build/tests/fuzz_$name && -f $build/tests/fuzz_$name ]] || continue
    names+=("$name")
done
[[ ${#names[@]} -gt 0 ]] || { echo "no such fuzz target" >&2; exit 1; }
mkdir -p "$build/findings" "$build/logs"

# Edges alone decide, and short inputs: what is kept is read by people and replayed by every test.
keep() { # name
    local seeds=tests/fuzz/seeds/$1 made=$build/kept/$1 file
    rm -rf "$made"
    mkdir -p "$seeds" "$made" "$build/corpus/$1"
    cp "$seeds"/* "$made" 2>/dev/null || true
    "$build/tests/fuzz_$1" -merge=1 -use_counters=0 -use_value_profile=0 -max_len=4096 \
        "$made" "$build/corpus/$1" >"$build/logs/$1.keep.log" 2>&1
    for file in "$made"/*; do
        [[ -f $seeds/$(basename "$file") ]] && continue
        cp "$file" "$seeds/cov-$(basename "$file" | cut -c1-8)"
    done
    echo "$1: $(find "$seeds" -type f | wc -l) seeds, $(du -sb "$seeds" | cut -f1) bytes"
}
if [[ $mode == keep ]]; then
    for name in "${names[@]}"; do keep "$name"; done
    exit 0
fi

run() { # name
    local name=$1 code=0 seeds=tests/fuzz/seeds/$1 dict=tests/fuzz/dict/$1.dict
    local options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048
        -use_value_profile=1 -print_final_stats=1
        -artifact_prefix="$build/findings/$name-")
    [[ -n $seed ]] && options+=(-seed="$seed")
    [[ -f $dict ]] && options+=(-dict="$dict")
    mkdir -p "$build/corpus/$name"
    local folders=("$build/corpus/$name")
    [[ -d $seeds ]] && folders+=("$seeds")
    "$build/tests/fuzz_$name" "${options[@]}" "${folders[@]}" >"$build/logs/$name.log" 2>&1 ||
        code=$?
    echo "$code" >"$build/logs/$name.code"
}

began=$SECONDS
for name in "${names[@]}"; do
    while [[ $(jobs -rp | wc -l) -ge $jobs ]]; do wait -n || true; done
    run "$name" &
done
wait

# The edges with which it began (the seeds') and ended: a target whose edges never grow is looked at.
failed=0
printf '%-16s %12s %9s %7s %7s %8s  %s\n' target executions per_second edges begun inputs result
for name in "${names[@]}"; do
    log=$build/logs/$name.log
    result=ok
    if [[ $(cat "$build/logs/$name.code") != 0 ]]; then
        failed=$((failed + 1))
        result=FINDING
    fi
    line=$(grep -E ' cov: ' "$log" | tail -n 1 || true)
    units=$(sed -n 's/^#\([0-9][0-9]*\).*/\1/p' "$log" | tail -n 1)
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' <<<"$line")
    begun=$(grep -E 'INITED cov: ' "$log" | sed -n 's/.* cov: \([0-9]*\) .*/\1/p')
    inputs=$(sed -n 's/.* corp: \([0-9]*\)\/.*/\1/p' <<<"$line")
    printf '%-16s %12s %9s %7s %7s %8s  %s\n' "$name" "${units:-0}" \
        "$((${units:-0} / (seconds > 0 ? seconds : 1)))" "${edges:-0}" "${begun:-0}" \
        "${inputs:-0}" "$result"
done
for name in "${names[@]}"; do
    [[ $(cat "$build/logs/$name.code") == 0 ]] && continue
    printf '\n%s:\n' "$name"
    grep -E 'assertion failed|ERROR:|runtime error|SUMMARY|Test unit written' "$build/logs/$name.log" |
        head -n 8
done
echo "${#names[@]} targets, $failed with findings, $((SECONDS - began)) s"
[[ $failed -eq 0 ]]
