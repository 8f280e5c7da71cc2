#!/usr/bin/env bash
# Goal: help, errors and exit codes of the command line without any cluster. Method: run the binary
# with right and wrong words and compare exit code, stream and text.
set -euo pipefail
cd "$(dirname "$0")/../.."
chronos=${1:-build/release}/chronos
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
count=0

expect() { # exit-code, stream, text, words...
    local code=$1 stream=$2 text=$3 got=0
    shift 3
    "$chronos" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    [[ $got -eq $code ]] || { echo "chronos $*: exit code $got, not $code" >&2; cat "$tmp/err" >&2; exit 1; }
    grep -qF -- "$text" "$tmp/$stream" || {
        echo "chronos $*: \"$text\" is not in std$stream:" >&2
        cat "$tmp/$stream" >&2
        exit 1
    }
    count=$((count + 1))
}

expect 0 out 'Commands:' --help
expect 0 out 'Examples:' job --help
expect 0 out 'Examples:' job submit --help
expect 0 out '--cluster.raft.election_timeout' server --help
expect 0 out 'chronos ' version
expect 0 out '"version"' version -o json
expect 2 err 'did you mean "chronos job"' jbo
expect 2 err 'did you mean "chronos job submit"' job sumbit
expect 2 err 'did you mean --wait' job submit --wiat -- true
expect 2 err 'Commands:' job
expect 2 err 'missing argument: ID' job get
expect 2 err 'what should run?' job submit
expect 2 err 'not both' job submit --shell ls -- ls
expect 2 err 'write NAME=VALUE' job submit -e novalue -- ls
expect 2 err 'is not HOST:PORT' job list -a nowhere
expect 2 err 'must be pending' job list -s bogus
expect 2 err 'is not a time' job list --since never
expect 2 err '1 to 7 is allowed' dev --nodes 9
expect 2 err 'unexpected argument' version now
expect 4 err 'UNAVAILABLE' job list -a 127.0.0.1:1 --timeout 300ms
expect 4 err 'UNAVAILABLE' job submit -a 127.0.0.1:1,127.0.0.1:2 --call-timeout 300ms -- true
expect 0 out 'Examples:' schedule --help
expect 0 out '--dst once|literal|skip_repeat' schedule create --help
expect 0 out 'every 15 minutes' schedule describe '*/15 9-17 * * mon-fri'
expect 0 out '"utc": "2026-03-08T07:00:00Z"' schedule preview --cron '30 2 * * *' --tz America/New_York \
    --from 2026-03-08T05:00:00Z -n 1 -o json
expect 2 err 'column 1' schedule preview --cron '61 * * * *'
expect 2 err 'time zone Mars/Base' schedule preview --cron '@daily' --tz Mars/Base
expect 2 err 'did you mean "chronos schedule preview"' schedule previw
expect 4 err 'UNAVAILABLE' why x -a 127.0.0.1:1 --timeout 300ms

printf 'node:\n  idd: 3\n' >"$tmp/bad.yaml"
expect 2 err "$tmp/bad.yaml:2: node.idd: unknown key; did you mean node.id?" server --config "$tmp/bad.yaml"
expect 2 err 'not a loopback address' server --node.listen 0.0.0.0:7400 --print-config
expect 2 err 'node.id: 65536 is out of range; 1 to 65535' server --node.id 65536 --print-config
expect 2 err 'from 1 to 65535' server --member 65536=127.0.0.1:1 --print-config
expect 2 err 'No such file' server --config "$tmp/none.yaml"
"$chronos" server --node.id 2 --member 1=127.0.0.1:1,127.0.0.1:2 --member 2=127.0.0.1:3 \
    --worker.labels zone=a --cluster.raft.profile wan --print-config >"$tmp/first.yaml"
"$chronos" server --config "$tmp/first.yaml" --print-config >"$tmp/second.yaml"
diff -u "$tmp/first.yaml" "$tmp/second.yaml"
"$chronos" server --config examples/chronos.yaml --print-config >/dev/null
echo "$count command lines behave"
