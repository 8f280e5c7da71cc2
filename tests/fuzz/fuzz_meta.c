/* Any bytes as the file of term and vote: it is refused with a reason, or read, written and read
 * again with the same content. The mutator makes the checksums of both slots right, most of the
 * time. */
#include "fuzz.h"

#include "base/crc32c.h"
#include "sim/sim_disk.h"
#include "storage/meta.h"

#include <errno.h>
#include <stdlib.h>

#define SLOT_BYTES 4096U
#define CRC_AT 12U

static void make_file(struct sim_disk *d, const uint8_t *data, size_t size) {
    const struct disk *disk = sim_disk_interface(d);
    struct disk_file *f = NULL;
    size_t n = 0;
    int rc = disk->ops->open(disk->ctx, "meta", DISK_CREATE, &f);

    ASSERT(rc == 0);
    if (size > 0)
        rc = disk->ops->pwrite(disk->ctx, f, 0, data, size, &n);
    ASSERT(rc == 0 && n == size);
    disk->ops->close(disk->ctx, f);
}

static bool same(const struct meta_state *a, const struct meta_state *b) {
    return a->term == b->term && a->vote == b->vote && a->node_id == b->node_id &&
           a->synced_index == b->synced_index &&
           memcmp(a->cluster_id, b->cluster_id, sizeof(a->cluster_id)) == 0 &&
           memcmp(a->incarnation, b->incarnation, sizeof(a->incarnation)) == 0;
}

static void check(const struct disk *disk) {
    struct meta_inspect_slot slots[2];
    struct meta_state state = {0}, again = {0};
    struct errtext why = {""};
    struct meta *m = NULL;
    int shown = meta_inspect(disk, slots, &why);
    int rc = meta_open(disk, &m, &state, &why);

    ASSERT(shown == 0);
    ASSERT(rc == 0 || rc == ERR_CORRUPT || rc == ERR_VERSION);
    if (rc != 0) {
        fuzz_sentence(&why);
        ASSERT(!m && (slots[0].rc != 0 || slots[1].rc != 0));
        return;
    }
    ASSERT(slots[0].rc == 0 || slots[1].rc == 0);
    if (state.term < UINT64_MAX) {
        rc = meta_save(m, state.term + 1, state.node_id, state.synced_index, &why);
        ASSERT(rc == 0 || rc == -EOVERFLOW); /* the highest generation that is read */
        if (rc == 0) {
            state.term++;
            state.vote = state.node_id;
        }
    }
    m = meta_close(m);
    rc = meta_open(disk, &m, &again, &why);
    ASSERT(rc == 0 && same(&state, &again));
    m = meta_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct sim_disk *d = NULL;
    int rc = sim_disk_new(&d);

    ASSERT(rc == 0);
    make_file(d, data, MIN(size, (size_t) 3 * SLOT_BYTES));
    check(sim_disk_interface(d));
    ASSERT(sim_disk_open_handles(d) == 0);
    d = sim_disk_free(d);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, max_size);
    for (size_t at = 0; at + SLOT_BYTES <= size; at += SLOT_BYTES) {
        uint8_t *b = data + at;

        if (seed >> (at / SLOT_BYTES) * 4 & 7)
            put_le32(b + CRC_AT,
                     crc32c_extend(crc32c(b, CRC_AT), b + CRC_AT + 4, SLOT_BYTES - CRC_AT - 4));
    }
    return size;
}
