// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/fabric_world.c
#include "tests/unit/fabric_world.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <czmq.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

TestSuite(fabric_rules, .timeout = 30);

/* A raw socket in place of a link. */
static void *raw_dealer(void *context, const world_t *w)
{
    int linger = 0;
    void *raw = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(raw, ZMQ_ROUTING_ID, "raw", 3);
    cr_assert_eq(zmq_connect(raw, w->endpoint), 0);
    return raw;
}

static void raw_hello(void *raw, const char *protocol, unsigned version, uint64_t session)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t body = {0};
    uint8_t head[ENVELOPE_SIZE];
    struct hello hello = {
        .protocol = protocol, .version = version, .role = "x", .node = "n", .instance = "i", .release = "r"};
    cr_assert_eq(proto_encode(MSG_hello, &hello, &body, &e), 0);
    envelope_encode(&(envelope_t){.kind = ENVELOPE_KIND_HELLO, .offset = session}, head);
    zmq_send(raw, head, sizeof head, ZMQ_SNDMORE);
    zmq_send(raw, body.data, body.len, 0);
}

/* Next message at the raw end: its kind, the body in `body`. 0: nothing came. */
static unsigned raw_receive(world_t *w, void *raw, buf_t *body)
{
    uint8_t bytes[4096];
    envelope_t env;
    for (int i = 0; i < 200; i++) {
        int n = zmq_recv(raw, bytes, sizeof bytes, ZMQ_DONTWAIT);
        if (n < 0) {
            run_ms(w, 5);
            continue;
        }
        cr_assert(envelope_decode(&env, bytes, (size_t)n));
        n = zmq_recv(raw, bytes, sizeof bytes, 0);
        buf_reset(body);
        buf_append(body, bytes, (size_t)n);
        return env.kind;
    }
    return 0;
}

typedef struct bad_hello {
    const char *protocol;
    unsigned version;
    const char *says;
} bad_hello_t;

Test(fabric_rules, refuses_another_protocol_or_version_with_a_sentence)
{
    static const bad_hello_t rows[] = {{FABRIC_PROTOCOL, 2, "version 2"}, {"smtp", FABRIC_VERSION, "smtp"}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        auto_err err_t *e = NULL;
        auto_buf buf_t body = {0};
        struct error error;
        world_t w;
        make_world(&w);
        start_hub(&w, "hub-1");
        void *context = zmq_ctx_new();
        void *raw = raw_dealer(context, &w);
        raw_hello(raw, rows[i].protocol, rows[i].version, 1);
        cr_assert_eq(raw_receive(&w, raw, &body), ENVELOPE_KIND_BYE);
        cr_assert_eq(proto_decode(MSG_error, &error, body.data, body.len, &e), 0);
        cr_assert(strstr(error.message, rows[i].says) != NULL, "%s", error.message);
        cr_assert_eq(w.hub.ups, 0);
        zmq_close(raw);
        zmq_ctx_term(context);
        end_world(&w);
    }
}

typedef struct bad_message {
    const char *what;
    unsigned parts;
    size_t lens[3];
    uint8_t kind; /* of a well formed envelope as first part; 0 = zeros */
} bad_message_t;

static const bad_message_t bad_messages[] = {
    {"one part", 1, {ENVELOPE_SIZE}, ENVELOPE_KIND_REPLY},
    {"three parts", 3, {ENVELOPE_SIZE, 0, 0}, ENVELOPE_KIND_REPLY},
    {"a short envelope", 2, {ENVELOPE_SIZE - 1, 0}, 0},
    {"an envelope of zeros", 2, {ENVELOPE_SIZE, 0}, 0},
    {"a request from a daemon", 2, {ENVELOPE_SIZE, 0}, ENVELOPE_KIND_REQUEST},
    {"a stream's kind", 2, {ENVELOPE_SIZE, 0}, ENVELOPE_KIND_RESYNC},
    {"a heartbeat of garbage", 2, {ENVELOPE_SIZE, 50}, ENVELOPE_KIND_HEARTBEAT},
    {"a HELLO of garbage", 2, {ENVELOPE_SIZE, 50}, ENVELOPE_KIND_HELLO},
};

