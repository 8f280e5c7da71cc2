#!/usr/bin/env bash
# A guided tour: a local cluster, a few real commands through different nodes, then it stays up.
# ONCE=1 ends it after the tour. tools/tour.sh PATH-TO-chronos
set -euo pipefail
chronos=$(realpath "${1:?the chronos binary}")
once=${ONCE:-}
base=${BASE_PORT:-7400}
work=$(mktemp -d)
dev=

finish() {
    local code=$?
    trap - EXIT INT TERM
    if [[ -n $dev ]] && kill -0 "$dev" 2>/dev/null; then
        kill -TERM "$dev"
        wait "$dev" || true
    fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 0' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 && -z ${NO_COLOR:-} ]] || say() { printf '\n%s\n' "$*"; }
show() { # print the command as one would type it, then run it
    local line= word
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:,=@+-]+$ ]] && line+=" $word" || line+=" '${word//\'/\'\\\'\'}'"
    done
    printf '$ chronos%s\n' "$line"
    "$chronos" "$@"
}

say "Starting a cluster of three nodes"
mkfifo "$work/ready"
"$chronos" dev -o json --base-port "$base" >"$work/ready" &
dev=$!
: >"$work/nodes"
while IFS= read -r line; do
    case $line in
    *'"ready"'*) touch "$work/up" && break ;;
    *) printf '%s\n' "$line" >>"$work/nodes" ;;
    esac
done <"$work/ready"
[[ -e $work/up ]] || { echo "the cluster did not start" >&2; exit 1; }
node() { echo "127.0.0.1:$((base + 10 * $1))"; }
all="$(node 0),$(node 1),$(node 2)"
cat "$work/nodes"

say "A command through node 1; wait for its end"
show job submit --wait -a "$(node 0)" --name greeting -- echo "hello from a replicated log"

say "A shell line through node 2; follow its output"
show job submit --follow -a "$(node 1)" --name counting \
    --shell 'for i in 1 2 3; do echo "step $i in $(basename "$PWD")"; sleep 0.2; done'

say "A command that fails through node 3: the exit code tells"
show job submit --wait -a "$(node 2)" --name failing -- sh -c 'echo "no luck" >&2; exit 3' ||
    echo "(exit code $?)"

say "Twenty at once, through any node"
for i in $(seq 1 20); do
    "$chronos" job submit -a "$(node $((i % 3)))" --name "batch-$i" -- sh -c "echo $((i * i))" \
        >>"$work/ids" || exit 1
done
last=$(tail -n 1 "$work/ids")
deadline=$((SECONDS + 30))
while "$chronos" job list -a "$all" -s pending -s running -n 1 -o json | grep -q '"state"'; do
    [[ $SECONDS -lt $deadline ]] || { echo "jobs did not end in time" >&2; exit 1; }
    sleep 0.1
done
show job logs -a "$all" "$last"

say "A schedule: every second, and what became of each tick"
show schedule create tick -a "$(node 0)" --cron '@every 1s' -- \
    sh -c 'echo "tick of $CHRONOS_SCHEDULED_AT"'
deadline=$((SECONDS + 30))
until [[ $("$chronos" schedule history tick -a "$all" -o json | grep -c '"fired": *true') -ge 3 ]]; do
    [[ $SECONDS -lt $deadline ]] || { echo "the schedule did not fire in time" >&2; exit 1; }
    sleep 0.1
done
show schedule pause tick -a "$(node 1)"
show schedule history tick -a "$(node 2)"
show why tick -a "$(node 1)"

say "What became of them, asked at node 2"
show job list -a "$(node 1)" --limit 12

say "The cluster, asked at node 3"
show cluster status -a "$(node 2)"

if [[ -n $once ]]; then
    say "The tour is over."
    exit 0
fi
[[ $base -eq 7400 ]] && prefix= || prefix="export CHRONOS_ADDRESS=$all
  "
cat <<TEXT

The cluster stays up. In another terminal:

  ${prefix}build/release/chronos job submit --follow --shell 'date; sleep 2; date'
  build/release/chronos job watch
  build/release/chronos job list --state failed
  build/release/chronos schedule create hello --cron '*/1 * * * *' -- echo hello
  build/release/chronos cluster log
  build/release/chronos job --help

Kill a server process (server_pid above) with kill -9: what was acknowledged stays.
Ctrl-C here stops everything.
TEXT
cat "$work/ready" >/dev/null &
wait "$dev"
