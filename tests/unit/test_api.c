/* SPDX-License-Identifier: Apache-2.0
 *
 * The REST gate and the tool handlers end to end.
 */
// LINK: services/gateway/http/chunked.c services/gateway/workspace_states.c
// LINK: services/gateway/json_guard.c services/gateway/api.c services/gateway/api_reply.c services/gateway/routes.c
// LINK: services/gateway/audit_request.c
// LINK: services/gateway/tools.c services/gateway/output_stream.c services/gateway/processes.c
// LINK: services/gateway/files.c services/gateway/system.c services/gateway/metrics.c
// LINK: services/gateway/openapi.c services/gateway/idempotency.c services/gateway/http/server.c
// LINK: services/gateway/http/connection.c services/gateway/http/request.c services/gateway/http/reply.c
#define API_SUITE api
#include "tests/unit/api_fixture.h"

#include <sys/mman.h>

Test(api, a_tool_is_called_and_answers)
{
    EXPECT(200, "{\"content\":\"1: h\xef\xbf\xbd\",\"content_lossy\":true,\"total_lines\":1}", "POST",
           WS "/" ID "/read", JSON, "{\"file_path\":\"/a\"}");
    cr_assert_eq(touches, 1);
    EXPECT(200, "\"content_base64\":\"MTogaP8=\"", "POST", WS "/" ID "/read", JSON,
           "{\"file_path\":\"/a\",\"output_encoding\":\"base64\"}");
    EXPECT(200, "\"exit_code\":3", "POST", WS "/" ID "/exec", JSON, "{\"command\":\"x\"}");
    EXPECT(204, "\r\n\r\n", "POST", WS "/" ID "/processes/3/signal", JSON, "{\"signal\":\"TERM\"}");
    EXPECT(200, "\"stdout\":\"x\"", "GET", WS "/" ID "/processes/3/output?stdout_offset=0&wait_ms=5", RW, NULL);
}

Test(api, the_gate_refuses_in_order)
{
    EXPECT(404, "\"not_found\",\"message\":\"Not Found\"", "GET", "/nope", "", NULL);
    EXPECT(405, "Allow: POST\r\n", "GET", WS "/" ID "/bash", "", NULL);
    EXPECT(401, "missing_token", "POST", WS "/x/bash", "", NULL);
    EXPECT(401, "missing_token", "POST", WS "/x/bash?token=rw&api_key=rw", "", NULL);
    EXPECT(403, "{\"missing\":[\"admin:write\"]}", "POST", WS "/x/bash", "X-API-Key: ro\r\n", NULL);
    EXPECT(400, "invalid workspace id format", "POST", WS "/x/bash", JSON, "{");
    EXPECT(404, "workspace '11111111-2222-4333-8444-555555555556' not found", "POST",
           WS "/11111111-2222-4333-8444-555555555556/bash", JSON, "{");
    row.status = WORKSPACE_STOPPED;
    EXPECT(400, "workspace is not ready (current status: stopped)", "POST", WS "/" ID "/bash", JSON, "{");
    row.status = WORKSPACE_READY;
    EXPECT(400, "\"invalid request body\",\"details\":{\"reason\":", "POST", WS "/" ID "/bash", JSON, "{");
    EXPECT(400, "must be a JSON object", "POST", WS "/" ID "/bash", JSON, "[1]");
    EXPECT(400, "Content-Type must be application/json", "POST", WS "/" ID "/bash", RW, "{}");
    EXPECT(400, "command is required", "POST", WS "/" ID "/bash", JSON, "{}");
    EXPECT(400, "command is required", "POST", WS "/" ID "/bash", RW, NULL);
    EXPECT(400, "timeout_ms must be a whole number", "POST", WS "/" ID "/bash", JSON,
           "{\"command\":\"x\",\"timeout_ms\":\"1\"}");
    EXPECT(400, "takes no request body", "GET", WS, JSON, "{}");
    EXPECT(400, "invalid process id format", "GET", WS "/" ID "/processes/abc/output", RW, NULL);
    EXPECT(400, "wait_ms must be a whole number", "GET", WS "/" ID "/processes/1/output?wait_ms=x", RW, NULL);
    cr_assert_eq(requests, 0);
    EXPECT(413, "payload_too_large", "POST", WS "/" ID "/read", JSON "Content-Length: 99999999\r\n", NULL);
    agent_peer = NULL;
    EXPECT(503, "Retry-After: 1\r\n", "POST", WS "/" ID "/bash", JSON, "{\"command\":\"x\"}");
}

