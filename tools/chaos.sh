#!/usr/bin/env bash
# Real processes under faults of the network, of processes, clocks and disks, judged by the histories
# of their clients. One line a case; ends with "N passed, N failed". What fails stays in build/chaos.
#
#   tools/chaos.sh BINARY                 the selection, about five minutes
#   tools/chaos.sh BINARY --full          the whole menu: hours
#   tools/chaos.sh BINARY --only NAME     one case, or several with commas; --list shows them
#   --seed N      the same faults again; --seconds N: how long each case makes faults
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# -gt 0 ]] || { sed -n '2,9p' "$0"; exit 2; }
exec /usr/bin/python3 tests/chaos/chaos.py "$@"
