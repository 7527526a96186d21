// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/call_world.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 131 + (i >> 13));
}

static void hub_up(void *arg, fabric_peer_t *peer)
{
    ((world_t *)arg)->peer = peer;
}

static void hub_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    world_t *w = arg;
    (void)reason;
    call_table_on_down(w->calls, peer);
    w->peer = NULL;
}

static void hub_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    call_table_on_frame(((world_t *)arg)->calls, peer, env, body, len);
}

static void hub_writable(void *arg, fabric_peer_t *peer)
{
    call_table_on_writable(((world_t *)arg)->calls, peer);
}

static void link_up(void *arg, fabric_peer_t *peer)
{
    ((callee_t *)arg)->peer = peer;
}

static void link_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    (void)peer;
    (void)reason;
    ((callee_t *)arg)->peer = NULL;
}

void callee_send(callee_t *callee, envelope_t env, const void *body, size_t len)
{
    env.call_id = callee->env.call_id;
    env.sandbox = callee->env.sandbox;
    cr_assert_eq(fabric_send(callee->peer, &env, body, len), FABRIC_SENT);
}

static void link_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    callee_t *callee = arg;
    (void)peer;
    callee->kinds[env->kind]++;
    if (env->kind == ENVELOPE_KIND_REQUEST) {
        if (!callee->is_in_request) {
            buf_reset(&callee->request);
            callee->env = *env;
            callee->window = env->credit;
        }
        buf_append(&callee->request, body, len);
        callee->is_in_request = env->flags & ENVELOPE_MORE;
        if (env->flags & ENVELOPE_MORE) {
            if (!callee->is_silent)
                callee_send(callee, (envelope_t){.kind = ENVELOPE_KIND_CREDIT, .credit = (uint32_t)len}, NULL, 0);
            return;
        }
    }
    if (env->kind == ENVELOPE_KIND_CREDIT)
        callee->window += env->credit;
    if (callee->on_frame != NULL)
        callee->on_frame(callee, env, body, len);
}

static const fabric_events_t hub_events = {hub_up, hub_down, hub_frame, hub_writable, NULL};
static const fabric_events_t link_events = {link_up, link_down, link_frame, NULL, NULL};

void run_ms(world_t *w, unsigned ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    event_base_loopexit(w->base, &tv);
    event_base_dispatch(w->base);
}

bool reaches(world_t *w, const unsigned *counter, unsigned value)
{
    uint64_t end_ms = clock_monotonic_ms() + 15000;
    while (*counter < value && clock_monotonic_ms() < end_ms)
        run_ms(w, 2);
    return *counter >= value;
}

void make_world(world_t *w)
{
    auto_err err_t *e = NULL;
    fabric_self_t hub = {"gateway", "a", "h"}, link = {"gvisord", "b", "l"};
    *w = (world_t){.base = event_base_new(), .dir = "/tmp/call-XXXXXX"};
    log_open("test", LOG_LEVEL_ERROR);
    cr_assert_not_null(mkdtemp(w->dir));
    snprintf(w->endpoint, sizeof w->endpoint, "ipc://%s/hub", w->dir);
    w->calls = call_table_new(w->base);
    w->hub = fabric_bind(w->base, w->endpoint, &hub, NULL, &hub_events, w, &e);
    w->callee.fabric = fabric_connect(w->base, w->endpoint, &link, NULL, &link_events, &w->callee, &e);
    cr_assert(w->hub != NULL && w->callee.fabric != NULL);
    for (int i = 0; i < 500 && (w->peer == NULL || w->callee.peer == NULL); i++)
        run_ms(w, 5);
    cr_assert(w->peer != NULL && w->callee.peer != NULL);
}

void end_world(world_t *w)
{
    char path[160];
    fabric_destroy(&w->callee.fabric);
    fabric_destroy(&w->hub);
    call_table_destroy(&w->calls);
    buf_free(&w->callee.request);
    event_base_free(w->base);
    snprintf(path, sizeof path, "%s/hub", w->dir);
    unlink(path);
    rmdir(w->dir);
}

void seen_on_reply(void *arg, const uint8_t *body, size_t len)
{
    seen_t *seen = arg;
    seen->replies++;
    seen->reply_len = len;
    for (size_t i = 0; i < len; i++)
        if (body[i] != pattern(i))
            seen->is_sum_wrong = true;
}

