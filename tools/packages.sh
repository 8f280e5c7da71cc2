#!/usr/bin/env bash
# Installs the packages of packages.txt that are missing. Does nothing when all are there. A line
# "NAME  # command:CMD" is satisfied by a CMD from anywhere: Debian's package might conflict with it.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
while IFS= read -r line; do
    name=${line%%#*}
    name=${name//[[:space:]]/}
    [[ -n $name ]] || continue
    if [[ $line =~ \#[[:space:]]*command:([A-Za-z0-9._-]+) ]] &&
        command -v "${BASH_REMATCH[1]}" >/dev/null; then
        continue
    fi
    status=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || true)
    [[ $status == installed ]] || missing+=("$name")
done <"${CHRONOS_PACKAGES:-packages.txt}"
[[ ${#missing[@]} -gt 0 ]] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "This is not a Debian system. Install what corresponds to: ${missing[*]}" >&2
    exit 1
fi
if [[ $(id -u) -eq 0 ]]; then
    run=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    run=(sudo)
elif command -v sudo >/dev/null && [[ -t 0 ]]; then
    run=(sudo)
else
    echo "Missing packages, and neither root nor sudo to install them. As root:" >&2
    echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
echo "Installing: ${missing[*]}"
# A fresh machine has no package lists; a used one has stale ones only sometimes: try first.
install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
"${run[@]}" "${install[@]}" "${missing[@]}" || {
    "${run[@]}" apt-get update -q
    "${run[@]}" "${install[@]}" "${missing[@]}"
}
