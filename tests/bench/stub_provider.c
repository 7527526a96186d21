// SPDX-License-Identifier: Apache-2.0
/* A provider without sandboxes, to measure the gateway alone: says it is gvisor, "creates" at once and answers every
 * `read` with one line. usage: stub_provider ENDPOINT */
#include "common/clock.h"
#include "common/fabric.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/verbs.h"

static buf_t status, create_reply, read_reply, list_reply;
static uuid16_t sandboxes[1024];
static size_t sandbox_count;

static void encode(unsigned msg_id, const void *msg, buf_t *out)
{
    auto_err err_t *e = NULL;
    buf_reset(out);
    if (proto_encode(msg_id, msg, out, &e) != 0) {
        log_error("%s", err_message(e));
        exit(1);
    }
}

static void encode_replies(void)
{
    buf_t words = {0}, nested = {0};
    proto_list_add_str(&words, "none");
    struct capabilities can = {.name = "stub", .provider_type = "gvisor", .network_modes = proto_list_of(1, &words)};
    encode(MSG_capabilities, &can, &nested);
    buf_t images = {0};
    proto_list_add_str(&images, "base");
    struct provider_status st = {.name = "gvisor",
                                 .type = "gvisor",
                                 .healthy = true,
                                 .state = "healthy",
                                 .capabilities = {nested.data, nested.len},
                                 .node = "bench",
                                 .free_memory_bytes = (uint64_t)64 << 30,
                                 .free_disk_bytes = (uint64_t)64 << 30,
                                 .cpu_count = 2,
                                 .images = proto_list_of(1, &images),
                                 .last_checked_at_ms = clock_realtime_ms()};
    encode(MSG_provider_status, &st, &status);
    struct sandbox_create_reply created = {.provider_workspace_id = "stub"};
    encode(MSG_sandbox_create_reply, &created, &create_reply);
    struct read_reply content = {.content = {"1: hello", 8}, .total_lines = 1, .file_size = 5};
    encode(MSG_read_reply, &content, &read_reply);
}

static void encode_list(void)
{
    buf_t items = {0};
    for (size_t i = 0; i < sandbox_count; i++) {
        char id[UUID_TEXT_SIZE];
        auto_err err_t *e = NULL;
        uuid16_format(&sandboxes[i], id);
        struct sandbox_info info = {.id = id, .state = "ready"};
        proto_list_add_msg(&items, MSG_sandbox_info, &info, &e);
    }
    struct sandbox_list_reply reply = {.sandboxes = proto_list_of((uint32_t)sandbox_count, &items)};
    encode(MSG_sandbox_list_reply, &reply, &list_reply);
    buf_free(&items);
}

static void on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)arg, (void)body, (void)len;
    static const uint8_t nothing[] = {0x90};
    if (env->kind != ENVELOPE_KIND_REQUEST)
        return;
    envelope_t reply = {
        .kind = ENVELOPE_KIND_REPLY, .call_id = env->call_id, .sandbox = env->sandbox, .trace = env->trace};
    switch (env->verb) {
    case VERB_sandbox_create:
        if (sandbox_count < COUNT_OF(sandboxes))
            sandboxes[sandbox_count++] = env->sandbox;
        fabric_send(peer, &reply, create_reply.data, create_reply.len);
        break;
    case VERB_sandbox_list:
        encode_list();
        fabric_send(peer, &reply, list_reply.data, list_reply.len);
        break;
    case VERB_provider_status:
        fabric_send(peer, &reply, status.data, status.len);
        break;
    case VERB_read:
        fabric_send(peer, &reply, read_reply.data, read_reply.len);
        break;
    default:
        fabric_send(peer, &reply, nothing, sizeof nothing);
    }
}

static void on_up(void *arg, fabric_peer_t *peer)
{
    (void)arg, (void)peer;
}

static void on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    (void)arg, (void)peer, (void)reason;
}

int main(int argc, char **argv)
{
    static const fabric_events_t events = {.on_up = on_up, .on_down = on_down, .on_frame = on_frame};
    auto_err err_t *e = NULL;
    if (argc != 2)
        return 2;
    log_open("stub", LOG_LEVEL_INFO);
    struct event_base *base = event_base_new();
    fabric_self_t self = {.role = "gvisord", .node = "bench", .instance = "stub"};
    encode_replies();
    fabric_t *f = fabric_connect(base, argv[1], &self, NULL, &events, NULL, &e);
    if (f == NULL) {
        log_error("%s", err_message(e));
        return 1;
    }
    fabric_set_status(f, status.data, status.len);
    event_base_dispatch(base);
    return 0;
}
