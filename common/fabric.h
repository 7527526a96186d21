/* SPDX-License-Identifier: Apache-2.0
 *
 * The fabric: envelopes over ZeroMQ between hubs (ROUTER: gateway, mcphost, gitsync) and daemons (DEALER). One fabric_t
 * is one socket in one libevent loop. HELLO is the first message each way; a wrong protocol or version is refused with
 * a sentence both sides log. Heartbeats go every second; a peer silent for FABRIC_GONE_MS is down. A daemon's link
 * reconnects by itself and says HELLO again.
 *
 * Ownership: the creator owns fabric_t; peers belong to it and are valid between on_up and the return of on_down.
 * Bodies and envelopes given to handlers are borrowed for the call. Handlers may send and may destroy nothing but their
 * own things.
 *
 * Limits: one body <= FABRIC_BODY_MAX; FABRIC_HWM messages queued per peer; FABRIC_PEERS_MAX peers. Violations drop the
 * peer. Security: ipc:// directories are 0700; tcp:// needs CURVE (both files), unknown keys are refused, the
 * certificate decides the instance name. Protocol facts: zmq_socket(3), zmq_setsockopt(3); ZMQ_FD is edge-triggered
 * (handled in fabric_pump alone).
 */
#ifndef EW_COMMON_FABRIC_H
#define EW_COMMON_FABRIC_H

#include "common/err.h"
#include "proto/envelope.h"
#include "proto/messages.h"

#include <event2/event.h>

#define FABRIC_PROTOCOL "emergent-workspaces"
#define FABRIC_VERSION 1
#define FABRIC_HEARTBEAT_MS 1000
#define FABRIC_GONE_MS 3000
#define FABRIC_HWM 1024
#define FABRIC_PEERS_MAX 1024
#define FABRIC_TURN_MESSAGES 64 /* messages handled per loop turn, so that timers run */

typedef struct fabric fabric_t;
typedef struct fabric_peer fabric_peer_t;

/* Who this side is; copied. */
typedef struct fabric_self {
    const char *role;
    const char *node;
    const char *instance;
} fabric_self_t;

/* CURVE; all NULL for ipc://. Paths of CZMQ certificate files. */
typedef struct fabric_curve {
    const char *secret_file;
    const char *known_dir;  /* hub: who may connect */
    const char *server_key; /* link: the hub's public certificate */
} fabric_curve_t;

typedef struct fabric_events {
    void (*on_up)(void *arg, fabric_peer_t *peer);
    void (*on_down)(void *arg, fabric_peer_t *peer, const char *reason);
    void (*on_frame)(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len);
    /* Something that could not be sent may be sendable now. Optional. */
    void (*on_writable)(void *arg, fabric_peer_t *peer);
    /* A heartbeat carried a provider_status. Optional. */
    void (*on_status)(void *arg, fabric_peer_t *peer, const uint8_t *body, size_t len);
} fabric_events_t;

enum fabric_result { FABRIC_SENT = 0, FABRIC_FULL, FABRIC_GONE };

/* Endpoints: comma separated. curve may be NULL. */
fabric_t *fabric_bind(struct event_base *base, const char *endpoints, const fabric_self_t *self,
                      const fabric_curve_t *curve, const fabric_events_t *events, void *arg, err_t **e);
/* One endpoint; comes up whenever the hub is there. */
fabric_t *fabric_connect(struct event_base *base, const char *endpoint, const fabric_self_t *self,
                         const fabric_curve_t *curve, const fabric_events_t *events, void *arg, err_t **e);
/* Sends BYE to all peers, gives the socket a short linger, frees. NULL-safe, sets NULL. on_down is not called. */
void fabric_destroy(fabric_t **f);

/* What HELLO and heartbeats tell about this daemon (an encoded provider_status); copied. */
void fabric_set_status(fabric_t *f, const void *status, size_t len);

enum fabric_result fabric_send(fabric_peer_t *peer, const envelope_t *env, const void *body, size_t len);

/* The peer's HELLO, with `provider` as last told by on_status. */
const struct hello *fabric_peer_hello(const fabric_peer_t *peer);
void *fabric_peer_data(const fabric_peer_t *peer); /* free for the owner of the events */
void fabric_peer_set_data(fabric_peer_t *peer, void *data);
/* Iterates peers that are up: start with NULL. */
fabric_peer_t *fabric_peer_next(fabric_t *f, const fabric_peer_t *after);

#endif
