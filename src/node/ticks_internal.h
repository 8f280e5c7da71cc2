/* The part of a replica that has schedules fire, for the files of node/ only. */
#pragma once

#include "base/histogram.h"
#include "fsm/fsm.h"
#include "sched/ticker.h"

struct replica;

#define TICKS_PLANS_MAX 4 /* in flight */

struct ticks {
    struct zones *zones;
    struct ticker *ticker;
    struct arena arena; /* of one definition, or of one plan */
    size_t plans_in_flight;
    size_t alarms_in_flight;
    struct mono zones_at; /* when the zones' files are looked at again */
    /* Both clocks as they were read together last. */
    bool clock_read;
    struct mono mono;
    struct wall wall;
    char clock_alarm[96]; /* it was set; "" = not lately */
    struct mono clock_alarm_till;
    struct histogram *lateness; /* TICKER_CAUSES of them, in ms; of what this node decided */
};

int ticks_init(struct replica *r) _must_check_;
void ticks_free(struct replica *r);
/* All schedules from the state, anew. 0; kv errors, ERR_CORRUPT, -ENOMEM. */
int ticks_load(struct replica *r) _must_check_;
/* A command was applied that changed schedules. */
void ticks_applied(struct replica *r, const struct fsm_output *out);
/* Leadership was won or lost. */
void ticks_reset(struct replica *r);
void ticks_turn(struct replica *r);
struct mono ticks_deadline(const struct replica *r);
