#include "schedule_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BODY(x) CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_##x
#define TICKS_MAX 5000

static char *text(const char *s) {
    return (char *) (s ? s : ""); /* the generated structs are not const */
}

static ProtobufCBinaryData binary(const char *s) {
    return (ProtobufCBinaryData){.len = s ? strlen(s) : 0, .data = (uint8_t *) text(s)};
}

struct bytes *cmd_put_schedule(const struct put_args *p, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__PutSchedule m = CHRONOS__INTERNAL__V1__PUT_SCHEDULE__INIT;
    struct bytes *b;

    m.name = text(p->name);
    m.spec = binary("a definition");
    m.job = binary("a job");
    if (p->job_bytes > 0) {
        m.job.len = p->job_bytes;
        m.job.data = calloc(1, p->job_bytes);
        assert_non_null(m.job.data);
    }
    m.create = !p->replace;
    m.version = p->version;
    m.handover = p->handover;
    m.new_generation = p->new_generation;
    m.paused = p->paused;
    m.idempotency_key = text(p->key);
    m.request_hash = binary(p->hash);
    m.max_attempts = p->max_attempts ? p->max_attempts : 1;
    m.queue = text("default");
    m.overlap = (Chronos__V1__OverlapPolicy) p->overlap;
    m.pause_on_failure = p->pause_on_failure;
    m.max_runs = p->max_runs;
    c.body_case = BODY(PUT_SCHEDULE);
    c.put_schedule = &m;
    b = fixture_encode(&c, now_ms);
    if (p->job_bytes > 0)
        free(m.job.data);
    return b;
}

struct bytes *cmd_delete_schedule(const char *name, uint64_t version, bool cancel, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__DeleteSchedule m = CHRONOS__INTERNAL__V1__DELETE_SCHEDULE__INIT;

    m.name = text(name);
    m.version = version;
    m.cancel_open_runs = cancel;
    c.body_case = BODY(DELETE_SCHEDULE);
    c.delete_schedule = &m;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_pause_schedule(const char *name, bool on, int64_t until_ms, const char *reason,
                                 int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__PauseSchedule m = CHRONOS__INTERNAL__V1__PAUSE_SCHEDULE__INIT;

    m.name = text(name);
    m.on = on;
    m.until_ms = until_ms;
    m.reason = text(reason);
    c.body_case = BODY(PAUSE_SCHEDULE);
    c.pause_schedule = &m;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_ticks(uint64_t seq, uint64_t generation, int64_t watermark_s,
                        const struct tick_args *ticks, size_t n, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__ProcessTicks m = CHRONOS__INTERNAL__V1__PROCESS_TICKS__INIT;
    Chronos__Internal__V1__ScheduleTicks item = CHRONOS__INTERNAL__V1__SCHEDULE_TICKS__INIT;
    Chronos__Internal__V1__ScheduleTicks *items[] = {&item};
    static Chronos__Internal__V1__DecidedTick t[TICKS_MAX], *tp[TICKS_MAX];

    assert_true(n <= TICKS_MAX);
    for (size_t i = 0; i < n; i++) {
        chronos__internal__v1__decided_tick__init(&t[i]);
        t[i].tick_s = ticks[i].tick_s;
        t[i].last_tick_s = ticks[i].last_tick_s;
        t[i].count = ticks[i].count;
        t[i].reason = (Chronos__V1__TickReason) ticks[i].reason;
        tp[i] = &t[i];
    }
    item.schedule_seq = seq;
    item.generation = generation;
    item.watermark_s = watermark_s;
    item.ticks = tp;
    item.n_ticks = n;
    m.items = items;
    m.n_items = 1;
    c.body_case = BODY(PROCESS_TICKS);
    c.process_ticks = &m;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_run_schedule(const char *name, int reason, const int64_t *ticks, size_t n,
                               bool ignore_overlap, const char *key, const char *hash,
                               int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__RunSchedule m = CHRONOS__INTERNAL__V1__RUN_SCHEDULE__INIT;

    m.name = text(name);
    m.tick_s = (int64_t *) ticks;
    m.n_tick_s = n;
    m.reason = (Chronos__V1__TickReason) reason;
    m.ignore_overlap = ignore_overlap;
    m.idempotency_key = text(key);
    m.request_hash = binary(hash);
    c.body_case = BODY(RUN_SCHEDULE);
    c.run_schedule = &m;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_schedule_alarm(uint64_t seq, const char *text_, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SetScheduleAlarm m = CHRONOS__INTERNAL__V1__SET_SCHEDULE_ALARM__INIT;

    m.schedule_seq = seq;
    m.text = text(text_);
    c.body_case = BODY(SET_SCHEDULE_ALARM);
    c.set_schedule_alarm = &m;
    return fixture_encode(&c, now_ms);
}
