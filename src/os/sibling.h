/* Processes of this very program that another one of it has started: found by a pid file, known by
 * their executable, and the end of what they logged. Thread: any. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* The process @pid runs the program that this process runs. */
bool sibling_is(pid_t pid);
/* The process that DIR/NAME names; 0 when there is no such file, or none such process: a pid file
 * may be stale and its number used again, so only this program counts. */
pid_t sibling_pid(const char *dir, const char *name);
/* The last 2,000 bytes of DIR/NAME on standard error, under a heading; nothing when there are none.
 */
void sibling_print_log(const char *dir, const char *name);
