/* Jobs as the checkers know them: a sequential model of what the log says.
 *
 * What it is: from the committed commands, in their order, the state of every job and worker, the
 * answer to every item of every command and every transition, written from semantics.md and
 * command.proto apart from fsm/. Plain lists and full copies: what it is compared with is fast, it
 * is obvious. It remembers each state a job ever had, so that an answer is judged at its own index.
 * What it is not: it decides nothing about schedules. What becomes of their ticks is predicted by
 * schedule_model.c, which hands it over as hints; nor does it know the outputs of jobs.
 * Thread: one. Pure. */
#pragma once

#include "base/bytes.h"
#include "base/map.h"
#include "fsm/fsm.h" /* numbers and codes; no code of it is called */

#include "chronos/internal/v1/command.pb-c.h"

#define JM_STATE(x) CHRONOS__V1__JOB_STATE__JOB_STATE_##x

/* A job as it was from @index on. */
struct jm_version {
    uint64_t index;
    int state;
    uint32_t attempt;
    uint64_t token;
    bool cancel;
    const struct jm_worker *worker; /* of the newest attempt; NULL: none yet */
    uint64_t incarnation;           /* of the worker then */
};

struct jm_job {
    uint64_t seq;
    int state;
    uint32_t attempt, max_attempts;
    struct jm_worker *worker; /* of the newest attempt, also after its end */
    uint64_t token;
    bool cancel, kill;
    int failure_reason;
    int32_t exit_code, term_signal;
    uint64_t lost, released;
    int64_t created_ms, started_ms, finished_ms;
    uint64_t created_index, updated_index;
    uint64_t spec_hash, queue_hash;
    uint64_t schedule_seq, generation; /* of a run */
    int64_t tick_s;
    int tick_reason;
    uint64_t last_try;           /* index of the newest assignment, refused or not */
    struct jm_job *prev, *next;  /* the waiting ones, by number */
    struct jm_version *versions; /* owned, by index */
    size_t versions_count, versions_cap;
};

struct jm_worker {
    struct jm_worker *next; /* by id */
    char id[FSM_WORKER_ID_BYTES_MAX + 1];
    uint64_t incarnation, node_id, registered_index, hello;
    uint32_t slots, running;
    bool lost, draining; /* draining: itself, not its node */
    int64_t drain_until_ms;
};

struct jm_node {
    uint64_t id;
    bool member, draining;
    int64_t drain_until_ms;
};

/* A transition that every node must tell. */
struct jm_event {
    uint64_t seq;
    int from, to;
    uint32_t attempt;
    const struct jm_worker *worker;
    uint64_t token;
    bool cancel, kill;
    int failure_reason;
    int32_t exit_code, term_signal;
    uint64_t released;
};

struct jm_result {
    int code; /* enum fsm_code */
    uint64_t seq;
};

/* What an entry came to. */
struct jm_output {
    size_t first_event, events; /* in job_model.events */
    size_t first_result, results;
    int64_t now_ms; /* logical time after it */
    int kind;       /* LogCommand body; 0 = none */
};

/* What the schedules do within an entry, in the order in which it happens. */
enum jm_hint_kind {
    JM_RUN_ENDED,     /* seq: what follows up to the next of these follows from it */
    JM_RUN_CREATED,   /* seq, schedule, generation, tick, reason */
    JM_RUN_CANCELLED, /* seq, kill */
    JM_DEFINED,       /* the command's definition is that of schedule */
    JM_KEY_TAKEN      /* a key of the command names a schedule: it uses up a job number */
};
struct jm_hint {
    enum jm_hint_kind kind;
    uint64_t seq, schedule_seq, generation;
    int64_t tick_s;
    int reason;
    bool kill;
};

struct jm_definition { /* what a schedule's runs are */
    uint64_t seq;
    uint32_t max_attempts;
    uint64_t spec_hash, queue_hash;
};

struct jm_key {
    struct jm_key *next; /* in the order of their making */
    uint64_t name_hash, request_hash;
    uint64_t seq; /* 0: a schedule's */
    int64_t created_ms;
};

