// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/fabric_world.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void on_up(void *arg, fabric_peer_t *peer)
{
    end_t *end = arg;
    end->ups++;
    end->peer = peer;
    snprintf(end->instance, sizeof end->instance, "%s", fabric_peer_hello(peer)->instance);
}

static void on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    end_t *end = arg;
    end->downs++;
    snprintf(end->reason, sizeof end->reason, "%s", reason);
    cr_assert_eq(fabric_send(peer, &(envelope_t){.kind = ENVELOPE_KIND_CREDIT}, NULL, 0), FABRIC_GONE);
    if (end->peer == peer)
        end->peer = NULL;
}

static void on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    end_t *end = arg;
    end->frames++;
    end->env = *env;
    buf_reset(&end->body);
    buf_append(&end->body, body, len);
    if (end->echoes) {
        envelope_t reply = {.kind = ENVELOPE_KIND_REPLY, .call_id = env->call_id};
        fabric_send(peer, &reply, body, len);
    }
}

static void on_writable(void *arg, fabric_peer_t *peer)
{
    (void)peer;
    ((end_t *)arg)->writables++;
}

static void on_status(void *arg, fabric_peer_t *peer, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    struct provider_status status;
    end_t *end = arg;
    end->statuses++;
    cr_assert_eq(proto_decode(MSG_provider_status, &status, body, len, &e), 0);
    snprintf(end->status_name, sizeof end->status_name, "%s", status.name);
    cr_assert_eq(fabric_peer_hello(peer)->provider.len, len);
}

const fabric_events_t end_events = {on_up, on_down, on_frame, on_writable, on_status};

void make_world(world_t *w)
{
    *w = (world_t){.base = event_base_new(), .dir = "/tmp/fabric-XXXXXX"};
    cr_assert_not_null(mkdtemp(w->dir));
    snprintf(w->endpoint, sizeof w->endpoint, "ipc://%s/hub", w->dir);
    log_open("test", LOG_LEVEL_ERROR);
}

void start_hub(world_t *w, const char *instance)
{
    auto_err err_t *e = NULL;
    fabric_self_t self = {"gateway", "node-a", instance};
    w->hub.fabric = fabric_bind(w->base, w->endpoint, &self, NULL, &end_events, &w->hub, &e);
    cr_assert(w->hub.fabric != NULL, "%s", e ? err_message(e) : "");
}

void start_link(world_t *w, const char *instance)
{
    auto_err err_t *e = NULL;
    fabric_self_t self = {"gvisord", "node-b", instance};
    w->link.fabric = fabric_connect(w->base, w->endpoint, &self, NULL, &end_events, &w->link, &e);
    cr_assert(w->link.fabric != NULL, "%s", e ? err_message(e) : "");
}

void end_world(world_t *w)
{
    char path[160];
    fabric_destroy(&w->link.fabric);
    fabric_destroy(&w->hub.fabric);
    buf_free(&w->hub.body);
    buf_free(&w->link.body);
    event_base_free(w->base);
    snprintf(path, sizeof path, "%s/hub", w->dir);
    unlink(path);
    rmdir(w->dir);
}

void run_ms(world_t *w, unsigned ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    event_base_loopexit(w->base, &tv);
    event_base_dispatch(w->base);
}

/* Runs the loop until the counter has the value; false after ms. */
bool reaches(world_t *w, const unsigned *counter, unsigned value, unsigned ms)
{
    uint64_t end_ms = clock_monotonic_ms() + ms;
    while (*counter < value && clock_monotonic_ms() < end_ms)
        run_ms(w, 5);
    return *counter >= value;
}
