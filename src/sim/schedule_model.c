/* The model of schedules: commands about them as the log has them, and the transitions of their
 * runs. See schedule_model.h. */
#include "sim/schedule_model.h"

#include "base/codec.h"
#include "fsm/schedules.h"
#include "sim/checker_model.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define ENTRY_HEAD_BYTES 16   /* what the node puts before a command */
#define BODY_TAG_AT 18        /* behind the version field */
#define ORIGIN_ID_SHIFT 48    /* of the number that the head ends with: the node above it */
#define TAG_SUBMIT_JOB 0x12   /* field 2 */
#define TAG_PUT_SCHEDULE 0x62 /* field 12; the others about schedules have higher tags */
#define S_PENDING CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING
#define S_COMPLETED CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED

struct schedule_model *schedule_model_new(struct world *w) {
    struct schedule_model *m = calloc(1, sizeof(*m));

    if (m)
        m->world = w;
    return m;
}

static void schedule_free(struct model_schedule *s) {
    free(s->open);
    free(s->waits);
    free(s);
}

struct schedule_model *schedule_model_free(struct schedule_model *m) {
    struct u64map *plain[] = {&m->stamps, &m->answers, &m->runs};
    struct u64map_slot *x;
    size_t pos = 0;

    while (m->first) {
        struct model_schedule *s = m->first;

        m->first = s->next;
        schedule_free(s);
    }
    while ((x = u64map_next(&m->jobs, &pos)))
        free(x->value);
    for (pos = 0; (x = u64map_next(&m->entries, &pos));)
        bytes_unref(x->value);
    for (pos = 0; (x = u64map_next(&m->keys, &pos));)
        free(x->value);
    u64map_done(&m->jobs);
    u64map_done(&m->entries);
    u64map_done(&m->keys);
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        u64map_done(plain[i]);
    free(m->hints);
    free(m);
    return NULL;
}

struct model_schedule *schedule_model_find(struct schedule_model *m, uint64_t seq) {
    struct model_schedule *s = m->first;

    while (s && s->seq != seq)
        s = s->next;
    return s;
}

static struct model_schedule *by_name(struct schedule_model *m, const char *name) {
    struct model_schedule *s = m->first;

    while (s && strcmp(s->name, name) != 0)
        s = s->next;
    return s;
}

/* The stamp is the last 8 bytes of every command; kept together with what command it is. */
void schedule_model_entry(struct schedule_model *m, const struct raft_entry *e) {
    uint64_t key = checker_entry_key(e->index, e->term), known;
    const struct bytes *b = e->data;
    struct world *w = m->world;

    if (e->type != RAFT_ENTRY_COMMAND || b->len < BODY_TAG_AT + 9 || u64map_get(&m->stamps, key))
        return;
    known = get_le64(b->data + b->len - 8) << 8 | b->data[BODY_TAG_AT];
    if (u64map_put(&m->stamps, key, (void *) (uintptr_t) known) < 0)
        w->no_memory = true;
    if (b->data[BODY_TAG_AT] < TAG_PUT_SCHEDULE)
        return;
    if (u64map_put(&m->entries, key, bytes_ref(e->data)) < 0)
        w->no_memory = true;
}

/* ---- answers --------------------------------------------------------------------------------- */

/* Whoever comes first, the state machine's answer to a caller or the model's; then they must be
 * one.
 */
static void answer(struct schedule_model *m, uint64_t index, int code, uint64_t seq,
                   const char *who) {
    uint64_t key = index, value = (seq << 8 | (uint64_t) code) << 1 | 1, known;

    if (checker_remember(m->world, &m->answers, key, value))
        return;
    known = (uint64_t) (uintptr_t) u64map_get(&m->answers, key) >> 1;
    sim_fail(m->world,
             "entry %llu: the %s says code %d for schedule %llu, the other said code %d for "
             "schedule %llu",
             (unsigned long long) index, who, code, (unsigned long long) seq, (int) (known & 255),
             (unsigned long long) (known >> 8));
}

void schedule_model_answered(struct schedule_model *m, uint64_t index, int code, uint64_t seq) {
    if (!m->lost)
        answer(m, index, code, seq, "state machine");
}

/* ---- definitions ----------------------------------------------------------------------------- */

static uint64_t text_hash(const char *s) {
    return XXH3_64bits(s, strlen(s)) | 1;
}

