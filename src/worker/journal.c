#include "worker/journal.h"

#include "base/codec.h"
#include "base/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_HEADER_BYTES 9U
#define REF_RECORD_BYTES_MAX (1U + REF_JOB_ID_BYTES_MAX + 12U)
#define MAGIC "chronos worker journal 1\n"

enum record_type {
    RECORD_HEADER = 1,
    RECORD_STARTING = 2,
    RECORD_STARTED = 3,
    RECORD_ENDED = 4,
    RECORD_FORGOTTEN = 5 /* also stands for a started attempt whose other records are gone */
};

struct entry {
    struct journal_entry pub;
    uint64_t report_offset; /* of the packed report in the file */
    uint64_t moved_offset;  /* the same in the file that a compaction is writing */
    uint32_t report_bytes;
};

struct journal {
    int dir_fd;
    int fd;
    uint64_t size; /* where the next record goes */
    uint64_t torn;
    uint64_t live_bytes;
    uint64_t compact_at; /* size at which a compaction is tried */
    char boot_id[JOURNAL_BOOT_ID_BYTES_MAX];
    struct bytesmap entries; /* owned struct entry */
    struct ref forgotten[JOURNAL_FORGOTTEN_MAX];
    size_t forgotten_next;                             /* the ring's next slot */
    void (*on_seen)(void *arg, const struct ref *ref); /* set while replaying */
    void *arg;
};

static uint64_t entry_bytes(const struct entry *e) {
    uint64_t n = RECORD_HEADER_BYTES + REF_RECORD_BYTES_MAX;

    return e->pub.state == JOURNAL_ENDED ? n + e->report_bytes : 2 * n + 12;
}

static struct entry *entry_find(const struct journal *j, const struct ref *ref) {
    return (struct entry *) bytesmap_get(&j->entries, ref_key(ref));
}

static int entry_get(struct journal *j, const struct ref *ref, struct entry **ret) {
    struct entry *e = entry_find(j, ref);
    int r;

    if (!e) {
        e = calloc(1, sizeof(*e));
        if (!e)
            return -ENOMEM;
        e->pub.ref = *ref;
        e->pub.state = JOURNAL_STARTING;
        r = bytesmap_put(&j->entries, ref_key(&e->pub.ref), e);
        if (r < 0) {
            free(e);
            return r;
        }
        j->live_bytes += entry_bytes(e);
    }
    *ret = e;
    return 0;
}

static void entry_drop(struct journal *j, const struct ref *ref) {
    struct entry *e = (struct entry *) bytesmap_del(&j->entries, ref_key(ref));

    j->forgotten[j->forgotten_next % JOURNAL_FORGOTTEN_MAX] = *ref;
    j->forgotten_next++;
    if (e) {
        ASSERT(j->live_bytes >= entry_bytes(e));
        j->live_bytes -= entry_bytes(e);
        free(e);
    }
}

static size_t ref_encode(uint8_t *p, const struct ref *ref) {
    size_t n = strlen(ref->job_id);

    p[0] = (uint8_t) n;
    memcpy(p + 1, ref->job_id, n);
    put_le32(p + 1 + n, ref->attempt);
    put_le64(p + 5 + n, ref->token);
    return 13 + n;
}

/* Returns the bytes used, 0 when malformed. */
static size_t ref_decode(struct slice s, struct ref *ret) {
    size_t n = s.len > 0 ? s.data[0] : 0;

    if (n == 0 || s.len < 13 + n)
        return 0;
    if (ref_make(slice_of(s.data + 1, n), get_le32(s.data + 1 + n), get_le64(s.data + 5 + n),
                 ret) != 0)
        return 0;
    return 13 + n;
}

static int write_all(int fd, const uint8_t *p, size_t len, uint64_t at) {
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t) at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t) n;
        at += (uint64_t) n;
    }
    return 0;
}

