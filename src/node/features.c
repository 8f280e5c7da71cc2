/* Feature levels: what may be proposed, because every member knows it.
 *
 * A command that one member does not know would stop that member. So each node tells the newest
 * level of its program, the leader raises the cluster's level once all have it, and no command of a
 * higher level is proposed before that entry is applied. Levels never go down. Thread: the loop. */
#include "node/replica_internal.h"

#include "fsm/command.h"

#include <errno.h>
#include <stdlib.h>

#define BODY(name) CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_##name

/* The table: what came with which level. */
uint32_t features_level_of(Chronos__Internal__V1__LogCommand__BodyCase kind) {
    switch (kind) {
    case BODY(SUBMIT_JOB):
    case BODY(ASSIGN_JOB):
    case BODY(REGISTER_WORKER):
    case BODY(UPDATE_JOB_STATUS):
    case BODY(BATCH_UPDATE_JOB_STATUS):
    case BODY(CANCEL_JOB):
    case BODY(LOSE_WORKER):
    case BODY(SET_NODE):
    case BODY(DRAIN):
    case BODY(SET_FEATURE_LEVEL):
    case BODY(PUT_SCHEDULE):
    case BODY(DELETE_SCHEDULE):
    case BODY(PAUSE_SCHEDULE):
    case BODY(PROCESS_TICKS):
    case BODY(RUN_SCHEDULE):
    case BODY(SET_SCHEDULE_ALARM):
        return 1;
    case BODY(_NOT_SET):
    case _CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY__CASE_IS_INT_SIZE:
        break;
    }
    return UINT32_MAX; /* nobody knows it */
}

uint32_t features_max(const struct replica *r) {
    return r->o.fsm.feature_level_max ? r->o.fsm.feature_level_max : FSM_FEATURE_LEVEL_MAX;
}

int features_check(struct replica *r, struct slice command) {
    struct command_view view;
    uint32_t level = fsm_feature_level(r->fsm);

    if (level >= features_max(r))
        return 0; /* all that this program can make */
    if (command_parse(command, &view, NULL) < 0)
        return ERR_PROTO;
    return features_level_of(view.kind) > level ? ERR_VERSION : 0;
}

static void level_done(void *arg, const struct replica_proposed *res) {
    struct replica *r = arg;

    r->membership.feature_in_flight = false;
    if (res->status == REPLICA_OK)
        log_info(r->env.log, "feature level", "level=%u", fsm_feature_level(r->fsm));
}

static void level_propose(struct replica *r, uint32_t level) {
    Chronos__Internal__V1__LogCommand cmd = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SetFeatureLevel body = CHRONOS__INTERNAL__V1__SET_FEATURE_LEVEL__INIT;
    struct bytes *command = NULL;
    int rc;

    body.level = level;
    cmd.body_case = BODY(SET_FEATURE_LEVEL);
    cmd.set_feature_level = &body;
    rc = command_encode(&cmd, &command);
    if (rc == 0)
        rc = replica_propose(r, command, REPLICA_INTERNAL | REPLICA_OWN_TERM, MONO_NEVER,
                             level_done, r);
    r->membership.feature_in_flight = rc == 0;
}

void features_run(struct replica *r) {
    const struct raft_config *c = raft_config_latest(r->raft);
    uint32_t level = features_max(r);

    /* At the newest level there is nothing to look for. */
    if (r->membership.feature_in_flight || fsm_feature_level(r->fsm) >= level ||
        !replica_leads(r) || !c)
        return;
    for (size_t i = 0; i < c->count; i++) {
        const struct fsm_node *n = fsm_node_find(r->fsm, c->members[i].id);

        level = MIN(level, n ? n->feature_max : 0); /* 0: not known yet */
    }
    if (level > fsm_feature_level(r->fsm))
        level_propose(r, level);
}