Test(api, unknown_fields_are_named_and_request_ids_taken_over)
{
    EXPECT(200, "X-Unknown-Fields: bogus\r\n", "POST", WS "/" ID "/bash", JSON, "{\"command\":\"x\",\"bogus\":1}");
    EXPECT(200, "X-Request-Id: my.id-1\r\n", "GET", WS, RW "X-Request-Id: my.id-1\r\n", NULL);
    char *reply = ask("GET", WS, RW "X-Request-Id: no spaces\r\n", NULL);
    cr_assert_not(strstr(reply, "no spaces"));
    cr_assert(strstr(reply, "X-Content-Type-Options: nosniff\r\n") && strstr(reply, "Cache-Control: no-store\r\n"));
    free(reply);
}

Test(api, bash_streams_events_with_whole_characters_and_offsets)
{
    char *reply = ask("POST", WS "/" ID "/bash", JSON "Accept: text/event-stream\r\n", "{\"command\":\"x\"}");
    cr_assert(strstr(reply, "Content-Type: text/event-stream\r\n"), "%s", reply);
    cr_assert(strstr(reply, "id: 1:0\nevent: stdout\ndata: {\"offset\":0,\"data\":\"h\"}\n\n"), "%s", reply);
    cr_assert(strstr(reply, "id: 1:4\nevent: stderr\ndata: {\"offset\":0,\"data\":\"bad\\n\"}\n\n"), "%s", reply);
    cr_assert(
        strstr(
            reply,
            "id: 5:4\nevent: stdout\ndata: {\"offset\":1,\"data\":\"\xc3\xa9y\xef\xbf\xbd\",\"data_lossy\":true}\n\n"),
        "%s", reply);
    cr_assert(strstr(reply, "event: result\ndata: {\"exit_code\":3,"), "%s", reply);
    cr_assert_not(strstr(reply, "\"stdout\""), "%s", reply);
    free(reply);
}

/* Zeros: each is six bytes of JSON, the most that a byte of output can become. */
Test(api, a_slow_client_gets_every_byte_and_holds_back_only_its_command)
{
    static char bytes[65536];
    size_t zeros = 0, got = 0;
    const char *at = "u0000";
    int fd = begin(JSON "Accept: text/event-stream\r\nConnection: close\r\n", "flood");
    turn_until(&requests, 1);
    for (int i = 0; i < 300; i++, usleep(500)) {
        turn();
    }
    cr_assert_gt(send_left, 0, "the window holds the command back");
    EXPECT(200, "total_lines", "POST", WS "/" ID "/read", JSON, "{\"file_path\":\"/a\"}");
    for (uint64_t end = clock_monotonic_ms() + 20000; clock_monotonic_ms() < end;) {
        turn();
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n == 0) {
            break;
        }
        for (ssize_t i = 0; i < n; i++) { /* counts "u0000" across the cuts */
            at = bytes[i] == *at ? at + 1 : bytes[i] == 'u' ? "0000" : "u0000";
            if (!*at) {
                zeros++;
                at = "u0000";
            }
        }
        got += n > 0 ? (size_t)n : 0;
    }
    cr_assert_gt(got, 6 * zeros);
    cr_assert_geq(zeros, FLOOD_BYTES - 6, "%zu", zeros);
    cr_assert_leq(zeros, FLOOD_BYTES);
    close(fd);
}

Test(api, hanging_up_cancels_the_call)
{
    int fd = begin(JSON, "hang");
    turn_until(&requests, 1);
    close(fd);
    turn_until(&cancels, 1);
    fd = begin(JSON "Accept: text/event-stream\r\n", "hang");
    turn_until(&requests, 2);
    close(fd);
    turn_until(&cancels, 2);
}

