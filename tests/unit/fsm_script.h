/* Entries that meet every command of the state machine, and most of what each may answer. Tests
 * only. */
#pragma once

#include "schedule_fixture.h"

#define FSM_SCRIPT_LIVES 8
/* With these it remembers fewer keys than the script has. */
#define FSM_SCRIPT_OPTIONS                                                                         \
    { .idempotency_max = FSM_SCRIPT_LIVES / 2, .feature_level_max = 2 }

struct fsm_script {
    struct bytes *commands[200]; /* owned */
    bool is_config[200];
    size_t count;
};

void fsm_script_make(struct fsm_script *s); /* @s zeroed */
void fsm_script_done(struct fsm_script *s);
/* Entry @i, which must be the next: index @i + 1. What fsm_apply returned. */
int fsm_script_apply(struct fsm *f, const struct fsm_script *s, size_t i, struct errtext *e);
