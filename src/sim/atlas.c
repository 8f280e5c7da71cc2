/* See atlas.h. */
#include "sim/sim_internal.h"

#include <string.h>

#include "base/codec.h"

#define RUNNING_PERMILLE 300 /* of damage: under a running node */
#define COPY_PERMILLE 400
#define TRIES 6
#define SEGMENT_HEADER_BYTES 4096
/* What a round may take: a few steps of 64 ms and a job for the state, behind all others. */
#define SCRUB_ROUND_NS (6 * NS_PER_S)

/* ---- what the cluster bears ------------------------------------------------------------------ */

static bool healthy(const struct sim_node *n) {
    return !n->gone && !n->wiped && !n->atlas.harmed;
}

/* Has @k, for certain and on disk, entry @i of the log that @n had? */
static bool holds(const struct sim_node *k, const struct sim_node *n, uint64_t i) {
    const struct raft *r = k->up ? replica_raft(k->replica) : NULL;
    uint64_t has = k->acked_index;

    if (!r || checker_installing(k))
        return false;
    if (raft_role(r) == RAFT_LEADER)
        has = raft_durable_index(r);
    return has >= i && i < k->chain_cap && i <= k->chain_last && k->chain[i].hash != 0 &&
           k->chain[i].hash == n->chain[i].hash;
}

/* Is @bits a majority of every configuration that may decide something? */
static bool majority_everywhere(const struct world *w, uint64_t bits) {
    if (!w->checker.committed_config || !checker_quorum(w->checker.committed_config, bits))
        return false;
    for (unsigned i = 0; i < w->nodes_count; i++) {
        const struct sim_node *n = &w->nodes[i];
        const struct raft_config *c =
            n->up && !n->wiped ? raft_config_latest(replica_raft(n->replica)) : NULL;

        if (c && c->count > 0 && !checker_quorum(c, bits))
            return false;
    }
    return true;
}

static bool bears_loss_of(const struct world *w, const struct sim_node *n) {
    uint64_t good = 0;

    for (unsigned i = 0; i < w->nodes_count; i++)
        if (&w->nodes[i] != n && healthy(&w->nodes[i]))
            good |= 1ULL << (i + 1);
    return majority_everywhere(w, good);
}

/* May what @n has above @keep be lost, and nobody notice? What it acknowledged, and what of its log
 * is committed, must be with a majority of the others; what else it has was never counted. */
static bool bears_loss_above(const struct world *w, const struct sim_node *n, uint64_t keep) {
    uint64_t owed = MAX(n->acked_index, MIN(w->checker.committed_count, n->chain_last));
    uint64_t good = 0;

    if (owed <= keep)
        return true;
    if (owed > n->chain_last || owed >= n->chain_cap || n->chain[owed].hash == 0)
        return false;
    for (unsigned i = 0; i < w->nodes_count; i++)
        if (&w->nodes[i] != n && healthy(&w->nodes[i]) && holds(&w->nodes[i], n, owed))
            good |= 1ULL << (i + 1);
    return majority_everywhere(w, good);
}

/* ---- striking -------------------------------------------------------------------------------- */

static void harm(struct world *w, struct sim_node *n, const struct damage *dmg) {
    struct atlas_node *a = &n->atlas;

    a->harmed = true;
    a->told = false;
    a->planted = false;
    a->damage = *dmg;
    sim_count(w, (enum sim_stat)(SIM_STAT_DAMAGE_FIRST + dmg->kind));
    sim_trace(w, "node %u: damage: %s: %s at %llu%s", n->slot + 1, damage_name(dmg->kind),
              dmg->file, (unsigned long long) dmg->offset, dmg->newest ? " (newest segment)" : "");
}

static bool strike_state(struct world *w, struct sim_node *n) {
    struct damage dmg = {.kind = DAMAGE_STATE, .file = "state"};

    dmg.offset = rng_next(&w->rng);
    if (!sim_kv_damage(n->kv, dmg.offset))
        return false;
    dmg.offset = 0;
    harm(w, n, &dmg);
    return true;
}

/* Bits of a segment that is not written any more, and records of the state. */
static void strike_running(struct world *w, struct sim_node *n) {
    struct atlas_node *a = &n->atlas;
    struct damage dmg;
    uint64_t len = 0;
    enum damage_kind kind = rng_chance(&w->rng, 500) ? DAMAGE_BIT_ROT : DAMAGE_ZERO_SECTOR;

    if (rng_chance(&w->rng, 300)) {
        if (!strike_state(w, n))
            return;
    } else {
        if (!damage_draw(n->disk, &w->rng, kind, &a->copy, true, &dmg) ||
            !damage_do(n->disk, &w->rng, &a->copy, &dmg))
            return;
        harm(w, n, &dmg);
        a->was = sim_disk_bytes(n->disk, dmg.file, &len)[dmg.offset];
    }
    a->planted = true;
    sim_count(w, SIM_STAT_DAMAGE_RUNNING);
    a->paused_ns = faults_paused_ns(n);
    a->round = false;
    a->find_within = w->node_options.scrub_interval_ns + SCRUB_ROUND_NS;
    a->find_by = w->node_options.scrub_interval_ns == 0 ? 0 : w->now_ns + a->find_within;
}

