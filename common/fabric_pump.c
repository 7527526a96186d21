// SPDX-License-Identifier: Apache-2.0
/* Receiving and timers. ZMQ_FD tells only edges, and any call on the socket may swallow one: so after the descriptor
 * fired or something was sent, fabric_pump runs and ends only when ZMQ_EVENTS, asked last, has no POLLIN. */
#include "common/clock.h"
#include "common/fabric_private.h"
#include "common/log.h"

#include <errno.h>
#include <zmq.h>

enum { PART_IDENTITY, PART_HEAD, PART_BODY, PART_EXTRA, PART_COUNT };

bool fabric_may_log(fabric_t *f)
{
    uint64_t now_ms = clock_monotonic_ms();
    if (now_ms - f->log_window_ms >= FABRIC_LOG_WINDOW_MS) {
        if (f->log_lines > FABRIC_LOG_LINES)
            log_warn("fabric: %u more lines about peers were not written", f->log_lines - FABRIC_LOG_LINES);
        f->log_window_ms = now_ms;
        f->log_lines = 0;
    }
    return f->log_lines++ < FABRIC_LOG_LINES;
}

static void after_ms(struct event *timer, unsigned ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
    event_add(timer, &tv);
}

/* A zero timer, not event_active: it comes after the other descriptors and timers had their turn. */
void fabric_check_soon(fabric_t *f)
{
    if (f->is_check_due || f->is_pumping)
        return;
    f->is_check_due = true;
    after_ms(f->again, 0);
}

void fabric_note_full(fabric_t *f, fabric_peer_t *peer)
{
    peer->is_full = true;
    if (!event_pending(f->full_retry, EV_TIMEOUT, NULL))
        after_ms(f->full_retry, FABRIC_FULL_RETRY_MS);
}

