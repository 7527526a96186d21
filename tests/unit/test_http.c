/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP layer over real sockets.
 */
// LINK: services/gateway/http/chunked.c
// LINK: services/gateway/http/server.c services/gateway/http/connection.c services/gateway/http/request.c
// LINK: services/gateway/http/reply.c
#include "tests/unit/http_fixture.h"

TestSuite(http, .init = set_up, .fini = tear_down, .timeout = 60);

Test(http, a_request_is_answered)
{
    char reply[2048];
    int fd = dial();
    PUT(fd, GET("/hello?q=a%20b+c"));
    cr_assert(get(fd, reply, sizeof reply, "GET /hello q=a b c body=0", 2000), "%s", reply);
    cr_assert(strstr(reply, "HTTP/1.1 200 OK\r\n"));
    cr_assert_not(strstr(reply, "Set-Cookie"), "a header value with a line end must not get through");
    close(fd);
}

Test(http, a_trailing_slash_is_stripped_and_escapes_decoded)
{
    char reply[2048];
    int fd = dial();
    PUT(fd, GET("/a/%62/%41//?q=%C3%A9%2F"));
    cr_assert(get(fd, reply, sizeof reply, "GET /a/b/A q=\xc3\xa9/ body=0", 2000), "%s", reply);
    PUT(fd, GET("http://x/abs?q=1"));
    cr_assert(get(fd, reply, sizeof reply, "GET /abs q=1 body=0", 2000), "%s", reply);
    close(fd);
}