Test(api, an_idempotency_key_makes_one_call_id_and_outlives_the_client)
{
    EXPECT(200, "exit_code", "POST", WS "/" ID "/bash", JSON "Idempotency-Key: k\r\n", "{\"command\":\"x\"}");
    uint64_t first = last_call_id;
    cr_assert(last_keep);
    EXPECT(200, "exit_code", "POST", WS "/" ID "/bash", JSON "Idempotency-Key: k\r\n", "{\"command\":\"x\"}");
    cr_assert_eq(last_call_id, first);
    EXPECT(422, "different request", "POST", WS "/" ID "/bash", JSON "Idempotency-Key: k\r\n", "{\"command\":\"y\"}");
    EXPECT(200, "exit_code", "POST", WS "/" ID "/bash", JSON "Idempotency-Key: k2\r\n", "{\"command\":\"x\"}");
    cr_assert_neq(last_call_id, first);
    unsigned before = requests;
    int fd = begin(JSON "Idempotency-Key: k3\r\n", "hang");
    turn_until(&requests, before + 1);
    close(fd);
    EXPECT(409, "still runs", "POST", WS "/" ID "/bash", JSON "Idempotency-Key: k3\r\n", "{\"command\":\"hang\"}");
    cr_assert_eq(cancels, 0);
    struct bash_reply reply = {.exit_code = 0};
    answer(gateway_peer, &sending, ENVELOPE_KIND_REPLY, MSG_bash_reply, &reply);
    for (int i = 0; i < 20; i++, usleep(1000)) {
        turn();
    }
    cr_assert_eq(call_table_count(gw.calls), 0);
}

Test(api, the_daemon_that_goes_away_fails_its_calls)
{
    char reply[2048];
    ssize_t n = -1;
    int fd = begin(JSON, "hang");
    turn_until(&requests, 1);
    fabric_destroy(&agent_side);
    for (uint64_t end = clock_monotonic_ms() + 6000; clock_monotonic_ms() < end && n < 0; usleep(500)) {
        turn();
        n = recv(fd, reply, sizeof reply - 1, 0);
    }
    cr_assert_gt(n, 0);
    reply[n] = 0;
    cr_assert(strstr(reply, "HTTP/1.1 503") == reply && strstr(reply, "provider_gone") && strstr(reply, "Retry-After"),
              "%s", reply);
    close(fd);
}

Test(api, a_probe_that_hears_no_is_not_logged_each_time)
{
    char text[4096] = "";
    int log = memfd_create("log", MFD_CLOEXEC), before = dup(STDERR_FILENO);
    cr_assert(log >= 0 && before >= 0 && dup2(log, STDERR_FILENO) == STDERR_FILENO);
    log_open("gateway", LOG_LEVEL_WARN);
    EXPECT(503, "no healthy provider", "GET", "/ready", "", NULL);
    dup2(before, STDERR_FILENO);
    cr_assert_geq(pread(log, text, sizeof text - 1, 0), 0);
    cr_assert_null(strstr(text, "no healthy provider"), "%s", text);
    close(before);
    close(log);
}

Test(api, health_version_metrics_and_openapi_answer)
{
    EXPECT(200, "\"status\":\"degraded\"", "GET", "/health", "", NULL);
    EXPECT(503, "no healthy provider", "GET", "/ready/", "", NULL);
    EXPECT(200, "\"version\":\"" EW_VERSION "\"", "GET", "/version", "", NULL);
    EXPECT(200, "{\"openapi\":\"3.1.0\"", "GET", "/openapi.json", "", NULL);
    EXPECT(401, "missing_token", "GET", "/metrics", "", NULL);
    gw.workspaces = (workspaces_t *)(uintptr_t)1; /* only its being there counts */
    EXPECT(200, "ew_http_requests_total{method=\"GET\",route=\"/version\",status=\"200\"} 1\n", "GET", "/metrics", RW,
           NULL);
    EXPECT(200, "ew_workspaces{status=\"ready\"} 1\n", "GET", "/metrics", RW, NULL);
    gw.daemon.config.enable_agent_workspaces = false;
    EXPECT(404, "Not Found", "GET", WS, RW, NULL);
}

