/* Encoded commands: making them, stamping them, checking them before they enter the log.
 *
 * A command is proposed without a time; the leader writes its clock over the last 8 bytes when it
 * appends the entry. That is why now_ms is a fixed64 with the highest field number.
 * What enters the log is applied by every node for ever, so a forwarded command is checked first:
 * command_check accepts only what fsm_apply applies without an error.
 * Pure. */
#pragma once

#include "base/bytes.h"
#include "base/err.h"
#include "base/time.h"
#include "fsm/wire.h"

#include "chronos/internal/v1/command.pb-c.h"

struct record_shape;

#define COMMAND_BODY_MAX CHRONOS__INTERNAL__V1__LOG_COMMAND__BODY_SET_SCHEDULE_ALARM
#define COMMAND_STAMP_BYTES 10 /* the tag of field 100 and its 8 bytes */

/* Encode @cmd with the current version and a placeholder for the time, whatever these two fields
 * say. One reference for the caller. 0; ERR_LIMIT past 4 GiB; -ENOMEM. */
int command_encode(const Chronos__Internal__V1__LogCommand *cmd, struct bytes **ret) _must_check_;

/* Write the time into a command that command_check accepts or command_encode made. The caller must
 * hold the only reference that anybody reads yet. */
void command_stamp(struct bytes *b, struct wall now);

/* 0 when @command can be appended. ERR_PROTO: malformed, too many items, or the time is not last.
 * ERR_VERSION: a version, a body or a feature level this program does not know. The text names the
 * offset. */
int command_check(struct slice command, struct errtext *reterr) _must_check_;

/* ---- for apply -------------------- */

struct command_view {
    Chronos__Internal__V1__LogCommand__BodyCase kind;
    struct slice body;
    size_t items_count;
    int64_t now_ms; /* >= 0 */
    bool stamp_is_last;
};

/* The outer structure, without the items. 0, ERR_PROTO, ERR_VERSION. */
int command_parse(struct slice command, struct command_view *ret,
                  struct errtext *reterr) _must_check_;

struct command_kind {
    const char *name;
    const struct record_shape *item; /* how one item is decoded */
    bool batch;                      /* the body is a list of items; else it is one item */
};

/* @kind > NOT_SET and <= COMMAND_BODY_MAX. */
const struct command_kind *command_kind_of(Chronos__Internal__V1__LogCommand__BodyCase kind);

struct command_items {
    struct wire_reader reader;
    bool batch;
    bool single_left;
};

struct command_items command_items_of(const struct command_view *v);
enum { COMMAND_ITEMS_END = 1 };
/* 0 with the next item's bytes, COMMAND_ITEMS_END, or ERR_PROTO (wire_offset tells where). */
int command_items_next(struct command_items *it, struct slice *ret) _must_check_;
