/* What needs the files of a node or a backup, shared by its commands. Thread: the caller's. */
#pragma once

#include "cli/args.h"

struct backup_reader;

extern const struct arg_command cmd_backup;
extern const struct arg_command cmd_restore;
extern const struct arg_command cmd_recover;
extern const struct arg_command cmd_inspect;

/* Read a whole backup into @r, which is zero and is to be ended in any case. 0, or the exit code
 * after printing why. */
int cmd_backup_check(const char *what, const char *path, struct backup_reader *r) _must_check_;
