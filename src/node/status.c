/* What operators see: the cluster's status and the log's entries.
 * Thread: the loop; only the log listing reads on the disk thread. */
#include "node/replica_internal.h"

#include "fsm/command.h"

#include "chronos/v1/cluster_service.pb-c.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_ENTRIES_MAX 1000
#define SUMMARY_BYTES 256

static char *hex(struct arena *a, const uint8_t *p, size_t n) {
    char *s = arena_alloc(a, 2 * n + 1);

    for (size_t i = 0; s && i < n; i++)
        (void) snprintf(s + 2 * i, 3, "%02x", p[i]);
    return s;
}

static const char *or_empty(const char *s) {
    return s ? s : "";
}

static char *unconst(const char *s) {
    return (char *) (uintptr_t) s; /* packing reads only */
}

/* @n's alarms from @lines, one a line. */
static void fill_peer_alarms(struct arena *a, const char *lines, Chronos__V1__NodeStatus *n) {
    char *copy = arena_strdup(a, lines), *save = NULL;

    for (char *s = copy ? strtok_r(copy, "\n", &save) : NULL; s && n->n_alarms < ALARMS_MAX;
         s = strtok_r(NULL, "\n", &save))
        n->alarms[n->n_alarms++] = s;
}

static void fill_alarms(struct replica *r, struct arena *a, const struct peer *p,
                        Chronos__V1__NodeStatus *n) {
    const char *own[ALARMS_MAX];
    size_t count;

    n->alarms = arena_alloc(a, ALARMS_MAX * sizeof(*n->alarms));
    if (!n->alarms)
        return;
    if (n->id != r->o.id) {
        n->disk_free_bytes = p ? p->disk_free_bytes : 0;
        if (p)
            fill_peer_alarms(a, p->alarms, n);
        return;
    }
    n->disk_free_bytes = r->disk_space.free_bytes;
    count = alarms_own(r, own);
    for (size_t i = 0; i < count; i++)
        n->alarms[n->n_alarms++] = unconst(own[i]);
}

/* What the node is in the cluster, and whether its clock is like the others'. */
static void fill_membership(struct replica *r, struct arena *a, const struct raft_member *m,
                            Chronos__V1__NodeStatus *n) {
    const struct fsm_node *rec = fsm_node_find(r->fsm, m->id);
    const char *address = rec && rec->peer_address[0] ? rec->peer_address : m->address;
    int64_t off_ms = 0;

    n->peer_address = arena_strdup(a, address);
    n->membership = unconst(membership_of(raft_config_latest(r->raft), m));
    n->draining = rec && rec->draining;
    if (clock_is_off(r, m->id, &off_ms) && n->alarms && n->n_alarms < ALARMS_MAX) {
        n->alarms[n->n_alarms] = arena_printf(
            a, "clock_suspect: %lld ms off the median of the nodes", (long long) off_ms);
        if (n->alarms[n->n_alarms])
            n->n_alarms++;
    }
}

/* All nodes' alarms, each with its node. False: no memory. */
static bool fill_all_alarms(struct arena *a, Chronos__V1__GetClusterStatusResponse *s) {
    size_t count = 0;

    for (size_t i = 0; i < s->n_nodes; i++)
        count += s->nodes[i]->n_alarms;
    s->alarms = arena_alloc(a, (count + 1) * sizeof(*s->alarms));
    for (size_t i = 0; s->alarms && i < s->n_nodes; i++)
        for (size_t k = 0; k < s->nodes[i]->n_alarms; k++) {
            char *text = arena_printf(a, "node %llu: %s", (unsigned long long) s->nodes[i]->id,
                                      s->nodes[i]->alarms[k]);

            if (!text)
                return false;
            s->alarms[s->n_alarms++] = text;
        }
    return s->alarms;
}

