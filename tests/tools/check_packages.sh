#!/usr/bin/env bash
# What tools/packages.sh installs. Goal: a missing package is, one whose command exists is not,
# comments are nothing. Method: a list of our own, and an apt-get that only says what it was asked.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

printf '#!/bin/sh\necho "$@"\n' >"$dir/apt-get"
cp "$dir/apt-get" "$dir/present-command"
printf '#!/bin/sh\nexit 1\n' >"$dir/dpkg-query"
printf '#!/bin/sh\n[ "$1" != -n ] || shift\nexec "$@"\n' >"$dir/sudo"
chmod +x "$dir"/*
cat >"$dir/list" <<'LIST'
# a comment
first
second  # command:present-command
third   # command:absent-command

fourth # a remark
LIST

got=$(CHRONOS_PACKAGES="$dir/list" PATH="$dir:$PATH" tools/packages.sh | tail -n 1)
want="install -y -q --no-install-recommends first third fourth"
if [[ $got != "$want" ]]; then
    echo "FAILED: asked for: $got"
    echo "        expected:  $want"
    exit 1
fi
echo "ok: only what is missing is installed"
