/* Any bytes as a worker's journal: what cannot be read is its torn end, and what was read once is
 * read again. The mutator makes the records' checksums right. */
#include "fuzz.h"

#include "base/crc32c.h"
#include "worker/journal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BOOT_ID "00000000-0000-0000-0000-000000000001"
#define HEADER_BYTES 9U

static void seen(void *arg, const struct ref *ref) {
    ASSERT(ref);
    (*(size_t *) arg)++;
}

static size_t entries(const struct journal *j) {
    struct journal_entry e;
    size_t pos = 0, n = 0;

    while (journal_next(j, &pos, &e)) {
        ASSERT(e.state >= JOURNAL_STARTING && e.state <= JOURNAL_ENDED);
        n++;
    }
    return n;
}

static void write_file(int dir, const uint8_t *data, size_t size) {
    int fd = openat(dir, "journal", O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);

    ASSERT(fd >= 0);
    ASSERT(write(fd, data, size) == (ssize_t) size);
    (void) close(fd);
}

/* In memory where there is such a place: thousands of files a second. */
static int make_dir(char path[64]) {
    static const char *const places[] = {"/dev/shm", "/tmp"};

    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        (void) snprintf(path, 64, "%s/fuzz_worker_journal_XXXXXX", places[i]);
        if (mkdtemp(path))
            return open(path, O_DIRECTORY | O_CLOEXEC);
    }
    return -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char dir[64];
    struct errtext why = {""};
    struct journal *j = NULL;
    size_t live = 0;
    int fd;

    fd = make_dir(dir);
    ASSERT(fd >= 0);
    write_file(fd, data, size);
    for (int i = 0; i < 2; i++) {
        size_t n = 0;
        int rc = journal_open(fd, BOOT_ID, seen, &n, &j, &why);

        ASSERT(rc == 0);
        ASSERT(n >= entries(j));
        ASSERT(i == 0 || (entries(j) == live && journal_torn_bytes(j) == 0));
        live = entries(j);
        j = journal_free(j);
    }
    ASSERT(unlinkat(fd, "journal", 0) == 0);
    (void) unlinkat(fd, "journal.new", 0);
    (void) close(fd);
    ASSERT(rmdir(dir) == 0);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    size_t at = 0;

    size = LLVMFuzzerMutate(data, size, max_size);
    while (at + HEADER_BYTES <= size && seed % 8 != 0) {
        size_t len = get_le32(data + at + 4);

        if (len > size - at - HEADER_BYTES) {
            len = size - at - HEADER_BYTES; /* the last one ends with the file */
            put_le32(data + at + 4, (uint32_t) len);
        }
        put_le32(data + at, crc32c(data + at + 4, 5 + len));
        at += HEADER_BYTES + len;
    }
    return size;
}