Test(api, a_json_bomb_is_refused_before_it_is_parsed)
{
    auto_buf buf_t body;
    buf_init(&body, 0);
    buf_append_str(&body, "{\"command\":\"x\",\"bogus\":[");
    for (unsigned i = 0; i < 100000; i++) {
        buf_append_str(&body, "[],");
    }
    buf_append_str(&body, "0]}");
    EXPECT(400, "too many values", "POST", WS "/" ID "/bash", JSON, buf_cstr(&body));
    cr_assert_eq(requests, 0);
    cr_assert_eq(gw.api->body_bytes, 0);
}

Test(api, large_bodies_share_a_limit_and_small_ones_pass)
{
    auto_buf buf_t body;
    buf_init(&body, 0);
    buf_append_str(&body, "{\"file_path\":\"/x\",\"command\":\"x\",\"stdin\":\"");
    for (unsigned i = 0; i < 200000; i++) {
        buf_append_byte(&body, 'a');
    }
    buf_append_str(&body, "\"}");
    EXPECT(200, "total_lines", "POST", WS "/" ID "/read", JSON, buf_cstr(&body));
    cr_assert_eq(gw.api->body_bytes, 0);
    gw.api->body_bytes_max = 100000;
    EXPECT(503, "too many large requests", "POST", WS "/" ID "/bash", JSON, buf_cstr(&body));
    EXPECT(200, "exit_code", "POST", WS "/" ID "/bash", JSON, "{\"command\":\"x\"}");
    cr_assert_eq(gw.api->body_bytes, 0);
}

Test(api, a_stream_takes_no_idempotency_key)
{
    EXPECT(400, "Idempotency-Key does not go with", "POST", WS "/" ID "/bash",
           JSON "Accept: text/event-stream\r\nIdempotency-Key: a\r\n", "{\"command\":\"x\"}");
    cr_assert_eq(requests, 0);
}

static void expect_audit(const char *start, const char *part)
{
    cr_expect(strncmp(audit_line, start, strlen(start)) == 0, "%s", audit_line);
    cr_expect(strstr(audit_line, part), "%s lacks %s", audit_line, part);
    cr_expect_null(strstr(audit_line, "hunter2"), "%s", audit_line);
}

Test(api, every_operation_leaves_one_line_without_contents)
{
    EXPECT(200, "exit_code", "POST", WS "/" ID "/bash", JSON,
           "{\"command\":\"echo hunter2\",\"stdin\":\"hunter2\",\"env\":{\"A\":\"hunter2\"},\"workdir\":\"/w\"}");
    expect_audit("bash owner=test caller=test ws=" ID " POST 200 {", "command=<12 bytes> workdir=\"/w\" env=<1>");
    cr_assert_eq(audit_lines, 1);
    EXPECT(400, "command is required", "POST", WS "/" ID "/bash", JSON, "{}");
    expect_audit("bash owner=test caller=test ws=" ID " POST 400 {", "bad_request command is required");
    EXPECT(200, "[]", "GET", WS "/" ID, RW, NULL);
    expect_audit("show owner=test caller=test ws=" ID " GET 200 {}", "");
    EXPECT(200, "[]", "POST", WS, JSON,
           "{\"container_type\":\"agent_workspace\",\"env\":{\"A\":\"hunter2\"},\"metadata\":{\"k\":\"hunter2\"},"
           "\"repository_url\":\"https://me:hunter2@host/path?token=hunter2\"}");
    expect_audit("create owner=test caller=test ws= POST 200 {",
                 "container_type=\"agent_workspace\" repository_url=\"https://***@host/path…\"");
    EXPECT(200, "[]", "POST", WS, JSON,
           "{\"container_type\":\"agent_workspace\",\"repository_url\":\"https://me:hun/hunter2@host/p#t=hunter2\"}");
    expect_audit("create owner=test", "repository_url=\"https://***@host/p…\"");
    cr_assert_eq(audit_lines, 5);
    EXPECT(200, "[]", "GET", WS, RW, NULL);
    EXPECT(404, "Not Found", "GET", "/nope", RW, NULL);
    cr_assert_eq(audit_lines, 5, "looking around is no operation");
}

