/* protobuf messages as JSON, by their descriptors: field names as in the .proto, enum values by
 * name, maps as objects, bytes as base64 (as protobuf's own JSON form), every scalar present.
 * Integers stay JSON integers. Of a oneof only the set member is written. */
#pragma once

#include "base/defs.h"

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

/* A new object, owned by the caller; NULL when memory is out. */
json_t *json_from_message(const ProtobufCMessage *m);

/* The text of @data as a JSON string: UTF-8 as it is, other bytes as U+FFFD, NUL as U+2400. */
json_t *json_text(const uint8_t *data, size_t len);

/* One line, then a newline; indented when @pretty. 0, or -ENOMEM / -EIO. */
int json_print(const json_t *j, bool pretty, FILE *out) _must_check_;