/* FSM_OK, FSM_EXISTING or FSM_KEY_CONFLICT. */
static int look_up_key(struct schedule_model *m, const char *text, ProtobufCBinaryData request,
                       struct model_key **ret) {
    uint64_t hash = XXH3_64bits(request.data, request.len);

    *ret = text[0] ? u64map_get(&m->keys, text_hash(text)) : NULL;
    if (!*ret)
        return FSM_OK;
    return (*ret)->request == hash ? FSM_EXISTING : FSM_KEY_CONFLICT;
}

static void keep_key(struct schedule_model *m, const char *text, ProtobufCBinaryData request,
                     uint64_t seq) {
    struct model_key *k = text[0] ? calloc(1, sizeof(*k)) : NULL;

    if (!k)
        return;
    model_hint(m, (struct jm_hint){.kind = JM_KEY_TAKEN, .schedule_seq = seq});
    *k = (struct model_key){.request = XXH3_64bits(request.data, request.len), .schedule_seq = seq};
    if (u64map_put(&m->keys, text_hash(text), k) < 0) {
        free(k);
        m->world->no_memory = true;
    }
}

static void define(struct schedule_model *m, struct model_schedule *s,
                   const Chronos__Internal__V1__PutSchedule *p) {
    Chronos__V1__ScheduleSpec *spec =
        chronos__v1__schedule_spec__unpack(arena_pb(&m->world->arena), p->spec.len, p->spec.data);

    if (!spec || !rule_read(spec, &s->rule))
        sim_fail(m->world, "entry %llu: a definition that no client wrote",
                 (unsigned long long) m->index);
    else
        sim_trace(m->world, "entry %llu: schedule %s is \"%s\" \"%s\" but \"%s\" in \"%s\"",
                  (unsigned long long) m->index, p->name, spec->cron[0],
                  spec->n_cron > 1 ? spec->cron[1] : "", spec->n_exclude ? spec->exclude[0] : "",
                  spec->time_zone);
    model_hint(m, (struct jm_hint){.kind = JM_DEFINED, .schedule_seq = s->seq});
    s->overlap = (int) p->overlap;
    s->pause_on_failure = p->pause_on_failure;
    s->max_runs = p->max_runs;
    s->version++;
    s->clear_s = s->watermark_s;
}

static int create(struct schedule_model *m, const Chronos__Internal__V1__PutSchedule *p,
                  uint64_t *ret_seq) {
    struct model_schedule *s = by_name(m, p->name), **end = &m->first;
    struct model_key *key;
    int code = look_up_key(m, p->idempotency_key, p->request_hash, &key);

    if (code != FSM_OK) {
        *ret_seq = key->schedule_seq;
        return code;
    }
    if (s) {
        *ret_seq = s->seq;
        return FSM_NAME_TAKEN;
    }
    s = calloc(1, sizeof(*s));
    if (!s) {
        m->world->no_memory = true;
        return FSM_OK;
    }
    *ret_seq = s->seq = ++m->last_seq;
    (void) snprintf(s->name, sizeof(s->name), "%s", p->name);
    s->generation = 1;
    s->watermark_s = m->now_ms / 1000;
    s->pause.on = p->paused;
    s->next_ordinal = s->first_ordinal = 1;
    define(m, s, p);
    s->version = m->index;
    keep_key(m, p->idempotency_key, p->request_hash, s->seq);
    while (*end)
        end = &(*end)->next;
    *end = s;
    sim_count(m->world, SIM_STAT_SCHEDULES_CREATED);
    return FSM_OK;
}

/* C13, J27 */
static int put(struct schedule_model *m, const Chronos__Internal__V1__PutSchedule *p,
               uint64_t *ret_seq) {
    struct model_schedule *s;
    struct rule before;

    if (p->create)
        return create(m, p, ret_seq);
    s = by_name(m, p->name);
    if (!s)
        return FSM_NOT_FOUND;
    *ret_seq = s->seq;
    if (p->version != 0 && p->version != s->version)
        return FSM_VERSION_MISMATCH;
    model_touch(m, &s->pause);
    s->mixed = !p->new_generation;
    before = s->rule;
    if (p->new_generation) {
        model_drop_waits(m, s, TICK_REASON(DELETED));
        s->generation++;
        s->watermark_s = MAX(s->watermark_s, m->now_ms / 1000);
    }
    define(m, s, p);
    s->torn = !p->new_generation && (s->torn || !rule_same_ticks(&before, &s->rule));
    model_settle(m, s);
    sim_count(m->world, SIM_STAT_SCHEDULES_EDITED);
    return FSM_OK;
}

