/* What the files of fsm/ share and nobody else sees: the state, the store in front of the kv, the
 * one setter of a job's state, and the handlers of the commands.
 * Invariants: see fsm_check_invariants. Thread: the loop. */
#pragma once

#include "fsm/command.h"
#include "fsm/fsm.h"
#include "fsm/idem.h"
#include "fsm/job_state.h"
#include "fsm/overlay.h"
#include "fsm/record.h"

#include "base/map.h"

#include "chronos/internal/v1/raft.pb-c.h"

#define S_NONE CHRONOS__V1__JOB_STATE__JOB_STATE_UNSPECIFIED
#define S_PENDING CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING
#define S_RUNNING CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING
#define S_COMPLETED CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED
#define S_FAILED CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED
#define S_CANCELLED CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED

#define FSM_RECORD_BYTES_MAX (64UL * 1024 * 1024) /* a record can never come near this */

__extension__ typedef unsigned __int128 fsm_u128;

struct job_slab;
struct schedule_slab;

/* The global pause of schedules, in StateMeta. */
struct schedules_pause {
    bool paused;
    int64_t until_ms;
    int64_t resumed_ms;
    size_t reason_len;
    char reason[FSM_SCHEDULE_REASON_BYTES_MAX + 1];
};

struct schedule_wait {
    int64_t tick_s;
    uint64_t ordinal;
    int32_t cause; /* Chronos__V1__TickReason, as it was proposed */
};

/* The schedule that is being worked on (schedule_internal.h). */
struct schedule_work {
    struct fsm_schedule *view; /* NULL: none */
    struct overlay_entry *entry;
    struct record_schedule rec; /* slices into the entry, the command or the arena */
    uint64_t *open;             /* owned, as all three: reused */
    size_t open_count, open_cap;
    struct schedule_wait *waits;
    size_t waits_count, waits_cap;
    struct buf packed;
};

struct fsm {
    struct kv *kv; /* borrowed */
    struct fsm_options options;
    bool failed; /* an apply or write-back returned an error: only fsm_free is legal */
    bool store_damaged; /* see fsm_store_damaged() */

    /* The replicated scalars, all in StateMeta. */
    uint64_t applied_index;
    uint64_t applied_term;
    uint64_t next_seq;
    int64_t last_now_ms;
    fsm_u128 digest; /* sum over all records; see store.c */
    uint64_t counts[JOB_STATE_COUNT];
    struct buf config; /* RaftConfig, encoded; empty before the first */
    uint64_t config_index;
    uint32_t feature_level;
    uint64_t last_schedule_seq;
    struct schedules_pause schedules_pause;

    /* LocalRecord: this store's own, not replicated. */
    uint64_t installed_index;
    uint64_t installed_term;

    /* Records not yet in the kv store. */
    struct overlay overlay;
    uint64_t written_index;
    struct kv_op *ops; /* owned scratch of write-backs */
    size_t ops_cap;

    /* Derived, memory only. */
    struct u64map jobs; /* seq -> struct fsm_job, not ended */
    struct fsm_job *ready_first, *ready_last;
    struct fsm_job *ready_hint; /* last one put back into the middle, or NULL */
    struct job_slab *slabs;     /* owned */
    struct fsm_job *free_jobs;  /* linked by ready_next */
    struct bytesmap workers;    /* id -> struct fsm_worker, owned */
    struct fsm_worker *workers_first;
    struct fsm_node *nodes_first; /* each inside a struct node (nodes.c), owned */
    size_t nodes_count;
    struct idem keys;
    uint64_t keys_count;     /* "k" records */
    struct u64map schedules; /* seq -> struct fsm_schedule */
    struct fsm_schedule *schedules_first, *schedules_last;
    struct schedule_slab *schedule_slabs; /* owned */
    struct fsm_schedule *free_schedules;  /* linked by next */

    /* Reused by each apply. */
    struct arena arena; /* strings of events */
    struct buf read;    /* a record read from the kv store */
    struct buf encode;  /* a record being written */
    struct fsm_result *results;
    size_t results_cap;
    struct fsm_event *events;
    size_t events_cap;
    struct fsm_schedule_event *schedule_events;
    size_t schedule_events_cap;
    struct fsm_tick *ticks;
    size_t ticks_cap;
    struct schedule_work work;
    struct fsm_output output;
};

/* One apply. */
struct apply {
    uint64_t index;
    int64_t now_ms; /* made monotonic */
    struct errtext *err;
    size_t created_bytes; /* of specifications copied into runs of schedules */
};

/* ---- store.c: records, overlay before kv -------------------- */

