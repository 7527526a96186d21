// SPDX-License-Identifier: Apache-2.0
/* Peers: who is up, and what each message means. Everything here works on bytes already received
 * (tests/fuzz/fuzz_fabric.c). */
#include "common/clock.h"
#include "common/daemon.h"
#include "common/fabric_private.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <stdio.h>

enum direction { TO_HUB = 1, TO_LINK = 2 };

/* Which kinds a handler above the fabric gets, by who receives them. */
static const uint8_t kind_directions[ENVELOPE_KIND_COUNT] = {
    [ENVELOPE_KIND_REQUEST] = TO_LINK,
    [ENVELOPE_KIND_CANCEL] = TO_LINK,
    [ENVELOPE_KIND_ACK] = TO_LINK,
    [ENVELOPE_KIND_REPLY] = TO_HUB,
    [ENVELOPE_KIND_ERROR] = TO_HUB,
    [ENVELOPE_KIND_HEAD] = TO_HUB,
    [ENVELOPE_KIND_EVENT] = TO_HUB,
    [ENVELOPE_KIND_NOTICE] = TO_HUB,
    [ENVELOPE_KIND_CHUNK] = TO_HUB | TO_LINK,
    [ENVELOPE_KIND_CREDIT] = TO_HUB | TO_LINK,
};

/* FNV-1a: identities are random, the table only needs their bits spread. */
static struct fabric_bucket *bucket_of(fabric_t *f, const uint8_t *identity, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ identity[i]) * 0x100000001b3u;
    return &f->buckets[(hash ^ hash >> 32) % FABRIC_BUCKETS];
}

static fabric_peer_t *peer_find(fabric_t *f, const uint8_t *identity, size_t len)
{
    fabric_peer_t *peer;
    if (!f->is_hub)
        return TAILQ_FIRST(&f->peers);
    LIST_FOREACH(peer, bucket_of(f, identity, len), bucket)
    if (peer->identity_len == len && memcmp(peer->identity, identity, len) == 0)
        return peer;
    return NULL;
}

static void peer_free(fabric_peer_t *peer)
{
    fabric_t *f = peer->fabric;
    TAILQ_REMOVE(&f->peers, peer, in_list);
    if (f->is_hub)
        LIST_REMOVE(peer, bucket);
    f->peer_count--;
    buf_free(&peer->hello_bytes);
    buf_free(&peer->status_bytes);
    free(peer);
}

void fabric_peers_free(fabric_t *f)
{
    while (!TAILQ_EMPTY(&f->peers))
        peer_free(TAILQ_FIRST(&f->peers));
}

/* Session 0 means "none". */
void fabric_new_session(fabric_t *f, uint64_t hello_due_ms)
{
    uint64_t session = 0;
    while (session == 0 || session == f->session)
        random_bytes(&session, sizeof session);
    f->session = session;
    f->hello_due_ms = hello_due_ms;
}

void fabric_peer_down(fabric_peer_t *peer, const char *reason)
{
    fabric_t *f = peer->fabric;
    log_info("fabric: %s %s on %s is down: %s", peer->hello.role, peer->hello.instance, peer->hello.node, reason);
    peer->is_up = false;
    if (f->events->on_down != NULL)
        f->events->on_down(f->arg, peer, reason);
    peer_free(peer);
    if (!f->is_hub)
        fabric_new_session(f, f->now_ms);
    fabric_check_soon(f);
}

void fabric_say_hello(fabric_t *f, const uint8_t *identity, size_t identity_len, uint64_t session)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t body;
    envelope_t env = {.kind = ENVELOPE_KIND_HELLO, .offset = session};
    struct hello hello = {
        .protocol = FABRIC_PROTOCOL,
        .version = FABRIC_VERSION,
        .role = f->role,
        .node = f->node,
        .instance = f->instance,
        .release = EW_VERSION,
        .provider = {.bytes = f->status.len > 0 ? f->status.data : NULL, .len = f->status.len},
    };
    buf_init(&body, FABRIC_BODY_MAX);
    if (proto_encode(MSG_hello, &hello, &body, &e) < 0) {
        log_error("fabric: cannot say HELLO: %s", err_message(e));
        return;
    }
    if (fabric_socket_send(f, identity, identity_len, &env, body.data, body.len) == FABRIC_SENT)
        f->hello_due_ms = f->now_ms + FABRIC_HEARTBEAT_MS;
}

void fabric_say_bye(fabric_t *f, const uint8_t *identity, size_t identity_len, const char *sentence)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t body;
    envelope_t env = {.kind = ENVELOPE_KIND_BYE};
    struct error error = {.code = err_code_name(ERR_PROTOCOL), .message = sentence};
    buf_init(&body, FABRIC_BODY_MAX);
    if (sentence != NULL && proto_encode(MSG_error, &error, &body, &e) < 0)
        buf_reset(&body);
    fabric_socket_send(f, identity, identity_len, &env, body.data, body.len);
}

