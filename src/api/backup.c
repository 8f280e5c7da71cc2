/* CreateBackup: the whole replicated state at one index, as the bytes of a backup file.
 *
 * What it is: a read barrier, so that everything acknowledged before the call is in it; a view of
 * the state at that moment; then the view's blocks, as they are, in messages of bounded size. The
 * next blocks are read only when the client's queue has room: one queue and one read of memory per
 * backup, however slow its client. A stream that ends without OK is no backup.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "chronos/v1/cluster_service.pb-c.h"

#include <errno.h>
#include <stdlib.h>

#define BACKUP_MESSAGE_BYTES (256UL * 1024)

/*             barrier passed        client's queue full
 * BARRIER ----------------> READING ------------------> BLOCKED
 *    |                       |    ^-----on_writable--------|
 *    +------- error, end, stop, gone ---------> ENDED -----+-- on_gone --> freed
 */
enum backup_state { BACKUP_BARRIER, BACKUP_READING, BACKUP_BLOCKED, BACKUP_ENDED };

struct api_backup {
    struct api *api;
    struct rpc_call *call; /* NULL: gone while the barrier was out */
    enum backup_state state;
    bool barrier_out;
    bool reading; /* a read of the view is under way */
    struct mono started;
    struct mono deadline;
    struct replica_view *view; /* owned; NULL before and after */
    struct api_backup *prev, *next;
};

static const uint8_t backup_edges[] = {
    [BACKUP_BARRIER] = 1u << BACKUP_READING | 1u << BACKUP_ENDED,
    [BACKUP_READING] = 1u << BACKUP_BLOCKED | 1u << BACKUP_ENDED,
    [BACKUP_BLOCKED] = 1u << BACKUP_READING | 1u << BACKUP_ENDED,
    [BACKUP_ENDED] = 0,
};

static void backup_set_state(struct api_backup *b, enum backup_state to) {
    ASSERT((size_t) b->state < ARRAY_LEN(backup_edges));
    ASSERT(backup_edges[b->state] >> to & 1u);
    b->state = to;
    if (to == BACKUP_ENDED)
        b->view = replica_view_close(b->view); /* what it keeps on disk is free again */
}

static void backup_free(struct api_backup *b) {
    struct api *a = b->api;

    ASSERT(!b->barrier_out);
    ASSERT(!b->view);
    if (b->prev)
        b->prev->next = b->next;
    else
        a->backups = b->next;
    if (b->next)
        b->next->prev = b->prev;
    ASSERT(a->backups_count > 0);
    a->backups_count--;
    free(b);
}

static void fail(struct api_backup *b, int rc) {
    backup_set_state(b, BACKUP_ENDED);
    if (rc == -ENOMEM)
        api_fail_memory(b->call);
    else if (rc == -EBUSY)
        api_fail(b->call, RPC_RESOURCE_EXHAUSTED,
                 "this node reads its state for others already (backups, new members); try again");
    else if (rc == -ENOSPC || rc == -EDQUOT)
        api_fail(b->call, RPC_UNAVAILABLE,
                 "this node cannot be backed up while its disk is full; ask another node");
    else
        api_fail(b->call, RPC_INTERNAL, "the state could not be read: %s", err_name(rc));
}

/* ---- blocks ------------------------------------------------------------------------------------
 */

/* Messages of at most BACKUP_MESSAGE_BYTES. 0, 1 = the queue is full; negative: failed. */
static int send_blocks(struct api_backup *b, struct slice blocks) {
    int full = 0;

    for (size_t at = 0; at < blocks.len;) {
        Chronos__V1__CreateBackupResponse m = CHRONOS__V1__CREATE_BACKUP_RESPONSE__INIT;
        int r;

        m.data.data = (uint8_t *) (uintptr_t) (blocks.data + at); /* packing reads only */
        m.data.len = MIN(blocks.len - at, BACKUP_MESSAGE_BYTES);
        at += m.data.len;
        r = api_write(b->call, &m.base);
        if (r < 0)
            return r;
        full = r;
    }
    return full;
}

static void on_blocks(void *arg, int rc, struct slice blocks, bool last);

