/* SPDX-License-Identifier: Apache-2.0
 *
 * The REST gate and the tool handlers end to end in one process: a real HTTP client, the real gate, a real fabric, and
 * a stub in the agent's place. Store, workspaces and auth are stand-ins: they have tests of their own.
 */
#ifndef EW_TESTS_API_FIXTURE_H
#define EW_TESTS_API_FIXTURE_H

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gateway/api_internal.h"
#include "services/gateway/audit.h"
#include "services/gateway/idempotency.h"
#include "services/gateway/warm_pools.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define ID "11111111-2222-4333-8444-555555555555"
#define WS "/api/v1/agent/workspaces"
#define FILE_BYTES (10u << 20)
#define FLOOD_BYTES (3u << 20)

static gateway_t gw;
static fabric_t *agent_side;
static fabric_peer_t *gateway_peer, *agent_peer;
static workspace_row_t row;
static unsigned requests, cancels, touches;
static uint64_t last_call_id;
static bool last_keep;
static size_t upload_bytes, send_left, credit;
static uint64_t send_offset;
static enum envelope_channel send_channel;
static envelope_t sending;
static char directory[] = "/tmp/ew-test-api-XXXXXX";

/* ---- stand-ins ---- */

workspace_row_t *workspaces_find(gateway_t *g, const char *id_text, const caller_t *caller, err_t **e)
{
    (void)g;
    (void)caller;
    uuid16_t id;
    if (!uuid16_parse(&id, id_text)) {
        err_set(e, ERR_BAD_REQUEST, "invalid workspace id format");
        return NULL;
    }
    if (strcmp(id_text, ID) != 0) {
        err_set(e, ERR_NOT_FOUND, "workspace '%s' not found", id_text);
        return NULL;
    }
    return &row;
}
fabric_peer_t *workspaces_peer(gateway_t *g, const workspace_row_t *ws, err_t **e)
{
    (void)g;
    (void)ws;
    if (!agent_peer) {
        err_set(e, ERR_PROVIDER_UNAVAILABLE, "the daemon is not connected");
    }
    return agent_peer;
}
/* The workspace is resumed when the test says so. */
static api_request_t *waking;
static route_fn waking_then;
static void waking_on_close(api_request_t *r, bool is_hangup)
{
    (void)r;
    (void)is_hangup;
    waking = NULL;
}
void workspaces_wake(workspace_row_t *ws, api_request_t *r, route_fn then)
{
    (void)ws;
    waking = r;
    waking_then = then;
    r->on_close = waking_on_close;
}
void workspaces_touch(gateway_t *g, workspace_row_t *ws)
{
    (void)g;
    (void)ws;
    touches++;
}
void warm_pools_write_metrics(gateway_t *g, buf_t *out)
{
    (void)g;
    (void)out;
}
size_t snapshots_count(const gateway_t *g, enum snapshot_status status)
{
    (void)g;
    return (size_t)status;
}

const char *snapshot_status_name(enum snapshot_status status)
{
    return status == SNAPSHOT_READY ? "ready" : "other";
}

size_t workspaces_count(const gateway_t *g, enum workspace_status status)
{
    (void)g;
    return status == WORKSPACE_READY;
}
int auth_check(gateway_t *g, const http_request_t *r, caller_t *caller, err_t **e)
{
    (void)g;
    const char *key = http_header(r, "x-api-key");
    if (!key) {
        return err_set(e, ERR_MISSING_TOKEN, "Missing authorization token");
    }
    snprintf(caller->name, sizeof caller->name, "test");
    snprintf(caller->owner, sizeof caller->owner, "test");
    caller->can_read = true;
    caller->can_write = strcmp(key, "rw") == 0;
    return 0;
}

/* The newest line of the audit, as text. */
static unsigned audit_lines;
static char audit_line[2048];

void audit_add(gateway_t *g, const audit_fields_t *f)
{
    (void)g;
    audit_lines++;
    snprintf(audit_line, sizeof audit_line, "%s owner=%s caller=%s ws=%s %s %d {%s} %s %s", f->operation, f->owner,
             f->caller, f->workspace_id, f->method, f->status, f->summary, f->error_code ? f->error_code : "",
             f->error ? f->error : "");
}
size_t audit_waiting(const gateway_t *g)
{
    (void)g;
    return 0;
}
uint64_t audit_lost(const gateway_t *g)
{
    (void)g;
    return 0;
}
static void nothing(api_request_t *r)
{
    buf_t json;
    buf_init(&json, 0);
    buf_append_str(&json, "[]");
    api_reply_json(r, 200, &json);
}
#define STAND_IN(name)          \
    void name(api_request_t *r) \
    {                           \
        nothing(r);             \
    }
