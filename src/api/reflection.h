/* What grpc.reflection serves: the compiled-in descriptors of the public schemas, by file and
 * symbol.
 *
 * What it is: an index over an encoded google.protobuf.FileDescriptorSet, built once, and the
 * answers to reflection requests as messages.
 * What it is not: a descriptor library: it reads names and imports, nothing else.
 * v1 and v1alpha of the protocol are equal on the wire; both are answered from here.
 * Pure. Thread: any, after reflection_new. */
#pragma once

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"

#include "grpc/reflection/v1/reflection.pb-c.h"

struct reflection;

/* @set must outlive the result. 0; ERR_PROTO with a reason: not a FileDescriptorSet, or an import
 * is missing; -ENOMEM. */
int reflection_new(struct slice set, struct reflection **ret, struct errtext *reterr) _must_check_;
struct reflection *reflection_free(struct reflection *r);
DEFINE_CLEANUP(struct reflection *, reflection_free);

/* True for the full name of a service in the set. */
bool reflection_has_service(const struct reflection *r, const char *name);

/* Answer @req into the initialised @ret, whose parts live in @arena and in @req. What is not there
 * becomes an error_response. 0 or -ENOMEM. */
int reflection_answer(const struct reflection *r,
                      Grpc__Reflection__V1__ServerReflectionRequest *req, struct arena *arena,
                      Grpc__Reflection__V1__ServerReflectionResponse *ret) _must_check_;
