/* The real clocks. Thread: any. */
#pragma once

#include "base/env.h"

/* mono: CLOCK_MONOTONIC; wall: CLOCK_REALTIME in UTC milliseconds. Needs no release. */
struct env_clock clock_env(void);

struct mono clock_mono(void);
struct wall clock_wall(void);
