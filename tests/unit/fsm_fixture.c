#include "fsm_fixture.h"

#include "chronos/internal/v1/raft.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BODY(x) CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_##x

static void open_fsm(struct fixture *x) {
    int r = fsm_open(x->kv, &x->options, &x->f, &x->err);

    if (r < 0)
        fail_msg("fsm_open: %s: %s", err_name(r), x->err.s);
}

void fixture_init(struct fixture *x, const struct fsm_options *o) {
    *x = (struct fixture){.now_ms = 1000000, .term = 1};
    if (o)
        x->options = *o;
    assert_int_equal(kv_mem_new(0, &x->kv), 0);
    open_fsm(x);
}

void fixture_done(struct fixture *x) {
    x->f = fsm_free(x->f);
    x->kv->ops->close(x->kv);
}

void fixture_reopen(struct fixture *x) {
    x->f = fsm_free(x->f);
    open_fsm(x);
}

void fixture_crash(struct fixture *x, size_t keep_unflushed) {
    x->f = fsm_free(x->f);
    kv_mem_crash(x->kv, keep_unflushed);
    open_fsm(x);
}

int fixture_apply(struct fixture *x, const struct bytes *command) {
    x->err.s[0] = '\0';
    return fsm_apply(x->f, fsm_applied_index(x->f) + 1, x->term, bytes_slice(command), &x->out,
                     &x->err);
}

struct bytes *fixture_encode(const Chronos__Internal__V1__LogCommand *cmd, int64_t now_ms) {
    struct bytes *b = NULL;

    assert_int_equal(command_encode(cmd, &b), 0);
    command_stamp(b, (struct wall){.ms = now_ms});
    return b;
}

