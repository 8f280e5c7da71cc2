/* "host:port" texts: "10.0.0.1:7402", "[::1]:7402", "node-2.example:7402". */
#pragma once

#include "base/err.h"

#define PEER_ADDR_HOST_BYTES_MAX 255U

struct peer_addr {
    char host[PEER_ADDR_HOST_BYTES_MAX + 1]; /* without brackets; never empty */
    uint16_t port;
};

/* Split @text (borrowed). 0, or ERR_CONFIG with a sentence that quotes it. Resolves nothing. */
int peer_addr_parse(const char *text, struct peer_addr *ret, struct errtext *reterr) _must_check_;
