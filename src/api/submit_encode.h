/* Validated submits -> one encoded LogCommand, in one pass and one allocation.
 *
 * What it is: the hot half of SubmitJob. The specification is packed straight into the command's
 * buffer; going through fsm/command.h command_encode would pack it twice and copy it twice.
 * The bytes are the same: tests/unit/test_api_submit.c compares them.
 * Pure. Thread: any. */
#pragma once

#include "base/bytes.h"
#include "base/err.h"

#include "chronos/v1/job.pb-c.h"

#define SUBMIT_HASH_BYTES 16

struct submit_item {
    const Chronos__V1__JobSpec *spec; /* after validate_job */
    size_t spec_bytes;                /* its packed size */
    const char *key;                  /* "" = none; then no hash is stored */
};

/* 0 with one reference for the caller; ERR_LIMIT past 4 GiB; -ENOMEM. */
int submit_encode(const struct submit_item *items, size_t count, struct bytes **ret) _must_check_;