enum { STORE_NOT_FOUND = 1 };
/* The bytes of a record, borrowed until the next store call. 0, STORE_NOT_FOUND, negative. */
int store_read(struct fsm *f, struct slice key, struct slice *ret) _must_check_;
/* The record's entry in the overlay, fetched from the kv store when needed; e->exists tells whether
 * there is such a record. */
int store_open(struct fsm *f, struct slice key, struct overlay_entry **ret) _must_check_;
/* The same for a key that cannot exist yet: saves asking the kv store. */
int store_create(struct fsm *f, struct slice key, struct overlay_entry **ret) _must_check_;
/* New content, kept in the digest. @value must not point into the overlay. */
int store_put(struct fsm *f, struct overlay_entry *e, struct slice value) _must_check_;
void store_delete(struct fsm *f, struct overlay_entry *e);
/* @r, which the store returned: damage is remembered. */
int store_seen(struct fsm *f, int r);
/* Digest of one record, as it is summed up. @hashed: key, 0x00, value. */
fsm_u128 store_digest(struct slice hashed);
/* A record unpacked into @arena. 0, ERR_CORRUPT, -ENOMEM. */
int store_unpack(const ProtobufCMessageDescriptor *type, struct slice bytes, struct arena *arena,
                 ProtobufCMessage **ret) _must_check_;
/* For readers outside: a record unpacked into @arena. 0, FSM_READ_NOT_FOUND, ERR_CORRUPT, negative.
 */
int store_read_record(struct fsm *f, struct slice key, const ProtobufCMessageDescriptor *type,
                      struct arena *arena, ProtobufCMessage **ret) _must_check_;
/* StateMeta as of now into @b. */
int store_encode_meta(const struct fsm *f, struct buf *b) _must_check_;

/* ---- jobs.c -------------------- */

/* A job in no list yet, state UNSPECIFIED. NULL: -ENOMEM. */
struct fsm_job *jobs_new(struct fsm *f, uint64_t seq) _must_check_;
void jobs_free_all(struct fsm *f);
/* Decode the record of @j, which has not ended. 0, ERR_CORRUPT (missing, malformed, or of another
 * state than @j has), errors of the store. */
int jobs_load(struct fsm *f, struct apply *a, const struct fsm_job *j, struct record_job *ret,
              struct overlay_entry **ret_entry) _must_check_;
/* The one setter of a job's state: asserts the edge, keeps lists and counters, writes @rec (whose
 * other fields the caller has set) and emits the event. @j is dead when the new state is terminal.
 */
int jobs_transition(struct fsm *f, struct apply *a, struct fsm_job *j, struct record_job *rec,
                    struct overlay_entry *e, enum job_event event) _must_check_;
/* A new pending job of the next number. @rec: its specification and what is known of it; the rest
 * is filled in here. */
int jobs_create(struct fsm *f, struct apply *a, struct record_job *rec,
                uint64_t *ret_seq) _must_check_;
/* Ask for its end: a pending one is cancelled at once. Asked before: nothing changes, unless it now
 * is to be killed at once. */
int jobs_cancel(struct fsm *f, struct apply *a, struct fsm_job *j, bool kill) _must_check_;
/* Put @j into the list its state demands (also for fsm_open). */
void jobs_link(struct fsm *f, struct fsm_job *j);
/* The running attempt of @j is lost with its worker: again, failed or cancelled (C28, J15, J19). */
int jobs_lose(struct fsm *f, struct apply *a, struct fsm_job *j) _must_check_;
/* A name (worker id) as a string that lives until the next apply. */
const char *jobs_name(struct fsm *f, struct slice s) _must_check_;
/* The state of a job that is not in memory: 0 with the record, STORE_NOT_FOUND, negative. */
int jobs_read_ended(struct fsm *f, struct apply *a, uint64_t seq,
                    struct record_job *ret) _must_check_;

/* ---- workers.c -------------------- */

struct fsm_worker *workers_find(const struct fsm *f, struct slice id);
/* A worker without record, sorted in. NULL: -ENOMEM. */
struct fsm_worker *workers_new(struct fsm *f, struct slice id) _must_check_;
void workers_remove(struct fsm *f, struct fsm_worker *w);
void workers_free_all(struct fsm *f);
/* Write its record; version and labels are copied from @source, a registration or an old record. */
int workers_put(struct fsm *f, struct apply *a, const struct fsm_worker *w,
                struct slice source) _must_check_;
int workers_open_record(struct fsm *f, struct slice id, struct overlay_entry **ret) _must_check_;

