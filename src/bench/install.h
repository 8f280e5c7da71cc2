/* A node lost for good and replaced by an empty one, which is sent the whole state, under load. */
#pragma once

#include "bench/target.h"

/* Until the new node votes and has caught up, @before_ms of load having been measured before.
 * ret[0] are the submits before, ret[1] those meanwhile; both complete on 0. BENCH_*. */
int install_run(struct target *t, uint64_t state_bytes, uint64_t before_ms,
                struct bench_result ret[2]) _must_check_;
