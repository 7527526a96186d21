/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: bytes in, one request at a time, bytes out. http_connection_run() is the only place that makes
 * progress; handlers that reply or resume only leave a mark and put the connection on the server's list of due ones, so
 * nothing is freed under a handler.
 */
#include "services/gateway/http/internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define LOW_WATER (HTTP_OUTPUT_MAX / 4)

static void set_phase(http_connection_t *c, enum http_phase phase)
{
    const http_server_t *s = c->server;
    uint32_t limit = phase == PHASE_HEAD ? s->head_ms : phase == PHASE_LINGER ? HTTP_LINGER_MS : s->idle_ms;
    c->phase = (uint8_t)phase;
    c->deadline_ms = phase == PHASE_WORK ? 0 : clock_monotonic_ms() + limit;
    uint64_t body = c->request && phase == PHASE_BODY ? c->request->body_deadline_ms : 0;
    if (body && body < c->deadline_ms) { /* a trickle must not hold what was collected for ever */
        c->deadline_ms = body;
    }
}

size_t http_connection_queued(const http_connection_t *c)
{
    return c->bev ? evbuffer_get_length(bufferevent_get_output(c->bev)) : 0;
}

/* ---- parking: an idle connection costs an event, not a bufferevent with two buffers ---- */

static void on_read(struct bufferevent *bev, void *arg);
static void on_write(struct bufferevent *bev, void *arg);
static void on_event(struct bufferevent *bev, short what, void *arg);

static bool unpark(http_connection_t *c)
{
    if (c->bev) {
        return true;
    }
    event_del(&c->watch);
    c->bev = bufferevent_socket_new(c->server->base, c->fd, 0);
    if (!c->bev) {
        c->is_dead = true;
        return false;
    }
    bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
    bufferevent_setwatermark(c->bev, EV_WRITE, LOW_WATER, 0);
    bufferevent_set_max_single_read(c->bev, HTTP_INPUT_MAX);
    bufferevent_set_max_single_write(c->bev, HTTP_OUTPUT_MAX);
    bufferevent_enable(c->bev, EV_READ); /* writing is on already; said again it would call on_write for nothing */
    return true;
}

static void park(http_connection_t *c)
{
    bool is_waiting = c->phase == PHASE_IDLE || (c->phase == PHASE_WORK && c->request && c->request->is_body_done);
    bool is_busy = c->is_parsing || c->is_dead || c->is_closing || c->has_eof || c->is_read_off || c->is_due;
    if (!c->bev || !is_waiting || is_busy || http_connection_queued(c) > 0 ||
        evbuffer_get_length(bufferevent_get_input(c->bev)) > 0) {
        return;
    }
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    bufferevent_free(c->bev);
    c->bev = NULL;
    event_add(&c->watch, NULL);
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    http_connection_t *c = arg;
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    bool is_over = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    if (is_over || !unpark(c)) { /* thousands that leave at once must not cost a bufferevent each for that */
        http_connection_destroy(c);
    }
}

static void count_output(http_connection_t *c)
{
    size_t queued = http_connection_queued(c);
    c->server->output_bytes += queued - c->counted; /* the difference may be negative: it wraps back */
    c->counted = queued;
}

static void finish_request(http_connection_t *c, bool is_hangup)
{
    http_request_t *r = c->request;
    c->request = NULL;
    if (r->is_known) {
        r->is_aborted = true; /* nothing can be sent any more */
        c->server->handlers.on_close(r, is_hangup);
    }
    http_request_free(r);
}

void http_connection_destroy(http_connection_t *c)
{
    if (c->is_parsing) {
        c->is_dead = true;
        return;
    }
    c->is_parsing = true; /* whatever on_close calls must not come back here */
    if (c->request) {
        finish_request(c, true);
    }
    if (c->is_due) {
        TAILQ_REMOVE(&c->server->due, c, due_link);
    }
    if (c->closed) {
        event_free(c->closed);
    }
    c->server->output_bytes -= c->counted;
    if (c->bev) {
        bufferevent_disable(c->bev,
                            EV_READ | EV_WRITE); /* freed later if this is one of its callbacks; the fd goes now */
        bufferevent_free(c->bev);
    } else {
        event_del(&c->watch);
    }
    evutil_closesocket(c->fd);
    http_server_forget(c->server, c);
    free(c);
}

/* All output is with the kernel: close, or say so and read away what the client still sends, lest a reset overtakes the
 * reply. */
static void after_flush(http_connection_t *c)
{
    if (!c->needs_linger || c->has_eof) {
        c->is_dead = true;
    } else if (c->lingered == 0) {
        shutdown(c->fd, SHUT_WR);
        c->lingered = 1;
        set_phase(c, PHASE_LINGER);
    }
}

