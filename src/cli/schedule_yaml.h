/* Schedules in YAML: what `schedule apply` reads and `schedule export` writes.
 *
 *   schedules:
 *     - name: nightly
 *       cron: "0 2 * * *"          # one, or a list
 *       time_zone: Europe/Berlin
 *       job:
 *         command: [/usr/bin/backup, --all]
 *
 * What it is: reader and writer of the fields of cli/schedule_text.h. What is written reads back to
 * the same definition; an unknown key, a key given twice or a value of the wrong shape is refused
 * with its line. What it is not: a judge of expressions and limits; that is the node.
 * Thread: any. */
#pragma once

#include "cli/schedule_text.h"

#define SCHEDULE_YAML_BYTES_MAX ((size_t) 64 * 1024 * 1024)
#define SCHEDULE_YAML_COUNT_MAX 100000

struct schedule_list {
    Chronos__V1__ScheduleSpec **items; /* in the arena, as what they point to */
    size_t count;
};

/* @name of the file, for messages. Names of schedules are unique in *ret.
 * 0; 1 = refused, *reterr says line and reason; -ENOMEM. */
int schedule_yaml_read(const char *name, const char *text, size_t len, struct arena *arena,
                       struct schedule_list *ret, struct errtext *reterr) _must_check_;

/* Before the first schedule and after the last. */
int schedule_yaml_begin(struct buf *out) _must_check_;
int schedule_yaml_end(size_t count, struct buf *out) _must_check_;
/* One schedule, without what is its default. 0, -ENOMEM, ERR_LIMIT. */
int schedule_yaml_write(const Chronos__V1__ScheduleSpec *spec, struct buf *out) _must_check_;