struct bytes *cmd_submit(const char *spec, const char *key, const char *hash, uint32_t max_attempts,
                         int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SubmitJob body = CHRONOS__INTERNAL__V1__SUBMIT_JOB__INIT;
    Chronos__Internal__V1__SubmitJobItem item = CHRONOS__INTERNAL__V1__SUBMIT_JOB_ITEM__INIT;
    Chronos__Internal__V1__SubmitJobItem *items[] = {&item};
    char queue[] = "default", key_copy[256], spec_copy[256], hash_copy[64];

    (void) strncpy(spec_copy, spec, sizeof(spec_copy) - 1);
    (void) strncpy(key_copy, key, sizeof(key_copy) - 1);
    (void) strncpy(hash_copy, hash, sizeof(hash_copy) - 1);
    spec_copy[255] = key_copy[255] = hash_copy[63] = '\0';
    item.spec.data = (uint8_t *) spec_copy;
    item.spec.len = strlen(spec_copy);
    item.idempotency_key = key_copy;
    item.request_hash.data = (uint8_t *) hash_copy;
    item.request_hash.len = strlen(hash_copy);
    item.max_attempts = max_attempts;
    item.queue = queue;
    body.items = items;
    body.n_items = 1;
    c.body_case = BODY(SUBMIT_JOB);
    c.submit_job = &body;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_assign(uint64_t seq, const char *worker, uint64_t incarnation, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__AssignJob body = CHRONOS__INTERNAL__V1__ASSIGN_JOB__INIT;
    Chronos__Internal__V1__AssignJobItem item = CHRONOS__INTERNAL__V1__ASSIGN_JOB_ITEM__INIT;
    Chronos__Internal__V1__AssignJobItem *items[] = {&item};
    char id[128];

    (void) strncpy(id, worker, sizeof(id) - 1);
    id[127] = '\0';
    item.job_seq = seq;
    item.worker_id = id;
    item.worker_incarnation = incarnation;
    body.items = items;
    body.n_items = 1;
    c.body_case = BODY(ASSIGN_JOB);
    c.assign_job = &body;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_register(const char *worker, uint64_t incarnation, uint32_t slots, uint64_t node,
                           const uint64_t (*held)[2], size_t held_count, int64_t now_ms) {
    return cmd_hello(worker, incarnation, slots, node, 0, 0, held, held_count, now_ms);
}

struct bytes *cmd_hello(const char *worker, uint64_t incarnation, uint32_t slots, uint64_t node,
                        uint64_t hello, uint64_t applied_index, const uint64_t (*held)[2],
                        size_t held_count, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__RegisterWorker body = CHRONOS__INTERNAL__V1__REGISTER_WORKER__INIT;
    Chronos__Internal__V1__RegisterWorkerItem item =
        CHRONOS__INTERNAL__V1__REGISTER_WORKER_ITEM__INIT;
    Chronos__Internal__V1__RegisterWorkerItem *items[] = {&item};
    Chronos__Internal__V1__RegisterWorkerItem__LabelsEntry label =
        CHRONOS__INTERNAL__V1__REGISTER_WORKER_ITEM__LABELS_ENTRY__INIT;
    Chronos__Internal__V1__RegisterWorkerItem__LabelsEntry *labels[] = {&label};
    Chronos__Internal__V1__HeldAttempt h[64], *hp[64];
    char id[128], version[] = "1.2", key[] = "zone", value[] = "a";

    (void) strncpy(id, worker, sizeof(id) - 1);
    id[127] = '\0';
    assert_true(held_count <= 64);
    for (size_t i = 0; i < held_count; i++) {
        chronos__internal__v1__held_attempt__init(&h[i]);
        h[i].job_seq = held[i][0];
        h[i].fencing_token = held[i][1];
        hp[i] = &h[i];
    }
    label.key = key;
    label.value = value;
    item.worker_id = id;
    item.incarnation = incarnation;
    item.slots = slots;
    item.node_id = node;
    item.version = version;
    item.labels = labels;
    item.n_labels = 1;
    item.hello = hello;
    item.applied_index = applied_index;
    item.held = hp;
    item.n_held = held_count;
    body.items = items;
    body.n_items = 1;
    c.body_case = BODY(REGISTER_WORKER);
    c.register_worker = &body;
    return fixture_encode(&c, now_ms);
}

static struct bytes *encode_update(uint64_t seq, uint64_t token,
                                   Chronos__V1__AttemptOutcome outcome,
                                   Chronos__V1__FailureReason reason, bool started,
                                   int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__UpdateJobStatus u = CHRONOS__INTERNAL__V1__UPDATE_JOB_STATUS__INIT;
    char message[] = "said so", tail[] = "the tail";

    u.job_seq = seq;
    u.fencing_token = token;
    u.outcome = outcome;
    u.reason = reason;
    u.message = message;
    u.exit_code = outcome == CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED ? 3 : 0;
    u.output_tail.data = (uint8_t *) tail;
    u.output_tail.len = strlen(tail);
    u.output_bytes = 1000;
    u.started = started;
    c.body_case = BODY(UPDATE_JOB_STATUS);
    c.update_job_status = &u;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_update(uint64_t seq, uint64_t token, Chronos__V1__AttemptOutcome outcome,
                         Chronos__V1__FailureReason reason, int64_t now_ms) {
    return encode_update(seq, token, outcome, reason, false, now_ms);
}

struct bytes *cmd_release(uint64_t seq, uint64_t token, bool started, int64_t now_ms) {
    return encode_update(seq, token, CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_RELEASED, 0,
                         started, now_ms);
}

struct bytes *cmd_cancel(uint64_t seq, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__CancelJob body = CHRONOS__INTERNAL__V1__CANCEL_JOB__INIT;
    Chronos__Internal__V1__CancelJobItem item = CHRONOS__INTERNAL__V1__CANCEL_JOB_ITEM__INIT;
    Chronos__Internal__V1__CancelJobItem *items[] = {&item};

    item.job_seq = seq;
    body.items = items;
    body.n_items = 1;
    c.body_case = BODY(CANCEL_JOB);
    c.cancel_job = &body;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_lose(const char *worker, uint64_t incarnation, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__LoseWorker body = CHRONOS__INTERNAL__V1__LOSE_WORKER__INIT;
    Chronos__Internal__V1__LoseWorkerItem item = CHRONOS__INTERNAL__V1__LOSE_WORKER_ITEM__INIT;
    Chronos__Internal__V1__LoseWorkerItem *items[] = {&item};
    char id[128];

    (void) strncpy(id, worker, sizeof(id) - 1);
    id[127] = '\0';
    item.worker_id = id;
    item.incarnation = incarnation;
    body.items = items;
    body.n_items = 1;
    c.body_case = BODY(LOSE_WORKER);
    c.lose_worker = &body;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_set_node(uint64_t node, uint8_t disk, const char *peer, const char *client,
                           uint32_t feature_max, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SetNode body = CHRONOS__INTERNAL__V1__SET_NODE__INIT;
    char peer_copy[256], client_copy[256];
    uint8_t bytes[16];

    (void) snprintf(peer_copy, sizeof(peer_copy), "%s", peer);
    (void) snprintf(client_copy, sizeof(client_copy), "%s", client);
    memset(bytes, disk, sizeof(bytes));
    body.node_id = node;
    body.disk.data = bytes;
    body.disk.len = disk ? sizeof(bytes) : 0;
    body.peer_address = peer_copy;
    body.client_address = client_copy;
    body.feature_max = feature_max;
    c.body_case = BODY(SET_NODE);
    c.set_node = &body;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_drain(uint64_t node, const char *worker, bool on, int64_t timeout_ms,
                        int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__Drain body = CHRONOS__INTERNAL__V1__DRAIN__INIT;
    char id[128];

    (void) snprintf(id, sizeof(id), "%s", worker);
    body.node_id = node;
    body.worker_id = id;
    body.on = on;
    body.timeout_ms = timeout_ms;
    c.body_case = BODY(DRAIN);
    c.drain = &body;
    return fixture_encode(&c, now_ms);
}

struct bytes *cmd_set_feature_level(uint32_t level, int64_t now_ms) {
    Chronos__Internal__V1__LogCommand c = CHRONOS__INTERNAL__V1__LOG_COMMAND__INIT;
    Chronos__Internal__V1__SetFeatureLevel body = CHRONOS__INTERNAL__V1__SET_FEATURE_LEVEL__INIT;

    body.level = level;
    c.body_case = BODY(SET_FEATURE_LEVEL);
    c.set_feature_level = &body;
    return fixture_encode(&c, now_ms);
}

struct bytes *config_at(const uint64_t *ids, size_t count, const char *suffix) {
    Chronos__Internal__V1__RaftConfig c = CHRONOS__INTERNAL__V1__RAFT_CONFIG__INIT;
    Chronos__Internal__V1__RaftMember members[16], *pointers[16];
    char addresses[16][256];
    struct bytes *b;

    assert_true(count <= 16);
    for (size_t i = 0; i < count; i++) {
        chronos__internal__v1__raft_member__init(&members[i]);
        (void) snprintf(addresses[i], sizeof(addresses[i]), "n%llu:1%s",
                        (unsigned long long) ids[i], suffix);
        members[i].id = ids[i];
        members[i].flags = 1;
        members[i].address = addresses[i];
        pointers[i] = &members[i];
    }
    c.version = 1;
    c.members = pointers;
    c.n_members = count;
    b = bytes_new(chronos__internal__v1__raft_config__get_packed_size(&c));
    assert_non_null(b);
    (void) chronos__internal__v1__raft_config__pack(&c, b->data);
    return b;
}

struct bytes *config_of(const uint64_t *ids, size_t count) {
    return config_at(ids, count, "");
}

void fixture_config(struct fixture *x, struct bytes *config) {
    int r;

    x->err.s[0] = '\0';
    r = fsm_apply_config(x->f, fsm_applied_index(x->f) + 1, x->term, bytes_slice(config), &x->out,
                         &x->err);
    if (r < 0)
        fail_msg("fsm_apply_config: %s: %s", err_name(r), x->err.s);
    (void) bytes_unref(config);
}

static void put_local(struct kv *kv, uint64_t index, uint64_t term) {
    Chronos__Internal__V1__LocalRecord rec = CHRONOS__INTERNAL__V1__LOCAL_RECORD__INIT;
    struct kv_op op = {.key = slice_of("l", 1)};
    uint8_t packed[64];

    rec.installed_index = index;
    rec.installed_term = term;
    op.value = slice_of(packed, chronos__internal__v1__local_record__pack(&rec, packed));
    assert_int_equal(kv->ops->write(kv, &op, 1), 0);
}

struct kv *fixture_copy_store(struct kv *from, uint64_t installed_index, uint64_t installed_term) {
    struct kv *to = NULL;
    struct kv_iter *it;

    assert_int_equal(kv_mem_new(0, &to), 0);
    assert_int_equal(from->ops->iter_open(from, &it), 0);
    for (it->ops->seek(it, slice_of("", 0)); it->ops->valid(it); it->ops->next(it)) {
        struct kv_op op = {.key = it->ops->key(it), .value = it->ops->value(it)};

        if (op.key.data[0] != FSM_LOCAL_KEY)
            assert_int_equal(to->ops->write(to, &op, 1), 0);
    }
    assert_int_equal(it->ops->status(it), 0);
    it->ops->close(it);
    put_local(to, installed_index, installed_term);
    assert_int_equal(to->ops->flush(to), 0);
    return to;
}

enum fsm_code fixture_do(struct fixture *x, struct bytes *command) {
    int r = fixture_apply(x, command);

    if (r < 0)
        fail_msg("fsm_apply: %s: %s", err_name(r), x->err.s);
    (void) bytes_unref(command);
    assert_int_equal(x->out->results_count, 1);
    return x->out->results[0].code;
}

enum fsm_code fixture_submit(struct fixture *x, uint32_t max_attempts) {
    return fixture_do(x, cmd_submit("a spec", "", "", max_attempts, x->now_ms));
}

enum fsm_code fixture_register(struct fixture *x, const char *id, uint64_t incarnation,
                               uint32_t slots) {
    return fixture_do(x, cmd_register(id, incarnation, slots, 1, NULL, 0, x->now_ms));
}

enum fsm_code fixture_assign(struct fixture *x, uint64_t seq, const char *worker,
                             uint64_t incarnation) {
    return fixture_do(x, cmd_assign(seq, worker, incarnation, x->now_ms));
}

enum fsm_code fixture_update(struct fixture *x, uint64_t seq, uint64_t token,
                             Chronos__V1__AttemptOutcome outcome) {
    Chronos__V1__FailureReason reason =
        outcome == CHRONOS__V1__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_FAILED
            ? CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_EXIT_CODE
            : CHRONOS__V1__FAILURE_REASON__FAILURE_REASON_UNSPECIFIED;

    return fixture_do(x, cmd_update(seq, token, outcome, reason, x->now_ms));
}

void fixture_world(struct fixture *x, uint32_t slots, unsigned jobs, uint32_t max_attempts) {
    fixture_init(x, NULL);
    assert_int_equal(fixture_register(x, "w1", 7, slots), FSM_OK);
    for (unsigned i = 0; i < jobs; i++)
        assert_int_equal(fixture_submit(x, max_attempts), FSM_OK);
}
