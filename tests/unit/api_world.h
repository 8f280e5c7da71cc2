/* A replica (memory store, real log in a scratch directory), the api and a gRPC client in one
 * process on one loop, for the tests of api/. A replica whose peers do not exist never has a
 * leader. */
#pragma once

#include "os_test.h"

#include "api/api.h"
#include "base/arena.h"
#include "base/rand.h"
#include "os/clock.h"
#include "os/disk_posix.h"
#include "os/disk_queue.h"
#include "os/rpc_client.h"
#include "storage/kv_mem.h"

#include "chronos/v1/job_service.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"

struct world {
    uv_loop_t loop;
    char dir[64];
    struct disk_posix *disk;
    struct disk_queue *queue;
    struct kv *kv;
    struct env env;
    struct raft_config members;
    struct replica *replica;
    struct api *api;
    struct rpc_client *client;
    struct rpc_channel *channel;
    uv_prepare_t prepare;
    uv_timer_t timer;
    struct rng rng;
    bool stopped;
    bool halted; /* no more turns: what is in flight ends, nothing new begins */
};

struct answer {
    bool done;
    enum rpc_code code;
    char message[600];
    char metadata[200];
    uint8_t *data;
    size_t len;
};

struct world *world_new(size_t members, size_t watch_events, size_t proposals);
void world_free(struct world *w);
bool is_done(void *arg);
void start_call(struct world *w, const char *path, const ProtobufCMessage *m, uint64_t timeout_ms,
                struct answer *a);
void call(struct world *w, const char *path, const ProtobufCMessage *m, uint64_t timeout_ms,
          struct answer *a);
void noop_request(Chronos__V1__SubmitJobRequest *req, Chronos__V1__JobSpec *spec,
                  Chronos__V1__Noop *noop);
void submit(struct world *w, uint64_t timeout_ms, struct answer *a);
void submit_thousand(struct world *w);
void get(struct world *w, const char *id, Chronos__V1__Consistency consistency, uint64_t timeout_ms,
         struct answer *a);
int health(struct world *w);
void on_stopped(void *arg);
bool is_stopped(void *arg);
void on_answer(void *arg, const struct rpc_result *res);