static int delete (struct schedule_model *m, const Chronos__Internal__V1__DeleteSchedule *d,
                   uint64_t *ret_seq) {
    struct model_schedule *s = by_name(m, d->name), **at = &m->first;

    if (!s)
        return FSM_NOT_FOUND;
    *ret_seq = s->seq;
    if (d->version != 0 && d->version != s->version)
        return FSM_VERSION_MISMATCH;
    model_drop_waits(m, s, TICK_REASON(DELETED));
    if (d->cancel_open_runs)
        model_cancel_runs(m, s, false);
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    schedule_free(s);
    sim_count(m->world, SIM_STAT_SCHEDULES_DELETED);
    return FSM_OK;
}

static void set_pause(struct schedule_model *m, struct model_pause *p, bool on, int64_t until_ms) {
    model_touch(m, p);
    if (on) {
        p->on = true;
        p->until_ms = until_ms;
    } else if (p->on) {
        *p = (struct model_pause){.resumed_ms = m->now_ms};
    }
}

static int pause(struct schedule_model *m, const Chronos__Internal__V1__PauseSchedule *p,
                 uint64_t *ret_seq) {
    struct model_schedule *s = by_name(m, p->name);

    if (p->until_ms < 0 || (p->on && p->until_ms > 0 && p->until_ms <= m->now_ms))
        return FSM_REFUSED;
    if (!p->name[0]) {
        set_pause(m, &m->pause, p->on, p->until_ms);
        return FSM_OK;
    }
    if (!s)
        return FSM_NOT_FOUND;
    *ret_seq = s->seq;
    set_pause(m, &s->pause, p->on, p->until_ms);
    return FSM_OK;
}

/* ---- ticks ----------------------------------------------------------------------------------- */

static bool straddles(const struct model_schedule *s,
                      const Chronos__Internal__V1__ScheduleTicks *item) {
    for (size_t i = 0; i < item->n_ticks; i++)
        if (item->ticks[i]->tick_s <= s->watermark_s &&
            item->ticks[i]->last_tick_s > s->watermark_s)
            return true;
    return false;
}

/* C9, C10: nothing below the watermark, nothing of another generation. */
static void process(struct schedule_model *m, const Chronos__Internal__V1__ScheduleTicks *item) {
    struct model_schedule *s = schedule_model_find(m, item->schedule_seq);

    if (!s || item->generation != s->generation || item->watermark_s <= s->watermark_s) {
        sim_count(m->world, SIM_STAT_PLANS_STALE);
        return;
    }
    if (item->watermark_s > m->now_ms / 1000 || straddles(s, item)) {
        sim_count(m->world, SIM_STAT_PLANS_REFUSED);
        return;
    }
    if (!s->torn)
        checker_ticks(m, s, item);
    model_touch(m, &s->pause);
    for (size_t i = 0; i < item->n_ticks && !m->world->failed && !m->world->no_memory; i++) {
        const Chronos__Internal__V1__DecidedTick *t = item->ticks[i];
        int64_t last_s = t->last_tick_s ? t->last_tick_s : t->tick_s;

        if (t->tick_s <= s->watermark_s)
            continue;
        if (t->reason < TICK_REASON(WINDOW))
            model_decide(m, s, t->tick_s, (int) t->reason, false);
        else
            model_skip_range(m, s, t->tick_s, last_s, t->count ? t->count : 1, (int) t->reason);
        s->watermark_s = last_s;
    }
    s->watermark_s = item->watermark_s;
}

static int run(struct schedule_model *m, const Chronos__Internal__V1__RunSchedule *r,
               uint64_t *ret_seq) {
    struct model_schedule *s = by_name(m, r->name);
    struct model_key *key;
    int code;

    if (!s)
        return FSM_NOT_FOUND;
    for (size_t i = 0; i < r->n_tick_s; i++)
        if (r->tick_s[i] > m->now_ms / 1000 || (i > 0 && r->tick_s[i] <= r->tick_s[i - 1]))
            return FSM_REFUSED;
    *ret_seq = s->seq;
    code = look_up_key(m, r->idempotency_key, r->request_hash, &key);
    if (code != FSM_OK)
        return code == FSM_EXISTING && key->schedule_seq != s->seq ? FSM_KEY_CONFLICT : code;
    model_touch(m, &s->pause);
    for (size_t i = 0; i < r->n_tick_s; i++)
        model_decide(m, s, r->tick_s[i], (int) r->reason, r->ignore_overlap);
    if (r->n_tick_s == 0)
        model_decide(m, s, m->now_ms / 1000, (int) r->reason, r->ignore_overlap);
    keep_key(m, r->idempotency_key, r->request_hash, s->seq);
    return FSM_OK;
}

