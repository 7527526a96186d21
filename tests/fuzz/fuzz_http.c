/* SPDX-License-Identifier: Apache-2.0 */
// LINK: services/gateway/http/chunked.c
// LINK: services/gateway/http/server.c services/gateway/http/connection.c services/gateway/http/request.c
// LINK: services/gateway/http/reply.c common/log.c common/json_writer.c common/mem.c common/err.c
// LINK: common/buf.c common/text.c common/clock.c
#include "services/gateway/http/internal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_headers(void *arg, http_request_t *r)
{
    (void)arg;
    http_set_body_max(r, 1000);
}
static void on_body(http_request_t *r, const uint8_t *bytes, size_t len)
{
    http_pause_body(r, len > 0 && bytes[0] == 'p');
    http_pause_body(r, false);
}
static void on_end(http_request_t *r)
{
    http_reply(r, 200, "text/plain", http_path(r), strlen(http_path(r)));
}
static void on_close(http_request_t *r, bool is_hangup)
{
    (void)r;
    (void)is_hangup;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const http_handlers_t handlers = {on_headers, on_body, on_end, NULL, on_close};
    static struct event_base *base;
    static http_server_t *server;
    err_t *e = NULL;
    int fds[2];
    signal(SIGPIPE, SIG_IGN);
    base = base ? base : event_base_new();
    server = server ? server : http_server_new(base, "127.0.0.1", 0, &handlers, NULL, &e);
    if (!server || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds)) {
        abort();
    }
    http_server_adopt(server, fds[0]);
    for (size_t at = 0; at < size;) { /* the first byte says how the rest is cut */
        size_t len = size - at < data[0] + 1u ? size - at : data[0] + 1u;
        at += write(fds[1], data + at, len) == (ssize_t)len ? len : size;
        event_base_loop(base, EVLOOP_NONBLOCK);
    }
    close(fds[1]);
    while (http_server_connections(server) > 0) {
        event_base_loop(base, EVLOOP_ONCE);
    }
    return 0;
}