void seen_on_error(void *arg, const err_t *err)
{
    seen_t *seen = arg;
    seen->errors++;
    seen->code = err_code(err);
    snprintf(seen->message, sizeof seen->message, "%s", err_message(err));
    snprintf(seen->details, sizeof seen->details, "%s", err_details(err) ? err_details(err) : "");
    if (seen->starts_another) {
        auto_err err_t *e = NULL;
        call_options_t options = {.sandbox = SANDBOX};
        static const call_events_t none = {.on_reply = seen_on_reply, .on_error = seen_on_error};
        cr_assert_null(call_start(seen->world->calls, seen->world->peer, VERB_read, &options, "x", 1, &none, seen, &e));
    }
}

static void on_head(void *arg, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    ((seen_t *)arg)->heads++;
}

static void on_event(void *arg, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    ((seen_t *)arg)->events++;
}

static void on_chunk(void *arg, enum envelope_channel channel, uint64_t offset, const uint8_t *bytes, size_t len,
                     bool is_end)
{
    seen_t *seen = arg;
    (void)channel;
    cr_assert_eq(offset, seen->bytes);
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != pattern(offset + i))
            seen->is_sum_wrong = true;
    seen->bytes += len;
    seen->ends += is_end;
    if (seen->cancels_in_chunk) {
        call_cancel(seen->call);
        seen->call = NULL;
    } else if (!seen->holds_window) {
        call_consumed(seen->call, len);
    }
}

void upload_more(seen_t *seen)
{
    static uint8_t block[100000];
    while (seen->uploaded < UPLOAD_BYTES) {
        size_t len = UPLOAD_BYTES - seen->uploaded;
        if (len > sizeof block)
            len = sizeof block;
        for (size_t i = 0; i < len; i++)
            block[i] = pattern(seen->uploaded + i);
        size_t taken = call_send_chunk(seen->call, CHANNEL_DATA, block, len, seen->uploaded + len == UPLOAD_BYTES);
        seen->uploaded += taken;
        if (taken < len)
            return;
    }
}

static void on_window(void *arg)
{
    seen_t *seen = arg;
    seen->windows++;
    upload_more(seen);
}

const call_events_t seen_events = {seen_on_reply, seen_on_error, on_head, on_event, on_chunk, on_window};

call_t *start(world_t *w, seen_t *seen, enum verb verb, const void *body, size_t len)
{
    auto_err err_t *e = NULL;
    call_options_t options = {.sandbox = SANDBOX};
    seen->world = w;
    seen->call = call_start(w->calls, w->peer, verb, &options, body, len, &seen_events, seen, &e);
    cr_assert(seen->call != NULL, "%s", e ? err_message(e) : "");
    return seen->call;
}

void reply_small(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len)
{
    uint8_t reply[100];
    (void)body;
    (void)len;
    if (env->kind != ENVELOPE_KIND_REQUEST)
        return;
    for (size_t i = 0; i < sizeof reply; i++)
        reply[i] = pattern(i);
    callee_send(callee, (envelope_t){.kind = ENVELOPE_KIND_REPLY}, reply, sizeof reply);
}

void download(callee_t *callee, const envelope_t *env, const uint8_t *body, size_t len)
{
    static uint8_t part[30000];
    (void)body;
    (void)len;
    if (env->kind == ENVELOPE_KIND_REQUEST) {
        callee_send(callee, (envelope_t){.kind = ENVELOPE_KIND_HEAD}, "head", 4);
        callee->window -= 4;
    }
    while ((env->kind == ENVELOPE_KIND_REQUEST || env->kind == ENVELOPE_KIND_CREDIT) &&
           callee->sent < callee->to_send && callee->window > 0) {
        size_t n = callee->to_send - callee->sent;
        n = n < sizeof part ? n : sizeof part;
        n = n < callee->window ? n : callee->window;
        for (size_t i = 0; i < n; i++)
            part[i] = pattern(callee->sent + i);
        envelope_t chunk = {.kind = ENVELOPE_KIND_CHUNK, .offset = callee->sent};
        callee->sent += n;
        callee->window -= n;
        chunk.flags = callee->sent == callee->to_send ? ENVELOPE_END : 0;
        callee_send(callee, chunk, part, n);
        if (chunk.flags)
            callee_send(callee, (envelope_t){.kind = ENVELOPE_KIND_REPLY}, NULL, 0);
    }
}
