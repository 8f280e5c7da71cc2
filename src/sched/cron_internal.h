/* Shared by the cron_*.c files only; the contract is cron.h. */
#pragma once

#include "sched/cron.h"

struct cron_field_info {
    const char *name;
    uint16_t min, max;
    uint16_t hash_max; /* H picks from min to here */
};

extern const struct cron_field_info cron_field_info[CRON_FIELDS];
