/* Listings that are under way: a ring, one slice of the first one per loop turn, so that a filter
 * that matches little never holds up heartbeats. Thread: the loop's. */
#include "api/api_impl.h"

static void on_idle(uv_idle_t *idle) {
    struct api *a = idle->data;
    struct api_scan *s = a->scans;

    if (!s)
        return;
    scan_remove(a, s);
    s->slice(s);
}

void scan_queue(struct api *a, struct api_scan *s) {
    struct api_scan **p = &a->scans;

    ASSERT(!s->queued);
    while (*p)
        p = &(*p)->next;
    *p = s;
    s->queued = true;
    (void) uv_idle_start(&a->scan, on_idle);
}

void scan_remove(struct api *a, struct api_scan *s) {
    struct api_scan **p = &a->scans;

    while (*p != s) {
        ASSERT(*p);
        p = &(*p)->next;
    }
    *p = s->next;
    s->next = NULL;
    s->queued = false;
    if (!a->scans)
        (void) uv_idle_stop(&a->scan);
}
