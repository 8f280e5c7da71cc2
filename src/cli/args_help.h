/* What is printed about the command tables: help and completion. */
#pragma once

#include "cli/args.h"

/* A bash completion script for the whole tree. */
void args_completion_bash(const struct arg_command *root, FILE *out);
