/* What protobuf-c does not look at when it unpacks a message from outside.
 *
 * Its strings are C strings: a NUL byte inside one would silently cut it off, so that what is
 * validated is not what was sent; and it takes bytes that are not UTF-8, which proto3 forbids and
 * which clients in other languages refuse to read back. This walks the encoded message by its
 * descriptor before it is unpacked.
 * Pure: no allocation, bounded depth. Thread: any. */
#pragma once

#include "base/bytes.h"
#include "base/err.h"

#include <protobuf-c/protobuf-c.h>

enum { MESSAGE_CHECK_BAD = 1 };

/* 0; MESSAGE_CHECK_BAD with a sentence naming the field, or the offset of malformed bytes:
 * INVALID_ARGUMENT for the client. */
int message_check(const ProtobufCMessageDescriptor *d, struct slice message,
                  struct errtext *reterr) _must_check_;

/* True when @s is well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms) without NUL. */
bool message_check_text(struct slice s);
