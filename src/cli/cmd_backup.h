/* What needs the files of a node or a backup, shared by its commands. Thread: the caller's. */
#pragma once

#include "cli/args.h"

extern const struct arg_command cmd_backup;
extern const struct arg_command cmd_restore;
extern const struct arg_command cmd_recover;
extern const struct arg_command cmd_inspect;
