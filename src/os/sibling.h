/* Processes of this very program that another one of it has started: found by a pid file, known by
 * their executable, and the end of what they logged. What stands in the place of a pid file and is
 * none, such as a pipe, is not waited for. Thread: any. */
#pragma once

#include "base/defs.h"

#include <stdbool.h>
#include <sys/types.h>

/* The process @pid runs the program that this process runs. */
bool sibling_is(pid_t pid);
/* The number in the pid file @path; 0 when there is none. It may be stale. */
pid_t sibling_read_pid(const char *path);
/* Write @pid there, in a new file: what stands there goes. 0, -errno. */
int sibling_write_pid(const char *path, pid_t pid) _must_check_;
/* The process that DIR/NAME names; 0 when there is no such file, or none such process: a pid file
 * may be stale and its number used again, so only this program counts. */
pid_t sibling_pid(const char *dir, const char *name);
/* The last 2,000 bytes of DIR/NAME on standard error, under a heading; nothing when there are none.
 */
void sibling_print_log(const char *dir, const char *name);
