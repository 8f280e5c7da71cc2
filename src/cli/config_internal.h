/* Shared by the parts of the configuration: table, file reader, checks. */
#pragma once

#include "base/units.h"
#include "cli/config.h"

/* The first so many of config_options are settings that a file may hold. */
extern const size_t config_settings_count;

/* Index into config_options of the setting called @name, or config_settings_count. */
size_t config_find(const char *name);