/* Ends with whoever sent `m`: both sides log the sentence. */
static void refuse(fabric_t *f, const fabric_message_t *m, const char *sentence)
{
    fabric_peer_t *peer = peer_find(f, m->identity, m->identity_len);
    if (fabric_may_log(f))
        log_warn("fabric: refusing %s: %s", peer ? peer->hello.instance : f->is_hub ? "a peer" : f->endpoint, sentence);
    if (f->is_hub || peer != NULL || f->hello_due_ms <= f->now_ms + FABRIC_HEARTBEAT_MS)
        fabric_say_bye(f, m->identity, f->is_hub ? m->identity_len : 0, sentence);
    if (peer != NULL)
        fabric_peer_down(peer, sentence);
    if (!f->is_hub)
        f->hello_due_ms = f->now_ms + FABRIC_REFUSED_RETRY_MS;
}

static bool set_status(fabric_peer_t *peer, const uint8_t *bytes, size_t len)
{
    auto_err err_t *e = NULL;
    struct provider_status status;
    if (proto_decode(MSG_provider_status, &status, bytes, len, &e) < 0)
        return false;
    buf_reset(&peer->status_bytes);
    buf_append(&peer->status_bytes, bytes, len);
    peer->hello.provider = (proto_nested_t){.bytes = peer->status_bytes.data, .len = peer->status_bytes.len};
    peer->hello.has.provider = true;
    return true;
}

/* Makes the peer that the HELLO in `m` describes, not yet up; NULL after refusing it. */
static fabric_peer_t *peer_from_hello(fabric_t *f, const fabric_message_t *m, uint64_t session)
{
    fabric_peer_t *peer = mem_alloc(sizeof *peer);
    peer->fabric = f;
    peer->session = session;
    peer->last_seen_ms = f->now_ms;
    buf_append(&peer->hello_bytes, m->body, m->body_len);
    auto_err err_t *e = NULL;
    proto_nested_t provider;
    if (proto_decode(MSG_hello, &peer->hello, peer->hello_bytes.data, peer->hello_bytes.len, &e) < 0)
        peer->hello = (struct hello){.role = "?", .node = "?", .instance = "?"};
    if (f->is_hub) {
        peer->identity_len = m->identity_len;
        memcpy(peer->identity, m->identity, m->identity_len);
        LIST_INSERT_HEAD(bucket_of(f, m->identity, m->identity_len), peer, bucket);
    }
    TAILQ_INSERT_TAIL(&f->peers, peer, in_list);
    f->peer_count++;
    provider = peer->hello.provider;
    if (m->user != NULL && m->user[0] != '\0') {
        snprintf(peer->name, sizeof peer->name, "%s", m->user);
        peer->hello.instance = peer->name;
    }
    if (e == NULL && (provider.bytes == NULL || set_status(peer, provider.bytes, provider.len)))
        return peer;
    peer_free(peer);
    refuse(f, m, "its HELLO is malformed");
    return NULL;
}

/* False after refusing a HELLO that this side cannot work with. */
static bool check_hello(fabric_t *f, const fabric_message_t *m)
{
    auto_err err_t *e = NULL;
    struct hello hello;
    char sentence[512];
    if (proto_decode(MSG_hello, &hello, m->body, m->body_len, &e) < 0) {
        snprintf(sentence, sizeof sentence, "its HELLO cannot be read (%.200s): run the same release on both sides",
                 err_message(e));
    } else if (strcmp(hello.protocol, FABRIC_PROTOCOL) != 0) {
        snprintf(sentence, sizeof sentence, "it speaks \"%s\" and not \"%s\": check the endpoint it was given",
                 hello.protocol, FABRIC_PROTOCOL);
    } else if (hello.version != FABRIC_VERSION) {
        snprintf(sentence, sizeof sentence,
                 "%s %s (release %s) speaks protocol version %u and %s (release %s) version %d: "
                 "run the same release on both sides",
                 hello.role, hello.instance, hello.release, hello.version, f->role, EW_VERSION, FABRIC_VERSION);
    } else {
        return true;
    }
    refuse(f, m, sentence);
    return false;
}

static void peer_up(fabric_peer_t *peer)
{
    fabric_t *f = peer->fabric;
    peer->is_up = true;
    log_info("fabric: %s %s on %s is up", peer->hello.role, peer->hello.instance, peer->hello.node);
    if (f->events->on_up != NULL)
        f->events->on_up(f->arg, peer);
}

