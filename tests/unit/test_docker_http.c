/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests, attach streams and blocks against a small Docker daemon that lies.
 */
// LINK: services/gvisord/docker_http.c services/gvisord/docker_host.c services/gvisord/docker_attach.c
// LINK: services/gvisord/docker_demux.c agent/blocks.c
#include "agent/blocks.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/cobs.h"
#include "common/mem.h"
#include "services/gvisord/docker_attach.h"
#include "services/gvisord/docker_demux.h"
#include "services/gvisord/docker_http.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

static struct event_base *base;
static docker_host_t host;
static docker_http_t *http;
static char socket_path[100];
static int listener = -1;

static void set_up(void)
{
    auto_err err_t *e = NULL;
    signal(SIGPIPE, SIG_IGN);
    snprintf(socket_path, sizeof socket_path, "/tmp/ew-docker-%d.sock", getpid());
    auto_free char *text = mem_printf("unix://%s", socket_path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(listener, 8), 0);
    base = event_base_new();
    cr_assert_eq(docker_host_parse(&host, text, &e), 0);
    http = docker_http_new(base, &host, &e);
    cr_assert(http);
}

static void tear_down(void)
{
    docker_http_free(&http);
    docker_host_free(&host);
    event_base_free(base);
    close(listener);
    unlink(socket_path);
}

TestSuite(docker_http, .init = set_up, .fini = tear_down, .timeout = 30);
TestSuite(docker_parts, .timeout = 20);

/* ---- the daemon that lies ---- */

static int peer_accept(void)
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    for (int i = 0; i < 200; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        if (poll(&p, 1, 10) == 1)
            return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    cr_assert_fail("nobody connects");
    return -1;
}

/* Reads until `end` has come. */
static void peer_read(int fd, buf_t *got, const char *end)
{
    for (int i = 0; i < 300; i++) {
        uint8_t *room = buf_reserve(got, 65536);
        ssize_t n = read(fd, room, 65536);
        if (n > 0)
            buf_commit(got, (size_t)n);
        if (strstr(buf_cstr(got), end))
            return;
        event_base_loop(base, EVLOOP_NONBLOCK);
        if (n <= 0)
            usleep(2000);
    }
    cr_assert_fail("'%s' does not come: %s", end, buf_cstr(got));
}

static void peer_write(int fd, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    for (int i = 0; len > 0 && i < 5000; i++) {
        ssize_t n = write(fd, at, len);
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        } else if (errno != EAGAIN) {
            return; /* the other side has had enough */
        }
        event_base_loop(base, EVLOOP_NONBLOCK);
    }
}

static void peer_say(int fd, const char *text)
{
    peer_write(fd, text, strlen(text));
}

typedef struct outcome {
    unsigned count, lines;
    int status;
    bool is_json;
    char text[200], error[600], line[200];
} outcome_t;

static void on_reply(void *arg, const docker_reply_t *reply, const err_t *err)
{
    outcome_t *o = arg;
    o->count++;
    if (err) {
        snprintf(o->error, sizeof o->error, "%s", err_message(err));
        return;
    }
    o->status = reply->status;
    o->is_json = reply->json != NULL;
    snprintf(o->text, sizeof o->text, "%s", reply->text);
}

static void on_line(void *arg, const char *line)
{
    outcome_t *o = arg;
    o->lines++;
    snprintf(o->line, sizeof o->line, "%s", line);
}

static void wait_for(const outcome_t *o)
{
    for (int i = 0; i < 1000 && o->count == 0; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        usleep(2000);
    }
    cr_assert_eq(o->count, 1);
}

static docker_request_t *get(outcome_t *o, bool has_lines, uint32_t timeout_ms)
{
    docker_call_t call = {.method = "GET", .path = mem_strdup("/info"), .timeout_ms = timeout_ms};
    call.on_line = has_lines ? on_line : NULL;
    return docker_http_start(http, &call, on_reply, o);
}

