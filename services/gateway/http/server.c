/* SPDX-License-Identifier: Apache-2.0
 *
 * Listening, accepting with a limit, time limits by one sweep over the connections, drain.
 */
#include "services/gateway/http/internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 1024
#define ACCEPT_RETRY_MS 250 /* after the process ran out of descriptors */
#define SWEEP_MS_MAX 1000

static void schedule_sweep(http_server_t *s)
{
    uint32_t least = s->idle_ms < s->head_ms ? s->idle_ms : s->head_ms;
    uint32_t ms = least / 4 + 1 < SWEEP_MS_MAX ? least / 4 + 1 : SWEEP_MS_MAX;
    if (s->is_accept_paused && ms > ACCEPT_RETRY_MS) {
        ms = ACCEPT_RETRY_MS;
    }
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    evtimer_add(s->sweep, &tv);
}

static void pause_accept(http_server_t *s, bool is_paused)
{
    if (!s->listener || s->is_draining || s->is_accept_paused == is_paused) {
        return;
    }
    s->is_accept_paused = is_paused;
    if (is_paused) {
        evconnlistener_disable(s->listener);
        schedule_sweep(s);
    } else {
        evconnlistener_enable(s->listener);
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    http_server_t *s = arg;
    uint64_t now = clock_monotonic_ms();
    http_connection_t *c = TAILQ_FIRST(&s->connections);
    while (c) {
        http_connection_t *next = TAILQ_NEXT(c, link); /* expiring one never ends another */
        http_connection_expire(c, now);
        c = next;
    }
    if (s->is_accept_paused && s->connection_count < s->connection_max) {
        pause_accept(s, false);
    }
    if (s->connection_count > 0 || s->is_accept_paused) {
        schedule_sweep(s);
    }
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    http_server_t *s = arg;
    http_connection_t *c;
    while ((c = TAILQ_FIRST(&s->due))) {
        TAILQ_REMOVE(&s->due, c, due_link);
        c->is_due = false;
        http_connection_run(c);
    }
}

void http_server_due(http_server_t *s, http_connection_t *c)
{
    if (!c->is_due && !c->is_parsing) { /* a run that is under way will see it */
        c->is_due = true;
        TAILQ_INSERT_TAIL(&s->due, c, due_link);
        event_active(s->due_event, EV_TIMEOUT, 0);
    }
}

http_connection_t *http_server_adopt(http_server_t *s, int fd)
{
    if (s->connection_count >= s->connection_max) {
        close(fd);
        return NULL;
    }
    http_connection_t *c = http_connection_new(s, fd);
    if (!c) {
        return NULL;
    }
    TAILQ_INSERT_TAIL(&s->connections, c, link);
    if (s->connection_count++ == 0) {
        schedule_sweep(s);
    }
    if (s->connection_count >= s->connection_max) {
        log_warn("%zu connections are open, the limit; new ones wait", s->connection_count);
        pause_accept(s, true);
    }
    return c;
}

void http_server_forget(http_server_t *s, http_connection_t *c)
{
    TAILQ_REMOVE(&s->connections, c, link);
    s->connection_count--;
    pause_accept(s, false);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int len, void *arg)
{
    (void)listener;
    (void)address;
    (void)len;
    http_server_adopt(arg, fd);
}

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    (void)listener;
    int errnum = errno;
    if (errnum == EMFILE || errnum == ENFILE || errnum == ENOBUFS || errnum == ENOMEM) {
        log_warn("cannot accept connections now: %s", strerror(errnum));
        pause_accept(arg, true);
    }
}

static int listen_on(http_server_t *s, const char *address, uint16_t port, err_t **e)
{
    char port_text[8];
    snprintf(port_text, sizeof port_text, "%u", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    int code = getaddrinfo(address, port_text, &hints, &found);
    if (code) {
        return err_set(e, ERR_BAD_REQUEST, "cannot listen on address \"%s\": %s", address, gai_strerror(code));
    }
    s->listener = evconnlistener_new_bind(s->base, on_accept, s,
                                          LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, BACKLOG,
                                          found->ai_addr, (int)found->ai_addrlen);
    int errnum = errno;
    freeaddrinfo(found);
    if (!s->listener) {
        return err_set_errno(e, ERR_INTERNAL, errnum, "cannot listen on %s port %u", address, port);
    }
    evconnlistener_set_error_cb(s->listener, on_accept_error);
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } bound = {.v6 = {0}};
    socklen_t len = sizeof bound;
    if (getsockname(evconnlistener_get_fd(s->listener), &bound.any, &len) == 0) {
        s->port = ntohs(bound.any.sa_family == AF_INET6 ? bound.v6.sin6_port : bound.v4.sin_port);
    }
    return 0;
}

http_server_t *http_server_new(struct event_base *base, const char *address, uint16_t port,
                               const http_handlers_t *handlers, void *arg, err_t **e)
{
    http_server_t *s = mem_alloc(sizeof *s);
    s->base = base;
    s->handlers = *handlers;
    s->arg = arg;
    s->idle_ms = HTTP_IDLE_MS;
    s->head_ms = HTTP_HEAD_MS;
    s->stall_ms = HTTP_STALL_MS;
    s->connection_max = HTTP_CONNECTIONS_MAX;
    s->park_at = HTTP_PARK_AT;
    s->output_max = HTTP_OUTPUT_TOTAL_MAX;
    TAILQ_INIT(&s->connections);
    TAILQ_INIT(&s->due);
    s->sweep = evtimer_new(base, on_sweep, s);
    s->due_event = event_new(base, -1, 0, on_due, s);
    if (!s->sweep || !s->due_event) {
        err_set(e, ERR_INTERNAL, "cannot make the events of the HTTP server");
        http_server_destroy(&s);
        return NULL;
    }
    if (listen_on(s, address, port, e)) {
        http_server_destroy(&s);
        return NULL;
    }
    return s;
}

void http_server_set_limits(http_server_t *s, uint32_t idle_ms, uint32_t head_ms, uint32_t stall_ms, size_t connections)
{
    s->idle_ms = idle_ms;
    s->head_ms = head_ms;
    s->stall_ms = stall_ms;
    s->connection_max = connections;
}

uint16_t http_server_port(const http_server_t *s)
{
    return s->port;
}

size_t http_server_connections(const http_server_t *s)
{
    return s->connection_count;
}

void http_server_drain(http_server_t *s)
{
    if (s->listener) {
        evconnlistener_free(s->listener);
        s->listener = NULL;
    }
    s->is_draining = true;
    http_connection_t *c = TAILQ_FIRST(&s->connections);
    while (c) {
        http_connection_t *next = TAILQ_NEXT(c, link);
        if (!c->request && !c->is_closing) {
            http_connection_close_soon(c);
            http_connection_run(c);
        }
        c = next;
    }
}

void http_server_destroy(http_server_t **server)
{
    http_server_t *s = *server;
    if (!s) {
        return;
    }
    *server = NULL;
    if (s->listener) {
        evconnlistener_free(s->listener);
        s->listener = NULL;
    }
    s->is_draining = true;
    http_connection_t *c;
    while ((c = TAILQ_FIRST(&s->connections))) {
        http_connection_destroy(c);
    }
    while (s->spare) {
        http_request_t *r = s->spare;
        s->spare = r->next;
        http_release_head(r);
        free(r);
    }
    if (s->sweep) {
        event_free(s->sweep);
    }
    if (s->due_event) {
        event_free(s->due_event);
    }
    free(s);
}