static enum damage_kind draw_kind(struct world *w, const struct sim_node *n) {
    static const enum damage_kind often[] = {DAMAGE_BIT_ROT, DAMAGE_ZERO_SECTOR, DAMAGE_SWAP,
                                             DAMAGE_SWAP};
    const char *copy = n->atlas.copy.file;

    if (copy[0] && rng_chance(&w->rng, 500))
        return copy[0] == 'm' ? DAMAGE_OLD_META : DAMAGE_OLD_SEGMENT;
    if (rng_chance(&w->rng, 300)) /* whose outcomes differ most, or that find no victim often */
        return often[rng_below(&w->rng, ARRAY_LEN(often))];
    return (enum damage_kind) rng_below(&w->rng, DAMAGE_KINDS);
}

/* The index up to which @n must have its log after that, UINT64_MAX: all of it. Any record that is
 * whole behind the damage says that what it hit was durable; then nothing may go. */
static uint64_t kept(const struct sim_node *n, const struct damage *dmg) {
    const struct atlas_node *a = &n->atlas;
    struct damage_place place = damage_log_place(n->disk);
    bool named = strcmp(place.segment, dmg->file) == 0;
    uint64_t index = named ? MIN(place.index, a->cut_to) : 0;

    if (dmg->kind == DAMAGE_REMOVED || (named && !dmg->rolled_back && dmg->offset < place.end))
        return UINT64_MAX;
    if (dmg->rolled_back)
        return index;
    if (a->batches_count < 2 || dmg->offset < a->base_end || dmg->end == 0 ||
        strcmp(a->segment, dmg->file) != 0)
        return UINT64_MAX;
    if (a->batches[a->batches_count - 2].end >= dmg->end)
        return UINT64_MAX;
    for (size_t i = 0; i < a->batches_count; i++)
        if (a->batches[i].end <= dmg->offset)
            index = MAX(index, a->batches[i].index);
    return index;
}

/* @n is down. */
static bool strike_stopped(struct world *w, struct sim_node *n) {
    struct atlas_node *a = &n->atlas;
    enum damage_kind kind = draw_kind(w, n);
    _cleanup_(damage_copy_drop) struct damage_copy before = {0};
    uint64_t keep = UINT64_MAX;
    struct damage dmg;

    if (kind == DAMAGE_STATE)
        return strike_state(w, n);
    if (!damage_draw(n->disk, &w->rng, kind, &a->copy, false, &dmg))
        return false;
    if (dmg.newest)
        (void) damage_copy_file(n->disk, dmg.file, &before);
    if (!damage_do(n->disk, &w->rng, &a->copy, &dmg))
        return false;
    if (dmg.newest)
        keep = kept(n, &dmg);
    if (keep != UINT64_MAX && !bears_loss_above(w, n, keep)) {
        bool back = sim_disk_put(n->disk, before.file, before.bytes, before.len);

        ASSERT(back);
        return false;
    }
    a->may_lose = keep;
    harm(w, n, &dmg);
    return true;
}

static void note_batch(struct atlas_node *a, uint64_t end, bool first) {
    if (first) {
        a->batches_count = 0;
        a->base_end = end;
    }
    if (a->batches_count == ATLAS_BATCHES) {
        memmove(a->batches, a->batches + 1, (ATLAS_BATCHES - 1) * sizeof(a->batches[0]));
        a->batches_count--;
    }
    a->batches[a->batches_count++] = (struct atlas_batch){.end = end, .index = a->durable};
}

/* Files as they are now, for a later time. */
static void copy_some(struct world *w) {
    for (unsigned i = 0; i < w->nodes_count; i++) {
        struct sim_node *n = &w->nodes[i];

        if (healthy(n) && !n->atlas.copy.file[0] && rng_chance(&w->rng, COPY_PERMILLE))
            (void) damage_copy_take(n->disk, &w->rng, rng_chance(&w->rng, 600), &n->atlas.copy);
    }
}