STAND_IN(workspace_create)
STAND_IN(workspace_list)
STAND_IN(workspace_get)
STAND_IN(workspace_delete)
STAND_IN(workspace_stop)
STAND_IN(workspace_resume)
STAND_IN(workspace_attach)
STAND_IN(workspace_detach)
STAND_IN(workspace_assignments)
STAND_IN(workspace_patch)
STAND_IN(workspace_providers)
STAND_IN(workspace_events)
STAND_IN(workspace_from_snapshot)
STAND_IN(workspace_fork)
STAND_IN(snapshot_take)
STAND_IN(snapshot_list)
STAND_IN(snapshot_get)
STAND_IN(snapshot_delete)
STAND_IN(audit_list)
STAND_IN(audit_list_workspace)
STAND_IN(warm_pool_list)
STAND_IN(warm_pool_set)
STAND_IN(warm_pool_reset)
STAND_IN(api_key_list)
STAND_IN(api_key_create)
STAND_IN(api_key_delete)

/* ---- the stub in the agent's place ---- */

static void answer(fabric_peer_t *peer, const envelope_t *to, enum envelope_kind kind, unsigned msg_id, const void *msg)
{
    err_t *e = NULL;
    auto_buf buf_t body;
    buf_init(&body, 0);
    cr_assert_eq(proto_encode(msg_id, msg, &body, &e), 0, "%s", e ? err_message(e) : "");
    envelope_t env = {.kind = (uint8_t)kind, .call_id = to->call_id, .sandbox = to->sandbox};
    cr_assert_eq(fabric_send(peer, &env, body.data, body.len), FABRIC_SENT);
}

static void chunk(fabric_peer_t *peer, const envelope_t *to, enum envelope_channel channel, uint64_t offset,
                  const void *bytes, size_t len)
{
    envelope_t env = {.kind = ENVELOPE_KIND_CHUNK,
                      .call_id = to->call_id,
                      .sandbox = to->sandbox,
                      .channel = (uint8_t)channel,
                      .offset = offset};
    cr_assert_eq(fabric_send(peer, &env, bytes, len), FABRIC_SENT);
}

static void send_more(fabric_peer_t *peer)
{
    static char block[32768];
    while (send_left > 0 && credit > 0) {
        size_t len = send_left < sizeof block ? send_left : sizeof block;
        len = len < credit ? len : credit;
        chunk(peer, &sending, send_channel, send_offset, block, len);
        send_left -= len;
        credit -= len;
        send_offset += len;
        struct bash_reply bash = {.exit_code = 0};
        struct empty empty = {0};
        if (send_left == 0 && send_channel == CHANNEL_STDOUT) {
            answer(peer, &sending, ENVELOPE_KIND_REPLY, MSG_bash_reply, &bash);
        } else if (send_left == 0) {
            answer(peer, &sending, ENVELOPE_KIND_REPLY, MSG_empty, &empty);
        }
    }
}

static void on_bash(fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    err_t *e = NULL;
    struct bash_request q;
    struct bash_reply reply = {.stdout = {"out", 3}, .exit_code = 3, .duration_ms = 1, .stdout_total_bytes = 3};
    cr_assert_eq(proto_decode(MSG_bash_request, &q, body, len, &e), 0);
    if (strcmp(q.command, "hang") == 0) {
        sending = *env;
        return;
    }
    if (strcmp(q.command, "flood") == 0) {
        sending = *env;
        send_channel = CHANNEL_STDOUT;
        send_left = FLOOD_BYTES;
        send_offset = 0;
        credit = CALL_WINDOW - 256;
        send_more(peer);
        return;
    }
    if (q.stream) {
        chunk(peer, env, CHANNEL_STDOUT, 0, "h\xc3", 2);
        chunk(peer, env, CHANNEL_STDERR, 0, "bad\n", 4);
        chunk(peer, env, CHANNEL_STDOUT, 2, "\xa9y\xff", 3);
    }
    answer(peer, env, ENVELOPE_KIND_REPLY, MSG_bash_reply, &reply);
}

