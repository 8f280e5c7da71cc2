/* Aligned tables; declared in text.h. */
#include "cli/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_CELL_BYTES_MAX 4096
#define TABLE_GAP 2
#define TABLE_FLEXIBLE_MIN 12

void table_init(struct table *t, const struct table_column *columns, size_t count) {
    ASSERT(count > 0);
    ASSERT(count <= TABLE_COLUMNS_MAX);
    *t = (struct table){.columns = columns, .columns_count = count};
}

void table_done(struct table *t) {
    for (size_t i = 0; i < t->cells_count; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t->colours);
    *t = (struct table){.columns = t->columns, .columns_count = t->columns_count};
}

/* Room for one more cell; the arrays double. */
static int reserve(struct table *t) {
    size_t n = t->cells_count;
    char **cells;
    const char **colours;

    if (n > 0 && (n < 64 || (n & (n - 1)) != 0))
        return 0;
    n = n == 0 ? 64 : n * 2;
    cells = reallocarray(t->cells, n, sizeof(*cells));
    if (!cells)
        return -ENOMEM;
    t->cells = cells;
    colours = reallocarray(t->colours, n, sizeof(*colours));
    if (!colours)
        return -ENOMEM;
    t->colours = colours;
    return 0;
}

int table_add(struct table *t, const char *colour, const char *fmt, ...) {
    char raw[TABLE_CELL_BYTES_MAX];
    struct text_escape e = {0};
    struct buf b;
    va_list ap;
    int r = reserve(t);

    if (r < 0)
        return r;
    va_start(ap, fmt);
    (void) vsnprintf(raw, sizeof(raw), fmt, ap);
    va_end(ap);
    buf_init(&b, (size_t) 4 * TABLE_CELL_BYTES_MAX + 16);
    r = text_escape(&e, raw, strlen(raw), /* one_line= */ true, &b);
    if (r == 0)
        r = text_escape_end(&e, &b);
    if (r == 0)
        r = buf_append(&b, "", 1);
    if (r < 0) {
        buf_done(&b);
        return r;
    }
    t->colours[t->cells_count] = colour;
    t->cells[t->cells_count++] = (char *) TAKE_PTR(b.data);
    return 0;
}

/* ---- printing ------------------------------------------------------------------------------ */

static void measure(const struct table *t, size_t *widths) {
    for (size_t c = 0; c < t->columns_count; c++)
        widths[c] = text_width(t->columns[c].title);
    for (size_t i = 0; i < t->cells_count; i++)
        widths[i % t->columns_count] = MAX(widths[i % t->columns_count], text_width(t->cells[i]));
}

/* Take what is too much from the widest flexible column, again and again. */
static void shrink(const struct table *t, size_t columns, size_t *widths) {
    size_t total = TABLE_GAP * (t->columns_count - 1);

    for (size_t c = 0; c < t->columns_count; c++) {
        if (t->columns[c].flexible)
            widths[c] = MIN(widths[c], (size_t) TABLE_CELL_MAX);
        total += widths[c];
    }
    while (columns > 0 && total > columns) {
        size_t widest = t->columns_count;

        for (size_t c = 0; c < t->columns_count; c++) {
            if (t->columns[c].flexible && widths[c] > TABLE_FLEXIBLE_MIN &&
                (widest == t->columns_count || widths[c] > widths[widest]))
                widest = c;
        }
        if (widest == t->columns_count)
            return;
        widths[widest]--;
        total--;
    }
}

/* Bytes of the first @columns characters. */
static size_t cut(const char *s, size_t columns) {
    size_t i = 0;

    for (size_t n = 0; s[i]; i++) {
        n += ((uint8_t) s[i] & 0xc0) != 0x80;
        if (n > columns)
            break;
    }
    return i;
}

static void print_cell(const struct table_column *col, const char *s, size_t width,
                       const char *colour, bool last, FILE *out) {
    size_t have = text_width(s);
    size_t pad = have < width ? width - have : 0;

    if (col->align == TABLE_RIGHT)
        fprintf(out, "%*s", (int) pad, "");
    if (colour)
        fprintf(out, "\x1b[%sm", colour);
    if (have > width)
        fprintf(out, "%.*s...", (int) cut(s, width - 3), s);
    else
        fputs(s, out);
    if (colour)
        fputs("\x1b[0m", out);
    if (col->align == TABLE_LEFT && !last)
        fprintf(out, "%*s", (int) pad, "");
    if (!last)
        fprintf(out, "%*s", TABLE_GAP, "");
}

void table_print(const struct table *t, FILE *out) {
    size_t widths[TABLE_COLUMNS_MAX];
    bool colour = text_colour_wanted(out);

    ASSERT(t->cells_count % t->columns_count == 0);
    measure(t, widths);
    shrink(t, text_terminal_columns(out), widths);
    for (size_t c = 0; c < t->columns_count; c++)
        print_cell(&t->columns[c], t->columns[c].title, widths[c], colour ? "1" : NULL,
                   c + 1 == t->columns_count, out);
    fputc('\n', out);
    for (size_t i = 0; i < t->cells_count; i++) {
        size_t c = i % t->columns_count;
        bool last = c + 1 == t->columns_count;

        print_cell(&t->columns[c], t->cells[i], widths[c], colour ? t->colours[i] : NULL, last,
                   out);
        if (last)
            fputc('\n', out);
    }
}