void atlas_strike(struct world *w, struct sim_node *n) {
    copy_some(w);
    if (!healthy(n) || !n->joined || n->paused || w->changes_pending > 0)
        return;
    /* A lone node must refuse what is damaged; the world ends there. */
    if (!bears_loss_of(w, n) && !(w->nodes_count == 1 && rng_chance(&w->rng, 100)))
        return;
    if (n->up && rng_chance(&w->rng, RUNNING_PERMILLE)) {
        strike_running(w, n);
        return;
    }
    if (n->up) {
        sim_node_crash(n, rng_chance(&w->rng, 500));
        sim_push(w, rng_range(&w->rng, NS_PER_MS, 2 * NS_PER_S), SIM_NODE_RESTART, n->slot, 0,
                 n->life, NULL);
    }
    for (unsigned i = 0; i < TRIES && !strike_stopped(w, n); i++)
        ;
}

/* ---- what comes of it ------------------------------------------------------------------------ */

static void well_again(struct world *w, struct sim_node *n, bool repaired) {
    sim_count(w, repaired ? SIM_STAT_DAMAGE_REPAIRED : SIM_STAT_DAMAGE_UNHARMED);
    sim_trace(w, "node %u: the damage is %s", n->slot + 1, repaired ? "repaired" : "harmless");
    n->atlas.harmed = n->atlas.planted = n->atlas.told = n->atlas.repaired = false;
    n->atlas.find_by = 0;
}

/* The operator is told where to look. */
static void check_reason(struct world *w, const struct sim_node *n, const struct errtext *why) {
    static const char *const words[] = {"meta", ".log", "the log", "state"};

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strstr(why->s, words[i]))
            return;
    sim_fail(w, "node %u is damaged (%s) and does not say where: %s", n->slot + 1,
             damage_name(n->atlas.damage.kind), why->s);
}

static void lost_for_good(struct world *w, struct sim_node *n, int rc, const struct errtext *why) {
    sim_trace(w, "node %u: gone for good: %s", n->slot + 1, why->s);
    if (rc != ERR_CORRUPT)
        sim_fail(w, "node %u is damaged (%s) and fails with %s, not with %s: %s", n->slot + 1,
                 damage_name(n->atlas.damage.kind), err_name(rc), err_name(ERR_CORRUPT), why->s);
    check_reason(w, n, why);
    sim_count(w, SIM_STAT_DAMAGE_REFUSED);
    n->atlas.harmed = n->atlas.planted = false;
    n->gone = true;
}

/* Is what was planted still where it was? */
static bool still_there(const struct sim_node *n) {
    const struct atlas_node *a = &n->atlas;
    const uint8_t *bytes;
    uint64_t len = 0;

    if (a->damage.kind == DAMAGE_STATE)
        return !sim_kv_intact(n->kv);
    bytes = sim_disk_bytes(n->disk, a->damage.file, &len);
    return bytes && a->damage.offset < len && bytes[a->damage.offset] == a->was;
}

static void missed(struct world *w, const struct sim_node *n, const char *by) {
    const struct atlas_node *a = &n->atlas;

    sim_fail(w, "node %u: %s in %s at %llu was not found by %s", n->slot + 1,
             damage_name(a->damage.kind), a->damage.file, (unsigned long long) a->damage.offset,
             by);
}

/* W14: one whole round that begins after the damage finds it. */
static void round_begins(struct sim_node *n) {
    n->atlas.round = true;
}

static void round_ended(struct world *w, const struct sim_node *n) {
    const struct atlas_node *a = &n->atlas;

    if (a->planted && a->round && !a->told && still_there(n))
        missed(w, n, "a whole round of the scrub");
}

/* And rounds begin in time and end; a disk that hung in between may delay them. */
static void check_found(struct world *w, struct sim_node *n) {
    const struct atlas_node *a = &n->atlas;
    uint64_t slow = MAX(n->disk_jobs.slow_until, n->bulk_jobs.slow_until);

    if (!a->planted || a->find_by == 0 || a->told || !n->up ||
        w->now_ns < MAX(a->find_by, slow + a->find_within) + faults_paused_ns(n) - a->paused_ns ||
        !still_there(n))
        return;
    missed(w, n, "the scrub in time");
}

bool atlas_started(struct world *w, struct sim_node *n, int rc, const struct errtext *why) {
    if (rc < 0 && !n->atlas.harmed)
        return false;
    if (rc < 0) {
        lost_for_good(w, n, rc, why);
        return true;
    }
    n->atlas.may_lose = UINT64_MAX;
    n->atlas.find_by = 0;
    n->atlas.planted = false;
    n->atlas.durable = raft_durable_index(replica_raft(n->replica));
    n->atlas.cut_to = UINT64_MAX;
    note_batch(&n->atlas, damage_log_end(n->disk, n->atlas.segment), true);
    if (n->atlas.harmed && sim_kv_intact(n->kv))
        well_again(w, n, n->atlas.repaired);
    return true;
}