Test(fabric_rules, whatever_breaks_the_protocol_drops_the_peer)
{
    for (size_t i = 0; i < COUNT_OF(bad_messages); i++) {
        const bad_message_t *bad = &bad_messages[i];
        auto_buf buf_t body = {0};
        uint8_t bytes[256] = {0};
        world_t w;
        make_world(&w);
        start_hub(&w, "hub-1");
        void *context = zmq_ctx_new();
        void *raw = raw_dealer(context, &w);
        raw_hello(raw, FABRIC_PROTOCOL, FABRIC_VERSION, 5);
        cr_assert_eq(raw_receive(&w, raw, &body), ENVELOPE_KIND_HELLO);
        cr_assert_eq(w.hub.ups, 1);
        if (bad->kind != 0)
            envelope_encode(&(envelope_t){.kind = bad->kind}, bytes);
        for (unsigned part = 0; part < bad->parts; part++) {
            zmq_send(raw, bytes, bad->lens[part], part + 1 < bad->parts ? ZMQ_SNDMORE : 0);
            memset(bytes, 0xc1, sizeof bytes);
        }
        cr_assert_eq(raw_receive(&w, raw, &body), ENVELOPE_KIND_BYE, "%s", bad->what);
        cr_assert_eq(w.hub.downs, 1, "%s", bad->what);
        zmq_close(raw);
        zmq_ctx_term(context);
        end_world(&w);
    }
}

Test(fabric_rules, too_long_a_body_never_arrives)
{
    static uint8_t body[FABRIC_BODY_MAX + 1];
    auto_buf buf_t answer = {0};
    uint8_t head[ENVELOPE_SIZE];
    world_t w;
    make_world(&w);
    start_hub(&w, "hub-1");
    void *context = zmq_ctx_new();
    void *raw = raw_dealer(context, &w);
    raw_hello(raw, FABRIC_PROTOCOL, FABRIC_VERSION, 5);
    cr_assert_eq(raw_receive(&w, raw, &answer), ENVELOPE_KIND_HELLO);
    envelope_encode(&(envelope_t){.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, head);
    zmq_send(raw, head, sizeof head, ZMQ_SNDMORE);
    zmq_send(raw, body, sizeof body, 0);
    cr_assert(reaches(&w, &w.hub.downs, 1, 4500));
    cr_assert_eq(w.hub.frames, 0);
    zmq_close(raw);
    zmq_ctx_term(context);
    end_world(&w);
}

Test(fabric_rules, stranger_is_told_to_say_hello)
{
    auto_buf buf_t body = {0};
    uint8_t head[ENVELOPE_SIZE];
    world_t w;
    make_world(&w);
    start_hub(&w, "hub-1");
    void *context = zmq_ctx_new();
    void *raw = raw_dealer(context, &w);
    envelope_encode(&(envelope_t){.kind = ENVELOPE_KIND_HEARTBEAT}, head);
    zmq_send(raw, head, sizeof head, ZMQ_SNDMORE);
    zmq_send(raw, "", 0, 0);
    cr_assert_eq(raw_receive(&w, raw, &body), ENVELOPE_KIND_HELLO);
    cr_assert_eq(w.hub.ups, 0);
    raw_hello(raw, FABRIC_PROTOCOL, FABRIC_VERSION, 5);
    cr_assert_eq(raw_receive(&w, raw, &body), ENVELOPE_KIND_HELLO);
    raw_hello(raw, FABRIC_PROTOCOL, FABRIC_VERSION, 5); /* said twice: the same session */
    cr_assert_eq(raw_receive(&w, raw, &body), ENVELOPE_KIND_HELLO);
    cr_assert(w.hub.ups == 1 && w.hub.downs == 0);
    raw_hello(raw, FABRIC_PROTOCOL, FABRIC_VERSION, 6);
    cr_assert_eq(raw_receive(&w, raw, &body), ENVELOPE_KIND_HELLO);
    cr_assert(w.hub.ups == 2 && w.hub.downs == 1);
    zmq_close(raw);
    zmq_ctx_term(context);
    end_world(&w);
}

typedef struct bad_endpoint {
    const char *endpoint;
    const char *says;
} bad_endpoint_t;

Test(fabric_rules, endpoints_that_are_not_safe_are_refused)
{
    static const bad_endpoint_t rows[] = {
        {"tcp://127.0.0.1:9999", "CURVE"},  {"inproc://x", "ipc:// or tcp://"}, {"", "no fabric endpoint"},
        {"ipc://relative/hub", "absolute"}, {"ipc://@abstract", "absolute"},    {"ipc:///hub", "directory"},
        {"ipc:///tmp/hub", "0700"},
    };
    auto_err err_t *e = NULL;
    fabric_self_t self = {"gateway", "node-a", "i"};
    struct event_base *base = event_base_new();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        cr_assert_null(fabric_bind(base, rows[i].endpoint, &self, NULL, &end_events, NULL, &e));
        cr_assert(strstr(err_message(e), rows[i].says) != NULL, "%s: %s", rows[i].endpoint, err_message(e));
        err_free(&e);
    }
    event_base_free(base);
}