/* What comes of an answer that is sent in pieces of `step` bytes, and cut then. */
static outcome_t answer(const char *text, size_t len, size_t step)
{
    outcome_t o = {0};
    auto_buf buf_t request = {0};
    get(&o, false, 5000);
    int fd = peer_accept();
    peer_read(fd, &request, "\r\n\r\n");
    cr_assert(strstr(buf_cstr(&request), "GET /info HTTP/1.1\r\n"), "%s", buf_cstr(&request));
    for (size_t at = 0; at < len; at += step)
        peer_write(fd, text + at, len - at < step ? len - at : step);
    close(fd);
    wait_for(&o);
    return o;
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Test(docker_http, an_answer_comes_whole_however_it_is_cut)
{
    static const char *const texts[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\": 42}",
        CHUNKED "4\r\n{\"a\"\r\n5;x=y\r\n: 42}\r\n0\r\nT: t\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"a\": 42}",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        for (size_t step = 1; step < 80; step = step * 3 + 1) {
            outcome_t o = answer(texts[i], strlen(texts[i]), step);
            cr_assert_eq(o.status, 200, "%s", o.error);
            cr_assert(o.is_json && strcmp(o.text, "{\"a\": 42}") == 0, "%s", o.text);
        }
}

Test(docker_http, an_answer_that_is_cut_off_is_an_error_and_never_half_an_answer)
{
    static const char text[] = CHUNKED "9\r\n{\"a\": 42}\r\n0\r\n\r\n";
    for (size_t len = 0; len < sizeof text - 1 - 2; len++) { /* the last empty line says nothing */
        outcome_t o = answer(text, len, len + 1);
        cr_assert(o.error[0] && o.status == 0, "after %zu bytes: %s", len, o.text);
    }
}

Test(docker_http, what_is_no_http_is_an_error)
{
    static const char *const texts[] = {"\x80\x01\x02\x03\n\n", "SSH-2.0-x\r\n\r\n",
                                        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", CHUNKED "zz\r\n",
                                        CHUNKED "ffffffffffffffffff\r\nx"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        outcome_t o = answer(texts[i], strlen(texts[i]), 1000);
        cr_assert(o.error[0], "%zu: status %d", i, o.status);
    }
}

Test(docker_http, an_answer_that_is_no_json_is_told_by_its_status)
{
    static const char text[] = "HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\n\x1b\x80\xff\n!";
    auto_err err_t *e = NULL;
    outcome_t o = answer(text, sizeof text - 1, 1000);
    cr_assert_eq(o.status, 500);
    cr_assert_not(o.is_json);
    docker_reply_t reply = {.status = 500, .text = o.text};
    cr_assert_eq(docker_reply_error(&reply, "cannot do it", &e), -1);
    cr_assert(strstr(err_message(e), "cannot do it: the Docker daemon answered 500"), "%s", err_message(e));
    cr_assert_not(strpbrk(err_message(e), "\x1b\x80\n"), "nothing for a terminal in it: %s", err_message(e));
}

static outcome_t flood(const char *head, const char *unit, size_t bytes, bool has_lines)
{
    outcome_t o = {0};
    auto_buf buf_t request = {0}, block = {0};
    get(&o, has_lines, 10000);
    int fd = peer_accept();
    peer_read(fd, &request, "\r\n\r\n");
    peer_say(fd, head);
    while (block.len < 65536)
        buf_append_str(&block, unit);
    for (size_t sent = 0; sent < bytes && o.count == 0; sent += block.len)
        peer_write(fd, block.data, block.len);
    wait_for(&o);
    close(fd);
    return o;
}

Test(docker_http, a_huge_header_body_or_line_ends_the_request)
{
    outcome_t o =
        flood("HTTP/1.1 200 OK\r\n", "X-Filler: 0123456789012345678901234567890123456789\r\n", 4 << 20, false);
    cr_assert(strstr(o.error, "header of its answer is too long"), "%s", o.error);
    o = flood("HTTP/1.1 200 OK\r\n\r\n", "01234567", DOCKER_BODY_MAX * 2, false);
    cr_assert(strstr(o.error, "its answer is too long"), "%s", o.error);
    o = flood("HTTP/1.1 200 OK\r\n\r\n", "01234567", DOCKER_LINE_MAX * 4, true);
    cr_assert(strstr(o.error, "its answer is too long"), "%s", o.error);
}

Test(docker_http, lines_come_as_they_are_sent)
{
    outcome_t o = {0};
    auto_buf buf_t request = {0};
    get(&o, true, 5000);
    int fd = peer_accept();
    peer_read(fd, &request, "\r\n\r\n");
    peer_say(fd, "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"one\"}\r\n{\"sta");
    for (int i = 0; i < 100 && o.lines == 0; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        usleep(1000);
    }
    cr_assert_eq(o.lines, 1);
    cr_assert_eq(o.count, 0);
    peer_say(fd, "tus\":\"two\"}");
    close(fd);
    wait_for(&o);
    cr_assert_eq(o.lines, 2);
    cr_assert_str_eq(o.line, "{\"status\":\"two\"}");
}

Test(docker_http, silence_ends_at_the_deadline_and_nobody_there_is_said)
{
    outcome_t o = {0};
    get(&o, false, 200);
    int fd = peer_accept();
    wait_for(&o);
    cr_assert(strstr(o.error, "did not answer within 200 ms"), "%s", o.error);
    close(fd);
    close(listener);
    listener = -1;
    unlink(socket_path);
    o = (outcome_t){0};
    get(&o, false, 2000);
    wait_for(&o);
    cr_assert(strstr(o.error, "is it running?"), "%s", o.error);
}

Test(docker_http, a_cancelled_request_is_never_heard_of)
{
    outcome_t o = {0};
    docker_request_t *r = get(&o, false, 200);
    int fd = peer_accept();
    docker_http_cancel(&r);
    for (int i = 0; i < 300; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        usleep(1000);
    }
    cr_assert_eq(o.count, 0);
    close(fd);
}

Test(docker_http, an_upload_waits_for_its_source_and_comes_in_chunks)
{
    outcome_t o = {0};
    auto_buf buf_t request = {0};
    int fds[2];
    cr_assert_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    docker_call_t call = {.method = "POST", .path = mem_strdup("/images/create"), .fd_upload = fds[0]};
    call.timeout_ms = 5000;
    docker_http_start(http, &call, on_reply, &o);
    int fd = peer_accept();
    peer_read(fd, &request, "\r\n\r\n");
    cr_assert(strstr(buf_cstr(&request), "Transfer-Encoding: chunked"), "%s", buf_cstr(&request));
    cr_assert_eq(write(fds[1], "first", 5), 5);
    peer_read(fd, &request, "first");
    cr_assert_eq(write(fds[1], "second", 6), 6);
    close(fds[1]);
    peer_read(fd, &request, "second\r\n0\r\n\r\n");
    peer_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    wait_for(&o);
    cr_assert_eq(o.status, 200, "%s", o.error);
    close(fd);
    close(fds[0]);
}

Test(docker_http, hosts_are_parsed_or_refused)
{
    static const char *const bad[] = {"",           "/var/run/docker.sock", "unix://relative",
                                      "tcp://",     "tcp://localhost",      "tcp://h:1/path",
                                      "ssh://host", "tcp://user@h:1"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        docker_host_t h;
        auto_err err_t *e = NULL;
        cr_assert_eq(docker_host_parse(&h, bad[i], &e), -1, "%s", bad[i]);
    }
    docker_host_t h;
    auto_err err_t *e = NULL;
    cr_assert_eq(docker_host_parse(&h, "tcp://127.0.0.1:2375", &e), 0);
    cr_assert_str_eq(h.authority, "127.0.0.1:2375");
    docker_host_free(&h);
}

/* ---- attach ---- */

static char attach_end[200];

static void on_attach_end(void *arg, const char *why)
{
    (void)arg;
    snprintf(attach_end, sizeof attach_end, "%s", why);
}

static docker_attach_t *attach(int *stream, int *peer, const char *answer_text)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t request = {0};
    attach_end[0] = '\0';
    docker_attach_t *a = docker_attach_open(base, &host, "box", stream, on_attach_end, NULL, &e);
    cr_assert(a, "%s", err_message(e));
    *peer = peer_accept();
    peer_read(*peer, &request, "\r\n\r\n");
    cr_assert(strstr(buf_cstr(&request), "POST /containers/box/attach?stream=1&stdin=1&stdout=1 HTTP/1.1"));
    peer_say(*peer, answer_text);
    return a;
}

static void turn(unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        usleep(500);
    }
}

