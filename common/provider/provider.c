/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>

#define TICK_MS 1000

daemon_t *provider_daemon(provider_t *p)
{
    return p->daemon;
}

void *provider_data(provider_t *p)
{
    return p->data;
}

sandbox_t *provider_sandbox_next(provider_t *p, const sandbox_t *after)
{
    const kit_sandbox_t *ks = (const kit_sandbox_t *)after;
    return (sandbox_t *)(ks ? TAILQ_NEXT(ks, entry) : TAILQ_FIRST(&p->sandboxes));
}

size_t provider_sandbox_count(const provider_t *p)
{
    return p->sandbox_count;
}

kit_peer_t *kit_peer_by_serial(provider_t *p, uint64_t serial)
{
    kit_peer_t *kp;
    TAILQ_FOREACH(kp, &p->peers, entry)
    if (kp->serial == serial)
        return kp;
    return NULL;
}

bool kit_has_gateway(const provider_t *p)
{
    const kit_peer_t *kp;
    TAILQ_FOREACH(kp, &p->peers, entry)
    if (kp->is_gateway)
        return true;
    return false;
}

void kit_event(kit_sandbox_t *ks, const char *type, const char *reason)
{
    struct sandbox_event event = {.type = type, .reason = reason};
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    if (proto_encode(MSG_sandbox_event, &event, &body, &e) < 0) {
        log_error("cannot encode an event: %s", err_message(e));
        return;
    }
    envelope_t env = {.kind = ENVELOPE_KIND_NOTICE, .sandbox = ks->pub.id};
    kit_peer_t *kp;
    TAILQ_FOREACH(kp, &ks->pub.provider->peers, entry)
    if (kp->is_gateway)
        kit_send(kp, &env, body.data, body.len, NULL);
}

/* ---- status ---- */

/* MemAvailable: what new sandboxes can have without pushing others out. */
static uint64_t memory_available(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[256];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return (uint64_t)kib * 1024;
}

int kit_status_encode(provider_t *p, buf_t *out, err_t **e)
{
    struct provider_status status = *p->ops->status(p);
    struct statvfs fs;
    auto_buf buf_t pools = {0};
    if (kit_pools_status(p, &status, &pools, e) < 0)
        return -1;
    if (p->is_draining || p->is_drained) {
        status.healthy = false;
        status.state = "unhealthy";
        status.message = "it is being drained: every sandbox is stopped, and goes on when the daemon is started again";
    }
    status.active_count = (uint32_t)p->sandbox_count;
    status.node = p->daemon->config.node;
    status.free_memory_bytes = memory_available();
    status.free_disk_bytes = statvfs(p->daemon->state_dir, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
    status.cpu_count = (uint32_t)get_nprocs();
    status.max_sandboxes = (uint32_t)p->daemon->config.max_sandboxes;
    status.last_checked_at_ms = p->probed_realtime_ms;
    return proto_encode(MSG_provider_status, &status, out, e);
}

void kit_status_push(provider_t *p)
{
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    if (kit_status_encode(p, &body, &e) < 0) {
        log_error("the status cannot be told: %s", err_message(e));
        return;
    }
    for (size_t i = 0; i < p->link_count; i++)
        fabric_set_status(p->links[i], body.data, body.len);
}

static void answer_probe_waiters(provider_t *p)
{
    struct provider_status status;
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    bool is_ok = kit_status_encode(p, &body, &e) == 0 &&
                 proto_decode(MSG_provider_status, &status, body.data, body.len, &e) == 0;
    for (kit_waiter_t *w; (w = STAILQ_FIRST(&p->probe_waiters));) {
        STAILQ_REMOVE_HEAD(&p->probe_waiters, entry);
        kit_peer_t *kp = kit_peer_by_serial(p, w->peer_serial);
        if (kp && is_ok)
            kit_reply(kp, &w->env, MSG_provider_status, &status);
        else if (kp)
            kit_send_error(kp, &w->env, e);
        free(w);
    }
}

static void on_probed(void *arg, const err_t *err)
{
    provider_t *p = arg;
    p->is_probing = false;
    p->probed_ms = clock_monotonic_ms();
    p->probed_realtime_ms = clock_realtime_ms();
    if (err)
        log_warn("probe: %s", err_message(err));
    kit_status_push(p);
    answer_probe_waiters(p);
    kit_restart_pump(p);
}

void kit_probe_start(provider_t *p)
{
    if (p->is_probing)
        return;
    if (p->probed_ms && clock_monotonic_ms() - p->probed_ms < KIT_PROBE_FRESH_MS) {
        answer_probe_waiters(p);
        return;
    }
    p->is_probing = true;
    p->probe_started_ms = clock_monotonic_ms();
    p->ops->probe(p, on_probed, p);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    provider_t *p = arg;
    if (!p->is_probing && clock_monotonic_ms() - p->probe_started_ms >= KIT_PROBE_INTERVAL_MS)
        kit_probe_start(p);
    kit_pool_tick(p);
    kit_drain_turn(p);
    kit_status_push(p);
}

/* ---- hubs ---- */

static void on_up(void *arg, fabric_peer_t *peer)
{
    provider_t *p = arg;
    kit_peer_t *kp = mem_alloc(sizeof *kp);
    const struct hello *hello = fabric_peer_hello(peer);
    kp->peer = peer;
    kp->provider = p;
    kp->serial = ++p->next_serial;
    kp->is_gateway = hello->role && strcmp(hello->role, "gateway") == 0;
    STAILQ_INIT(&kp->outbox);
    TAILQ_INIT(&kp->requests);
    TAILQ_INSERT_TAIL(&p->peers, kp, entry);
    fabric_peer_set_data(peer, kp);
    log_info("hub up: %s on %s", hello->role, hello->node);
    kit_sandbox_t *ks;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    if (kp->is_gateway && ks->untold_restart) {
        auto_free char *reason = STEAL_PTR(ks->untold_restart);
        kit_event(ks, "restarted", reason);
    }
}

static void peer_free(kit_peer_t *kp)
{
    provider_t *p = kp->provider;
    kit_sandbox_t *ks;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    kit_relay_peer_gone(ks, kp);
    kit_outbox_free(kp);
    kit_requests_free(kp);
    TAILQ_REMOVE(&p->peers, kp, entry);
    free(kp);
}

static void on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    (void)arg;
    kit_peer_t *kp = fabric_peer_data(peer);
    if (!kp)
        return;
    log_info("hub down: %s", reason ? reason : "no reason given");
    fabric_peer_set_data(peer, NULL);
    peer_free(kp);
}