static void on_file_get(fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    err_t *e = NULL;
    struct file_get_request q;
    cr_assert_eq(proto_decode(MSG_file_get_request, &q, body, len, &e), 0);
    if (strcmp(q.path, "/missing") == 0) {
        struct error error = {.code = "not_found", .message = "file not found: /missing"};
        answer(peer, env, ENVELOPE_KIND_ERROR, MSG_error, &error);
        return;
    }
    uint64_t from = q.length < 0 ? FILE_BYTES - (uint64_t)-q.length : q.offset < FILE_BYTES ? q.offset : FILE_BYTES;
    uint64_t left = FILE_BYTES - from;
    uint64_t want = q.length > 0 && (uint64_t)q.length < left ? (uint64_t)q.length : left;
    struct file_get_head head = {
        .size = FILE_BYTES, .offset = from, .length = want, .inode = 5, .modified_at_ms = 1000};
    answer(peer, env, ENVELOPE_KIND_HEAD, MSG_file_get_head, &head);
    sending = *env;
    send_channel = CHANNEL_DATA;
    send_left = want;
    send_offset = from;
    credit = CALL_WINDOW - 256;
    if (want == 0) {
        struct empty reply = {0};
        answer(peer, env, ENVELOPE_KIND_REPLY, MSG_empty, &reply);
    }
    send_more(peer);
}

static void on_request(fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    struct read_reply read = {.content = {"1: h\xff", 5}, .total_lines = 1};
    struct file_event event = {.type = "write", .path = "a.txt"};
    struct process_output_reply output = {.stdout = {"x", 1}, .stdout_next = 1};
    struct empty empty = {0};
    requests++;
    last_call_id = env->call_id;
    last_keep = env->flags & ENVELOPE_KEEP;
    switch (env->verb) {
    case VERB_bash:
        on_bash(peer, env, body, len);
        break;
    case VERB_read:
        answer(peer, env, ENVELOPE_KIND_REPLY, MSG_read_reply, &read);
        break;
    case VERB_file_get:
        on_file_get(peer, env, body, len);
        break;
    case VERB_file_put:
        sending = *env;
        upload_bytes = 0;
        break;
    case VERB_file_watch:
        answer(peer, env, ENVELOPE_KIND_EVENT, MSG_file_event, &event);
        break;
    case VERB_process_signal:
        answer(peer, env, ENVELOPE_KIND_REPLY, MSG_empty, &empty);
        break;
    default:
        answer(peer, env, ENVELOPE_KIND_REPLY, MSG_process_output_reply, &output);
    }
}

static void agent_on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)arg;
    if (env->kind == ENVELOPE_KIND_REQUEST) {
        on_request(peer, env, body, len);
    } else if (env->kind == ENVELOPE_KIND_CANCEL) {
        struct error error = {.code = "cancelled", .message = "cancelled"};
        cancels++;
        send_left = 0;
        answer(peer, env, ENVELOPE_KIND_ERROR, MSG_error, &error);
    } else if (env->kind == ENVELOPE_KIND_CREDIT && env->call_id == sending.call_id) {
        credit += env->credit;
        send_more(peer);
    } else if (env->kind == ENVELOPE_KIND_CHUNK) {
        upload_bytes += len;
        envelope_t grant = {
            .kind = ENVELOPE_KIND_CREDIT, .call_id = env->call_id, .sandbox = env->sandbox, .credit = (uint32_t)len};
        if (len > 0) {
            fabric_send(peer, &grant, NULL, 0);
        }
        if (env->flags & ENVELOPE_END) {
            struct file_put_reply reply = {.path = "/f", .size = upload_bytes, .sha256 = "00"};
            answer(peer, env, ENVELOPE_KIND_REPLY, MSG_file_put_reply, &reply);
        }
    }
}

static void agent_on_up(void *arg, fabric_peer_t *peer)
{
    (void)arg;
    gateway_peer = peer;
}
static void agent_on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    (void)arg;
    (void)peer;
    (void)reason;
}

static void gw_on_up(void *arg, fabric_peer_t *peer)
{
    (void)arg;
    agent_peer = peer;
}
static void gw_on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    (void)arg;
    (void)reason;
    call_table_on_down(gw.calls, peer);
    agent_peer = NULL;
}
static void gw_on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)arg;
    call_table_on_frame(gw.calls, peer, env, body, len);
}
static void gw_on_writable(void *arg, fabric_peer_t *peer)
{
    (void)arg;
    call_table_on_writable(gw.calls, peer);
}

static void turn(void)
{
    event_base_loop(gw.daemon.base, EVLOOP_NONBLOCK);
}

