#!/usr/bin/env bash
# Goal: completions/chronos.bash is what the command tables say, and it completes. Method: generate
# it anew and compare; then complete a few words with it.
set -euo pipefail
cd "$(dirname "$0")/../.."
chronos=${1:-build/release}/chronos

"$chronos" completion bash | diff -u completions/chronos.bash - || {
    echo "stale: $chronos completion bash > completions/chronos.bash" >&2
    exit 1
}
source completions/chronos.bash
complete_line() { # word... ; the last is being typed
    COMP_WORDS=(chronos "$@")
    COMP_CWORD=$#
    _chronos
    printf '%s ' "${COMPREPLY[@]}"
}
expect() { # wanted, words...
    local want=$1 got
    shift
    got=$(complete_line "$@")
    [[ " $got " == *" $want "* ]] || { echo "completing '$*' gives '$got', not '$want'" >&2; exit 1; }
}
expect job jo
expect submit job su
expect --follow job submit --fo
expect json job list --output js
expect --node.data_dir server --node.d
expect trigger schedule tr
expect skip_repeat schedule create --dst sk
expect wan server --cluster.raft.profile w
echo "completion is fresh and completes"
