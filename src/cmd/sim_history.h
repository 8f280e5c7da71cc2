/* `chronos-sim --check-history FILE`: is what clients of a real cluster wrote down linearizable? */
#pragma once

/* The form of @path is src/sim/history.h's; "-" is the standard input. Says what was found. Returns
 * the exit code: 0 it holds, 1 it does not, 2 it cannot be read or judged within the bounds. */
int sim_history_check(const char *path);