static void fill_node(struct replica *r, struct arena *a, const struct raft_member *m,
                      Chronos__V1__NodeStatus *n) {
    struct peer *p = peer_find(r, m->id);
    struct raft_peer_status st = {0};
    uint8_t digest[16];
    bool self = m->id == r->o.id;

    n->id = m->id;
    n->client_address = unconst(or_empty(replica_client_address(r, m->id)));
    n->last_contact_ms = -1;
    n->snapshot_percent = transfers_percent(r, m->id);
    fill_alarms(r, a, p, n);
    fill_membership(r, a, m, n);
    n->role = unconst(m->flags & RAFT_MEMBER_LEARNER  ? "learner"
                      : self                          ? raft_role_to_string(raft_role(r->raft))
                      : raft_leader(r->raft) == m->id ? "leader"
                                                      : "follower");
    if (self) {
        n->last_contact_ms = 0;
        n->is_alive = true;
        n->match_index = raft_durable_index(r->raft);
        n->applied_index = fsm_applied_index(r->fsm);
        n->version = r->version;
        n->digest_index = n->applied_index;
        fsm_digest(r->fsm, digest);
        n->digest = hex(a, digest, sizeof(digest));
        return;
    }
    if (raft_peer_status(r->raft, m->id, &st) == 0) {
        n->match_index = st.match;
        if (st.contacted) {
            uint64_t age_ns = mono_diff_ns(r->now, st.last_contact);

            n->last_contact_ms = (int64_t) (age_ns / NS_PER_MS);
            n->is_alive = age_ns < r->o.peer_liveness_ns;
        }
        if (!n->is_alive)
            n->role = unconst("unknown");
    }
    if (p && p->facts_known) {
        n->version = p->version;
        n->applied_index = p->applied_index;
        n->digest_index = p->digest_index;
        memcpy(digest, &p->digest_low, 8);
        memcpy(digest + 8, &p->digest_high, 8);
        n->digest = hex(a, digest, sizeof(digest));
    }
}

static bool fill_nodes(struct replica *r, struct arena *a,
                       Chronos__V1__GetClusterStatusResponse *s) {
    const struct raft_config *config = raft_config_latest(r->raft);

    s->nodes = arena_alloc(a, (config->count + 1) * sizeof(*s->nodes));
    for (size_t i = 0; s->nodes && i < config->count; i++) {
        Chronos__V1__NodeStatus *n = arena_alloc(a, sizeof(*n));

        if (!n)
            return false;
        chronos__v1__node_status__init(n);
        fill_node(r, a, &config->members[i], n);
        s->nodes[s->n_nodes++] = n;
    }
    return s->nodes;
}

/* Who drains by itself is known to the leader only. */
static const char *worker_state(struct replica *r, const struct fsm_worker *w) {
    if (w->lost)
        return "lost";
    if (w->draining)
        return "draining";
    return r->was_leader && leases_draining(r, w) ? "draining" : "live";
}

static bool fill_workers(struct replica *r, struct arena *a,
                         Chronos__V1__GetClusterStatusResponse *s) {
    size_t count = 0;

    for (const struct fsm_worker *w = fsm_worker_first(r->fsm); w; w = w->next)
        count++;
    s->workers = arena_alloc(a, (count + 1) * sizeof(*s->workers));
    if (!s->workers)
        return false;
    for (const struct fsm_worker *w = fsm_worker_first(r->fsm); w; w = w->next) {
        Chronos__V1__WorkerStatus *st = arena_alloc(a, sizeof(*st));
        Chronos__Internal__V1__WorkerRecord *rec = NULL;

        if (!st)
            return false;
        chronos__v1__worker_status__init(st);
        st->id = arena_strdup(a, w->id);
        st->node_id = w->node_id;
        st->slots = w->slots;
        st->running = w->running;
        st->last_heartbeat_ms = leases_age_ms(r, w->id);
        st->is_alive = !w->lost && (!r->was_leader || leases_alive(r, w));
        st->state = unconst(worker_state(r, w));
        if (fsm_read_worker(r->fsm, w->id, a, &rec) == 0) {
            st->version = rec->version;
            /* The two map entries have the same fields; protobuf-c gives each message its own type.
             */
            st->n_labels = 0;
            st->labels = arena_alloc(a, (rec->n_labels + 1) * sizeof(*st->labels));
            for (size_t i = 0; st->labels && i < rec->n_labels; i++) {
                Chronos__V1__WorkerStatus__LabelsEntry *e = arena_alloc(a, sizeof(*e));

                if (!e)
                    return false;
                chronos__v1__worker_status__labels_entry__init(e);
                e->key = rec->labels[i]->key;
                e->value = rec->labels[i]->value;
                st->labels[st->n_labels++] = e;
            }
        }
        s->workers[s->n_workers++] = st;
    }
    return true;
}

static bool fill_schedules(struct replica *r, struct arena *a,
                           Chronos__V1__GetClusterStatusResponse *s) {
    s->schedules = fsm_schedules_count(r->fsm);
    s->tzdata_version = arena_strdup(a, zones_version(r->ticks.zones));
    s->lateness = arena_alloc(a, TICKER_CAUSES * sizeof(*s->lateness));
    for (unsigned c = 0; s->lateness && c < TICKER_CAUSES; c++) {
        const struct histogram *h = &r->ticks.lateness[c];
        Chronos__V1__LatenessStatus *l;

        if (h->total == 0)
            continue;
        l = arena_alloc(a, sizeof(*l));
        if (!l)
            return false;
        chronos__v1__lateness_status__init(l);
        l->cause = unconst(ticker_cause_to_string((enum ticker_cause) c));
        l->count = h->total;
        l->p50_ms = histogram_quantile(h, 500000);
        l->p99_ms = histogram_quantile(h, 990000);
        l->max_ms = h->max;
        s->lateness[s->n_lateness++] = l;
    }
    return s->tzdata_version && s->lateness;
}

