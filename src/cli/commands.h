/* The commands that this folder brings; main() hangs them into its tree. */
#pragma once

#include "cli/args.h"

extern const struct arg_command cmd_job;
extern const struct arg_command cmd_schedule;
extern const struct arg_command cmd_why;
extern const struct arg_command cmd_cluster;
extern const struct arg_command cmd_version;
extern const struct arg_command cmd_dev;