static int read_all(int fd, uint8_t *p, size_t len, uint64_t at) {
    while (len > 0) {
        ssize_t n = pread(fd, p, len, (off_t) at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return ERR_CORRUPT;
        p += n;
        len -= (size_t) n;
        at += (uint64_t) n;
    }
    return 0;
}

/* One record: @head is the reference with what follows it, @body what follows that. */
static int append(struct journal *j, enum record_type type, struct slice head, struct slice body) {
    size_t payload = head.len + body.len;
    uint8_t small[RECORD_HEADER_BYTES + REF_RECORD_BYTES_MAX + 64];
    _cleanup_(freep) uint8_t *big = NULL;
    uint8_t *p = small;
    int r;

    ASSERT(payload <= JOURNAL_RECORD_BYTES_MAX);
    if (RECORD_HEADER_BYTES + payload > sizeof(small)) {
        p = big = malloc(RECORD_HEADER_BYTES + payload);
        if (!big)
            return -ENOMEM;
    }
    put_le32(p + 4, (uint32_t) payload);
    p[8] = (uint8_t) type;
    memcpy(p + RECORD_HEADER_BYTES, head.data, head.len);
    if (body.len > 0)
        memcpy(p + RECORD_HEADER_BYTES + head.len, body.data, body.len);
    put_le32(p, crc32c(p + 4, RECORD_HEADER_BYTES - 4 + payload));
    /* A write that fails half way leaves a torn record; the next one overwrites it in place. */
    r = write_all(j->fd, p, RECORD_HEADER_BYTES + payload, j->size);
    if (r < 0)
        return r;
    j->size += RECORD_HEADER_BYTES + payload;
    return 0;
}

static int append_ref(struct journal *j, enum record_type type, const struct ref *ref) {
    uint8_t head[REF_RECORD_BYTES_MAX];

    return append(j, type, slice_of(head, ref_encode(head, ref)), slice_of(NULL, 0));
}

static int append_header(struct journal *j) {
    return append(j, RECORD_HEADER, slice_of(MAGIC, strlen(MAGIC)),
                  slice_of(j->boot_id, strlen(j->boot_id)));
}

static int append_started(struct journal *j, const struct journal_entry *e) {
    uint8_t head[REF_RECORD_BYTES_MAX + 12];
    size_t n = ref_encode(head, &e->ref);

    put_le32(head + n, (uint32_t) e->pid);
    put_le64(head + n + 4, e->start_time);
    return append(j, RECORD_STARTED, slice_of(head, n + 12), slice_of(NULL, 0));
}

static int append_report(struct journal *j, const struct ref *ref, struct slice report) {
    uint8_t head[REF_RECORD_BYTES_MAX];

    return append(j, RECORD_ENDED, slice_of(head, ref_encode(head, ref)), report);
}

/* Appends the report and notes where it lies. */
static int append_ended(struct journal *j, struct entry *e, struct slice report) {
    int r = append_report(j, &e->pub.ref, report);

    if (r < 0)
        return r;
    j->live_bytes -= entry_bytes(e);
    e->pub.state = JOURNAL_ENDED;
    e->report_bytes = (uint32_t) report.len;
    e->report_offset = j->size - report.len;
    j->live_bytes += entry_bytes(e);
    return 0;
}

/* Apply one intact record. 0; 1 = it makes no sense (treated like a torn end); -ENOMEM. */
static int replay_one(struct journal *j, uint8_t type, struct slice p, uint64_t at) {
    struct ref ref;
    struct entry *e;
    size_t n = ref_decode(p, &ref);
    int r;

    if (n == 0)
        return 1;
    if (j->on_seen)
        j->on_seen(j->arg, &ref);
    if (type == RECORD_FORGOTTEN) {
        entry_drop(j, &ref);
        return 0;
    }
    r = entry_get(j, &ref, &e);
    if (r < 0)
        return r;
    j->live_bytes -= entry_bytes(e);
    if (type == RECORD_STARTED && p.len == n + 12) {
        e->pub.state = JOURNAL_STARTED;
        e->pub.pid = (pid_t) get_le32(p.data + n);
        e->pub.start_time = get_le64(p.data + n + 4);
    } else if (type == RECORD_ENDED) {
        e->pub.state = JOURNAL_ENDED;
        e->report_offset = at + n;
        e->report_bytes = (uint32_t) (p.len - n);
    }
    j->live_bytes += entry_bytes(e);
    return type == RECORD_STARTING || type == RECORD_STARTED || type == RECORD_ENDED ? 0 : 1;
}

static bool header_is_ours(const struct journal *j, uint8_t type, struct slice p) {
    size_t m = strlen(MAGIC), b = strlen(j->boot_id);

    return type == RECORD_HEADER && p.len == m + b && memcmp(p.data, MAGIC, m) == 0 &&
           memcmp(p.data + m, j->boot_id, b) == 0;
}

/* The record at @at. 0 with its length; 1 = torn or foreign: the file ends here; -errno. */
static int replay_at(struct journal *j, uint64_t at, uint64_t end, uint64_t *ret_bytes) {
    uint8_t h[RECORD_HEADER_BYTES];
    _cleanup_(freep) uint8_t *p = NULL;
    size_t len;
    int r;

    if (end - at < RECORD_HEADER_BYTES)
        return 1;
    r = read_all(j->fd, h, sizeof(h), at);
    if (r < 0)
        return r == ERR_CORRUPT ? 1 : r;
    len = get_le32(h + 4);
    if (len > JOURNAL_RECORD_BYTES_MAX || len > end - at - RECORD_HEADER_BYTES)
        return 1;
    p = malloc(len + 1);
    if (!p)
        return -ENOMEM;
    r = read_all(j->fd, p, len, at + RECORD_HEADER_BYTES);
    if (r < 0)
        return r == ERR_CORRUPT ? 1 : r;
    if (crc32c_extend(crc32c(h + 4, sizeof(h) - 4), p, len) != get_le32(h))
        return 1;
    *ret_bytes = RECORD_HEADER_BYTES + len;
    if (at == 0)
        return header_is_ours(j, h[8], slice_of(p, len)) ? 0 : 1;
    return replay_one(j, h[8], slice_of(p, len), at + RECORD_HEADER_BYTES);
}

static int replay(struct journal *j) {
    struct stat st;
    uint64_t end;
    int r = 0;

    if (fstat(j->fd, &st) < 0)
        return -errno;
    end = (uint64_t) st.st_size;
    while (r == 0 && j->size < end) {
        uint64_t n = 0;

        r = replay_at(j, j->size, end, &n);
        if (r == 0)
            j->size += n;
    }
    if (r < 0)
        return r;
    j->torn = end - j->size;
    return 0;
}

/* Copy one live entry from @from to the new file. */
static int copy_entry(struct journal *j, struct entry *e, int from) {
    _cleanup_(freep) uint8_t *report = NULL;
    int r;

    if (e->pub.state == JOURNAL_ENDED) {
        report = malloc(e->report_bytes + 1UL);
        if (!report)
            return -ENOMEM;
        r = read_all(from, report, e->report_bytes, e->report_offset);
        if (r == 0)
            r = append_report(j, &e->pub.ref, slice_of(report, e->report_bytes));
        e->moved_offset = j->size - e->report_bytes;
        return r;
    }
    r = append_ref(j, RECORD_STARTING, &e->pub.ref);
    if (r == 0 && e->pub.state == JOURNAL_STARTED)
        r = append_started(j, &e->pub);
    return r;
}

static int write_compact(struct journal *j, int from) {
    size_t kept = MIN(j->forgotten_next, (size_t) JOURNAL_FORGOTTEN_MAX);
    struct bytesmap_slot *s;
    size_t pos = 0;
    int r = append_header(j);

    for (size_t i = j->forgotten_next - kept; r == 0 && i < j->forgotten_next; i++)
        r = append_ref(j, RECORD_FORGOTTEN, &j->forgotten[i % JOURNAL_FORGOTTEN_MAX]);
    while (r == 0 && (s = bytesmap_next(&j->entries, &pos)) != NULL)
        r = copy_entry(j, (struct entry *) s->value, from);
    return r;
}

/* Write the live records to a new file and rename it over the old one. On failure the journal goes
 * on with the old file, unchanged. */
static int compact(struct journal *j) {
    struct journal old = {.fd = j->fd, .size = j->size};
    struct bytesmap_slot *s;
    size_t pos = 0;
    int r;

    j->fd = openat(j->dir_fd, "journal.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    r = j->fd < 0 ? -errno : 0;
    j->size = 0;
    if (r == 0)
        r = write_compact(j, old.fd);
    if (r == 0 && renameat(j->dir_fd, "journal.new", j->dir_fd, "journal") < 0)
        r = -errno;
    if (r < 0) {
        if (j->fd >= 0)
            (void) close(j->fd);
        j->fd = old.fd;
        j->size = old.size;
    } else {
        (void) close(old.fd);
        while ((s = bytesmap_next(&j->entries, &pos)) != NULL)
            ((struct entry *) s->value)->report_offset = ((struct entry *) s->value)->moved_offset;
    }
    j->compact_at = MAX((uint64_t) JOURNAL_COMPACT_BYTES_MIN, 2 * j->size);
    return r;
}

/* A compaction that fails (a full disk) is tried again after the file has doubled; appending to the
 * old file is correct meanwhile. */
static void maybe_compact(struct journal *j) {
    if (j->size >= j->compact_at && j->size >= 2 * j->live_bytes)
        (void) compact(j);
}

int journal_open(int dir_fd, const char *boot_id, void (*on_seen)(void *arg, const struct ref *ref),
                 void *arg, struct journal **ret, struct errtext *reterr) {
    _cleanup_(journal_freep) struct journal *j = calloc(1, sizeof(*j));
    int r;

    ASSERT(boot_id);
    if (!j)
        return -ENOMEM;
    j->fd = -1;
    j->dir_fd = dir_fd;
    j->on_seen = on_seen;
    j->arg = arg;
    (void) snprintf(j->boot_id, sizeof(j->boot_id), "%s", boot_id);
    j->fd = openat(dir_fd, "journal", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    r = j->fd < 0 ? -errno : replay(j);
    if (r == 0)
        r = compact(j);
    if (r < 0) {
        errtext_set(reterr, "the worker's journal: %s", r == -ENOMEM ? "no memory" : err_name(r));
        return r;
    }
    j->on_seen = NULL;
    *ret = TAKE_PTR(j);
    return 0;
}

struct journal *journal_free(struct journal *j) {
    struct bytesmap_slot *s;
    size_t pos = 0;

    if (!j)
        return NULL;
    while ((s = bytesmap_next(&j->entries, &pos)) != NULL)
        free(s->value);
    bytesmap_done(&j->entries);
    if (j->fd >= 0)
        (void) close(j->fd);
    free(j);
    return NULL;
}

uint64_t journal_torn_bytes(const struct journal *j) {
    return j->torn;
}

bool journal_next(const struct journal *j, size_t *pos, struct journal_entry *ret) {
    struct bytesmap_slot *s = bytesmap_next(&j->entries, pos);

    if (s)
        *ret = ((const struct entry *) s->value)->pub;
    return s != NULL;
}

int journal_report(const struct journal *j, const struct ref *ref, struct bytes **ret) {
    struct entry *e = entry_find(j, ref);
    _cleanup_(bytes_unrefp) struct bytes *b = NULL;
    int r;

    if (!e || e->pub.state != JOURNAL_ENDED)
        return 1;
    b = bytes_new(e->report_bytes);
    if (!b)
        return -ENOMEM;
    r = read_all(j->fd, b->data, e->report_bytes, e->report_offset);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(b);
    return 0;
}

int journal_starting(struct journal *j, const struct ref *ref) {
    struct entry *e;
    int r;

    maybe_compact(j);
    r = append_ref(j, RECORD_STARTING, ref);
    return r < 0 ? r : entry_get(j, ref, &e);
}

int journal_started(struct journal *j, const struct ref *ref, pid_t pid, uint64_t start_time) {
    struct entry *e = entry_find(j, ref);

    ASSERT(e);
    ASSERT(e->pub.state == JOURNAL_STARTING);
    e->pub.state = JOURNAL_STARTED;
    e->pub.pid = pid;
    e->pub.start_time = start_time;
    return append_started(j, &e->pub);
}

int journal_ended(struct journal *j, const struct ref *ref, struct slice report) {
    struct entry *e;
    int r;

    ASSERT(report.data || report.len == 0);
    maybe_compact(j);
    r = entry_get(j, ref, &e);
    return r < 0 ? r : append_ended(j, e, report);
}

int journal_forget(struct journal *j, const struct ref *ref) {
    int r;

    if (!entry_find(j, ref))
        return 0;
    entry_drop(j, ref);
    r = append_ref(j, RECORD_FORGOTTEN, ref);
    maybe_compact(j);
    return r;
}
