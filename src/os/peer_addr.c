/* peer_addr: strict parsing; what is unclear (a bare IPv6 address, a missing port) is refused. */
#include "os/peer_addr.h"

#include <string.h>

static int parse_port(const char *s, uint16_t *ret) {
    uint32_t port = 0;

    if (*s == '\0')
        return 1;
    for (; *s; s++) {
        if (*s < '0' || *s > '9')
            return 1;
        port = port * 10 + (uint32_t) (*s - '0');
        if (port > UINT16_MAX)
            return 1;
    }
    *ret = (uint16_t) port;
    return 0;
}

static bool host_char_ok(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr(".-_:%", c) != NULL);
}

int peer_addr_parse(const char *text, struct peer_addr *ret, struct errtext *reterr) {
    const char *host = text, *colon = strrchr(text, ':');
    size_t len = colon ? (size_t) (colon - text) : 0;
    bool bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    bool ok = colon && len > 0;

    ASSERT(ret);
    if (bracketed) {
        host++;
        len -= 2;
    }
    ok = ok && len > 0 && len <= PEER_ADDR_HOST_BYTES_MAX;
    for (size_t i = 0; ok && i < len; i++)
        ok = host_char_ok(host[i]) && (bracketed || host[i] != ':');
    if (!ok || parse_port(colon + 1, &ret->port) != 0) {
        errtext_set(reterr, "address \"%.80s\" is not host:port (or [ipv6]:port)", text);
        return ERR_CONFIG;
    }
    memcpy(ret->host, host, len);
    ret->host[len] = '\0';
    return 0;
}