static void hub_on_hello(fabric_t *f, const fabric_message_t *m, const envelope_t *env)
{
    fabric_peer_t *peer = peer_find(f, m->identity, m->identity_len);
    if (!check_hello(f, m))
        return;
    if (env->offset == 0) {
        refuse(f, m, "its HELLO has no session number");
        return;
    }
    if (peer != NULL && peer->session == env->offset) {
        fabric_say_hello(f, m->identity, m->identity_len, env->offset); /* it sent twice before our answer came */
        return;
    }
    if (peer != NULL)
        fabric_peer_down(peer, "it lost the connection and came back");
    if (f->peer_count >= FABRIC_PEERS_MAX) {
        refuse(f, m, "there are too many peers");
        return;
    }
    peer = peer_from_hello(f, m, env->offset);
    if (peer == NULL)
        return;
    fabric_say_hello(f, m->identity, m->identity_len, env->offset);
    peer_up(peer);
}

static void link_on_hello(fabric_t *f, const fabric_message_t *m, const envelope_t *env)
{
    fabric_peer_t *hub = peer_find(f, NULL, 0);
    if (!check_hello(f, m))
        return;
    if (env->offset == 0 && hub != NULL) {
        fabric_peer_down(hub, "the hub does not know this daemon any more");
    } else if (env->offset == f->session && hub == NULL) {
        hub = peer_from_hello(f, m, env->offset);
        if (hub != NULL)
            peer_up(hub);
    } else if (env->offset == f->session) {
        auto_err err_t *e = NULL;
        struct hello hello;
        if (proto_decode(MSG_hello, &hello, m->body, m->body_len, &e) == 0 &&
            strcmp(hello.instance, hub->hello.instance) != 0)
            fabric_peer_down(hub, "the hub was started anew");
    }
}

static void on_heartbeat(fabric_t *f, const fabric_message_t *m, fabric_peer_t *peer)
{
    if (m->body_len == 0)
        return;
    if (!set_status(peer, m->body, m->body_len))
        refuse(f, m, "its heartbeat is malformed");
    else if (f->events->on_status != NULL)
        f->events->on_status(f->arg, peer, m->body, m->body_len);
}

static void on_bye(fabric_t *f, const fabric_message_t *m, fabric_peer_t *peer)
{
    auto_err err_t *e = NULL;
    struct error error;
    const char *reason = "it left on purpose";
    bool has_sentence = m->body_len > 0 && proto_decode(MSG_error, &error, m->body, m->body_len, &e) == 0;
    if (has_sentence) {
        reason = error.message;
        if (fabric_may_log(f))
            log_warn("fabric: %s refuses this daemon: %s", f->is_hub ? "a peer" : f->endpoint, reason);
    }
    if (peer != NULL)
        fabric_peer_down(peer, reason);
    if (!f->is_hub)
        f->hello_due_ms = f->now_ms + (has_sentence ? FABRIC_REFUSED_RETRY_MS : FABRIC_HEARTBEAT_MS);
}

/* Not up: a hub that was started anew meets links that still think they know it. */
static void on_stranger(fabric_t *f, const fabric_message_t *m)
{
    if (!f->is_hub || f->strays == 0)
        return;
    f->strays--;
    fabric_say_hello(f, m->identity, m->identity_len, 0);
}

void fabric_handle(fabric_t *f, const fabric_message_t *m)
{
    envelope_t env;
    if (f->is_hub && (m->identity_len == 0 || m->identity_len > FABRIC_IDENTITY_MAX))
        return; /* cannot be one of ours */
    if (!m->is_whole || m->body_len > FABRIC_BODY_MAX || !envelope_decode(&env, m->head, m->head_len)) {
        refuse(f, m, "it sent a message that is not of this protocol");
        return;
    }
    fabric_peer_t *peer = peer_find(f, m->identity, m->identity_len);
    if (peer != NULL)
        peer->last_seen_ms = f->now_ms;
    if (env.kind == ENVELOPE_KIND_HELLO) {
        if (f->is_hub)
            hub_on_hello(f, m, &env);
        else
            link_on_hello(f, m, &env);
    } else if (env.kind == ENVELOPE_KIND_BYE) {
        on_bye(f, m, peer);
    } else if (peer == NULL) {
        on_stranger(f, m);
    } else if (env.kind == ENVELOPE_KIND_HEARTBEAT) {
        on_heartbeat(f, m, peer);
    } else if (kind_directions[env.kind] & (f->is_hub ? TO_HUB : TO_LINK)) {
        f->events->on_frame(f->arg, peer, &env, m->body, m->body_len);
    } else {
        refuse(f, m, "it sent a kind of message that this side never gets");
    }
}
