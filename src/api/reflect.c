/* grpc.reflection.v1 and v1alpha ServerReflection: one answer per request on the stream.
 * Thread: the loop's. */
#include "api/api_impl.h"

#include "api/message_check.h"
#include "api/reflection.h"

/* The stream's user pointer: the api while it is open, NULL once it was ended. */

void reflect_on_call(void *ctx, struct rpc_call *call, struct slice request) {
    (void) request;
    rpc_call_set_user(call, ctx);
}

void reflect_on_message(void *ctx, struct rpc_call *call, struct slice message, bool end) {
    Grpc__Reflection__V1__ServerReflectionResponse resp =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ServerReflectionRequest *req;
    struct api *a = ctx;

    if (!rpc_call_user(call))
        return;
    if (end) {
        rpc_call_set_user(call, NULL);
        rpc_call_finish(call, RPC_OK, NULL, NULL, 0);
        return;
    }
    req = (Grpc__Reflection__V1__ServerReflectionRequest *) api_decode(
        a, call, &grpc__reflection__v1__server_reflection_request__descriptor, message);
    if (!req) {
        rpc_call_set_user(call, NULL);
        return;
    }
    /* A full queue needs no care: the transport reads the next request only after this one. */
    if (reflection_answer(a->reflection, req, &a->scratch, &resp) < 0 ||
        api_write(call, &resp.base) < 0) {
        rpc_call_set_user(call, NULL);
        api_fail_memory(call);
    }
}

void reflect_on_gone(void *ctx, struct rpc_call *call) {
    (void) ctx;
    rpc_call_set_user(call, NULL);
}
