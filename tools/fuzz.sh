#!/usr/bin/env bash
# Runs each fuzz target for a while: tools/fuzz.sh SECONDS [TARGET...]. What it finds lies in
# build/fuzz/findings; the corpus it grows in build/fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
test -f build/fuzz/build.ninja || cmake --preset fuzz
cmake --build --preset fuzz
shopt -s nullglob
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(build/fuzz/tests/fuzz_*)
mkdir -p build/fuzz/findings
failed=0
ran=0
for target in "${targets[@]}"; do
    [[ -f $target && -x $target ]] || continue
    name=$(basename "$target")
    corpus=build/fuzz/corpus/$name
    mkdir -p "$corpus"
    seeds=()
    [[ -d tests/fuzz/seeds/${name#fuzz_} ]] && seeds=("tests/fuzz/seeds/${name#fuzz_}")
    echo "== $name, $seconds s"
    "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/findings/$name-" "$corpus" "${seeds[@]}" \
        2>"build/fuzz/$name.log" || {
        failed=$((failed + 1))
        tail -n 20 "build/fuzz/$name.log"
    }
    grep -E 'stat::number_of_executed_units|DONE' "build/fuzz/$name.log" || true
    ran=$((ran + 1))
done
[[ $ran -gt 0 ]] || { echo "no fuzz target was built" >&2; exit 1; }
echo "$ran targets, $failed with findings"
[[ $failed -eq 0 ]]
