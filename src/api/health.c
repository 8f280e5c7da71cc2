/* grpc.health.v1: is a call to this node worth sending?
 * SERVING when the node knows a leader (itself included) and is not stopping.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "api/reflection.h"

#include "grpc/health/v1/health.pb-c.h"

#include <stdlib.h>

#define HEALTH_WATCHES_MAX 1000

struct api_health_watch {
    struct api *api;
    struct rpc_call *call;
    bool known; /* the service exists */
    bool ended;
    Grpc__Health__V1__HealthCheckResponse__ServingStatus sent;
    struct api_health_watch *prev, *next;
};

static bool is_known(const struct api *a, const char *service) {
    return service[0] == '\0' || reflection_has_service(a->reflection, service);
}

static Grpc__Health__V1__HealthCheckResponse__ServingStatus status_now(const struct api *a,
                                                                       bool known) {
    if (!known)
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    if (a->stopping || replica_leader(a->replica) == 0)
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
}

void health_on_check(void *ctx, struct rpc_call *call, struct slice request) {
    Grpc__Health__V1__HealthCheckResponse resp = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    Grpc__Health__V1__HealthCheckRequest *req;
    struct api *a = ctx;

    req = (Grpc__Health__V1__HealthCheckRequest *) api_decode(
        a, call, &grpc__health__v1__health_check_request__descriptor, request);
    if (!req)
        return;
    if (!is_known(a, req->service)) {
        api_fail(call, RPC_NOT_FOUND, "service: this server has no service of that name");
        return;
    }
    resp.status = status_now(a, true);
    api_reply(call, api_pack(&resp.base));
}

/* Send the status if it has changed, or when @first. */
static void update(struct api_health_watch *w, bool first) {
    Grpc__Health__V1__HealthCheckResponse resp = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    if (w->ended)
        return;
    resp.status = status_now(w->api, w->known);
    if (!first && resp.status == w->sent)
        return;
    w->sent = resp.status;
    /* A client that does not read loses its stream by the transport's hard bound. */
    if (api_write(w->call, &resp.base) < 0) {
        w->ended = true;
        api_fail_memory(w->call);
    }
}

void health_on_watch(void *ctx, struct rpc_call *call, struct slice request) {
    Grpc__Health__V1__HealthCheckRequest *req;
    struct api_health_watch *w;
    struct api *a = ctx;

    if (a->health_watches_count >= HEALTH_WATCHES_MAX) {
        api_fail(call, RPC_RESOURCE_EXHAUSTED, "this node serves at most %d health watches",
                 HEALTH_WATCHES_MAX);
        return;
    }
    req = (Grpc__Health__V1__HealthCheckRequest *) api_decode(
        a, call, &grpc__health__v1__health_check_request__descriptor, request);
    if (!req)
        return;
    w = calloc(1, sizeof(*w));
    if (!w) {
        api_fail_memory(call);
        return;
    }
    w->api = a;
    w->call = call;
    w->known = is_known(a, req->service);
    w->next = a->health_watches;
    if (w->next)
        w->next->prev = w;
    a->health_watches = w;
    a->health_watches_count++;
    rpc_call_set_user(call, w);
    api_tick_update(a);
    update(w, true);
}

void health_on_gone(void *ctx, struct rpc_call *call) {
    struct api_health_watch *w = rpc_call_user(call);
    struct api *a = ctx;

    if (!w)
        return;
    if (w->prev)
        w->prev->next = w->next;
    else
        a->health_watches = w->next;
    if (w->next)
        w->next->prev = w->prev;
    ASSERT(a->health_watches_count > 0);
    a->health_watches_count--;
    free(w);
    api_tick_update(a);
}

void health_tick(struct api *a) {
    for (struct api_health_watch *w = a->health_watches; w; w = w->next)
        update(w, false);
}

void health_stop(struct api *a) {
    health_tick(a); /* says NOT_SERVING first */
    for (struct api_health_watch *w = a->health_watches; w; w = w->next) {
        if (w->ended)
            continue;
        w->ended = true;
        api_fail(w->call, RPC_UNAVAILABLE, "this node is stopping");
    }
}
