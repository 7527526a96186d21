/* SPDX-License-Identifier: Apache-2.0
 *
 * Files over REST end to end: download, upload, watch.
 */
// LINK: services/gateway/http/chunked.c services/gateway/workspace_states.c
// LINK: services/gateway/json_guard.c services/gateway/api.c services/gateway/api_reply.c services/gateway/routes.c
// LINK: services/gateway/audit_request.c
// LINK: services/gateway/tools.c services/gateway/output_stream.c services/gateway/processes.c
// LINK: services/gateway/files.c services/gateway/system.c services/gateway/metrics.c
// LINK: services/gateway/openapi.c services/gateway/idempotency.c services/gateway/http/server.c
// LINK: services/gateway/http/connection.c services/gateway/http/request.c services/gateway/http/reply.c
#define API_SUITE api_files
#include "tests/unit/api_fixture.h"

Test(api_files, a_download_streams_and_knows_ranges_tags_and_head)
{
    char *reply = ask("GET", WS "/" ID "/files?path=/f", RW, NULL);
    cr_assert(strstr(reply, "Content-Length: 10485760\r\n") && strstr(reply, "ETag: \"5-3e8-a00000\"\r\n"), "%.500s",
              reply);
    cr_assert(strstr(reply, "Last-Modified: Thu, 01 Jan 1970 00:00:01 GMT\r\n"));
    free(reply);
    EXPECT(206, "Content-Range: bytes 5-9/10485760\r\n", "GET", WS "/" ID "/files?path=/f", RW "Range: bytes=5-9\r\n",
           NULL);
    EXPECT(206, "Content-Range: bytes 10485757-10485759/10485760\r\n", "GET", WS "/" ID "/files?path=/f",
           RW "Range: bytes=-3\r\n", NULL);
    EXPECT(206, "Content-Range: bytes 10485000-10485759/10485760\r\n", "GET", WS "/" ID "/files?path=/f",
           RW "Range: bytes=10485000-\r\n", NULL);
    EXPECT(416, "Content-Range: bytes */10485760\r\n", "GET", WS "/" ID "/files?path=/f",
           RW "Range: bytes=10485760-\r\n", NULL);
    EXPECT(200, "Content-Length: 10485760\r\n", "GET", WS "/" ID "/files?path=/f", RW "Range: bytes=1-2,4-5\r\n", NULL);
    EXPECT(200, "Content-Length: 10485760\r\n", "GET", WS "/" ID "/files?path=/f",
           RW "Range: bytes=5-9\r\nIf-Range: \"old\"\r\n", NULL);
    EXPECT(206, "bytes 5-9/", "GET", WS "/" ID "/files?path=/f",
           RW "Range: bytes=5-9\r\nIf-Range: \"5-3e8-a00000\"\r\n", NULL);
    EXPECT(304, "ETag: \"5-3e8-a00000\"\r\n", "GET", WS "/" ID "/files?path=/f",
           RW "If-None-Match: \"a\", W/\"5-3e8-a00000\"\r\n", NULL);
    EXPECT(404, "file not found: /missing", "GET", WS "/" ID "/files?path=/missing", RW, NULL);
    EXPECT(400, "path is required", "GET", WS "/" ID "/files", RW, NULL);
    reply = ask("HEAD", WS "/" ID "/files?path=/f", RW, NULL);
    cr_assert(strstr(reply, "Content-Length: 10485760\r\n") && strcmp(strstr(reply, "\r\n\r\n"), "\r\n\r\n") == 0, "%s",
              reply);
    free(reply);
}

static void upload(bool is_chunked)
{
    static char block[65536];
    char reply[2048];
    size_t got = 0;
    int fd = dial();
    auto_free char *head =
        mem_printf("PUT " WS "/" ID "/files?path=/f HTTP/1.1\r\nHost: x\r\n" RW "Connection: close\r\n%s\r\n\r\n",
                   is_chunked ? "Transfer-Encoding: chunked" : "Content-Length: 10485760");
    put(fd, head, strlen(head));
    for (size_t i = 0; i < FILE_BYTES / sizeof block; i++) {
        put(fd, "10000\r\n", is_chunked ? 7 : 0);
        put(fd, block, sizeof block);
        put(fd, "\r\n", is_chunked ? 2 : 0);
    }
    put(fd, "0\r\n\r\n", is_chunked ? 5 : 0);
    for (uint64_t end = clock_monotonic_ms() + 10000; clock_monotonic_ms() < end;) {
        turn();
        ssize_t n = recv(fd, reply + got, sizeof reply - 1 - got, 0);
        got += n > 0 ? (size_t)n : 0;
        if (n == 0) {
            break;
        }
    }
    reply[got] = 0;
    cr_assert(strstr(reply, "\"size\":10485760"), "%s", reply);
    cr_assert_eq(upload_bytes, FILE_BYTES);
    close(fd);
}

Test(api_files, an_upload_streams)
{
    upload(false);
    upload(true);
    EXPECT(200, "\"size\":0", "PUT", WS "/" ID "/files?path=/f", RW, "");
}

Test(api_files, a_watch_sends_changes_until_the_client_leaves)
{
    char reply[2048] = "";
    size_t got = 0;
    int fd = dial();
    static const char head[] = "GET " WS "/" ID "/files/watch?path=/ HTTP/1.1\r\nHost: x\r\n" RW "\r\n";
    put(fd, head, sizeof head - 1);
    for (uint64_t end = clock_monotonic_ms() + 3000; clock_monotonic_ms() < end && !strstr(reply, "a.txt");) {
        turn();
        ssize_t n = recv(fd, reply + got, sizeof reply - 1 - got, 0);
        got += n > 0 ? (size_t)n : 0;
        reply[got] = 0;
    }
    cr_assert(strstr(reply, "event: change\ndata: {\"type\":\"write\",\"path\":\"a.txt\"}\n\n"), "%s", reply);
    close(fd);
    turn_until(&cancels, 1);
    EXPECT(200, "text/event-stream", "HEAD", WS "/" ID "/files/watch?path=/", RW, NULL);
}