void http_connection_close_soon(http_connection_t *c)
{
    if (!c->is_closing) {
        c->is_closing = true;
        c->phase = PHASE_LINGER;
        c->deadline_ms = 0; /* write_deadline_ms counts until all is flushed */
    }
    if (http_connection_queued(c) == 0) {
        after_flush(c);
    }
}

void http_connection_write(http_connection_t *c, const struct evbuffer_iovec *parts, int count)
{
    size_t sent = 0, total = 0;
    if (http_connection_queued(c) == 0) {
        struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)count};
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        sent = n > 0 ? (size_t)n : 0; /* an error shows again when the bufferevent writes */
    }
    for (int i = 0; i < count; i++) {
        total += parts[i].iov_len;
    }
    if (sent == total || !unpark(c)) {
        return;
    }
    struct evbuffer *output = bufferevent_get_output(c->bev);
    for (int i = 0; i < count; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;
        sent -= skip;
        if (parts[i].iov_len > skip) {
            evbuffer_add(output, (const char *)parts[i].iov_base + skip, parts[i].iov_len - skip);
        }
    }
    if (c->write_deadline_ms == 0 && evbuffer_get_length(output) > 0) {
        c->write_deadline_ms = clock_monotonic_ms() + c->server->stall_ms;
        c->queued_seen = SIZE_MAX;
    }
    count_output(c);
    if (c->server->output_bytes > c->server->output_max && c->counted > HTTP_OUTPUT_SHARE && !c->is_dead) {
        log_warn("%zu bytes wait for slow clients, the limit; the connection of %s is closed", c->server->output_bytes,
                 c->request ? http_peer_address(c->request) : "-");
        c->is_dead = true;
        http_server_due(c->server, c);
    }
}

/* ---- body ---- */

static int on_body(http_parser *p, const char *at, size_t len)
{
    http_request_t *r = p->data;
    r->body_seen += len;
    if (r->is_discarding || r->is_aborted) {
        return 0;
    }
    if (r->body_seen > r->body_max) {
        http_reply_refusal(r, 413, "payload_too_large", "the request body is over its limit");
        return 0;
    }
    r->server->handlers.on_body(r, (const uint8_t *)at, len);
    if (r->is_paused || r->is_replied) {
        http_parser_pause(p, 1);
    }
    return 0;
}

static int on_message_complete(http_parser *p)
{
    http_request_t *r = p->data;
    r->is_body_done = true;
    http_parser_pause(p, 1); /* what follows is the next request */
    return 0;
}

static const http_parser_settings body_settings = {.on_body = on_body, .on_message_complete = on_message_complete};

static bool step_body(http_connection_t *c)
{
    http_request_t *r = c->request;
    struct evbuffer *input = bufferevent_get_input(c->bev);
    struct evbuffer_iovec part;
    if ((r->is_paused && !r->is_discarding) || evbuffer_peek(input, -1, NULL, &part, 1) < 1 || part.iov_len == 0) {
        return false;
    }
    if (HTTP_PARSER_ERRNO(&c->parser) == HPE_PAUSED) {
        http_parser_pause(&c->parser, 0);
    }
    r->expects_continue = false;
    size_t used = http_parser_execute(&c->parser, &body_settings, part.iov_base, part.iov_len);
    enum http_errno code = HTTP_PARSER_ERRNO(&c->parser);
    bool is_broken = r->is_chunked && !http_chunked_check(&r->chunked, part.iov_base, used);
    evbuffer_drain(input, used);
    set_phase(c, r->is_body_done ? PHASE_WORK : PHASE_BODY);
    if (is_broken || (code != HPE_OK && code != HPE_PAUSED)) {
        if (r->has_started) {
            r->is_keep_alive = false;
            r->is_body_done = true; /* nothing more can be read of it */
            c->needs_linger = true;
            r->is_aborted = !r->is_replied;
        } else {
            http_reply_refusal(r, 400, "bad_request", is_broken ? "malformed chunk" : http_errno_description(code));
            r->is_body_done = true;
        }
    }
    return true;
}

static bool step_request(http_connection_t *c)
{
    http_request_t *r = c->request;
    if (r->is_aborted || (r->is_replied && !r->is_keep_alive)) {
        return false;
    }
    if (!r->is_body_done) {
        return step_body(c);
    }
    if (!r->is_end_told && !r->is_paused && !r->is_discarding) {
        r->is_end_told = true;
        c->server->handlers.on_end(r);
        return true;
    }
    return false;
}

/* ---- head ---- */

