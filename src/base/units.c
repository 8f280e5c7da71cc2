#include "base/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* Large to small: the printer and the order check of the parser walk it in this order. */
static const struct unit duration_units[] = {
    {"d", 24 * 60 * 60 * 1000ULL},
    {"h", 60 * 60 * 1000ULL},
    {"m", 60 * 1000ULL},
    {"s", 1000ULL},
    {"ms", 1ULL},
};

/* Binary before decimal, large to small: the printer takes the first that divides exactly. */
static const struct unit size_units[] = {
    {"TiB", 1ULL << 40}, {"GiB", 1ULL << 30},   {"MiB", 1ULL << 20},
    {"KiB", 1ULL << 10}, {"TB", 1000000000000}, {"GB", 1000000000},
    {"MB", 1000000},     {"KB", 1000},          {"B", 1},
};

#define DURATION_HINT "write it like 150ms, 5s or 1h30m (units d, h, m, s, ms)"
#define SIZE_HINT "write it like 64KiB, 10MB or 4096 (units B, KiB, MiB, GiB, TiB, KB, MB, GB, TB)"

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Digits at *p; advances it. 0, UNITS_E_SYNTAX without digits, UNITS_E_RANGE on overflow. */
static int take_uint(const char **p, uint64_t *ret) {
    uint64_t v = 0;

    if (!is_digit(**p))
        return UNITS_E_SYNTAX;
    for (; is_digit(**p); (*p)++) {
        uint64_t digit = (uint64_t) (**p - '0');

        if (v > (UINT64_MAX - digit) / 10)
            return UNITS_E_RANGE;
        v = v * 10 + digit;
    }
    *ret = v;
    return 0;
}

int units_parse_uint(const char *text, uint64_t *ret, struct errtext *reterr) {
    const char *p = text;
    uint64_t v = 0;
    int r;

    ASSERT(text);
    ASSERT(ret);
    r = take_uint(&p, &v);
    if (r == UNITS_E_RANGE) {
        errtext_set(reterr, "\"%.64s\" is too large; at most %" PRIu64, text, UINT64_MAX);
        return r;
    }
    if (r > 0 || *p != '\0') {
        errtext_set(reterr, "\"%.64s\" is not a whole number; write decimal digits only", text);
        return UNITS_E_SYNTAX;
    }
    *ret = v;
    return 0;
}

/* Index of the unit whose name is exactly the letters at @p, or @n. */
static size_t find_unit(const struct unit *units, size_t n, const char *p, size_t len) {
    for (size_t i = 0; i < n; i++) {
        if (strlen(units[i].name) == len && strncmp(units[i].name, p, len) == 0)
            return i;
    }
    return n;
}

static size_t letters(const char *p) {
    size_t n = 0;

    while (p[n] != '\0' && !is_digit(p[n]))
        n++;
    return n;
}

/* *total += n * factor, within INT64_MAX so that signed wire fields can hold it. */
static int add_scaled(uint64_t *total, uint64_t n, uint64_t factor) {
    uint64_t scaled, sum;

    if (__builtin_mul_overflow(n, factor, &scaled) ||
        __builtin_add_overflow(*total, scaled, &sum) || sum > INT64_MAX)
        return UNITS_E_RANGE;
    *total = sum;
    return 0;
}

static int duration_parts(const char *text, uint64_t *ret_ms) {
    const char *p = text;
    size_t next_unit = 0;
    uint64_t total = 0;

    do {
        uint64_t n;
        size_t len, unit;
        int r = take_uint(&p, &n);

        if (r > 0)
            return r;
        len = letters(p);
        unit = find_unit(duration_units, ARRAY_LEN(duration_units), p, len);
        if (unit == ARRAY_LEN(duration_units) || unit < next_unit)
            return UNITS_E_SYNTAX;
        next_unit = unit + 1;
        p += len;
        r = add_scaled(&total, n, duration_units[unit].factor);
        if (r > 0)
            return r;
    } while (*p != '\0');
    *ret_ms = total;
    return 0;
}

int units_parse_duration(const char *text, uint64_t *ret_ms, struct errtext *reterr) {
    int r;

    ASSERT(text);
    ASSERT(ret_ms);
    if (strcmp(text, "0") == 0) {
        *ret_ms = 0;
        return 0;
    }
    r = duration_parts(text, ret_ms);
    if (r == UNITS_E_RANGE)
        errtext_set(reterr, "the duration \"%.64s\" is too long", text);
    else if (r > 0)
        errtext_set(reterr, "\"%.64s\" is not a duration; " DURATION_HINT, text);
    return r;
}

int units_parse_size(const char *text, uint64_t *ret_bytes, struct errtext *reterr) {
    const char *p = text;
    uint64_t n = 0, total = 0;
    size_t unit = ARRAY_LEN(size_units) - 1; /* bytes */
    int r;

    ASSERT(text);
    ASSERT(ret_bytes);
    r = take_uint(&p, &n);
    if (r == 0 && *p != '\0') {
        unit = find_unit(size_units, ARRAY_LEN(size_units), p, strlen(p));
        if (unit == ARRAY_LEN(size_units))
            r = UNITS_E_SYNTAX;
    }
    if (r == 0)
        r = add_scaled(&total, n, size_units[unit].factor);
    if (r == UNITS_E_RANGE)
        errtext_set(reterr, "the size \"%.64s\" is too large", text);
    else if (r > 0)
        errtext_set(reterr, "\"%.64s\" is not a size; " SIZE_HINT, text);
    if (r == 0)
        *ret_bytes = total;
    return r;
}

const char *units_print_duration(uint64_t ms, char *out) {
    size_t used = 0;

    ASSERT(out);
    if (ms == 0) {
        (void) snprintf(out, UNITS_TEXT_BYTES_MAX, "0s");
        return out;
    }
    for (size_t i = 0; i < ARRAY_LEN(duration_units); i++) {
        uint64_t n = ms / duration_units[i].factor;

        if (n == 0)
            continue;
        used += (size_t) snprintf(out + used, UNITS_TEXT_BYTES_MAX - used, "%" PRIu64 "%s", n,
                                  duration_units[i].name);
        ASSERT(used < UNITS_TEXT_BYTES_MAX);
        ms %= duration_units[i].factor;
    }
    return out;
}

const char *units_print_size(uint64_t bytes, char *out) {
    size_t unit = 0;

    ASSERT(out);
    while (unit + 1 < ARRAY_LEN(size_units) && (bytes == 0 || bytes % size_units[unit].factor != 0))
        unit++;
    (void) snprintf(out, UNITS_TEXT_BYTES_MAX, "%" PRIu64 "%s", bytes / size_units[unit].factor,
                    size_units[unit].name);
    return out;
}
