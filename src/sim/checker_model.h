/* The model of jobs at work in a world: it follows what is committed, and whatever anybody was told
 * about jobs must agree with it at that index. Also the histories of the clients, which the judge
 * of linear.h gets at the end. See checker_model.c. Thread: one. */
#pragma once

#include "sim/history.h"
#include "sim/job_model.h"
#include "sim/sim_internal.h"

#define CHECKER_WATCHERS 2

/* A client that watches jobs: it reads rarely, and from another node when its own is gone. */
struct checker_watcher {
    uint64_t cursor;
    unsigned node;
    bool begun;
};

/* What a client was told before the model had come that far. */
struct checker_answer {
    uint64_t index;
    enum checker_answer_kind { ANSWER_RESULT, ANSWER_JOB } kind;
    unsigned node;
    int code;     /* ANSWER_RESULT: of the only item */
    uint64_t seq; /* of the result, or of the job that was read */
    bool there;   /* ANSWER_JOB */
    int state;
    uint32_t attempt;
    uint64_t token;
    bool cancel;
};

struct checker_model {
    struct world *world;
    struct job_model *jobs;
    bool lost;             /* an entry nobody has shown, or schedules that lost their way */
    struct u64map entries; /* index and term -> struct bytes: not applied yet */
    struct checker_answer *answers; /* owned: to come */
    size_t answers_count, answers_cap;
    struct arena arena;
    struct rng rng; /* of its own, so that looking changes nothing */
    struct checker_watcher watchers[CHECKER_WATCHERS];
    uint64_t compared_at[SIM_SLOTS_MAX]; /* applied index of the last full comparison */
    bool recording;                      /* of what clients do */
    struct history history;
    int64_t ticks; /* of the history: every call and answer has its own */
};

struct checker_model *checker_model_new(struct world *w);
struct checker_model *checker_model_free(struct checker_model *c);

/* An entry as some node has it in its log. */
void checker_model_entry(struct world *w, const struct raft_entry *e);
/* More is committed than was. */
void checker_model_committed(struct world *w);
/* The schedules have come to @index; what they did there. */
void checker_model_step(struct world *w, uint64_t index, const struct jm_hint *hints, size_t count);
/* Node @n has told @events as all that happened after index @after up to @upto. */
void checker_model_told(struct world *w, const struct sim_node *n, uint64_t after, uint64_t upto,
                        const struct replica_event *events, size_t count);
/* Node @n has applied more: what can be compared at once, and now and then all there is. */
void checker_model_node(struct world *w, struct sim_node *n);
/* All of it. */
void checker_model_final(struct world *w, struct sim_node *n);
/* Nothing that was said may still wait for its entry; the histories are judged. */
void checker_model_end(struct world *w);

/* What clients and workers were told. */
void checker_model_answered(struct world *w, const struct replica_proposed *res);
void checker_model_read(struct world *w, struct sim_node *n, uint64_t seq);
void checker_model_started(struct world *w, const struct sim_worker *wk, uint64_t seq,
                           uint32_t attempt, uint64_t token);
void checker_model_reported(struct world *w, const struct sim_worker *wk, uint64_t seq,
                            uint64_t token, int outcome, bool stale);

/* ---- histories (checker_history.c) -------------------- */

/* A call begins: its place in the history plus 1, or 0 when none is kept. The caller fills in the
 * question. */
size_t checker_history_call(struct world *w, unsigned client, enum history_kind kind);
/* Borrowed until the next call begins; NULL for 0. */
struct history_op *checker_history_op(struct world *w, size_t at);
/* "j12" */
const char *checker_history_name(struct world *w, char kind, uint64_t number);
/* It was answered, at this index (0: not said). */
struct history_op *checker_history_ok(struct world *w, size_t at, uint64_t index);
void checker_history_failed(struct world *w, size_t at);
/* What a read has shown. */
void checker_history_job(struct world *w, size_t at, uint64_t index,
                         const Chronos__Internal__V1__JobRecord *rec);
/* A command about a schedule, which is consumed only afterwards. */
size_t checker_history_schedule(struct world *w, unsigned client, const struct bytes *command);
void checker_history_scheduled(struct world *w, size_t at, const struct replica_proposed *res);
/* What a read of a schedule has shown; version 0: it is not there. */
void checker_history_shown(struct world *w, size_t at, uint64_t index, uint64_t version);
void checker_history_judge(struct world *w);

/* ---- watchers (checker_watch.c) -------------------- */

void checker_watch(struct world *w, struct sim_node *n);