static bool refuse_head(http_connection_t *c, int status, const char *why)
{
    if (!c->request) {
        c->request = http_request_new(c->server, c);
    }
    c->needs_linger = true;
    c->request->is_body_done = true;
    http_reply_refusal(c->request, status, status == 431 ? "header_too_large" : "bad_request", why);
    return true;
}

static bool take_head(http_connection_t *c, const char *head, size_t len)
{
    http_request_t *r = c->request = http_request_new(c->server, c);
    const char *why = NULL;
    int status = http_request_parse(r, &c->parser, head, len, &why);
    evbuffer_drain(bufferevent_get_input(c->bev), len);
    c->scanned = 0;
    if (status) {
        return refuse_head(c, status, why);
    }
    set_phase(c, r->is_body_done ? PHASE_WORK : PHASE_BODY);
    r->is_known = true;
    c->server->handlers.on_headers(c->server->arg, r);
    if (r->has_started || r->is_aborted) {
        return true;
    }
    if (r->content_length > 0 && (uint64_t)r->content_length > r->body_max) {
        http_reply_refusal(r, 413, "payload_too_large", "the request body is over its limit");
    } else if (r->expects_continue && !r->is_paused) {
        http_reply_continue(r);
    }
    return true;
}

static bool step_head(http_connection_t *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    size_t total = evbuffer_get_length(input);
    struct evbuffer_iovec part;
    if (http_connection_queued(c) >= HTTP_OUTPUT_MAX) { /* pipelining must not pile up replies */
        return false;
    }
    if (total == 0 || evbuffer_peek(input, -1, NULL, &part, 1) < 1) {
        return false;
    }
    const char *bytes = part.iov_base;
    if (c->scanned == 0) {
        if (part.iov_len >= 2 && bytes[0] == '\r' &&
            bytes[1] == '\n') { /* RFC 9112 §2.2: empty lines before a request are ignored */
            evbuffer_drain(input, 2);
            return true;
        }
        if ((bytes[0] < 'A' || bytes[0] > 'Z') && bytes[0] != '\r') {
            return refuse_head(c, 400, "this is not HTTP/1");
        }
    }
    if (c->phase == PHASE_IDLE) {
        set_phase(c, PHASE_HEAD);
    }
    size_t scanned = c->scanned;
    long len = http_head_length(bytes, part.iov_len, &scanned);
    if (len == 0 && total > part.iov_len) {
        size_t want = total > HTTP_HEAD_MAX ? HTTP_HEAD_MAX : total;
        bytes = (const char *)evbuffer_pullup(input, (ssize_t)want);
        scanned = c->scanned;
        len = bytes ? http_head_length(bytes, want, &scanned) : -1;
    }
    if (len < 0) {
        return refuse_head(c, 400, "broken line end or folded header line");
    }
    if (len > HTTP_HEAD_MAX || (len == 0 && total >= HTTP_HEAD_MAX)) {
        return refuse_head(c, 431, "the request head is larger than 32 KiB");
    }
    c->scanned = scanned;
    return len > 0 && take_head(c, bytes, (size_t)len);
}

/* ---- progress ---- */

static bool step(http_connection_t *c)
{
    if (c->is_closing) {
        struct evbuffer *input = bufferevent_get_input(c->bev);
        c->lingered += evbuffer_get_length(input);
        evbuffer_drain(input, evbuffer_get_length(input));
        c->is_dead |= c->lingered > HTTP_LINGER_BYTES;
        return false;
    }
    return c->request ? step_request(c) : step_head(c);
}

/* Ends a request that is answered; true if the connection goes on with the next. */
static bool settle(http_connection_t *c)
{
    http_request_t *r = c->request;
    if (!r || (!r->is_replied && !r->is_aborted)) {
        return false;
    }
    if (r->is_aborted) {
        c->is_dead = true;
        return false;
    }
    bool is_kept = r->is_keep_alive && !c->server->is_draining && !c->has_eof;
    if (!r->is_body_done && is_kept) {
        return false; /* the rest of the body is still read away */
    }
    finish_request(c, false);
    if (!is_kept) {
        http_connection_close_soon(c);
        return false;
    }
    set_phase(c, PHASE_IDLE);
    return true;
}

static void on_closed(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    http_connection_t *c = arg;
    if (c->request && !c->request->is_replied) {
        c->is_dead = true;
        http_connection_run(c);
    }
}

/* While nothing is read, only this tells that the client has hung up. */
static void watch_close(http_connection_t *c, bool is_wanted)
{
    if (is_wanted && !c->closed) {
        c->closed = event_new(c->server->base, c->fd, EV_CLOSED, on_closed, c);
    }
    if (c->closed && is_wanted) {
        event_add(c->closed, NULL);
    } else if (c->closed) {
        event_del(c->closed);
    }
}