/* This node's view, packed. NULL when memory is out. */
static struct bytes *status_pack(struct replica *r) {
    Chronos__V1__GetClusterStatusResponse s = CHRONOS__V1__GET_CLUSTER_STATUS_RESPONSE__INIT;
    struct bytes *packed = NULL;
    char open_change[300];
    uint8_t digest[16];
    struct arena a;

    arena_init(&a, ARENA_BYTES_MAX);
    fsm_digest(r->fsm, digest);
    s.cluster_id = hex(&a, r->o.cluster_id, sizeof(r->o.cluster_id));
    s.term = raft_term(r->raft);
    s.leader_id = raft_leader(r->raft);
    s.commit_index = raft_commit(r->raft);
    s.applied_index = fsm_applied_index(r->fsm);
    s.digest = hex(&a, digest, sizeof(digest));
    s.log_first_index = r->persist.log.base_index + 1;
    s.snapshot_index = r->snapshots.durable_index;
    s.state_bytes = r->kv->ops->disk_bytes(r->kv);
    s.feature_level = fsm_feature_level(r->fsm);
    membership_open_change(r, open_change, sizeof(open_change));
    s.open_change = open_change;
    s.log_last_index = raft_last_index(r->raft);
    s.log_entries_in_memory = raft_last_index(r->raft) + 1 - raft_first_in_memory(r->raft);
    s.log_bytes = r->persist.log.bytes;
    s.answered_by = r->o.id;
    s.index = s.applied_index;
    s.version = r->version;
    s.jobs_pending = fsm_jobs_count(r->fsm, CHRONOS__V1__JOB_STATE__JOB_STATE_PENDING);
    s.jobs_running = fsm_jobs_count(r->fsm, CHRONOS__V1__JOB_STATE__JOB_STATE_RUNNING);
    s.jobs_completed = fsm_jobs_count(r->fsm, CHRONOS__V1__JOB_STATE__JOB_STATE_COMPLETED);
    s.jobs_failed = fsm_jobs_count(r->fsm, CHRONOS__V1__JOB_STATE__JOB_STATE_FAILED);
    s.jobs_cancelled = fsm_jobs_count(r->fsm, CHRONOS__V1__JOB_STATE__JOB_STATE_CANCELLED);
    if (s.cluster_id && s.digest && fill_nodes(r, &a, &s) && fill_workers(r, &a, &s) &&
        fill_schedules(r, &a, &s) && fill_all_alarms(&a, &s))
        packed = bytes_new(chronos__v1__get_cluster_status_response__get_packed_size(&s));
    if (packed)
        (void) chronos__v1__get_cluster_status_response__pack(&s, packed->data);
    arena_done(&a);
    return packed;
}

/* ---- asking the leader ----------------------------------------------------------------------- */

struct status_query {
    struct replica *replica;
    replica_bytes_fn done;
    void *arg;
};

static void answer_locally(struct replica *r, replica_bytes_fn done, void *arg) {
    struct bytes *packed = status_pack(r);

    done(arg, packed ? REPLICA_OK : REPLICA_REFUSED, bytes_slice(packed));
    bytes_unref(packed);
}

static void status_reply(void *arg, uint32_t code, struct slice body, bool more) {
    struct status_query *q = arg;

    (void) more;
    if (code == 0)
        q->done(q->arg, REPLICA_OK, body);
    else
        answer_locally(q->replica, q->done, q->arg);
    free(q);
}

void status_serve(struct replica *r, uint64_t from, uint64_t call_id) {
    struct bytes *packed = status_pack(r);

    peer_calls_reply(r, from, call_id, packed ? 0 : 13, "", bytes_slice(packed), false);
    bytes_unref(packed);
}

/* May answer from inside this call when the answer is local. */
int replica_cluster_status(struct replica *r, bool local_only, struct mono deadline,
                           replica_bytes_fn done, void *arg) {
    uint64_t leader = raft_leader(r->raft);
    struct status_query *q;
    uint64_t id = 0;
    int rc;

    r->now = r->env.clock.mono(r->env.clock.ctx);
    r->wants_turn = true;
    if (local_only || leader == 0 || leader == r->o.id) {
        answer_locally(r, done, arg);
        return 0;
    }
    q = calloc(1, sizeof(*q));
    if (!q)
        return -ENOMEM;
    *q = (struct status_query){.replica = r, .done = done, .arg = arg};
    deadline = mono_min(deadline, mono_add_ms(r->now, 1000));
    rc = peer_call_start(r, leader, PEER_CALL_STATUS, slice_of(NULL, 0), deadline, status_reply, q,
                         &id);
    if (rc == 0)
        return 0;
    free(q);
    if (rc < 0)
        return rc;
    answer_locally(r, done, arg);
    return 0;
}