static void read_on(struct api_backup *b) {
    b->reading = true;
    replica_view_next(b->view, BACKUP_MESSAGE_BYTES, on_blocks, b);
}

static void on_blocks(void *arg, int rc, struct slice blocks, bool last) {
    struct api_backup *b = arg;

    ASSERT(b->state == BACKUP_READING);
    b->reading = false;
    if (rc >= 0)
        rc = send_blocks(b, blocks);
    if (rc < 0) {
        fail(b, rc);
    } else if (last) {
        backup_set_state(b, BACKUP_ENDED);
        rpc_call_finish(b->call, RPC_OK, NULL, NULL, 0);
    } else if (rc == 1) {
        backup_set_state(b, BACKUP_BLOCKED);
    } else {
        read_on(b);
    }
}

void backup_on_writable(void *ctx, struct rpc_call *call) {
    struct api_backup *b = rpc_call_user(call);

    (void) ctx;
    if (!b || b->state != BACKUP_BLOCKED)
        return;
    backup_set_state(b, BACKUP_READING);
    read_on(b);
}

/* ---- the call ----------------------------------------------------------------------------------
 */

static void begin(struct api_backup *b) {
    int rc = replica_view_open(b->api->replica, &b->view);

    if (rc < 0) {
        fail(b, rc);
        return;
    }
    log_info(b->api->o.log, "backup", "index=%llu",
             (unsigned long long) replica_view_index(b->view));
    backup_set_state(b, BACKUP_READING);
    read_on(b);
}

static void on_barrier(void *arg, enum replica_status status, uint64_t index) {
    struct api_backup *b = arg;

    (void) index;
    b->barrier_out = false;
    if (!b->call) {
        backup_free(b);
        return;
    }
    if (b->state != BACKUP_BARRIER)
        return; /* ended by backup_stop */
    if (status == REPLICA_OK) {
        begin(b);
        return;
    }
    backup_set_state(b, BACKUP_ENDED);
    api_fail_status(b->api, b->call, STATUS_READ, status, b->started, b->deadline);
}

static struct api_backup *backup_new(struct api *a, struct rpc_call *call) {
    struct api_backup *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    b->api = a;
    b->call = call;
    b->started = (struct mono){uv_hrtime()};
    b->deadline = status_answer_by(rpc_call_deadline(call), b->started);
    b->next = a->backups;
    if (b->next)
        b->next->prev = b;
    a->backups = b;
    a->backups_count++;
    rpc_call_set_user(call, b);
    return b;
}

void backup_on_call(void *ctx, struct rpc_call *call, struct slice request) {
    struct api *a = ctx;
    struct api_backup *b;
    int r;

    if (api_refuse_stopping(a, call, STATUS_READ))
        return;
    if (a->backups_count >= a->o.backups_max) {
        api_fail(call, RPC_RESOURCE_EXHAUSTED, "this node makes at most %zu backups at once",
                 a->o.backups_max);
        return;
    }
    if (!api_decode(a, call, &chronos__v1__create_backup_request__descriptor, request))
        return;
    b = backup_new(a, call);
    if (!b) {
        api_fail_memory(call);
        return;
    }
    r = replica_read(a->replica, b->deadline, on_barrier, b);
    if (r == 0) {
        b->barrier_out = true;
        return;
    }
    backup_set_state(b, BACKUP_ENDED);
    if (r > 0)
        api_fail_status(a, call, STATUS_READ, (enum replica_status) r, b->started, b->deadline);
    else
        api_fail_memory(call);
}

void backup_on_gone(void *ctx, struct rpc_call *call) {
    struct api_backup *b = rpc_call_user(call);

    (void) ctx;
    if (!b)
        return;
    b->call = NULL;
    if (b->state != BACKUP_ENDED)
        backup_set_state(b, BACKUP_ENDED);
    if (!b->barrier_out)
        backup_free(b);
}

void backup_stop(struct api *a) {
    for (struct api_backup *b = a->backups; b; b = b->next) {
        if (b->state == BACKUP_ENDED)
            continue;
        backup_set_state(b, BACKUP_ENDED);
        api_fail_status(a, b->call, STATUS_READ, REPLICA_STOPPING, b->started, b->deadline);
    }
}