static void on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)arg;
    kit_peer_t *kp = fabric_peer_data(peer);
    if (!kp)
        return;
    const verb_row_t *row = env->kind == ENVELOPE_KIND_REQUEST ? verb_row(env->verb) : NULL;
    switch (env->kind) {
    case ENVELOPE_KIND_REQUEST:
        if (row && row->target == VERB_TARGET_AGENT)
            kit_relay_down(kp, env, body, len);
        else
            kit_verb_frame(kp, env, body, len);
        return;
    case ENVELOPE_KIND_CREDIT:
        kit_verb_credit(kp, env);
        kit_relay_down(kp, env, body, len);
        return;
    case ENVELOPE_KIND_CANCEL:
        kit_verb_cancel(kp, env);
        kit_relay_down(kp, env, body, len);
        return;
    case ENVELOPE_KIND_CHUNK:
    case ENVELOPE_KIND_ACK:
        kit_relay_down(kp, env, body, len);
        return;
    default:
        log_debug("a hub sent %s, which is dropped", envelope_kind_name(env->kind));
    }
}

static void on_writable(void *arg, fabric_peer_t *peer)
{
    (void)arg;
    kit_peer_t *kp = fabric_peer_data(peer);
    if (kp)
        kit_outbox_flush(kp);
}

static const fabric_events_t FABRIC_EVENTS = {
    .on_up = on_up, .on_down = on_down, .on_frame = on_frame, .on_writable = on_writable};

static char *none_if_empty(char *s)
{
    return s && *s ? s : NULL;
}

static int link_open(provider_t *p, const char *endpoint, err_t **e)
{
    config_t *c = &p->daemon->config;
    fabric_self_t self = {.role = p->daemon->name, .node = c->node, .instance = p->daemon->instance};
    fabric_curve_t curve = {.secret_file = none_if_empty(c->curve_secret_file),
                            .known_dir = none_if_empty(c->curve_known_dir),
                            .server_key = none_if_empty(c->curve_server_key)};
    fabric_t *f =
        fabric_connect(p->daemon->base, endpoint, &self, curve.secret_file ? &curve : NULL, &FABRIC_EVENTS, p, e);
    if (!f)
        return err_wrap(e, "cannot link to the hub %s", endpoint);
    p->links = mem_realloc(p->links, (p->link_count + 1) * sizeof *p->links);
    p->links[p->link_count++] = f;
    return 0;
}

