#!/usr/bin/env bash
# Installs the packages of packages.txt that are missing. Does nothing when all are there.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t wanted < <(sed -e 's/#.*//' -e 's/[[:space:]]//g' packages.txt | grep -v '^$')
missing=()
for name in "${wanted[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || true)
    [[ $status == installed ]] || missing+=("$name")
done
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