/* ---- the log's entries ----------------------------------------------------------------------- */

struct entries_job {
    struct disk_job job;
    struct replica *replica;
    uint64_t first;
    size_t limit;
    struct arena arena;
    Chronos__V1__ListLogEntriesResponse response;
    replica_bytes_fn done;
    void *arg;
    int result;
    struct errtext error;
};

/* noop, config, or the command's name. */
static const char *entry_type_name(const struct wal_record *rec) {
    struct command_view view;

    if (rec->type == RAFT_ENTRY_NOOP)
        return "noop";
    if (rec->type == RAFT_ENTRY_CONFIG)
        return "config";
    if (rec->data.len <= ENTRY_HEADER_BYTES ||
        command_parse(
            slice_of(rec->data.data + ENTRY_HEADER_BYTES, rec->data.len - ENTRY_HEADER_BYTES),
            &view, NULL) < 0)
        return "unknown";
    return command_kind_of(view.kind)->name;
}

static int entries_each(void *arg, const struct wal_record *rec) {
    struct entries_job *j = arg;
    Chronos__V1__LogEntryInfo *e;
    char *summary;

    if (j->response.n_entries >= j->limit)
        return 1;
    e = arena_alloc(&j->arena, sizeof(*e));
    summary = arena_zalloc(&j->arena, SUMMARY_BYTES);
    if (!e || !summary)
        return -ENOMEM;
    chronos__v1__log_entry_info__init(e);
    e->index = rec->index;
    e->term = rec->term;
    e->type = unconst(entry_type_name(rec));
    e->bytes = rec->data.len;
    e->summary = summary;
    if (rec->type == RAFT_ENTRY_COMMAND && rec->data.len > ENTRY_HEADER_BYTES)
        fsm_command_describe(
            slice_of(rec->data.data + ENTRY_HEADER_BYTES, rec->data.len - ENTRY_HEADER_BYTES),
            summary, SUMMARY_BYTES, &e->at_ms);
    j->response.entries[j->response.n_entries++] = e;
    return 0;
}

static void entries_run(struct disk_job *job) {
    struct entries_job *j = CONTAINER_OF(job, struct entries_job, job);
    uint64_t last = wal_last_index(j->replica->wal);

    if (j->first == 0)
        j->first = last >= j->limit ? last - j->limit + 1 : 1;
    j->first = MAX(j->first, wal_base_index(j->replica->wal) + 1); /* the older ones are gone */
    if (last == 0 || j->first > last)
        return;
    j->result =
        wal_read(j->replica->wal, j->first, WAL_RECORD_BYTES_MAX, entries_each, j, &j->error);
}

static void entries_done(struct disk_job *job) {
    struct entries_job *j = CONTAINER_OF(job, struct entries_job, job);
    struct replica *r = j->replica;
    struct bytes *packed = NULL;

    r->disk_jobs--;
    r->wants_turn = true;
    if (j->result < 0)
        replica_fail(r, j->result, "reading the log: %s", j->error.s);
    j->response.index = fsm_applied_index(r->fsm);
    if (!r->failed)
        packed = bytes_new(chronos__v1__list_log_entries_response__get_packed_size(&j->response));
    if (packed)
        (void) chronos__v1__list_log_entries_response__pack(&j->response, packed->data);
    j->done(j->arg, packed ? REPLICA_OK : REPLICA_REFUSED, bytes_slice(packed));
    bytes_unref(packed);
    arena_done(&j->arena);
    free(j);
}

int replica_log_entries(struct replica *r, uint64_t first, size_t limit, replica_bytes_fn done,
                        void *arg) {
    struct entries_job *j = calloc(1, sizeof(*j));

    if (!j)
        return -ENOMEM;
    j->job = (struct disk_job){.run = entries_run, .done = entries_done};
    j->replica = r;
    j->first = first;
    j->limit = MIN(MAX(limit, 1UL), (size_t) LOG_ENTRIES_MAX);
    j->done = done;
    j->arg = arg;
    arena_init(&j->arena, ARENA_BYTES_MAX);
    chronos__v1__list_log_entries_response__init(&j->response);
    j->response.entries = arena_alloc(&j->arena, j->limit * sizeof(*j->response.entries));
    if (!j->response.entries) {
        arena_done(&j->arena);
        free(j);
        return -ENOMEM;
    }
    r->disk_jobs++;
    r->env.disk_queue.submit(r->env.disk_queue.ctx, &j->job);
    return 0;
}
