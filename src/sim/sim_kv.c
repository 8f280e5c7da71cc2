/* See sim_kv.h: each function hands on to the store below unless the power is gone. */
#include "sim/sim_kv.h"

#include "storage/kv_mem.h"

#include <errno.h>
#include <stdlib.h>

struct sim_kv {
    struct kv kv;
    struct kv *inner; /* owned */
    bool dead;
    bool at_switch;     /* the fault waits for a commit or adoption of the stage */
    uint64_t countdown; /* 0 = no fault is set */
    int err;
    bool hit;
    uint64_t flushes;
};

static struct sim_kv *sim_kv_of(const struct kv *kv) {
    return CONTAINER_OF(kv, struct sim_kv, kv);
}

/* 0, or what the operation has to return at once. */
static int enter(struct sim_kv *k, bool may_be_full, bool switches) {
    if (k->dead)
        return ERR_CRASHED;
    if (k->countdown == 0 || (k->err != ERR_CRASHED && !may_be_full) ||
        (k->at_switch && !switches) || --k->countdown > 0)
        return 0;
    k->hit = true;
    k->dead = k->err == ERR_CRASHED;
    return k->err;
}

static int op_get(struct kv *kv, struct slice key, struct buf *out) {
    struct sim_kv *k = sim_kv_of(kv);

    return k->dead ? ERR_CRASHED : k->inner->ops->get(k->inner, key, out);
}

static int op_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    struct sim_kv *k = sim_kv_of(kv);

    return k->dead ? ERR_CRASHED : k->inner->ops->write(k->inner, ops, n);
}

static int op_flush(struct kv *kv) {
    struct sim_kv *k = sim_kv_of(kv);
    int rc = enter(k, false, false);

    if (rc < 0)
        return rc;
    k->flushes++;
    return k->inner->ops->flush(k->inner);
}

static int op_verify(struct kv *kv, struct errtext *reterr) {
    struct sim_kv *k = sim_kv_of(kv);

    return k->dead ? ERR_CRASHED : k->inner->ops->verify(k->inner, reterr);
}

static int op_iter_open(struct kv *kv, struct kv_iter **ret) {
    struct sim_kv *k = sim_kv_of(kv);

    return k->dead ? ERR_CRASHED : k->inner->ops->iter_open(k->inner, ret);
}

static int op_stage_begin(struct kv *kv) {
    struct sim_kv *k = sim_kv_of(kv);
    int rc = enter(k, true, false);

    return rc < 0 ? rc : k->inner->ops->stage_begin(k->inner);
}

static int op_stage_write(struct kv *kv, const struct kv_op *ops, size_t n) {
    struct sim_kv *k = sim_kv_of(kv);
    int rc = enter(k, true, false);

    return rc < 0 ? rc : k->inner->ops->stage_write(k->inner, ops, n);
}

static int op_stage_commit(struct kv *kv) {
    struct sim_kv *k = sim_kv_of(kv);
    int rc = enter(k, false, true);

    return rc < 0 ? rc : k->inner->ops->stage_commit(k->inner);
}

static int op_stage_adopt(struct kv *kv) {
    struct sim_kv *k = sim_kv_of(kv);
    int rc = enter(k, false, true);

    return rc < 0 ? rc : k->inner->ops->stage_adopt(k->inner);
}

static void op_stage_drop(struct kv *kv) {
    struct sim_kv *k = sim_kv_of(kv);

    if (!k->dead)
        k->inner->ops->stage_drop(k->inner);
}

static uint64_t op_disk_bytes(struct kv *kv) {
    struct sim_kv *k = sim_kv_of(kv);

    return k->inner->ops->disk_bytes(k->inner);
}

static void op_close(struct kv *kv) {
    (void) sim_kv_free(sim_kv_of(kv));
}

int sim_kv_new(size_t auto_flush_batches, struct sim_kv **ret) {
    static const struct kv_ops ops = {
        .get = op_get,
        .write = op_write,
        .flush = op_flush,
        .verify = op_verify,
        .iter_open = op_iter_open,
        .stage_begin = op_stage_begin,
        .stage_write = op_stage_write,
        .stage_commit = op_stage_commit,
        .stage_adopt = op_stage_adopt,
        .stage_drop = op_stage_drop,
        .disk_bytes = op_disk_bytes,
        .close = op_close,
    };
    struct sim_kv *k = calloc(1, sizeof(*k));

    if (!k)
        return -ENOMEM;
    k->kv.ops = &ops;
    if (kv_mem_new(auto_flush_batches, &k->inner) < 0) {
        free(k);
        return -ENOMEM;
    }
    *ret = k;
    return 0;
}

struct sim_kv *sim_kv_free(struct sim_kv *k) {
    if (k) {
        k->inner->ops->close(k->inner);
        free(k);
    }
    return NULL;
}

struct kv *sim_kv_interface(struct sim_kv *k) {
    return &k->kv;
}

void sim_kv_set_fault(struct sim_kv *k, uint64_t nth, int err, bool at_switch) {
    ASSERT(nth > 0);
    ASSERT(err < 0);
    k->countdown = nth;
    k->err = err;
    k->at_switch = at_switch;
    k->hit = false;
}

void sim_kv_clear_fault(struct sim_kv *k) {
    k->countdown = 0;
}

bool sim_kv_crashed(const struct sim_kv *k) {
    return k->dead;
}

bool sim_kv_fault_hit(const struct sim_kv *k) {
    return k->hit;
}

void sim_kv_kill(struct sim_kv *k) {
    k->dead = true;
}

void sim_kv_crash(struct sim_kv *k, uint32_t permille) {
    kv_mem_crash(k->inner, kv_mem_unflushed(k->inner) * permille / 1000);
    k->dead = false;
    sim_kv_clear_fault(k);
}

bool sim_kv_damage(struct sim_kv *k, uint64_t nth) {
    return kv_mem_damage(k->inner, nth);
}

bool sim_kv_intact(const struct sim_kv *k) {
    return k->inner->ops->verify(k->inner, NULL) == 0;
}

bool sim_kv_staged(const struct sim_kv *k) {
    return kv_mem_staged(k->inner);
}

uint64_t sim_kv_flushes(const struct sim_kv *k) {
    return k->flushes;
}