static int receive_part(fabric_t *f, zmq_msg_t *part)
{
    int rc;
    do
        rc = zmq_msg_recv(part, f->socket, ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    return rc;
}

/* False: nothing is there. */
static bool receive_one(fabric_t *f)
{
    zmq_msg_t parts[PART_COUNT];
    fabric_message_t m = {0};
    size_t first = f->is_hub ? PART_IDENTITY : PART_HEAD;
    size_t at = first;
    bool is_more = true;
    for (size_t i = 0; i < PART_COUNT; i++)
        zmq_msg_init(&parts[i]);
    while (is_more && receive_part(f, &parts[at]) >= 0) {
        is_more = zmq_msg_more(&parts[at]);
        if (at < PART_EXTRA)
            at++;
    }
    bool is_received = at > first;
    if (is_received) {
        m.identity = zmq_msg_data(&parts[PART_IDENTITY]);
        m.identity_len = zmq_msg_size(&parts[PART_IDENTITY]);
        m.head = zmq_msg_data(&parts[PART_HEAD]);
        m.head_len = zmq_msg_size(&parts[PART_HEAD]);
        m.body = zmq_msg_data(&parts[PART_BODY]);
        m.body_len = zmq_msg_size(&parts[PART_BODY]);
        /* A fourth part leaves `at` where three do, but fills its place. */
        m.is_whole = at == PART_EXTRA && !is_more && !zmq_msg_more(&parts[PART_BODY]);
        if (f->zap_domain != NULL)
            m.user = zmq_msg_gets(&parts[PART_BODY], "User-Id");
        fabric_handle(f, &m);
    }
    for (size_t i = 0; i < PART_COUNT; i++)
        zmq_msg_close(&parts[i]);
    return is_received;
}

static void drop_lost(fabric_t *f)
{
    fabric_peer_t *peer, *next;
    for (peer = TAILQ_FIRST(&f->peers); peer != NULL; peer = next) {
        next = TAILQ_NEXT(peer, in_list);
        if (peer->is_lost)
            fabric_peer_down(peer, "the connection was lost");
    }
}

static void tell_writable(fabric_t *f)
{
    fabric_peer_t *peer, *next;
    f->is_full_due = false;
    for (peer = TAILQ_FIRST(&f->peers); peer != NULL; peer = next) {
        next = TAILQ_NEXT(peer, in_list);
        if (!peer->is_full || peer->is_lost)
            continue;
        peer->is_full = false;
        if (f->events->on_writable != NULL)
            f->events->on_writable(f->arg, peer);
    }
}

void fabric_pump(fabric_t *f)
{
    unsigned left = FABRIC_TURN_MESSAGES;
    int events = ZMQ_POLLIN;
    f->is_pumping = true;
    f->now_ms = clock_monotonic_ms();
    while (left > 0 && (events & ZMQ_POLLIN)) {
        while (left > 0 && receive_one(f))
            left--;
        drop_lost(f);
        if (f->is_full_due)
            tell_writable(f);
        if (!f->is_hub && TAILQ_EMPTY(&f->peers) && f->now_ms >= f->hello_due_ms)
            fabric_say_hello(f, NULL, 0, f->session);
        events = fabric_socket_events(f);
    }
    f->is_pumping = false;
    if (events & ZMQ_POLLIN)
        fabric_check_soon(f);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    fabric_pump(arg);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    fabric_t *f = arg;
    (void)fd;
    (void)what;
    f->is_check_due = false;
    fabric_pump(f);
}

static void on_full_retry(evutil_socket_t fd, short what, void *arg)
{
    fabric_t *f = arg;
    (void)fd;
    (void)what;
    f->is_full_due = true;
    fabric_pump(f);
}

static void send_heartbeats(fabric_t *f)
{
    static const envelope_t heartbeat = {.kind = ENVELOPE_KIND_HEARTBEAT};
    fabric_peer_t *peer;
    TAILQ_FOREACH(peer, &f->peers, in_list)
    if (fabric_socket_send(f, peer->identity, peer->identity_len, &heartbeat, f->status.data, f->status.len) ==
        FABRIC_GONE)
        peer->is_lost = true;
    drop_lost(f);
}

static void drop_silent(fabric_t *f)
{
    fabric_peer_t *peer, *next;
    for (peer = TAILQ_FIRST(&f->peers); peer != NULL; peer = next) {
        next = TAILQ_NEXT(peer, in_list);
        if (f->now_ms - peer->last_seen_ms < FABRIC_GONE_MS)
            continue;
        fabric_peer_down(peer, "it was silent for three seconds");
        if (!f->is_hub)
            fabric_socket_reconnect(f);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    fabric_t *f = arg;
    fabric_peer_t *peer;
    (void)fd;
    (void)what;
    fabric_pump(f); /* what has come counts before anyone is called silent */
    if (f->now_ms - f->last_tick_ms > FABRIC_LATE_MS)
        TAILQ_FOREACH(peer, &f->peers, in_list)
    peer->last_seen_ms = f->now_ms;
    f->last_tick_ms = f->now_ms;
    f->strays = FABRIC_STRAYS_PER_TICK;
    drop_silent(f);
    if (f->now_ms - f->last_heartbeat_ms >= FABRIC_HEARTBEAT_MS - FABRIC_TICK_MS / 2) {
        f->last_heartbeat_ms = f->now_ms;
        send_heartbeats(f);
    }
}

/* libzmq knows that a connection ended. A link's hub is gone with it; a hub does not learn whose it was, so it asks
 * all. */
static void on_monitor(evutil_socket_t fd, short what, void *arg)
{
    fabric_t *f = arg;
    int event;
    (void)fd;
    (void)what;
    fabric_pump(f); /* a BYE that came before the end is the better reason */
    while ((event = fabric_monitor_next(f)) != 0) {
        if (event != ZMQ_EVENT_DISCONNECTED) {
            if (fabric_may_log(f))
                log_warn("fabric: the handshake with %s failed: %s", f->is_hub ? "a peer" : f->endpoint,
                         event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
                             ? "its key is not known here or ours is not known there"
                             : "it does not speak the fabric's protocol");
        } else if (f->is_hub) {
            after_ms(f->probe, FABRIC_PROBE_MS);
        } else {
            if (!TAILQ_EMPTY(&f->peers))
                fabric_peer_down(TAILQ_FIRST(&f->peers), "the connection was lost");
            f->hello_due_ms = f->now_ms; /* whoever listens next has not heard it */
        }
    }
}

static void on_probe(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    send_heartbeats(arg);
}

int fabric_pump_start(fabric_t *f, err_t **e)
{
    f->readable = event_new(f->base, fabric_socket_fd(f->socket), EV_READ | EV_PERSIST, on_readable, f);
    f->monitor_readable = event_new(f->base, fabric_socket_fd(f->monitor), EV_READ | EV_PERSIST, on_monitor, f);
    f->again = event_new(f->base, -1, 0, on_again, f);
    f->probe = event_new(f->base, -1, 0, on_probe, f);
    f->full_retry = event_new(f->base, -1, 0, on_full_retry, f);
    f->tick = event_new(f->base, -1, EV_PERSIST, on_tick, f);
    if (!f->readable || !f->monitor_readable || !f->again || !f->probe || !f->full_retry || !f->tick ||
        event_add(f->readable, NULL) < 0 || event_add(f->monitor_readable, NULL) < 0)
        return err_set(e, ERR_INTERNAL, "cannot watch the fabric socket in the event loop");
    /* An inproc pipe wakes only a reader that has once found it empty. */
    while (fabric_monitor_next(f) != 0)
        continue;
    f->last_tick_ms = f->now_ms;
    after_ms(f->tick, FABRIC_TICK_MS);
    return 0;
}

void fabric_pump_stop(fabric_t *f)
{
    struct event **all[] = {&f->readable, &f->monitor_readable, &f->again, &f->probe, &f->full_retry, &f->tick};
    f->is_pumping = true; /* nothing may be scheduled any more */
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (*all[i] != NULL)
            event_free(*all[i]);
        *all[i] = NULL;
    }
}
