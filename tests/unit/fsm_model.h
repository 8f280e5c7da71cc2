/* A naive second implementation of the state machine's rules: plain arrays, walked each time. What
 * it says must come true is compared with the real one in test_fsm_model.c. Tests only. */
#pragma once

#include "fsm/fsm.h"

#define S(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x
#define O(x) CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_##x
#define R(x) CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_##x

#define JOBS_MAX 8000
#define WORKERS 4
#define NODES 5  /* ids 1 to NODES */
#define LEVELS 3 /* feature levels that the program under test is told to know */
#define KEYS 12
#define SCHEDULES 3
#define MODEL_WAITS_MAX 1000
#define MODEL_TICKS_MAX 2000
#define KEYS_REMEMBERED_MAX 6

struct model_job {
    unsigned state, attempt, lost, released, max_attempts;
    uint64_t token;
    int worker;
    bool cancel, kill;
    int reason;        /* FAILED only */
    uint64_t schedule; /* whose run it is; 0 = none */
};

struct model_wait {
    int64_t tick_s;
    int cause;
};

struct model_schedule {
    uint64_t seq; /* 0 = there is none of the name */
    uint64_t generation, version;
    int64_t watermark_s;
    int policy;
    bool pause_on_failure, paused;
    int64_t until_ms, resumed_ms;
    unsigned max_runs, counted, max_attempts;
    uint64_t fired, skipped;
    struct model_wait waits[MODEL_WAITS_MAX];
    size_t waits_count;
};

/* An outcome that the command tells of. */
struct model_tick {
    uint64_t schedule, generation;
    int64_t tick_s;
    int reason;
    bool waiting;
    uint64_t job;
};

struct model_worker {
    bool known, lost;
    uint64_t incarnation;
    unsigned slots;
    uint64_t node;
    bool draining; /* itself */
    int64_t until_ms;
};

struct model_node {
    bool known, member, bound, draining;
    uint8_t disk;
    unsigned feature_max;
    int64_t until_ms;
};

struct model_key {
    bool used;
    char hash;
    uint64_t seq;
    int64_t created_ms;
    uint64_t schedule; /* of a run by hand; 0 = of a job */
};

struct model {
    struct model_job jobs[JOBS_MAX];
    uint64_t next;
    struct model_worker workers[WORKERS];
    struct model_key keys[KEYS];
    struct model_node nodes[NODES + 1];
    unsigned level;
    int64_t now_ms;
    uint64_t index;
    unsigned events; /* of the last command */
    struct model_schedule schedules[SCHEDULES];
    uint64_t last_schedule;
    bool all_paused;
    int64_t all_until_ms, all_resumed_ms;
    uint64_t busy;                            /* the schedule that stops its own runs */
    struct model_tick ticks[MODEL_TICKS_MAX]; /* of the last command */
    size_t ticks_count;
};

const char *worker_name(int w);
/* What each command answers, and what it does to @m. m->index is the entry's. */
enum fsm_code model_submit(struct model *m, int key, char hash, unsigned max_attempts);
enum fsm_code model_assign(struct model *m, uint64_t seq, int w, uint64_t incarnation);
enum fsm_code model_update(struct model *m, uint64_t seq, uint64_t token, int outcome,
                           bool started);
enum fsm_code model_cancel(struct model *m, uint64_t seq);
enum fsm_code model_lose(struct model *m, int w, uint64_t incarnation);
enum fsm_code model_set_node(struct model *m, uint64_t node, uint8_t disk, unsigned feature_max);
enum fsm_code model_drain_node(struct model *m, uint64_t node, bool on, int64_t timeout_ms);
enum fsm_code model_drain_worker(struct model *m, int w, bool on, int64_t timeout_ms);
enum fsm_code model_set_level(struct model *m, unsigned level);
void model_config(struct model *m, const uint64_t *ids, size_t count);
/* One job's state; tells its schedule when it has ended (schedule_model.c). */
void model_move(struct model *m, struct model_job *j, unsigned state);
void model_run_ended(struct model *m, const struct model_job *j);
/* Cancel, at once with @kill. */
void model_stop(struct model *m, uint64_t seq, bool kill);
/* All attempts of @w that are not in @held are lost: job, token. */
void model_lose_all(struct model *m, int w, const uint64_t (*held)[2], size_t held_count);
/* Forget expired keys, and the oldest while there are more than @most. */
void model_purge(struct model *m, unsigned most);
bool model_known(const struct model *m, uint64_t seq);
/* Whether @w gets no work, and until when (0 when it does). */
bool model_draining(const struct model *m, int w, int64_t *ret_until_ms);
