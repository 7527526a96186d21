// SPDX-License-Identifier: Apache-2.0
/* The table of calls: looking up, deadlines, start and end. */
#include "common/call.h"

#include "common/call_private.h"
#include "common/clock.h"
#include "common/mem.h"

static struct call_list *bucket_of(call_table_t *t, uint64_t id)
{
    return &t->buckets[(id * 0x9e3779b97f4a7c15u) >> 52];
}

_Static_assert(CALL_BUCKETS == 1 << 12, "bucket_of takes the upper 12 bits");

call_t *call_table_find(call_table_t *t, uint64_t id, const uuid16_t *sandbox)
{
    call_t *c;
    LIST_FOREACH(c, bucket_of(t, id), bucket)
    if (c->id == id && memcmp(&c->sandbox, sandbox, sizeof *sandbox) == 0)
        return c;
    return NULL;
}

/* ---- deadlines: a wheel, because nearly all of them are taken back before they come ---- */

static uint64_t tick_now(void)
{
    return clock_monotonic_ms() / CALL_WHEEL_TICK_MS;
}

static void wheel_arm(call_table_t *t)
{
    struct timeval tv = {.tv_usec = CALL_WHEEL_TICK_MS * 1000};
    if (t->timed_count > 0 && !event_pending(t->wheel_timer, EV_TIMEOUT, NULL))
        event_add(t->wheel_timer, &tv);
}

static void deadline_set(call_t *c, uint64_t after_ms)
{
    call_table_t *t = c->table;
    if (t->timed_count == 0)
        t->tick = tick_now();
    c->expires_tick = tick_now() + after_ms / CALL_WHEEL_TICK_MS + 1;
    LIST_INSERT_HEAD(&t->wheel[c->expires_tick % CALL_WHEEL_SLOTS], c, in_slot);
    t->timed_count++;
    wheel_arm(t);
}

static void deadline_clear(call_t *c)
{
    if (c->expires_tick == 0)
        return;
    LIST_REMOVE(c, in_slot);
    c->expires_tick = 0;
    c->table->timed_count--;
}

static void deadline_pass(call_t *c)
{
    auto_err err_t *e = NULL;
    err_set(&e, ERR_DEADLINE_EXCEEDED, "%s did not end within %u ms and its callee did not say so", c->verb->name,
            c->deadline_ms);
    call_fail_with(c, e, true);
}

/* Callbacks may start and end any calls, so after each the slot is looked at from its beginning. */
static void wheel_slot(call_table_t *t, uint64_t tick, uint64_t now)
{
    call_t *c = LIST_FIRST(&t->wheel[tick % CALL_WHEEL_SLOTS]);
    while (c != NULL) {
        if (c->expires_tick > now) {
            c = LIST_NEXT(c, in_slot);
            continue;
        }
        deadline_pass(c);
        c = LIST_FIRST(&t->wheel[tick % CALL_WHEEL_SLOTS]);
    }
}

static void wheel_on_timer(evutil_socket_t fd, short what, void *arg)
{
    call_table_t *t = arg;
    uint64_t now = tick_now();
    (void)fd;
    (void)what;
    if (now - t->tick > CALL_WHEEL_SLOTS)
        t->tick = now - CALL_WHEEL_SLOTS;
    while (t->tick < now)
        wheel_slot(t, ++t->tick, now);
    wheel_arm(t);
}

/* ---- life ---- */

call_table_t *call_table_new(struct event_base *base)
{
    call_table_t *t = mem_alloc(sizeof *t);
    t->base = base;
    t->held_max = CALL_HELD_MAX;
    t->wheel_timer = event_new(base, -1, 0, wheel_on_timer, t);
    return t;
}

void call_hold(call_t *c, size_t *part, size_t bytes)
{
    c->table->held_bytes += bytes - *part; /* wraps back when it shrinks */
    *part = bytes;
}

static void call_free(call_t *c)
{
    call_table_t *t = c->table;
    deadline_clear(c);
    call_unblock(c);
    LIST_REMOVE(c, bucket);
    LIST_REMOVE(c, in_table);
    t->count--;
    call_hold(c, &c->held_request, 0);
    call_hold(c, &c->held_assembly, 0);
    buf_free(&c->request);
    buf_free(&c->assembly);
    free(c);
}

void call_table_destroy(call_table_t **t)
{
    if (*t == NULL)
        return;
    while (!LIST_EMPTY(&(*t)->calls))
        call_free(LIST_FIRST(&(*t)->calls));
    if ((*t)->wheel_timer != NULL)
        event_free((*t)->wheel_timer);
    free(*t);
    *t = NULL;
}

size_t call_table_count(const call_table_t *t)
{
    return t->count;
}

size_t call_table_count_of(const call_table_t *t, const uuid16_t *sandbox)
{
    size_t count = 0;
    call_t *c;
    LIST_FOREACH(c, &t->calls, in_table)
    if (!c->is_ended && memcmp(&c->sandbox, sandbox, sizeof *sandbox) == 0)
        count++;
    return count;
}

uint64_t call_id(const call_t *c)
{
    return c->id;
}

void call_enter(call_t *c)
{
    c->depth++;
}

void call_leave(call_t *c)
{
    if (--c->depth == 0 && c->is_ended && c->pending == 0)
        call_free(c);
}