static buf_t fed;
static unsigned begins;

static void on_feed(const uint8_t *bytes, size_t len)
{
    buf_append(&fed, bytes, len);
}

static void on_begin(void)
{
    begins++;
    buf_reset(&fed);
}

#define UPGRADED "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"

Test(docker_http, attach_carries_both_directions)
{
    int stream, peer;
    uint8_t bytes[1000];
    docker_attach_t *a = attach(&stream, &peer, UPGRADED "\1\0\0\0\0\0\0\2" /* cut: the zeros end the text */);
    cr_assert_eq(write(stream, "down\0down", 9), 9);
    turn(20);
    ssize_t n = read(peer, bytes, sizeof bytes);
    cr_assert_gt(n, 9);
    blocks_take(bytes, (size_t)n, on_feed, on_begin);
    cr_assert_eq(begins, 1);
    cr_assert(fed.len == 9 && memcmp(fed.data, "down\0down", 9) == 0);
    static const uint8_t up[] = "\0\0\0\0\0\0\2hi\2\0\0\0\0\0\0\3err\1\0\0\0\0\0\0\1!";
    peer_write(peer, up, sizeof up - 1); /* its first byte came with the head */
    turn(20);
    n = read(stream, bytes, sizeof bytes);
    cr_assert(n == 3 && memcmp(bytes, "hi!", 3) == 0, "%zd", n);
    close(peer);
    turn(20);
    cr_assert_str_eq(attach_end, "its output has ended");
    docker_attach_close(&a);
    close(stream);
    buf_free(&fed);
}