static void set_up(void)
{
    static const fabric_events_t gateway_events = {
        .on_up = gw_on_up, .on_down = gw_on_down, .on_frame = gw_on_frame, .on_writable = gw_on_writable};
    static const fabric_events_t agent_events = {
        .on_up = agent_on_up, .on_down = agent_on_down, .on_frame = agent_on_frame};
    fabric_self_t self = {.role = "gateway", .node = "n", .instance = "i"},
                  other = {.role = "gvisord", .node = "n", .instance = "j"};
    err_t *e = NULL;
    signal(SIGPIPE, SIG_IGN);
    log_open("test", LOG_LEVEL_ERROR);
    cr_assert(mkdtemp(directory));
    auto_free char *endpoint = mem_printf("ipc://%s/f", directory);
    gw.daemon.base = event_base_new();
    gw.daemon.config.enable_agent_workspaces = true;
    gw.calls = call_table_new(gw.daemon.base);
    gw.metrics = metrics_new();
    gw.idempotency = idempotency_new();
    cr_assert_eq(api_open(&gw, &e), 0);
    gw.fabric = fabric_bind(gw.daemon.base, endpoint, &self, NULL, &gateway_events, NULL, &e);
    cr_assert(gw.fabric, "%s", e ? err_message(e) : "");
    agent_side = fabric_connect(gw.daemon.base, endpoint, &other, NULL, &agent_events, NULL, &e);
    gw.http = http_server_new(gw.daemon.base, "127.0.0.1", 0, api_http_handlers(), &gw, &e);
    cr_assert(agent_side && gw.http, "%s", e ? err_message(e) : "");
    snprintf(row.id_text, sizeof row.id_text, "%s", ID);
    uuid16_parse(&row.id, ID);
    row.status = WORKSPACE_READY;
    for (uint64_t end = clock_monotonic_ms() + 5000; (!agent_peer || !gateway_peer) && clock_monotonic_ms() < end;
         usleep(500)) {
        turn();
    }
    cr_assert(agent_peer && gateway_peer);
}

static void tear_down(void)
{
    http_server_destroy(&gw.http);
    fabric_destroy(&agent_side);
    fabric_destroy(&gw.fabric);
    api_close(&gw);
    call_table_destroy(&gw.calls);
    idempotency_destroy(&gw.idempotency);
    metrics_destroy(&gw.metrics);
    event_base_free(gw.daemon.base);
    auto_free char *socket_path = mem_printf("%s/f", directory);
    unlink(socket_path);
    rmdir(directory);
}

TestSuite(API_SUITE, .init = set_up, .fini = tear_down, .timeout = 60);

/* ---- the client ---- */

__attribute__((unused)) static int dial(void)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(http_server_port(gw.http)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

__attribute__((unused)) static void put(int fd, const void *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = send(fd, (const char *)bytes + at, len - at, MSG_NOSIGNAL);
        cr_assert(n > 0 || errno == EAGAIN);
        at += n > 0 ? (size_t)n : 0;
        turn();
    }
}

/* One exchange on its own connection, which the server closes; returns the reply, to be freed. */
__attribute__((unused)) static char *ask(const char *method, const char *path, const char *headers, const char *body)
{
    auto_free char *head =
        mem_printf("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s%s", method, path, headers, body ? "" : "\r\n");
    int fd = dial();
    put(fd, head, strlen(head));
    if (body) {
        auto_free char *rest = mem_printf("Content-Length: %zu\r\n\r\n%s", strlen(body), body);
        put(fd, rest, strlen(rest));
    }
    buf_t reply;
    buf_init(&reply, 0);
    for (uint64_t end = clock_monotonic_ms() + 10000; clock_monotonic_ms() < end;) {
        turn();
        ssize_t n = recv(fd, buf_reserve(&reply, 65536), 65536, 0);
        if (n == 0) {
            break;
        }
        buf_commit(&reply, n > 0 ? (size_t)n : 0);
    }
    close(fd);
    return buf_steal(&reply);
}

#define RW "X-API-Key: rw\r\n"
#define JSON RW "Content-Type: application/json\r\n"

__attribute__((unused)) static void expect_(const char *name, char *reply, int status, const char *part)
{
    char start[32];
    snprintf(start, sizeof start, "HTTP/1.1 %d ", status);
    cr_assert(strncmp(reply, start, strlen(start)) == 0, "%s: %s", name, reply);
    cr_assert(strstr(reply, part), "%s: %s lacks %s", name, reply, part);
    cr_assert(strstr(reply, "X-Request-Id: "), "%s", reply);
    free(reply);
}
#define EXPECT(status, part, ...) expect_(#__VA_ARGS__, ask(__VA_ARGS__), status, part)

__attribute__((unused)) static void turn_until(const unsigned *counter, unsigned value)
{
    for (uint64_t end = clock_monotonic_ms() + 3000; *counter < value && clock_monotonic_ms() < end; usleep(500)) {
        turn();
    }
    cr_assert_geq(*counter, value);
}

__attribute__((unused)) static int begin(const char *headers, const char *command)
{
    auto_free char *body = mem_printf("{\"command\":\"%s\"}", command);
    auto_free char *text = mem_printf("POST " WS "/" ID "/bash HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n%s",
                                      headers, strlen(body), body);
    int fd = dial();
    put(fd, text, strlen(text));
    return fd;
}

#endif
