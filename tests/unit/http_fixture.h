/* SPDX-License-Identifier: Apache-2.0
 *
 * A server and its clients in one process: the client's waits turn the server's loop.
 */
#ifndef EW_TESTS_HTTP_FIXTURE_H
#define EW_TESTS_HTTP_FIXTURE_H

#include "common/clock.h"
#include "common/mem.h"
#include "services/gateway/http/internal.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BULK (50u << 20)

static struct event_base *base;
static http_server_t *server;
static unsigned closed, hung_up, ended;
static size_t body_bytes, bytes_down, queue_peak;
static http_request_t *held; /* of /hold and /paused */

static void go_down(http_request_t *r)
{
    static char block[16384];
    while (bytes_down < BULK) {
        if (http_reply_chunk(r, block, sizeof block) == 0) {
            return;
        }
        bytes_down += sizeof block;
        size_t queued = http_connection_queued(r->connection);
        queue_peak = queued > queue_peak ? queued : queue_peak;
    }
    http_reply_end(r);
}

static void on_headers(void *arg, http_request_t *r)
{
    cr_assert_null(arg);
    http_set_body_max(r, strcmp(http_path(r), "/small") == 0 ? 10 : UINT64_MAX);
    if (strcmp(http_path(r), "/early") == 0) {
        http_reply(r, 403, "text/plain", "no", 2);
    }
    if (strcmp(http_path(r), "/timed") == 0) {
        http_set_body_time(r, 500);
    }
    if (strcmp(http_path(r), "/paused") == 0) {
        held = r;
        http_pause_body(r, true);
    }
}

static void on_body(http_request_t *r, const uint8_t *bytes, size_t len)
{
    (void)r;
    (void)bytes;
    body_bytes += len;
}

static void on_end(http_request_t *r)
{
    const char *path = http_path(r);
    char text[512];
    ended++;
    if (strcmp(path, "/hold") == 0) {
        held = r;
    } else if (strcmp(path, "/down") == 0) {
        http_reply_start(r, 200, "application/octet-stream", http_query(r, "chunked") ? -1 : (int64_t)BULK);
        go_down(r);
    } else if (strcmp(path, "/flood") == 0) {
        static char flood[6 << 20];
        http_reply(r, 200, "text/plain", flood, sizeof flood);
    } else if (strcmp(path, "/stream") == 0) {
        http_reply_start(r, 200, "text/plain", -1);
        http_reply_chunk(r, "one", 3);
        http_reply_chunk(r, "two", 3);
        http_reply_end(r);
    } else if (strcmp(path, "/short") == 0) {
        http_reply_start(r, 200, "text/plain", 10);
        http_reply_chunk(r, "abc", 3);
        http_reply_end(r);
    } else {
        const char *q = http_query(r, "q");
        http_add_header(r, "X-Evil", "a\r\nSet-Cookie: b");
        int n = snprintf(text, sizeof text, "%s %s q=%s body=%zu", http_method(r), path, q ? q : "-", body_bytes);
        http_reply(r, 200, "text/plain", text, (size_t)n);
        body_bytes = 0;
    }
}

static void on_writable(http_request_t *r)
{
    go_down(r);
}

static void on_close(http_request_t *r, bool is_hangup)
{
    held = held == r ? NULL : held;
    closed++;
    hung_up += is_hangup;
}

static const http_handlers_t handlers = {on_headers, on_body, on_end, on_writable, on_close};

static void set_up(void)
{
    err_t *e = NULL;
    signal(SIGPIPE, SIG_IGN);
    base = event_base_new();
    server = http_server_new(base, "127.0.0.1", 0, &handlers, NULL, &e);
    cr_assert(server, "%s", e ? err_message(e) : "");
    cr_assert_gt(http_server_port(server), 0);
}

static void tear_down(void)
{
    http_server_destroy(&server);
    event_base_free(base);
}

__attribute__((unused)) static void turn(void)
{
    event_base_loop(base, EVLOOP_NONBLOCK);
}

__attribute__((unused)) static int dial(void)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(http_server_port(server)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* Sends all, turning the loop. */
__attribute__((unused)) static void put(int fd, const void *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(fd, (const char *)bytes + at, len - at, MSG_NOSIGNAL);
        at += n > 0 ? (size_t)n : 0;
        turn();
        if (n < 0 && errno != EAGAIN) {
            return;
        }
    }
}

/* Reads until the text ends with `until`, or the connection is closed (until NULL), or ms have passed. Returns whether
 * that came. */
__attribute__((unused)) static bool get(int fd, char *out, size_t size, const char *until, unsigned ms)
{
    size_t len = 0;
    for (uint64_t end = clock_monotonic_ms() + ms; clock_monotonic_ms() < end;) {
        turn();
        ssize_t n = recv(fd, out + len, size - 1 - len, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            out[len] = 0;
            return !until;
        }
        if (n > 0) {
            len += (size_t)n;
            out[len] = 0;
            size_t want = until ? strlen(until) : 0;
            if (want && len >= want && memcmp(out + len - want, until, want) == 0) {
                return true;
            }
        } else {
            usleep(200);
        }
    }
    out[len] = 0;
    return false;
}

__attribute__((unused)) static void turn_for(unsigned ms)
{
    for (uint64_t end = clock_monotonic_ms() + ms; clock_monotonic_ms() < end; usleep(500)) {
        turn();
    }
}

__attribute__((unused)) static size_t count_of(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what)) {
        n++;
    }
    return n;
}

#define PUT(fd, text) put(fd, text, sizeof(text) - 1)
#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

#endif