Test(docker_http, attach_that_is_refused_or_nonsense_ends_once)
{
    static const struct {
        const char *answer, *why;
    } rows[] = {{"HTTP/1.1 404 Not Found\r\n\r\n{}", "refused"},
                {"HTTP/1.1 409 Conflict\r\n\r\n{}", "refused"},
                {"garbage\r\n\r\n", "refused"},
                {UPGRADED "\x07garbage!", "no attach stream"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int stream, peer;
        docker_attach_t *a = attach(&stream, &peer, rows[i].answer);
        turn(20);
        cr_assert(strstr(attach_end, rows[i].why), "%zu: '%s'", i, attach_end);
        docker_attach_close(&a);
        close(stream);
        close(peer);
    }
}

Test(docker_http, an_attach_head_without_end_is_bounded)
{
    int stream, peer;
    docker_attach_t *a = attach(&stream, &peer, "HTTP/1.1 101 UPGRADED\r\n");
    for (int i = 0; i < 2000 && !attach_end[0]; i++)
        peer_say(peer, "X: 0123456789012345678901234567890123456789\r\n");
    cr_assert(strstr(attach_end, "too long"), "'%s'", attach_end);
    docker_attach_close(&a);
    close(stream);
    close(peer);
}

Test(docker_http, a_slow_reader_makes_docker_wait)
{
    int stream, peer;
    uint8_t frame[8 + 8192] = {1, 0, 0, 0, 0, 0, 0x20, 0};
    docker_attach_t *a = attach(&stream, &peer, UPGRADED);
    size_t sent = 0;
    turn(10);
    for (int idle = 0; idle < 50;) {
        ssize_t n = write(peer, frame + sent % sizeof frame, sizeof frame - sent % sizeof frame);
        idle = n > 0 ? 0 : idle + 1;
        sent += n > 0 ? (size_t)n : 0;
        turn(1);
        cr_assert_lt(sent, (size_t)16 << 20, "it takes all that comes");
    }
    size_t want = sent / sizeof frame * 8192, got = 0;
    uint8_t bytes[65536];
    for (int i = 0; i < 5000 && got < want; i++) {
        ssize_t n = read(stream, bytes, sizeof bytes);
        got += n > 0 ? (size_t)n : 0;
        event_base_loop(base, EVLOOP_NONBLOCK);
    }
    cr_assert_geq(got, want, "%zu of %zu", got, want);
    docker_attach_close(&a);
    close(stream);
    close(peer);
}

/* ---- Docker's frames and the blocks, cut at every byte ---- */

static void collect(void *arg, const uint8_t *bytes, size_t len)
{
    buf_append(arg, bytes, len);
}

Test(docker_parts, frames_are_the_same_however_they_are_cut)
{
    static const uint8_t text[] = "\1\0\0\0\0\0\0\3one\2\0\0\0\0\0\0\4ERR!\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\3two";
    for (size_t cut = 0; cut < sizeof text; cut++) {
        docker_demux_t d = {0};
        auto_buf buf_t out = {0};
        cr_assert_eq(docker_demux_take(&d, text, cut, collect, &out), 0);
        cr_assert_eq(docker_demux_take(&d, text + cut, sizeof text - 1 - (cut < sizeof text ? cut : 0), collect, &out),
                     0);
        cr_assert_str_eq(buf_cstr(&out), "onetwo", "cut at %zu", cut);
    }
    docker_demux_t d = {0};
    cr_assert_eq(docker_demux_take(&d, (const uint8_t *)"\1\0\0\1\0\0\0\1x", 9, collect, NULL), -1);
    d = (docker_demux_t){0};
    cr_assert_eq(docker_demux_take(&d, (const uint8_t *)"\3\0\0\0\0\0\0\1x", 9, collect, NULL), -1);
}

static void check_payload(const uint8_t *bytes, size_t len)
{
    static const uint8_t tag[COBS_TAG_SIZE] = {0};
    auto_buf buf_t out = {0};
    cobs_append(&out, tag, bytes, len);
    cr_assert_not(memchr(out.data + 1, 0, out.len - 2));
    cr_assert_leq(out.len - 2, COBS_BLOCK_MAX);
    cr_assert_eq(cobs_decode(out.data + 1, out.len - 2), (long)(len + COBS_TAG_SIZE));
    cr_assert_eq(memcmp(out.data + 1 + COBS_TAG_SIZE, bytes, len), 0);
}

Test(docker_parts, blocks_carry_bytes_of_every_kind)
{
    uint8_t bytes[COBS_PAYLOAD_MAX] = {0};
    for (size_t len = 0; len <= 600; len++) {
        for (size_t i = 0; i < len; i++)
            bytes[i] = len % 2 ? (uint8_t)i : 7;
        check_payload(bytes, len);
        if (len)
            bytes[len - 1] = 0;
        check_payload(bytes, len);
    }
    memset(bytes, 0, sizeof bytes);
    check_payload(bytes, sizeof bytes);
    memset(bytes, 0xff, sizeof bytes);
    check_payload(bytes, sizeof bytes);
}

static void connection(buf_t *out, const uint8_t tag[COBS_TAG_SIZE], const char *text)
{
    cobs_append(out, tag, COBS_HELLO, COBS_HELLO_SIZE);
    cobs_append(out, tag, text, strlen(text));
}

/* The first daemon dies after `cut` bytes; more of what it had sent comes after the next one's first. */
static void check_cut(uint64_t number, size_t cut, size_t late)
{
    uint8_t tags[2][COBS_TAG_SIZE];
    auto_buf buf_t old = {0}, next = {0}, more = {0};
    for (uint64_t i = 0; i < 2; i++)
        memcpy(tags[i], &(uint64_t){2 * number + i + 1}, COBS_TAG_SIZE);
    connection(&old, tags[0], "something of the old one");
    connection(&next, tags[1], "RESYNC");
    cobs_append(&more, tags[1], "+", 1);
    late = late < old.len ? late : old.len;
    cut = cut < late ? cut : late;
    blocks_take(old.data, cut, on_feed, on_begin);
    unsigned before = begins;
    blocks_take(next.data, next.len, on_feed, on_begin);
    cr_assert_gt(begins, before);
    cr_assert_str_eq(buf_cstr(&fed), "RESYNC", "cut at %zu", cut);
    if (cut <= 1)
        return; /* all of a dead connection, its HELLO too, after the next one's: it would be the newest there is */
    blocks_take(old.data + cut, late - cut, on_feed, on_begin);
    blocks_take(more.data, more.len, on_feed, on_begin);
    cr_assert_str_eq(buf_cstr(&fed), "RESYNC+", "cut at %zu, the rest up to %zu", cut, late);
}

Test(docker_parts, the_next_connection_is_understood_after_any_cut)
{
    uint64_t number = 0;
    for (size_t cut = 0; cut < 90; cut++)
        for (size_t late = cut; late < 90; late++)
            check_cut(++number, cut, late);
    buf_free(&fed);
}

Test(docker_parts, blocks_of_the_wrong_kind_are_dropped)
{
    auto_buf buf_t out = {0};
    static const uint8_t tag[COBS_TAG_SIZE] = {9}, other[COBS_TAG_SIZE] = {8};
    cobs_append(&out, tag, "before HELLO", 12);
    cobs_append(&out, tag, COBS_HELLO, COBS_HELLO_SIZE);
    cobs_append(&out, other, "another's", 9);
    cobs_append(&out, tag, "mine", 4);
    for (int i = 0; i < 3 * (int)COBS_BLOCK_MAX; i++)
        buf_append_byte(&out, 0x55); /* longer than any block */
    cobs_append(&out, tag, "+", 1);
    buf_reset(&fed);
    for (size_t i = 0; i < out.len; i++)
        blocks_take(out.data + i, 1, on_feed, on_begin);
    cr_assert_str_eq(buf_cstr(&fed), "mine+");
    buf_free(&fed);
}
