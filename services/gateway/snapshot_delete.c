// SPDX-License-Identifier: Apache-2.0
/* Removes a snapshot: the intent is committed first (status deleting), then the bytes go, then the row. Whatever fails
 * is tried again, after a restart too. */
#include "services/gateway/snapshots_internal.h"

#include "common/log.h"
#include "common/mem.h"

#define RETRY_MIN_MS 2000
#define RETRY_MAX_MS 60000

static void on_row_gone(snapshot_t *s, const err_t *err)
{
    (void)err;
    log_info("snapshot %s is deleted", s->id_text);
    snapshot_settle(s, SNAPSHOT_WAITER_DELETE, NULL);
    snapshots_remove(s);
}

static void on_deleted(void *arg, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    snapshot_t *s = arg;
    snapshot_delete_row(s, on_row_gone); /* is_called stays: it is over there */
}

/* The daemon going away is no failure: it is asked again when it is back (snapshots_on_peer_up). */
static void on_delete_error(void *arg, const err_t *err)
{
    snapshot_t *s = arg;
    s->is_called = false;
    log_warn("delete snapshot %s on %s: %s; tried again in %u ms", s->id_text, s->node, err_message(err), s->delay_ms);
    auto_err err_t *e = NULL; /* whatever it is, it goes on: the caller may ask again */
    bool is_retryable = err_code_is_retryable(err_code(err));
    err_set(&e, is_retryable ? err_code(err) : ERR_PROVIDER_UNAVAILABLE,
            "the snapshot is not removed yet, that is tried again by itself: %s", err_message(err));
    snapshot_settle(s, SNAPSHOT_WAITER_DELETE, e);
    struct timeval delay = {.tv_sec = s->delay_ms / 1000};
    event_add(s->again, &delay);
    s->delay_ms = s->delay_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : s->delay_ms * 2;
}

static call_t *send_delete(snapshots_t *all, fabric_peer_t *peer, const char *id_text, const call_events_t *events,
                           void *arg, err_t **e)
{
    auto_buf buf_t body = {0};
    struct snapshot_ref request = {.snapshot_id = id_text};
    if (proto_encode(MSG_snapshot_ref, &request, &body, e) != 0)
        return NULL;
    call_options_t options = {.deadline_ms = SNAPSHOT_DELETE_DEADLINE_MS};
    return call_start(all->gw->calls, peer, VERB_snapshot_delete, &options, body.data, body.len, events, arg, e);
}

void snapshot_delete_on(snapshot_t *s)
{
    static const call_events_t EVENTS = {.on_reply = on_deleted, .on_error = on_delete_error};
    if (!s->is_deleting || !s->is_delete_due || s->is_called)
        return;
    provider_node_t *n = snapshot_where(s);
    auto_err err_t *e = NULL;
    if (n == NULL || n->peer == NULL) {
        err_set(&e, ERR_PROVIDER_UNAVAILABLE,
                "provider \"%s\" on node %s is not connected; the snapshot is deleted as soon as its daemon is back",
                s->provider, s->node);
        snapshot_settle(s, SNAPSHOT_WAITER_DELETE, e);
        return;
    }
    s->is_called = true;
    if (send_delete(s->all, n->peer, s->id_text, &EVENTS, s, &e) == NULL)
        on_delete_error(s, e);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    snapshot_delete_on(arg);
}

static void on_intent_committed(snapshot_t *s, const err_t *err)
{
    (void)err;
    s->is_delete_due = true;
    snapshot_delete_on(s);
}

void snapshot_start_deletion(snapshot_t *s)
{
    if (s->is_deleting) {
        snapshot_delete_on(s); /* asked again: do not wait for the timer */
        return;
    }
    s->is_deleting = true;
    s->delay_ms = RETRY_MIN_MS;
    if (s->again != NULL)
        event_free(s->again);
    s->again = evtimer_new(s->all->gw->daemon.base, on_again, s);
    if (s->status == SNAPSHOT_DELETING) /* the intent is on disk already */
        on_intent_committed(s, NULL);
    else
        snapshot_commit(s, SNAPSHOT_DELETING, on_intent_committed);
}

/* ---- strays ---- */

static void on_stray_gone(void *arg, const uint8_t *body, size_t len)
{
    (void)arg;
    (void)body;
    (void)len;
}

static void on_stray_error(void *arg, const err_t *err)
{
    (void)arg; /* it is found again by the next reconcile */
    log_warn("delete a snapshot that no row knows: %s", err_message(err));
}

void snapshots_delete_stray(snapshots_t *all, fabric_peer_t *peer, const char *id_text, const char *why)
{
    static const call_events_t EVENTS = {.on_reply = on_stray_gone, .on_error = on_stray_error};
    auto_err err_t *e = NULL;
    log_warn("deleting snapshot %s on %s: %s", id_text, fabric_peer_hello(peer)->node, why);
    if (send_delete(all, peer, id_text, &EVENTS, NULL, &e) == NULL)
        on_stray_error(NULL, e);
}