/* Reads on only while what was read finds its way. Not by a watermark of the bufferevent: libevent calls back without
 * end while one is passed. */
static void update_reading(http_connection_t *c)
{
    bool is_full = evbuffer_get_length(bufferevent_get_input(c->bev)) >= HTTP_INPUT_MAX;
    if (is_full != c->is_read_off && !c->has_eof) {
        c->is_read_off = is_full;
        watch_close(c, is_full);
        if (is_full) {
            bufferevent_disable(c->bev, EV_READ);
        } else {
            bufferevent_enable(c->bev, EV_READ);
        }
    }
}

void http_connection_run(http_connection_t *c)
{
    if (c->is_parsing) {
        return; /* the run that is under way goes on */
    }
    c->is_quiet = false;
    c->is_parsing = true;
    bool is_moving = c->is_dead || unpark(c);
    while (is_moving && !c->is_dead) {
        is_moving = step(c);
        is_moving |= settle(c);
    }
    c->is_parsing = false;
    if (c->is_dead) {
        http_connection_destroy(c);
        return;
    }
    update_reading(c);
    bool is_stream = c->request && c->request->has_started;
    if (c->server->connection_count > c->server->park_at && (c->phase == PHASE_IDLE || is_stream)) {
        park(c);
    }
}

void http_pause_body(http_request_t *r, bool is_paused)
{
    http_connection_t *c = r->connection;
    if (r->is_paused == is_paused) {
        return;
    }
    r->is_paused = is_paused;
    if (!is_paused) {
        if (r->expects_continue && !r->has_started) {
            http_reply_continue(r);
        }
        set_phase(c, r->is_body_done ? PHASE_WORK : PHASE_BODY);
        http_server_due(r->server, c);
    }
}

static void on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    http_connection_run(arg);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    (void)bev;
    http_connection_t *c = arg;
    size_t queued = http_connection_queued(c);
    count_output(c);
    c->write_deadline_ms = queued > 0 ? clock_monotonic_ms() + c->server->stall_ms : 0;
    c->queued_seen = queued;
    if (queued == 0 && c->is_closing) {
        after_flush(c);
    }
    http_request_t *r = c->request;
    if (r && r->wants_writable && !r->is_replied && !r->is_aborted) {
        r->wants_writable = false;
        c->is_parsing = true;
        c->server->handlers.on_writable(r);
        c->is_parsing = false;
    }
    http_connection_run(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    (void)bev;
    http_connection_t *c = arg;
    c->has_eof = true;
    bool is_error = (what & BEV_EVENT_ERROR) != 0;
    if (is_error || (c->request && !c->request->is_replied) || http_connection_queued(c) == 0) {
        c->is_dead = true;
    } else {
        if (c->request) {
            finish_request(c, false);
        }
        http_connection_close_soon(c);
    }
    http_connection_run(c);
}

void http_connection_expire(http_connection_t *c, uint64_t now_ms)
{
    http_request_t *r = c->request;
    if (c->write_deadline_ms && now_ms >= c->write_deadline_ms) {
        size_t queued = http_connection_queued(c);
        if (queued < c->queued_seen) { /* slow, but it takes something */
            c->queued_seen = queued;
            c->write_deadline_ms = now_ms + c->server->stall_ms;
            return;
        }
        c->is_dead = true;
    } else if (c->deadline_ms && now_ms >= c->deadline_ms) {
        if (c->phase == PHASE_BODY && r && r->is_paused) {
            set_phase(c, PHASE_BODY); /* we made the client wait */
        } else if (c->phase == PHASE_HEAD && !r) {
            refuse_head(c, 408, "the request head did not come in time");
        } else if (c->phase == PHASE_BODY && r && !r->has_started) {
            r->is_body_done = true;
            http_reply_refusal(r, 408, "bad_request", "the request body did not come in time");
        } else {
            c->is_dead = true;
        }
    } else {
        if (c->is_quiet) {
            park(c);
        }
        c->is_quiet = true;
        return;
    }
    http_connection_run(c);
}

http_connection_t *http_connection_new(http_server_t *s, int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on,
               sizeof on); /* fails on the socket pairs of tests, which need it not */
    evutil_make_socket_nonblocking(fd);
    http_connection_t *c = mem_alloc(sizeof *c);
    c->server = s;
    c->fd = fd;
    set_phase(c, PHASE_IDLE);
    event_assign(&c->watch, s->base, fd, EV_READ, on_watch, c);
    event_add(&c->watch, NULL);
    return c;
}
