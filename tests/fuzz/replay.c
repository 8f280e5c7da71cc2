/* A fuzz target without a fuzzer: every file of the folders and files named on the command line
 * goes through it once, and so do its beginnings. Each input that ever found something lies there.
 *
 * Usage: fuzz_NAME PATH... It prints how many inputs there were; none is a failure. */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define INPUT_BYTES_MAX (16UL * 1024 * 1024)
#define BEGINNINGS 24U

/* Only a fuzzer changes inputs. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size) {
    (void) data;
    return MIN(size, max_size);
}

/* A copy of exactly @size bytes, so that a read behind its end is seen. */
static void run_one(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(MAX(size, (size_t) 1));

    ASSERT(copy);
    if (size > 0)
        memcpy(copy, data, size);
    (void) LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void run_bytes(const uint8_t *data, size_t size) {
    run_one(data, size);
    for (size_t i = 0; i < BEGINNINGS && i < size; i++)
        run_one(data, size * i / MIN((size_t) BEGINNINGS, size));
}

static int run_file(const char *path) {
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_BYTES_MAX);
    size_t n;

    ASSERT(data);
    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        free(data);
        return -1;
    }
    n = fread(data, 1, INPUT_BYTES_MAX, f);
    (void) fclose(f);
    fprintf(stderr, "%s\n", path); /* the last one named is the one that failed */
    run_bytes(data, n);
    free(data);
    return 1;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* How many inputs; negative when one could not be read. */
static int run_path(const char *path) {
    struct dirent **names = NULL;
    int count = scandir(path, &names, NULL, by_name), ran = 0;

    if (count < 0)
        return run_file(path);
    for (int i = 0; i < count; i++) {
        char file[4096];

        (void) snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && ran >= 0)
            ran = run_file(file) < 0 ? -1 : ran + 1;
        free(names[i]);
    }
    free(names);
    return ran;
}

int main(int argc, char **argv) {
    int ran = 0;

    for (int i = 1; i < argc; i++) {
        int n = run_path(argv[i]);

        if (n < 0)
            return 1;
        ran += n;
    }
    printf("%d inputs\n", ran);
    return ran > 0 ? 0 : 1;
}
