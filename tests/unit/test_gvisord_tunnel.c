/* SPDX-License-Identifier: Apache-2.0
 *
 * Tunnels in a real sandbox: the host reaches a port inside, and a process inside reaches the host side through a port
 * that the agent offers. Both without any network in the sandbox.
 */
// LINK: tests/unit/gvisord_hub.c
#include "common/mem.h"
#include "tests/unit/gvisord_hub.h"

#include <criterion/criterion.h>
#include <stdio.h>

/* One tunnel's end: what came, and whether it is open or over. */
typedef struct end {
    hub_t *hub;
    call_t *call;
    buf_t got;
    bool is_open, is_over, is_listening, has_connection;
    uint32_t port, connection;
    char error[256];
} end_t;

static void on_reply(void *arg, const uint8_t *body, size_t len)
{
    end_t *end = arg;
    (void)body, (void)len;
    end->call = NULL;
    end->is_over = true;
}

static void on_error(void *arg, const err_t *err)
{
    end_t *end = arg;
    snprintf(end->error, sizeof end->error, "%s", err_message(err));
    end->call = NULL;
    end->is_over = end->is_open = end->is_listening = end->has_connection = true;
}

static void on_head(void *arg, const uint8_t *body, size_t len)
{
    end_t *end = arg;
    (void)body, (void)len;
    end->is_open = true;
}

static void on_event(void *arg, const uint8_t *body, size_t len)
{
    end_t *end = arg;
    struct tunnel_listen_event event;
    auto_err err_t *e = NULL;
    if (proto_decode(MSG_tunnel_listen_event, &event, body, len, &e) != 0)
        return;
    if (strcmp(event.type, "listening") == 0) {
        end->port = event.port;
        end->is_listening = true;
    } else if (strcmp(event.type, "connection") == 0) {
        end->connection = event.connection_id;
        end->has_connection = true;
    }
}

static void on_chunk(void *arg, enum envelope_channel channel, uint64_t offset, const uint8_t *bytes, size_t len,
                     bool is_end)
{
    end_t *end = arg;
    (void)channel, (void)offset, (void)is_end;
    buf_append(&end->got, bytes, len);
    if (end->call != NULL)
        call_consumed(end->call, len);
}

static const call_events_t events = {
    .on_reply = on_reply, .on_error = on_error, .on_head = on_head, .on_event = on_event, .on_chunk = on_chunk};

static void begin(end_t *end, hub_t *h, const uuid16_t *sandbox, enum verb verb, unsigned msg_id, const void *msg)
{
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    call_options_t options = {.sandbox = *sandbox};
    *end = (end_t){.hub = h};
    cr_assert_eq(proto_encode(msg_id, msg, &body, &e), 0, "%s", err_message(e));
    end->call = call_start(h->calls, h->peer, verb, &options, body.data, body.len, &events, end, &e);
    cr_assert_not_null(end->call, "%s", err_message(e));
}

#define SERVER                                                                                                        \
    "cat > s.py <<'X'\nimport socket\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n" \
    "s.bind(('127.0.0.1', 8080))\ns.listen(8)\nopen('up', 'w').close()\nwhile True:\n c = s.accept()[0]\n "           \
    "d = c.recv(100)\n c.sendall(b'inside got ' + d)\n c.close()\nX\npython3 s.py > /dev/null 2>&1 & "                \
    "while [ ! -e up ]; do sleep 0.05; done"

static bool open_sandbox(hub_t *h, uuid16_t *id)
{
    hub_reply_t r;
    const char *why = hub_why_not();
    const char *must = getenv("EW_MUST_WORK");
    if (why != NULL) {
        cr_assert(must == NULL || strcmp(must, "1") != 0, "%s", why);
        fprintf(stderr, "SKIP gvisord_tunnel: %s\n", why);
        return false;
    }
    hub_open(h, "gateway");
    hub_start_daemon(h, NULL);
    hub_create(h, id, "none", &r);
    cr_assert_eq(r.code, ERR_NONE, "%s", r.message);
    buf_free(&r.body);
    return true;
}

Test(gvisord_tunnel, the_host_reaches_a_port_inside, .timeout = 120)
{
    hub_t h;
    uuid16_t id;
    end_t end;
    if (!open_sandbox(&h, &id))
        return;
    cr_assert_eq(hub_bash(&h, &id, SERVER, NULL, 0), 0);
    struct tunnel_connect_request to = {.port = 8080};
    begin(&end, &h, &id, VERB_tunnel_connect, MSG_tunnel_connect_request, &to);
    cr_assert(hub_wait(&h, &end.is_open, 10000));
    cr_assert_str_empty(end.error);
    cr_assert_eq(call_send_chunk(end.call, CHANNEL_DATA, "hello", 5, true), 5);
    cr_assert(hub_wait(&h, &end.is_over, 10000));
    cr_assert_str_empty(end.error);
    cr_assert_str_eq(buf_cstr(&end.got), "inside got hello");
    buf_free(&end.got);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_tunnel, a_port_that_nobody_listens_on_is_a_named_error, .timeout = 120)
{
    hub_t h;
    uuid16_t id;
    end_t end;
    if (!open_sandbox(&h, &id))
        return;
    struct tunnel_connect_request to = {.port = 9};
    begin(&end, &h, &id, VERB_tunnel_connect, MSG_tunnel_connect_request, &to);
    cr_assert(hub_wait(&h, &end.is_over, 10000));
    cr_assert_not_null(strstr(end.error, "nothing listens"), "%s", end.error);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_tunnel, a_process_inside_reaches_the_host_side, .timeout = 120)
{
    hub_t h;
    uuid16_t id;
    end_t listener, accepted;
    char command[256], out[256];
    if (!open_sandbox(&h, &id))
        return;
    struct tunnel_listen_request at = {.port = 0};
    begin(&listener, &h, &id, VERB_tunnel_listen, MSG_tunnel_listen_request, &at);
    cr_assert(hub_wait(&h, &listener.is_listening, 10000));
    cr_assert_str_empty(listener.error);
    snprintf(command, sizeof command,
             "python3 -c \"import socket; c = socket.create_connection(('127.0.0.1', %u)); c.sendall(b'knock'); "
             "print(c.recv(100).decode())\" > answer 2>&1 &",
             listener.port);
    cr_assert_eq(hub_bash(&h, &id, command, NULL, 0), 0);
    cr_assert(hub_wait(&h, &listener.has_connection, 20000));
    struct tunnel_accept_request take = {.listen_call_id = call_id(listener.call),
                                         .connection_id = listener.connection};
    begin(&accepted, &h, &id, VERB_tunnel_accept, MSG_tunnel_accept_request, &take);
    while (accepted.got.len < 5 && !accepted.is_over)
        hub_run_for(&h, 20);
    cr_assert_str_eq(buf_cstr(&accepted.got), "knock", "%s", accepted.error);
    cr_assert_eq(call_send_chunk(accepted.call, CHANNEL_DATA, "come in", 7, true), 7);
    cr_assert(hub_wait(&h, &accepted.is_over, 10000));
    cr_assert_eq(hub_bash(&h, &id, "while ! grep . answer; do sleep 0.05; done", out, sizeof out), 0);
    cr_assert_str_eq(out, "come in\n");
    buf_free(&accepted.got);
    call_cancel(listener.call);
    hub_destroy(&h, &id);
    hub_close(&h);
}