Test(http, pipelined_requests_are_answered_in_order_on_one_connection)
{
    char reply[4096];
    int fd = dial();
    PUT(fd, GET("/1") "POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
                      "\r\n" GET("/stream") GET("/3"));
    cr_assert(get(fd, reply, sizeof reply, "GET /3 q=- body=0", 2000), "%s", reply);
    const char *one = strstr(reply, "GET /1 "), *two = strstr(reply, "POST /2 q=- body=5");
    const char *stream = strstr(reply, "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
    cr_assert(one && two && stream && one < two && two < stream, "%s", reply);
    cr_assert_eq(http_server_connections(server), 1);
    cr_assert_eq(closed, 4);
    close(fd);
}

Test(http, a_head_in_single_bytes_is_understood)
{
    static const char text[] = "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                               "chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: t\r\n\r\n" GET("/y");
    char reply[4096];
    int fd = dial();
    for (size_t i = 0; i < sizeof text - 1; i++) {
        put(fd, text + i, 1);
    }
    cr_assert(get(fd, reply, sizeof reply, "GET /y q=- body=0", 2000), "%s", reply);
    cr_assert(strstr(reply, "POST /x q=- body=5"));
    close(fd);
}

static char long_url[HTTP_URL_MAX + 200], long_header[HTTP_HEAD_MAX + 200], many_headers[4096];

static void expect_refusal(const char *input, int code, size_t row)
{
    char reply[4096], status[16];
    int fd = dial();
    put(fd, input, strlen(input));
    shutdown(fd, SHUT_WR);
    snprintf(status, sizeof status, "HTTP/1.1 %d ", code);
    cr_assert(get(fd, reply, sizeof reply, NULL, 3000), "not closed, row %zu: %.60s: %s", row, input, reply);
    cr_assert(strncmp(reply, status, strlen(status)) == 0, "row %zu: %.60s: %s", row, input, reply);
    cr_assert_eq(count_of(reply, "HTTP/1.1 "), 1, "row %zu: %s", row, reply);
    cr_assert(strstr(reply, "{\"error\":{\"code\":\"") && strstr(reply, "X-Request-Id: "), "row %zu: %s", row, reply);
    close(fd);
}

Test(http, hostile_heads_are_refused_and_the_connection_closed)
{
    memset(long_url, 'a', sizeof long_url - 1);
    memcpy(long_url, "GET /", 5);
    memcpy(long_url + sizeof long_url - 40, " HTTP/1.1\r\nHost: x\r\n\r\n", 23);
    memset(long_header, 'a', sizeof long_header - 1);
    memcpy(long_header, "GET / HTTP/1.1\r\nHost: x\r\nA: ", 28);
    int n = snprintf(many_headers, sizeof many_headers, "GET / HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 120; i++) {
        n += snprintf(many_headers + n, sizeof many_headers - (size_t)n, "A%d: b\r\n", i);
    }
    snprintf(many_headers + n, sizeof many_headers - (size_t)n, "\r\n");
    const struct {
        const char *input;
        int status;
    } rows[] = {
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 400},
        {"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400},
        {"GET / HTTP/1.1\nHost: x\n\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\nA\x01: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\nA: b\x01\r\n\r\n", 400},
        {"GET /a%2fb HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET /a%2Fb HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET /%4 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET /?q=%0 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505},
        {"GET / HTTP/1.1\r\nHost: x\r\nExpect: dance\r\n\r\n", 417},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
        {"\x16\x03\x01\x02", 400},
        {"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
        {"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400},
        {"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 400},
        {long_url, 431},
        {long_header, 431},
        {many_headers, 431},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        expect_refusal(rows[i].input, rows[i].status, i);
    }
    turn_for(20);
    cr_assert_eq(http_server_connections(server), 0);
}

/* http-parser takes any byte for the LF after a CR; what a proxy reads differently ends elsewhere for it. */
Test(http, chunks_with_loose_line_ends_are_refused)
{
#define CHUNKED "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    static const char *const rows[] = {
        CHUNKED "3\rXabc\r\n0\r\n\r\n",        CHUNKED "3\r\nabc\rX0\r\n\r\n", CHUNKED "3;a\nb\r\nabc\r\n0\r\n\r\n",
        CHUNKED "3 \r\nabc\r\n0\r\n\r\n",      CHUNKED "3\r\nabc\r\n0\r\n\rX", CHUNKED "3\nabc\n0\n\n",
        CHUNKED "3\r\nabc\r\n0\r\nA: b\n\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        expect_refusal(rows[i], 400, i);
    }
    char reply[4096];
    int fd = dial();
    body_bytes = 0;
    PUT(fd, CHUNKED "3;a=\"b\"\r\nabc\r\n00A\r\n0123456789\r\n0\r\nA: b\r\nC: d\r\n\r\n");
    cr_assert(get(fd, reply, sizeof reply, "body=13", 2000), "%s", reply);
    close(fd);
}

Test(http, a_client_that_hangs_up_is_noticed_while_the_handler_works)
{
    int fd = dial();
    PUT(fd, GET("/hold"));
    turn_for(20);
    cr_assert_not_null(held);
    cr_assert_eq(closed, 0);
    close(fd);
    turn_for(50);
    cr_assert_eq(closed, 1);
    cr_assert_eq(hung_up, 1);
    cr_assert_eq(http_server_connections(server), 0);
}

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

Test(http, an_upload_of_50_mb_passes_through_bounded_memory)
{
    static char block[65536];
    char reply[2048], size[16];
    long before = peak_kib();
    int fd = dial();
    PUT(fd, "PUT /up HTTP/1.1\r\nHost: x\r\nContent-Length: 52428800\r\n\r\n");
    for (size_t i = 0; i < BULK / sizeof block; i++) {
        put(fd, block, sizeof block);
    }
    cr_assert(get(fd, reply, sizeof reply, "PUT /up q=- body=52428800", 5000), "%s", reply);
    PUT(fd, "PUT /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    int n = snprintf(size, sizeof size, "%zx\r\n", sizeof block);
    for (size_t i = 0; i < BULK / sizeof block; i++) {
        put(fd, size, (size_t)n);
        put(fd, block, sizeof block);
        PUT(fd, "\r\n");
    }
    PUT(fd, "0\r\n\r\n");
    cr_assert(get(fd, reply, sizeof reply, "PUT /up q=- body=52428800", 5000), "%s", reply);
#ifndef __SANITIZE_ADDRESS__ /* which keeps freed memory */
    cr_assert_lt(peak_kib() - before, 12 * 1024);
#endif
    cr_assert_leq(before, peak_kib());
    close(fd);
}

Test(http, a_paused_body_stops_the_client_and_costs_little)
{
    static char block[65536];
    char reply[2048];
    int fd = dial();
    PUT(fd, "PUT /paused HTTP/1.1\r\nHost: x\r\nContent-Length: 52428800\r\n\r\n");
    size_t sent = 0;
    for (int i = 0; i < 4000 && sent < BULK; i++) {
        size_t want = BULK - sent < sizeof block ? BULK - sent : sizeof block;
        ssize_t n = send(fd, block, want, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        turn();
    }
    cr_assert_lt(sent, BULK, "back pressure reaches the client");
    cr_assert_eq(body_bytes, 0);
    cr_assert_leq(evbuffer_get_length(bufferevent_get_input(held->connection->bev)), 2 * HTTP_INPUT_MAX);
    http_pause_body(held, false);
    while (sent < BULK) {
        size_t want = BULK - sent < sizeof block ? BULK - sent : sizeof block;
        put(fd, block, want);
        sent += want;
    }
    cr_assert(get(fd, reply, sizeof reply, "PUT /paused q=- body=52428800", 5000), "%s", reply);
    close(fd);
}

Test(http, a_hang_up_is_noticed_though_nothing_is_read)
{
    static char block[65536];
    int fd = dial();
    PUT(fd, "PUT /paused HTTP/1.1\r\nHost: x\r\nContent-Length: 52428800\r\n\r\n");
    for (int i = 0; i < 2; i++) { /* little enough for the kernel to deliver, so that the end of it arrives too */
        send(fd, block, sizeof block, MSG_NOSIGNAL);
        turn();
    }
    cr_assert(held && held->connection->is_read_off);
    cr_assert_eq(hung_up, 0);
    close(fd);
    turn_for(50);
    cr_assert_eq(hung_up, 1);
    cr_assert_eq(http_server_connections(server), 0);
}

static void download(const char *request, size_t overhead_max)
{
    static char block[65536];
    size_t got = 0;
    int fd = dial();
    put(fd, request, strlen(request));
    turn_for(100); /* nobody reads: the server must wait */
    cr_assert_lt(bytes_down, BULK);
    for (uint64_t end = clock_monotonic_ms() + 20000; clock_monotonic_ms() < end && got < BULK;) {
        turn();
        ssize_t n = recv(fd, block, sizeof block, 0);
        got += n > 0 ? (size_t)n : 0;
    }
    turn_for(10);
    cr_assert(got > BULK && got < BULK + overhead_max, "%zu", got);
    cr_assert_leq(queue_peak, HTTP_OUTPUT_MAX + 32768);
    cr_assert_eq(closed, 1);
    cr_assert_eq(hung_up, 0);
    close(fd);
}

Test(http, a_download_of_50_mb_waits_for_a_slow_reader)
{
    download(GET("/down"), 300);
}

Test(http, a_chunked_download_too)
{
    download(GET("/down?chunked=1"), 40000);
}

Test(http, head_has_the_length_and_no_body_and_http_1_0_closes)
{
    char reply[2048];
    int fd = dial();
    PUT(fd, "HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_assert(get(fd, reply, sizeof reply, "\r\n\r\n", 2000));
    cr_assert(strstr(reply, "Content-Length: 18\r\n"), "%s", reply);
    PUT(fd, GET("/next"));
    cr_assert(get(fd, reply, sizeof reply, "GET /next q=- body=0", 2000), "%s", reply);
    close(fd);
    fd = dial();
    PUT(fd, "GET /stream HTTP/1.0\r\n\r\n");
    cr_assert(get(fd, reply, sizeof reply, NULL, 2000));
    cr_assert(strstr(reply, "Connection: close\r\n") && strstr(reply, "\r\n\r\nonetwo"), "%s", reply);
    close(fd);
    fd = dial();
    PUT(fd, "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    cr_assert(get(fd, reply, sizeof reply, "body=0", 2000));
    cr_assert(strstr(reply, "Connection: keep-alive\r\n"), "%s", reply);
    close(fd);
}

Test(http, expect_100_continue_is_answered_when_the_body_is_wanted)
{
    char reply[2048];
    int fd = dial();
    PUT(fd, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    cr_assert(get(fd, reply, sizeof reply, "HTTP/1.1 100 Continue\r\n\r\n", 2000), "%s", reply);
    PUT(fd, "ab");
    cr_assert(get(fd, reply, sizeof reply, "POST /x q=- body=2", 2000), "%s", reply);
    PUT(fd, "POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    cr_assert(get(fd, reply, sizeof reply, "no", 2000), "%s", reply);
    cr_assert(strstr(reply, "HTTP/1.1 403") == reply && strstr(reply, "Connection: close"), "%s", reply);
    close(fd);
}

Test(http, an_early_answer_reaches_a_client_that_still_sends)
{
    static char block[65536];
    char reply[2048];
    int fd = dial();
    PUT(fd, "POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n");
    for (int i = 0; i < 10; i++) {
        put(fd, block, sizeof block);
    }
    cr_assert(get(fd, reply, sizeof reply, NULL, 3000));
    cr_assert(strstr(reply, "HTTP/1.1 403") == reply, "%s", reply);
    close(fd);
    fd = dial();
    PUT(fd, "POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde" GET("/next"));
    cr_assert(get(fd, reply, sizeof reply, "GET /next q=- body=0", 2000), "a short rest is read away: %s", reply);
    close(fd);
}

Test(http, a_body_over_its_limit_is_413)
{
    char reply[2048];
    int fd = dial();
    PUT(fd, "POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n");
    cr_assert(get(fd, reply, sizeof reply, "}}", 2000));
    cr_assert(strstr(reply, "HTTP/1.1 413") == reply, "%s", reply);
    close(fd);
    fd = dial();
    PUT(fd, "POST /small HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n");
    cr_assert(get(fd, reply, sizeof reply, "}}", 2000));
    cr_assert(strstr(reply, "HTTP/1.1 413") == reply, "%s", reply);
    close(fd);
}

Test(http, a_reply_shorter_than_promised_breaks_the_connection)
{
    char reply[2048];
    int fd = dial();
    PUT(fd, GET("/short"));
    cr_assert(get(fd, reply, sizeof reply, NULL, 2000));
    cr_assert(strstr(reply, "Content-Length: 10"));
    close(fd);
}