bool atlas_ended(struct world *w, struct sim_node *n, int rc, const struct errtext *why) {
    if (!n->atlas.harmed || rc != ERR_CORRUPT)
        return false;
    if (strncmp(why->s, "read: ", 6) == 0)
        sim_count(w, SIM_STAT_DAMAGE_READ);
    lost_for_good(w, n, rc, why);
    return true;
}

bool atlas_excuses(struct world *w, struct sim_node *n) {
    const struct raft *r = replica_raft(n->replica);
    uint64_t last = raft_last_index(r);

    if (!n->atlas.harmed || last < n->atlas.may_lose)
        return false;
    sim_trace(w, "node %u: lost what it had from %llu to %llu", n->slot + 1,
              (unsigned long long) last + 1, (unsigned long long) n->acked_index);
    sim_count(w, SIM_STAT_DAMAGE_TAILS_LOST);
    n->acked_index = MIN(n->acked_index, last);
    for (; n->acked_index > 0; n->acked_index--) { /* what it has in common with what it had */
        const struct raft_entry *e = raft_entry_at(r, n->acked_index);

        if (!e || n->acked_index >= n->chain_cap || e->term == n->chain[n->acked_index].term)
            break;
    }
    n->acked_term = n->acked_index < n->chain_cap ? n->chain[n->acked_index].term : 0;
    for (unsigned i = 0; i < w->nodes_count; i++)
        if (w->nodes[i].up)
            n->atlas.forgot_term =
                MAX(n->atlas.forgot_term, raft_term(replica_raft(w->nodes[i].replica)));
    return true;
}

/* What is in a new segment counts: if its file went, only the meta file could say so. */
static void check_named(struct sim_node *n, const char *segment, uint64_t durable) {
    struct damage_place place = damage_log_place(n->disk);
    uint64_t len = 0;
    const uint8_t *header = sim_disk_bytes(n->disk, segment, &len);

    if (!header || len < SEGMENT_HEADER_BYTES || durable <= get_le64(header + 64) ||
        strcmp(place.segment, segment) == 0)
        return;
    sim_fail(n->world, "node %u has entry %llu in %s, which its meta file does not name (%s)",
             n->slot + 1, (unsigned long long) durable, segment, place.segment);
}

void atlas_note(struct sim_node *n) {
    struct atlas_node *a = &n->atlas;
    uint64_t durable = raft_durable_index(replica_raft(n->replica)), end;
    char segment[DAMAGE_NAME_BYTES] = "";

    if (durable == a->durable || n->world->disk_interval_ns == 0)
        return;
    check_found(n->world, n);
    if (durable < a->durable)
        a->cut_to = MIN(a->cut_to, durable);
    for (size_t i = 0; i < a->batches_count; i++) /* it was cut */
        a->batches[i].index = MIN(a->batches[i].index, durable);
    end = damage_log_end(n->disk, segment);
    if (strcmp(segment, a->segment) != 0) { /* what went before it is before its first record */
        memcpy(a->segment, segment, sizeof(segment));
        a->cut_to = UINT64_MAX;
        check_named(n, segment, durable);
        note_batch(a, SEGMENT_HEADER_BYTES, true);
    }
    a->durable = durable;
    note_batch(a, end, false);
}

bool atlas_answers_loss(const struct sim_node *n, int rc) {
    return rc == ERR_CORRUPT && n->atlas.harmed;
}

bool atlas_state_intact(const struct sim_node *n) {
    return !n->atlas.harmed || sim_kv_intact(n->kv);
}

void atlas_heard(struct world *w, struct sim_node *n, const char *msg) {
    if (!n->atlas.harmed)
        return;
    if (strstr(msg, "was repaired from its copy"))
        n->atlas.repaired = true;
    if (strcmp(msg, "scrub: round begins") == 0)
        round_begins(n);
    if (strcmp(msg, "scrub: round ended") == 0)
        round_ended(w, n);
    if (strcmp(msg, "scrub: damage in the log") == 0)
        n->atlas.told = true;
    if (strcmp(msg, "scrub: damaged log segments released") == 0)
        well_again(w, n, true);
}

void atlas_settle(struct world *w) {
    for (unsigned i = 0; i < w->nodes_count && !w->failed; i++) {
        struct sim_node *n = &w->nodes[i];

        damage_copy_drop(&n->atlas.copy);
        if (!n->atlas.harmed)
            continue;
        check_found(w, n);
        faults_resume(n);
        if (n->up)
            sim_node_crash(n, false);
        if (!sim_kv_intact(n->kv)) { /* it might be found in the quiet that follows, or never */
            sim_trace(w, "node %u: is taken away with its damaged state", n->slot + 1);
            n->atlas.harmed = false;
            n->gone = true;
        }
    }
}

void atlas_free(struct sim_node *n) {
    damage_copy_drop(&n->atlas.copy);
}
