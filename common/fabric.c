// SPDX-License-Identifier: Apache-2.0
/* Life of a fabric and sending. See fabric_private.h for the parts. */
#include "common/fabric.h"

#include "common/clock.h"
#include "common/fabric_private.h"
#include "common/log.h"
#include "common/mem.h"

#include <zmq.h>

static bool has_curve(const fabric_curve_t *curve)
{
    return curve != NULL && curve->secret_file != NULL;
}

static fabric_t *fabric_new(struct event_base *base, bool is_hub, const fabric_self_t *self,
                            const fabric_events_t *events, void *arg)
{
    fabric_t *f = mem_alloc(sizeof *f);
    f->base = base;
    f->is_hub = is_hub;
    f->role = mem_strdup(self->role);
    f->node = mem_strdup(self->node);
    f->instance = mem_strdup(self->instance);
    f->events_copy = *events;
    f->events = &f->events_copy;
    f->arg = arg;
    f->now_ms = clock_monotonic_ms();
    f->strays = FABRIC_STRAYS_PER_TICK;
    TAILQ_INIT(&f->peers);
    if (is_hub)
        f->buckets = mem_alloc_array(FABRIC_BUCKETS, sizeof *f->buckets);
    buf_init(&f->status, FABRIC_STATUS_MAX);
    fabric_new_session(f, f->now_ms);
    return f;
}

static void fabric_free(fabric_t *f, bool has_context)
{
    fabric_pump_stop(f);
    fabric_peers_free(f);
    if (f->socket != NULL) {
        zmq_socket_monitor(f->socket, NULL, 0);
        zmq_close(f->socket);
    }
    if (f->monitor != NULL)
        zmq_close(f->monitor);
    fabric_curve_drop(f);
    if (has_context)
        fabric_context_drop();
    buf_free(&f->status);
    free(f->buckets);
    free(f->role);
    free(f->node);
    free(f->instance);
    free(f->endpoint);
    free(f);
}

static int fabric_open(fabric_t *f, void *context, const char *endpoints, const fabric_curve_t *curve, err_t **e)
{
    if (fabric_socket_open(f, context, e) < 0 || (has_curve(curve) && fabric_curve_apply(f, context, curve, e) < 0) ||
        fabric_pump_start(f, e) < 0)
        return -1;
    return f->is_hub ? fabric_socket_bind(f, endpoints, has_curve(curve), e)
                     : fabric_socket_connect(f, endpoints, has_curve(curve), e);
}

static fabric_t *fabric_start(fabric_t *f, const char *endpoints, const fabric_curve_t *curve, err_t **e)
{
    void *context = fabric_context_take(e);
    if (context != NULL && fabric_open(f, context, endpoints, curve, e) == 0) {
        fabric_check_soon(f);
        return f;
    }
    fabric_free(f, context != NULL);
    return NULL;
}

fabric_t *fabric_bind(struct event_base *base, const char *endpoints, const fabric_self_t *self,
                      const fabric_curve_t *curve, const fabric_events_t *events, void *arg, err_t **e)
{
    return fabric_start(fabric_new(base, true, self, events, arg), endpoints, curve, e);
}

fabric_t *fabric_connect(struct event_base *base, const char *endpoint, const fabric_self_t *self,
                         const fabric_curve_t *curve, const fabric_events_t *events, void *arg, err_t **e)
{
    return fabric_start(fabric_new(base, false, self, events, arg), endpoint, curve, e);
}

void fabric_destroy(fabric_t **f)
{
    fabric_peer_t *peer;
    if (*f == NULL)
        return;
    TAILQ_FOREACH(peer, &(*f)->peers, in_list)
    fabric_say_bye(*f, peer->identity, peer->identity_len, NULL);
    fabric_free(*f, true);
    *f = NULL;
}

void fabric_set_status(fabric_t *f, const void *status, size_t len)
{
    if (len > FABRIC_STATUS_MAX) {
        log_error("the status of this daemon has %zu bytes, more than the %d that fit; the old one stays", len,
                  FABRIC_STATUS_MAX);
        return;
    }
    buf_reset(&f->status);
    buf_append(&f->status, status, len);
}

enum fabric_result fabric_send(fabric_peer_t *peer, const envelope_t *env, const void *body, size_t len)
{
    fabric_t *f = peer->fabric;
    if (!peer->is_up || peer->is_lost)
        return FABRIC_GONE;
    if (len > FABRIC_BODY_MAX) {
        log_error("a %s with a body of %zu bytes cannot be sent: the limit is %d", envelope_kind_name(env->kind), len,
                  FABRIC_BODY_MAX);
        return FABRIC_GONE;
    }
    enum fabric_result result = fabric_socket_send(f, peer->identity, peer->identity_len, env, body, len);
    if (result == FABRIC_FULL)
        fabric_note_full(f, peer);
    else if (result == FABRIC_GONE)
        peer->is_lost = true; /* on_down comes from the loop, never from inside a send */
    return result;
}

const struct hello *fabric_peer_hello(const fabric_peer_t *peer)
{
    return &peer->hello;
}

void *fabric_peer_data(const fabric_peer_t *peer)
{
    return peer->data;
}

void fabric_peer_set_data(fabric_peer_t *peer, void *data)
{
    peer->data = data;
}

fabric_peer_t *fabric_peer_next(fabric_t *f, const fabric_peer_t *after)
{
    fabric_peer_t *peer = after == NULL ? TAILQ_FIRST(&f->peers) : TAILQ_NEXT(after, in_list);
    while (peer != NULL && !peer->is_up)
        peer = TAILQ_NEXT(peer, in_list);
    return peer;
}
