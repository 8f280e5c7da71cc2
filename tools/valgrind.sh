#!/usr/bin/env bash
# The unit tests of the pure folders under valgrind's memcheck. Those with threads, real disks or many
# seeds are for the sanitizers; here one run costs some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=(job_id job_state command sched idem fsm meta kv_mem sim_disk wal raft args config units
    api_validate api_message_check api_pages api_submit api_convert peer_frame raft_oom
    raft_parts_oom storage_oom fsm_reads_oom sched_oom api_oom)
cmake --preset debug >/dev/null
cmake --build --preset debug --target "${tests[@]/#/test_}" >/dev/null
failed=0
for t in "${tests[@]}"; do
    if valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
        build/debug/tests/"test_$t" >build/debug/valgrind_"$t".log 2>&1; then
        echo "ok      valgrind.$t"
    else
        failed=$((failed + 1))
        echo "FAILED  valgrind.$t (log: build/debug/valgrind_$t.log)"
        tail -n 20 build/debug/valgrind_"$t".log
    fi
done
echo "$((${#tests[@]} - failed)) passed, $failed failed"
[[ $failed -eq 0 ]]