static void write_cert(const world_t *w, zcert_t *cert, const char *name, bool is_secret, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", w->dir, name);
    cr_assert_eq(is_secret ? zcert_save_secret(cert, path) : zcert_save_public(cert, path), 0);
    chmod(path, 0600);
}

/* A hub and a link over TCP; `is_known`: the hub has the link's certificate as known/worker-7.txt. */
static void curve_world(world_t *w, bool is_known)
{
    auto_err err_t *e = NULL;
    char hub_secret[128], hub_public[128], link_secret[128], known[128], known_dir[128];
    zcert_t *hub = zcert_new(), *link = zcert_new();
    fabric_self_t hub_self = {"gateway", "node-a", "hub-1"}, link_self = {"gvisord", "node-b", "claims-to-be-root"};
    make_world(w);
    snprintf(known_dir, sizeof known_dir, "%s/known", w->dir);
    cr_assert_eq(mkdir(known_dir, 0700), 0);
    write_cert(w, hub, "hub.secret", true, hub_secret, sizeof hub_secret);
    write_cert(w, hub, "hub.txt", false, hub_public, sizeof hub_public);
    write_cert(w, link, "link.secret", true, link_secret, sizeof link_secret);
    write_cert(w, is_known ? link : hub, "known/worker-7.txt", false, known, sizeof known);
    zcert_destroy(&hub);
    zcert_destroy(&link);
    fabric_curve_t hub_curve = {.secret_file = hub_secret, .known_dir = known_dir};
    fabric_curve_t link_curve = {.secret_file = link_secret, .server_key = hub_public};
    snprintf(w->endpoint, sizeof w->endpoint, "tcp://127.0.0.1:%d", 20000 + getpid() % 20000);
    w->hub.fabric = fabric_bind(w->base, w->endpoint, &hub_self, &hub_curve, &end_events, &w->hub, &e);
    cr_assert(w->hub.fabric != NULL, "%s", e ? err_message(e) : "");
    w->link.fabric = fabric_connect(w->base, w->endpoint, &link_self, &link_curve, &end_events, &w->link, &e);
    cr_assert(w->link.fabric != NULL, "%s", e ? err_message(e) : "");
}

static void end_curve_world(world_t *w)
{
    char path[160];
    static const char *const names[] = {"hub.secret", "hub.txt", "link.secret", "known/worker-7.txt", "known"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", w->dir, names[i]);
        remove(path);
    }
    end_world(w);
}

Test(fabric_rules, known_key_comes_up_under_the_name_of_its_certificate)
{
    struct sigaction before, after;
    world_t w;
    sigaction(SIGINT, NULL, &before);
    curve_world(&w, true);
    sigaction(SIGINT, NULL, &after);
    cr_assert_eq(before.sa_handler, after.sa_handler, "CZMQ took over our signals");
    cr_assert(reaches(&w, &w.hub.ups, 1, 3000) && reaches(&w, &w.link.ups, 1, 3000));
    cr_assert_str_eq(w.hub.instance, "worker-7");
    w.link.echoes = true;
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = 2, .call_id = 77};
    cr_assert_eq(fabric_send(w.hub.peer, &env, "ping", 4), FABRIC_SENT);
    cr_assert(reaches(&w, &w.hub.frames, 1, 1000));
    end_curve_world(&w);
}

Test(fabric_rules, unknown_key_is_refused)
{
    world_t w;
    curve_world(&w, false);
    run_ms(&w, 1500);
    cr_assert(w.hub.ups == 0 && w.link.ups == 0);
    end_curve_world(&w);
}

Test(fabric_rules, secret_that_others_may_read_is_refused)
{
    auto_err err_t *e = NULL;
    char secret[128];
    fabric_self_t self = {"gateway", "node-a", "i"};
    world_t w;
    make_world(&w);
    zcert_t *cert = zcert_new();
    write_cert(&w, cert, "hub.secret", true, secret, sizeof secret);
    zcert_destroy(&cert);
    chmod(secret, 0644);
    fabric_curve_t curve = {.secret_file = secret, .known_dir = w.dir};
    cr_assert_null(fabric_bind(w.base, "tcp://127.0.0.1:19999", &self, &curve, &end_events, NULL, &e));
    cr_assert(strstr(err_message(e), "600") != NULL, "%s", err_message(e));
    unlink(secret);
    end_world(&w);
}