struct job_model {
    uint64_t index;      /* applied so far */
    uint64_t term_began; /* index of the newest entry without a command: a leader's first */
    int64_t now_ms;
    uint64_t next_seq;
    size_t keys_max;
    uint64_t counts[JM_STATE(CANCELLED) + 1];
    struct u64map jobs;        /* struct jm_job, owned */
    struct jm_job *waiting;    /* PENDING, by number */
    struct jm_worker *workers; /* owned, by id */
    struct jm_node *nodes;     /* owned */
    size_t nodes_count, nodes_cap;
    struct jm_key *keys_first, *keys_last;
    struct u64map keys;   /* by name_hash */
    uint64_t oldest_live; /* no job before it is unfinished */
    size_t keys_count;
    struct u64map definitions; /* struct jm_definition, owned, by schedule */
    struct u64map reports;     /* job_model_report_key() -> which answers it had */
    struct jm_output *outputs; /* owned, by index */
    size_t outputs_cap;
    struct jm_event *events;
    size_t events_count, events_cap;
    struct jm_result *results;
    size_t results_count, results_cap;
    const struct jm_hint *hints; /* of the entry being applied */
    size_t hints_count, hints_at;
    bool no_memory;
    char wrong[256]; /* what the log does that nobody may do; "" = nothing */
};

/* @keys_max: idempotency keys remembered at most. NULL: memory. */
struct job_model *job_model_new(size_t keys_max);
struct job_model *job_model_free(struct job_model *m);

/* Entry @index, which must be the next. @c: its command, NULL for entries without one. False when
 * memory is out or m->wrong says what cannot be. */
bool job_model_apply(struct job_model *m, uint64_t index,
                     const Chronos__Internal__V1__LogCommand *c, const struct jm_hint *hints,
                     size_t hints_count);
/* A CONFIG entry: the ids of its members. */
bool job_model_config(struct job_model *m, uint64_t index, const uint64_t *ids, size_t count);

const struct jm_job *job_model_find(const struct job_model *m, uint64_t seq);
/* As it was at @index; NULL: not there yet. */
const struct jm_version *job_model_at(const struct job_model *m, uint64_t seq, uint64_t index);
const struct jm_output *job_model_output(const struct job_model *m, uint64_t index);
const struct jm_worker *job_model_worker(const struct job_model *m, const char *id);
/* By itself or through its node; *ret_until_ms 0 when not. */
bool job_model_drains(const struct job_model *m, const struct jm_worker *w, int64_t *ret_until_ms);
uint64_t job_model_hash(const void *data, size_t len);

enum { JM_REPORT_TAKEN = 1, JM_REPORT_STALE = 2 };
/* Which answers reports of @outcome for an attempt have had so far: JM_REPORT_ bits. */
unsigned job_model_report(const struct job_model *m, uint64_t seq, uint64_t token, int outcome);

/* ---- job_model_run.c, for job_model.c -------------------- */

void jm_wrong(struct job_model *m, const char *fmt, ...) _printf_(2, 3);
/* A new waiting job; its kind of run is filled in by the caller. NULL: memory. */
struct jm_job *jm_create(struct job_model *m, uint32_t max_attempts);
struct jm_result jm_assign(struct job_model *m, const Chronos__Internal__V1__AssignJobItem *x);
struct jm_result jm_update(struct job_model *m, const Chronos__Internal__V1__UpdateJobStatus *x);
struct jm_result jm_cancel(struct job_model *m, uint64_t seq);
struct jm_result jm_register(struct job_model *m,
                             const Chronos__Internal__V1__RegisterWorkerItem *x);
struct jm_result jm_lose(struct job_model *m, const Chronos__Internal__V1__LoseWorkerItem *x);
bool jm_cancel_run(struct job_model *m, uint64_t seq, bool kill);
/* Hints up to the next end of a run. */
void jm_follow_hints(struct job_model *m);