static int links_open(provider_t *p, err_t **e)
{
    auto_free char *endpoints = daemon_gateway_endpoints(p->daemon);
    p->are_links_open = true;
    for (const char *at = endpoints; *at;) {
        size_t n = strcspn(at, ", ");
        if (n) {
            auto_free char *endpoint = mem_strndup(at, n);
            if (link_open(p, endpoint, e) < 0)
                return -1;
        }
        at += n + (at[n] != '\0');
    }
    kit_status_push(p);
    return 0;
}

/* The hubs hear of this daemon when its sandboxes answer again, so that no call meets one that is still being adopted.
 */
void kit_links_open_if_adopted(provider_t *p)
{
    const kit_sandbox_t *ks;
    if (p->are_links_open)
        return;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    if (ks->is_adopting)
        return;
    struct timeval now = {0};
    evtimer_add(p->adopt_timer, &now);
}

static void on_adopt_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    provider_t *p = arg;
    auto_err err_t *e = NULL;
    if (!p->are_links_open && links_open(p, &e) < 0) {
        log_error("%s", err_message(e));
        daemon_stop(p->daemon);
    }
    kit_restart_pump(p);
}

provider_t *provider_new(daemon_t *d, const provider_ops_t *ops, void *data, err_t **e)
{
    provider_t *p = mem_alloc(sizeof *p);
    p->daemon = d;
    p->ops = ops;
    p->data = data;
    p->sandboxes_dir = mem_printf("%s/sandboxes", d->state_dir);
    p->snapshots_dir = mem_printf("%s/snapshots", d->state_dir);
    TAILQ_INIT(&p->snapshots);
    TAILQ_INIT(&p->trash);
    kit_pools_init(p);
    TAILQ_INIT(&p->peers);
    TAILQ_INIT(&p->sandboxes);
    STAILQ_INIT(&p->probe_waiters);
    if (kit_drain_init(p, e) < 0 || kit_registry_load(p, e) < 0 || kit_snapshots_load(p, e) < 0) {
        provider_destroy(&p);
        return NULL;
    }
    p->adopt_timer = evtimer_new(d->base, on_adopt_timer, p);
    p->tick = event_new(d->base, -1, EV_PERSIST, on_tick, p);
    struct timeval adopt = {.tv_sec = KIT_ADOPT_WAIT_MS / 1000}, tick = {.tv_sec = TICK_MS / 1000};
    evtimer_add(p->adopt_timer, &adopt);
    event_add(p->tick, &tick);
    kit_sandbox_t *ks, *next;
    for (ks = TAILQ_FIRST(&p->sandboxes); ks; ks = next) {
        next = TAILQ_NEXT(ks, entry);
        kit_start(ks);
    }
    kit_links_open_if_adopted(p);
    kit_probe_start(p);
    return p;
}

void provider_destroy(provider_t **pp)
{
    provider_t *p = *pp;
    *pp = NULL;
    if (!p)
        return;
    for (size_t i = 0; i < p->link_count; i++)
        fabric_destroy(&p->links[i]);
    for (kit_peer_t *kp; (kp = TAILQ_FIRST(&p->peers));)
        peer_free(kp);
    for (kit_sandbox_t *ks; (ks = TAILQ_FIRST(&p->sandboxes));)
        kit_sandbox_free(ks);
    kit_pools_free(p);
    kit_drain_free(p);
    kit_trash_free(p);
    kit_snapshots_free(p);
    for (kit_waiter_t *w; (w = STAILQ_FIRST(&p->probe_waiters));) {
        STAILQ_REMOVE_HEAD(&p->probe_waiters, entry);
        free(w);
    }
    if (p->tick)
        event_free(p->tick);
    if (p->adopt_timer)
        event_free(p->adopt_timer);
    free(p->links);
    free(p->sandboxes_dir);
    free(p->snapshots_dir);
    free(p);
}
