/* The configuration reader on any bytes: it refuses or accepts, and what it accepts is printed as
 * YAML that reads back to the same text. */
#include "fuzz.h"

#include "cli/config.h"

#include <stdlib.h>
#include <string.h>

static char *print(const struct config *c, size_t *ret_len) {
    char *text = NULL;
    FILE *f = open_memstream(&text, ret_len);

    ASSERT(f);
    config_print(c, f);
    ASSERT(fclose(f) == 0);
    return text;
}

static bool load(struct config *c, const char *text, size_t len) {
    struct errtext why = {""};
    int r;

    config_init(c);
    r = config_read(c, "fuzz.yaml", text, len, &why);
    if (r == 0)
        r = config_finish(c, &why);
    /* A refusal says something. */
    ASSERT(r <= 0 || why.s[0] != '\0');
    return r == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct config a, b;

    if (load(&a, (const char *) data, size)) {
        size_t len = 0, len_again = 0;
        char *text = print(&a, &len), *again;

        ASSERT(load(&b, text, len));
        again = print(&b, &len_again);
        ASSERT(len == len_again);
        ASSERT(memcmp(text, again, len) == 0);
        free(text);
        free(again);
        config_done(&b);
    }
    config_done(&a);
    return 0;
}