/* Set what follows from its own draining and its node's. */
void workers_refresh_drain(const struct fsm *f, struct fsm_worker *w);
/* Write the record anew, with the facts it has. */
int workers_put_again(struct fsm *f, struct apply *a, const struct fsm_worker *w) _must_check_;

/* ---- nodes.c -------------------- */

struct fsm_node *nodes_find(const struct fsm *f, uint64_t id);
/* A node without record, sorted in. NULL: -ENOMEM. */
struct fsm_node *nodes_new(struct fsm *f, uint64_t id) _must_check_;
void nodes_free_all(struct fsm *f);
/* Copies; at most FSM_ADDRESS_BYTES_MAX bytes, none of them zero (nodes_address_ok). */
void nodes_set_peer_address(struct fsm_node *n, struct slice address);
void nodes_set_client_address(struct fsm_node *n, struct slice address);
bool nodes_address_ok(struct slice address);
/* Write its record and say so in the output. */
int nodes_put(struct fsm *f, const struct fsm_node *n) _must_check_;

/* ---- fsm_config.c -------------------- */

/* Unpack a RaftConfig into @arena. 0, ERR_PROTO, ERR_VERSION with a text, -ENOMEM. */
int config_unpack(struct slice bytes, struct arena *arena, Chronos__Internal__V1__RaftConfig **ret,
                  struct errtext *reterr) _must_check_;

/* ---- fsm_apply.c -------------------- */

void apply_begin(struct fsm *f, uint64_t index, uint64_t term);
/* @result: of what was applied in between; it is returned. */
int apply_end(struct fsm *f, const struct apply *a, uint64_t term, int result,
              const struct fsm_output **ret) _must_check_;

/* ---- keys.c: idempotency -------------------- */

enum { KEYS_NOT_FOUND = 1 };
/* 0 with the record of a key that is still remembered. */
int keys_find(struct fsm *f, struct apply *a, struct slice key,
              struct record_key *ret) _must_check_;
/* @rec->created_at_ms is now; @rec->job_seq is greater than that of every key before. */
int keys_remember(struct fsm *f, struct slice key, const struct record_key *rec) _must_check_;
/* What the key of a command that creates something says: *ret_code is FSM_OK (free, or no key, with
 * room made for one), FSM_EXISTING or FSM_KEY_CONFLICT, then with its record. */
int keys_check(struct fsm *f, struct apply *a, struct slice key, struct slice request_hash,
               struct record_key *ret, enum fsm_code *ret_code) _must_check_;
/* Forget up to @budget keys that have expired, or for which there would be no room if @wanted more
 * were remembered. */
int keys_purge(struct fsm *f, struct apply *a, uint64_t wanted, unsigned budget) _must_check_;

/* ---- schedule_run.c -------------------- */

/* A run of a schedule has ended: what waited for it may start. Nothing when the schedule is gone.
 */
int schedules_run_ended(struct fsm *f, struct apply *a, uint64_t schedule_seq, uint64_t job_seq,
                        Chronos__V1__JobState state) _must_check_;
void schedules_free_all(struct fsm *f);
void schedule_work_done(struct schedule_work *w);
/* Whether there ever was a schedule or a pause of all: else neither is in the digest, so that a
 * state without schedules has the digest it always had. */
bool schedules_ever(const struct fsm *f);

/* ---- one file per command -------------------- */

/* @item: the decoded struct of the kind's shape; @raw: its bytes. 0 with *res filled, or negative.
 */
typedef int apply_item_fn(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                          struct fsm_result *res);
apply_item_fn apply_submit_job;
apply_item_fn apply_assign_job;
apply_item_fn apply_register_worker;
apply_item_fn apply_update_job_status;
apply_item_fn apply_cancel_job;
apply_item_fn apply_lose_worker;
apply_item_fn apply_set_node;
apply_item_fn apply_drain;
apply_item_fn apply_set_feature_level;
apply_item_fn apply_put_schedule;
apply_item_fn apply_delete_schedule;
apply_item_fn apply_pause_schedule;
apply_item_fn apply_process_ticks;
apply_item_fn apply_run_schedule;
apply_item_fn apply_set_schedule_alarm;

/* How much of @s fits into @max bytes without cutting a character of UTF-8. */
static inline size_t utf8_cut(struct slice s, size_t max) {
    size_t n = s.len;

    if (n <= max)
        return n;
    n = max;
    for (int i = 0; i < 3 && n > 0 && (s.data[n] & 0xc0) == 0x80; i++)
        n--;
    return n;
}

/* Nothing changed, and why: static text. */
static inline void refuse(struct fsm_result *res, const char *reason) {
    ASSERT(reason);
    res->code = FSM_REFUSED;
    res->reason = reason;
}