/* ---- entries --------------------------------------------------------------------------------- */

static void command(struct schedule_model *m, const struct bytes *b) {
    Chronos__Internal__V1__LogCommand *c;
    uint64_t seq = 0, origin = get_le64(b->data + 8) >> ORIGIN_ID_SHIFT;
    uint64_t leader = (uint64_t) (uintptr_t) u64map_get(&m->world->checker.leader_of_term, m->term);
    int code = FSM_OK;

    m->other_clock = origin != leader >> 1 || origin == 0 || origin > m->world->nodes_count ||
                     m->world->now_ns < m->world->nodes[origin - 1].clock_odd_until;
    arena_clear(&m->world->arena);
    c = chronos__internal__v1__log_command__unpack(
        arena_pb(&m->world->arena), b->len - ENTRY_HEAD_BYTES, b->data + ENTRY_HEAD_BYTES);
    if (!c) {
        sim_fail(m->world, "entry %llu: malformed command", (unsigned long long) m->index);
        return;
    }
    if (c->body_case == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PROCESS_TICKS) {
        for (size_t i = 0; i < c->process_ticks->n_items; i++)
            process(m, c->process_ticks->items[i]);
        return;
    }
    if (c->body_case == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SET_SCHEDULE_ALARM) {
        sim_fail(m->world, "entry %llu: alarm on schedule %llu: %s", (unsigned long long) m->index,
                 (unsigned long long) c->set_schedule_alarm->schedule_seq,
                 c->set_schedule_alarm->text);
        return;
    }
    if (c->body_case == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PUT_SCHEDULE)
        code = put(m, c->put_schedule, &seq);
    else if (c->body_case == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_DELETE_SCHEDULE)
        code = delete (m, c->delete_schedule, &seq);
    else if (c->body_case == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_PAUSE_SCHEDULE)
        code = pause(m, c->pause_schedule, &seq);
    else if (c->body_case == CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_RUN_SCHEDULE)
        code = run(m, c->run_schedule, &seq);
    answer(m, m->index, code, seq, "model");
}

/* What the command itself did not explain: ends of runs, and what follows from them. */
static void transitions(struct schedule_model *m, unsigned tag) {
    while (m->events_at < m->events_count && !m->world->failed) {
        const struct fsm_event *e = &m->events[m->events_at++].event;
        struct model_job *j = u64map_get(&m->jobs, e->job_seq);

        if (e->from == 0 && tag != TAG_SUBMIT_JOB)
            sim_fail(m->world, "entry %llu: job %llu is made although nobody asked for it",
                     (unsigned long long) m->index, (unsigned long long) e->job_seq);
        if (!j)
            continue;
        j->pending = (int) e->to == S_PENDING;
        j->cancelled = j->cancelled || e->cancel_requested;
        if ((int) e->to >= S_COMPLETED)
            model_run_ended(m, j, (int) e->to);
    }
}

static void apply(struct schedule_model *m, uint64_t index) {
    const struct checker *c = &m->world->checker;
    uint64_t term = index < c->committed_cap ? c->committed[index].term : 0;
    uint64_t key = checker_entry_key(index, term);
    uint64_t known = (uint64_t) (uintptr_t) u64map_get(&m->stamps, key);
    const struct bytes *b = u64map_get(&m->entries, key);

    m->index = index;
    m->hints_count = 0;
    if (term == 0) {
        m->lost = true;
        return;
    }
    if (known) {
        m->stamp_ms = (int64_t) (known >> 8);
        m->now_ms = MAX(m->now_ms, m->stamp_ms);
    }
    m->term = term;
    if (b)
        command(m, b);
    transitions(m, (unsigned) known & 255);
    checker_model_step(m->world, index, m->hints, m->hints_count);
}

void schedule_model_apply(struct schedule_model *m, uint64_t index,
                          const struct replica_event *events, size_t count) {
    while (m->index < index && !m->lost && !m->world->failed && !m->world->no_memory) {
        bool last = m->index + 1 == index;

        m->events = events;
        m->events_count = last ? count : 0;
        m->events_at = 0;
        apply(m, m->index + 1);
    }
}
