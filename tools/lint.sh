#!/usr/bin/env bash
# tools/lint.sh format   rewrite the sources by .clang-format
# tools/lint.sh check    report what would change
# tools/lint.sh all      check, then clang-tidy and cppcheck over src/
set -uo pipefail
cd "$(dirname "$0")/.."

mapfile -t files < <(git ls-files 'src/*.c' 'src/*.h' 'tests/*.c' 'tests/*.h')
bad=0
case ${1:-all} in
format)
    clang-format -i "${files[@]}"
    exit
    ;;
check | all)
    clang-format --dry-run --Werror "${files[@]}" || bad=1
    [[ ${1:-all} == check ]] && exit "$bad"
    ;;
*)
    echo "usage: tools/lint.sh format|check|all" >&2
    exit 2
    ;;
esac

test -f build/release/build.ninja || cmake --preset release >/dev/null
cmake --build --preset release --target chronos_proto >/dev/null || bad=1
mapfile -t sources < <(git ls-files 'src/*.c')
# Off: what cannot see _cleanup_ (unix.Malloc, DeadStores) or va_start, or cries at bytes, at constant
# products and at arrays of pointers.
printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p build/release \
    --warnings-as-errors='*' \
    --checks='-*,bugprone-*,clang-analyzer-*,-bugprone-easily-swappable-parameters,-bugprone-reserved-identifier,-bugprone-assignment-in-if-condition,-bugprone-narrowing-conversions,-bugprone-implicit-widening-of-multiplication-result,-bugprone-not-null-terminated-result,-clang-analyzer-valist.Uninitialized,-clang-analyzer-deadcode.DeadStores,-bugprone-sizeof-expression,-clang-analyzer-unix.Malloc,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling' \
    2>/dev/null || bad=1
# memleak and uninitvar: it sees neither _cleanup_ nor compound literals behind a macro.
cppcheck --quiet --std=c17 --enable=warning,portability,performance --inline-suppr \
    --suppress=missingIncludeSystem --suppress=memleak --suppress=legacyUninitvar --error-exitcode=1 -D_GNU_SOURCE -Isrc "${sources[@]}" || bad=1
exit "$bad"
