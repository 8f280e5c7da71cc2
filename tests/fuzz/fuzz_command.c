/* Fuzzes the state machine with arbitrary entries: the input is a list of them, each with a
 * two-byte length, whose highest bit tells a configuration from a command. What command_check
 * accepts and stamps must apply; nothing may crash, and what is derived must agree with the
 * records. */
#include "fuzz.h"

#include "fsm/command.h"
#include "fsm/fsm.h"
#include "storage/kv_mem.h"

#include "base/codec.h"

static void apply_all(struct kv *kv, const uint8_t *data, size_t size) {
    const struct fsm_options o = {.overlay_bytes_max = 4096, .idempotency_max = 4};
    _cleanup_(fsm_freep) struct fsm *f = NULL;
    uint8_t before[16], after[16];
    struct errtext e;
    int r = fsm_open(kv, &o, &f, &e);

    ASSERT(r == 0);
    while (size >= 2) {
        bool is_config = get_le16(data) >> 15;
        size_t len = MIN((size_t) get_le16(data) & 0x7fff, size - 2);
        struct slice command = slice_of(data + 2, len);
        const struct fsm_output *out;
        struct command_view v;
        bool accepted = !is_config && command_check(command, &e) == 0;
        char text[128];
        int64_t now;

        fsm_command_describe(command, text, sizeof(text), &now);
        accepted = accepted && command_parse(command, &v, &e) == 0 && v.now_ms >= 0;
        r = is_config ? fsm_apply_config(f, fsm_applied_index(f) + 1, 1, command, &out, &e)
                      : fsm_apply(f, fsm_applied_index(f) + 1, 1, command, &out, &e);
        ASSERT(r == 0 || !accepted);
        if (r < 0)
            return;
        data += 2 + len;
        size -= 2 + len;
    }
    fsm_check_invariants(f);
    fsm_digest(f, before);
    r = fsm_write_back(f);
    ASSERT(r == 0);
    f = fsm_free(f);
    r = fsm_open(kv, &o, &f, &e);
    ASSERT(r == 0);
    fsm_check_invariants(f);
    fsm_digest(f, after);
    ASSERT(memcmp(before, after, sizeof(before)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kv *kv = NULL;

    if (kv_mem_new(0, &kv) < 0)
        return 0;
    apply_all(kv, data, size);
    kv->ops->close(kv);
    return 0;
}