void call_end(call_t *c)
{
    c->is_ended = true;
    c->wants_window = false;
    c->pending &= c->is_unsent ? 0 : PENDING_CANCEL | PENDING_ACK; /* what was never sent needs no CANCEL */
    deadline_clear(c);
    buf_free(&c->request);
    call_hold(c, &c->held_request, 0);
    call_hold(c, &c->held_assembly, 0);
    call_enter(c);
    call_flush(c);
    call_leave(c);
}

void call_fail_with(call_t *c, const err_t *err, bool cancel)
{
    if (c->is_ended)
        return;
    call_enter(c);
    if (cancel)
        c->pending |= PENDING_CANCEL;
    call_end(c);
    c->events.on_error(c->arg, err);
    call_leave(c);
}

void call_cancel(call_t *c)
{
    if (c->is_ended)
        return;
    c->pending |= PENDING_CANCEL;
    call_end(c);
}

static uint64_t fresh_id(call_table_t *t, const uuid16_t *sandbox)
{
    uint64_t id = 0;
    while (id == 0 || call_table_find(t, id, sandbox) != NULL)
        random_bytes(&id, sizeof id);
    return id;
}

static int check_start(call_table_t *t, const verb_row_t *row, unsigned verb, const call_options_t *o, size_t len,
                       err_t **e)
{
    if (row == NULL)
        return err_set(e, ERR_INTERNAL, "there is no verb %u", verb);
    if (len > CALL_MESSAGE_MAX)
        return err_set(e, ERR_PAYLOAD_TOO_LARGE, "the request of %s has %zu bytes, the limit is %d", row->name, len,
                       CALL_MESSAGE_MAX);
    if (t->count >= CALL_TABLE_MAX)
        return err_set(e, ERR_OVERLOADED, "%d calls are running already; try again later", CALL_TABLE_MAX);
    if (o->call_id != 0 && call_table_find(t, o->call_id, &o->sandbox) != NULL)
        return err_set(e, ERR_CONFLICT, "the same call is running already; wait for it to end");
    return 0;
}

call_t *call_start(call_table_t *t, fabric_peer_t *peer, enum verb verb, const call_options_t *options,
                   const void *body, size_t len, const call_events_t *events, void *arg, err_t **e)
{
    const verb_row_t *row = verb_row(verb);
    if (check_start(t, row, verb, options, len, e) < 0)
        return NULL;
    call_t *c = mem_alloc(sizeof *c);
    c->table = t;
    c->peer = peer;
    c->id = options->call_id != 0 ? options->call_id : fresh_id(t, &options->sandbox);
    c->verb = row;
    c->sandbox = options->sandbox;
    c->trace = options->trace;
    c->deadline_ms = options->deadline_ms;
    c->started_ms = clock_monotonic_ms();
    c->is_kept = options->is_kept;
    c->send_credit = CALL_WINDOW;
    c->recv_window = CALL_WINDOW;
    c->events = *events;
    c->arg = arg;
    LIST_INSERT_HEAD(bucket_of(t, c->id), c, bucket);
    LIST_INSERT_HEAD(&t->calls, c, in_table);
    t->count++;
    enum fabric_result result = call_send_request(c, body, len);
    if (result != FABRIC_SENT) {
        const struct hello *hello = fabric_peer_hello(peer);
        if (result == FABRIC_FULL)
            err_set(e, ERR_OVERLOADED, "too many calls wait for %s on %s; slow down and retry", hello->role,
                    hello->node);
        else
            err_set(e, ERR_PROVIDER_GONE, "%s on %s has gone away", hello->role, hello->node);
        call_free(c);
        return NULL;
    }
    if (c->deadline_ms > 0)
        deadline_set(c, (uint64_t)c->deadline_ms + CALL_DEADLINE_GRACE_MS);
    return c;
}

/* ---- the fabric's events ---- */

void call_table_on_writable(call_table_t *t, fabric_peer_t *peer)
{
    struct call_list due = LIST_HEAD_INITIALIZER(due);
    call_t *c, *next;
    for (c = LIST_FIRST(&t->blocked); c != NULL; c = next) {
        next = LIST_NEXT(c, in_blocked);
        if (c->peer != peer)
            continue;
        LIST_REMOVE(c, in_blocked);
        LIST_INSERT_HEAD(&due, c, in_blocked);
    }
    while ((c = LIST_FIRST(&due)) != NULL) {
        call_unblock(c); /* it blocks again if there is still no room */
        call_enter(c);
        call_flush(c);
        call_leave(c);
    }
}

void call_table_on_down(call_table_t *t, fabric_peer_t *peer)
{
    struct call_list lost = LIST_HEAD_INITIALIZER(lost);
    auto_err err_t *e = NULL;
    const struct hello *hello = fabric_peer_hello(peer);
    call_t *c, *next;
    err_set(&e, ERR_PROVIDER_GONE, "%s on %s went away during the call; the call may or may not have taken effect",
            hello->role, hello->node);
    for (c = LIST_FIRST(&t->calls); c != NULL; c = next) {
        next = LIST_NEXT(c, in_table);
        if (c->peer != peer)
            continue;
        LIST_REMOVE(c, in_table);
        LIST_INSERT_HEAD(&lost, c, in_table);
    }
    while ((c = LIST_FIRST(&lost)) != NULL) {
        LIST_REMOVE(c, in_table);
        LIST_INSERT_HEAD(&t->calls, c, in_table);
        call_enter(c);
        c->peer = NULL; /* nothing can be sent any more */
        c->pending = 0;
        call_unblock(c);
        if (!c->is_ended)
            call_fail_with(c, e, false);
        call_leave(c);
    }
}
