#!/usr/bin/env bash
# Runs a command beside a fresh local cluster: tools/with_cluster.sh PATH-TO-chronos COMMAND...
# The command finds the nodes in CHRONOS_ADDRESSES (space between) and CHRONOS_ADDRESS (comma).
# BASE_PORT and NODES choose ports and size.
set -euo pipefail
chronos=$(realpath "${1:?the chronos binary}")
shift
base=${BASE_PORT:-19600}
nodes=${NODES:-3}
work=$(mktemp -d)
dev=
finish() {
    local code=$?
    trap - EXIT INT TERM
    if [[ -n $dev ]]; then
        kill -TERM "$dev" 2>/dev/null || true
        wait "$dev" || true
    fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 1' INT TERM

"$chronos" dev -o json --nodes "$nodes" --base-port "$base" >"$work/out" 2>"$work/err" &
dev=$!
for _ in $(seq 300); do
    grep -q '"ready"' "$work/out" && break
    kill -0 "$dev" 2>/dev/null || break
    sleep 0.1
done
grep -q '"ready"' "$work/out" || { cat "$work/err" >&2; exit 1; }
addresses=()
for ((i = 0; i < nodes; i++)); do
    addresses+=("127.0.0.1:$((base + 10 * i))")
done
export CHRONOS_ADDRESSES="${addresses[*]}"
CHRONOS_ADDRESS=$(IFS=,; echo "${addresses[*]}")
export CHRONOS_ADDRESS
"$@"
