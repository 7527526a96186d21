/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of common/fabric*.c: fabric.c (life, sending), fabric_pump.c (receiving, timers), fabric_peer.c (peers and
 * what messages mean), fabric_socket.c (ZeroMQ context, options, endpoints, monitor), fabric_curve.c (keys, ZAP).
 *
 * Sessions: a link numbers each of its attempts to be up and says the number in the `offset` of its HELLO; the hub
 * repeats it in its own. So either side sees when the other has forgotten it: a hub that hears anything but HELLO from
 * a stranger answers HELLO with session 0, and a HELLO with a new number ends the old session. Neither side can hold
 * calls that the other has dropped.
 */
#ifndef EW_COMMON_FABRIC_PRIVATE_H
#define EW_COMMON_FABRIC_PRIVATE_H

#include "common/buf.h"
#include "common/fabric.h"

#include <sys/queue.h>

#define FABRIC_IDENTITY_MAX 64
#define FABRIC_IDENTITY_SIZE 32 /* our own: 16 random bytes in hexadecimal */
#define FABRIC_NAME_MAX 64      /* of a certificate, the longest instance name */
#define FABRIC_BUCKETS 2048
#define FABRIC_STATUS_MAX (60 * 1024) /* leaves room for the rest of HELLO in one body */
#define FABRIC_TICK_MS 500
#define FABRIC_LATE_MS 1500    /* a tick this late means that we slept, not our peers */
#define FABRIC_LINGER_MS 200   /* for BYE */
#define FABRIC_PROBE_MS 20     /* after a disconnect: by then libzmq has given up the pipe */
#define FABRIC_FULL_RETRY_MS 5 /* a ROUTER does not tell which pipe has room again */
#define FABRIC_REFUSED_RETRY_MS 5000
#define FABRIC_STRAYS_PER_TICK 64 /* HELLOs to strangers */
#define FABRIC_LOG_LINES 10       /* per FABRIC_LOG_WINDOW_MS, about bad peers */
#define FABRIC_LOG_WINDOW_MS 10000

typedef struct fabric_zap fabric_zap_t;

struct fabric_peer {
    fabric_t *fabric;
    LIST_ENTRY(fabric_peer) bucket;
    TAILQ_ENTRY(fabric_peer) in_list;
    uint8_t identity[FABRIC_IDENTITY_MAX]; /* length 0: the hub, as a link sees it */
    size_t identity_len;
    uint64_t session;
    uint64_t last_seen_ms;
    bool is_up;   /* false while on_down runs */
    bool is_full; /* the last send found no room: on_writable is owed */
    bool is_lost; /* a send found no route: goes down in the next turn */
    struct hello hello;
    buf_t hello_bytes;
    buf_t status_bytes;
    char name[FABRIC_NAME_MAX + 1]; /* what the certificate says */
    void *data;
};

LIST_HEAD(fabric_bucket, fabric_peer);
TAILQ_HEAD(fabric_list, fabric_peer);

struct fabric {
    struct event_base *base;
    void *socket;
    void *monitor;
    bool is_hub;
    bool is_pumping;
    bool is_check_due; /* `again` is armed */
    char *role, *node, *instance;
    char *endpoint; /* link: to reconnect */
    buf_t status;
    const fabric_events_t *events;
    fabric_events_t events_copy;
    void *arg;
    struct event *readable, *monitor_readable, *again, *tick, *probe, *full_retry;
    struct fabric_bucket *buckets; /* hub */
    struct fabric_list peers;
    size_t peer_count;
    uint64_t now_ms; /* of this turn */
    uint64_t last_tick_ms;
    uint64_t last_heartbeat_ms;
    bool is_full_due;
    /* link */
    uint64_t session;
    uint64_t hello_due_ms;
    /* against floods */
    unsigned strays;
    unsigned log_lines;
    uint64_t log_window_ms;
    char *zap_domain; /* hub with CURVE */
};

/* One received message, borrowed. */
typedef struct fabric_message {
    const uint8_t *identity;
    size_t identity_len;
    const uint8_t *head;
    size_t head_len;
    const uint8_t *body;
    size_t body_len;
    bool is_whole;    /* had exactly the parts it must have */
    const char *user; /* what CURVE proved, or NULL */
} fabric_message_t;

/* fabric_socket.c */
void *fabric_context_take(err_t **e);
void fabric_context_drop(void);
int fabric_socket_open(fabric_t *f, void *context, err_t **e);
int fabric_socket_bind(fabric_t *f, const char *endpoints, bool has_curve, err_t **e);
int fabric_socket_connect(fabric_t *f, const char *endpoint, bool has_curve, err_t **e);
void fabric_socket_reconnect(fabric_t *f);
int fabric_socket_events(const fabric_t *f);
int fabric_socket_fd(void *socket);
/* Next event of the monitor, or 0. */
int fabric_monitor_next(fabric_t *f);
enum fabric_result fabric_socket_send(fabric_t *f, const uint8_t *identity, size_t identity_len, const envelope_t *env,
                                      const void *body, size_t len);

/* fabric_curve.c */
int fabric_curve_apply(fabric_t *f, void *context, const fabric_curve_t *curve, err_t **e);
void fabric_curve_drop(fabric_t *f);

/* fabric_pump.c */
int fabric_pump_start(fabric_t *f, err_t **e);
void fabric_pump_stop(fabric_t *f);
void fabric_pump(fabric_t *f);
void fabric_check_soon(fabric_t *f);
void fabric_note_full(fabric_t *f, fabric_peer_t *peer);
bool fabric_may_log(fabric_t *f);

/* fabric_peer.c */
void fabric_handle(fabric_t *f, const fabric_message_t *m);
void fabric_peer_down(fabric_peer_t *peer, const char *reason);
void fabric_peers_free(fabric_t *f);
void fabric_say_hello(fabric_t *f, const uint8_t *identity, size_t identity_len, uint64_t session);
void fabric_say_bye(fabric_t *f, const uint8_t *identity, size_t identity_len, const char *sentence);
void fabric_new_session(fabric_t *f, uint64_t hello_due_ms);

#endif