Test(api, strangers_fill_no_database_and_no_foreign_history)
{
    EXPECT(401, "missing_token", "POST", WS "/" ID "/bash", "", NULL);
    cr_assert_eq(audit_lines, 0);
    EXPECT(403, "admin:write", "POST", WS "/" ID "/bash", "X-API-Key: ro\r\n", NULL);
    expect_audit("bash owner=test caller=test ws= POST 403 {id=\"" ID "\"}", "forbidden");
    EXPECT(404, "not found", "GET", WS "/11111111-2222-4333-8444-555555555556/stats", RW, NULL);
    expect_audit("agent_stats owner=test caller=test ws= GET 404", "{id=\"11111111-2222-4333-8444-555555555556\"}");
    cr_assert_eq(audit_lines, 2);
}

/* ---- a workspace that was stopped because nobody used it ---- */

static void fall_asleep(void)
{
    row.status = WORKSPACE_STOPPED;
    row.stop_reason = (char *)(uintptr_t) "idle";
    waking = NULL;
}

static void turn_until_waking(void)
{
    for (uint64_t end = clock_monotonic_ms() + 3000; !waking && clock_monotonic_ms() < end; usleep(500)) {
        turn();
    }
    cr_assert(waking);
}

static void wake_up(void)
{
    api_request_t *r = waking;
    row.status = WORKSPACE_READY;
    row.stop_reason = NULL;
    r->on_close = NULL;
    waking_then(r);
}

static char *take_reply(int fd, const char *end_text)
{
    buf_t reply;
    buf_init(&reply, 0);
    for (uint64_t end = clock_monotonic_ms() + 3000; clock_monotonic_ms() < end; usleep(200)) {
        turn();
        ssize_t n = recv(fd, buf_reserve(&reply, 65536), 65536, 0);
        buf_commit(&reply, n > 0 ? (size_t)n : 0);
        if (n == 0 || strstr(buf_cstr(&reply), end_text)) {
            break;
        }
    }
    close(fd);
    return buf_steal(&reply);
}

Test(api, a_call_to_one_that_nobody_used_waits_and_then_runs)
{
    fall_asleep();
    int fd = begin(JSON, "x");
    turn_until_waking();
    cr_assert_eq(requests, 0);
    wake_up();
    expect_("bash", take_reply(fd, "exit_code"), 200, "\"exit_code\":3");
    cr_assert_eq(requests, 1);
    fall_asleep();
    fd = begin(JSON, "x");
    turn_until_waking();
    close(fd); /* it hangs up */
    for (uint64_t end = clock_monotonic_ms() + 3000; waking && clock_monotonic_ms() < end; usleep(500)) {
        turn();
    }
    cr_assert_null(waking);
}

Test(api, a_bad_body_is_refused_before_anything_is_woken)
{
    fall_asleep();
    EXPECT(400, "command is required", "POST", WS "/" ID "/bash", JSON, "{}");
    cr_assert_null(waking);
    row.stop_reason = (char *)(uintptr_t) "user";
    EXPECT(400, "workspace is not ready (current status: stopped)", "POST", WS "/" ID "/bash", JSON, "{");
}

Test(api, an_upload_is_held_back_until_the_workspace_is_there)
{
    static char content[300000];
    fall_asleep();
    auto_free char *head = mem_printf(
        "PUT " WS "/" ID "/files?path=/f HTTP/1.1\r\nHost: x\r\n" RW "Content-Length: %zu\r\n\r\n", sizeof content);
    int fd = dial();
    put(fd, head, strlen(head));
    turn_until_waking();
    put(fd, content, 50000); /* what fits on the way */
    for (unsigned i = 0; i < 20; i++) {
        turn();
    }
    cr_assert_eq(requests, 0);
    wake_up();
    put(fd, content, sizeof content - 50000);
    auto_free char *size = mem_printf("\"size\":%zu", sizeof content);
    expect_("upload", take_reply(fd, "sha256"), 200, size);
    cr_assert_eq(upload_bytes, sizeof content);
}
