/* SPDX-License-Identifier: Apache-2.0
 *
 * Warm pools: sandboxes made ahead, in state `warm` until a create of their shape takes one. A pool belongs to one
 * shape (image, disk size, network mode); what was made otherwise than one would be made now (another image version,
 * agent or isolation) is given up.
 *
 * A warm sandbox is claimed once, by one create: it gets that create's id, limits, environment and labels, its agent is
 * told who it is, and from then on it is a sandbox like any other. On disk it stays `warm` until it is ready under its
 * new id, and a daemon that starts removes what is warm: so nothing that was ever promised to one owner can be given to
 * another.
 *
 * It is filled KIT_POOL_FILL_MS after the last claim, so that a burst is served before its replacements are made.
 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/mem.h"

#include <stdio.h>
#include <sys/sysinfo.h>

/* ---- what there is ---- */

size_t kit_pool_count(const provider_t *p, const kit_pool_t *pool, enum sandbox_state state)
{
    const kit_sandbox_t *ks;
    size_t n = 0;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    n += ks->pool == pool && ks->pub.state == state;
    return n;
}

static bool has_shape(const kit_pool_t *pool, const char *image, uint64_t disk_bytes, const char *network)
{
    return pool->disk_bytes == disk_bytes && strcmp(pool->image, image) == 0 && strcmp(pool->network, network) == 0;
}

kit_pool_t *kit_pool_find(provider_t *p, const char *image, uint64_t disk_bytes, const char *network)
{
    kit_pool_t *pool;
    TAILQ_FOREACH(pool, &p->pools, entry)
    if (has_shape(pool, image, disk_bytes, network))
        return pool;
    return NULL;
}

void kit_pool_free(provider_t *p, kit_pool_t *pool)
{
    TAILQ_REMOVE(&p->pools, pool, entry);
    free(pool->image);
    free(pool->network);
    free(pool);
}

/* ---- filling ---- */

static void fill_later(provider_t *p, uint32_t ms)
{
    struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    if (p->pool_timer)
        evtimer_add(p->pool_timer, &delay);
}

static void failed(kit_pool_t *pool, const char *reason)
{
    pool->delay_ms = pool->delay_ms == 0 ? KIT_POOL_RETRY_MIN_MS : pool->delay_ms * 2;
    if (pool->delay_ms > KIT_POOL_RETRY_MAX_MS)
        pool->delay_ms = KIT_POOL_RETRY_MAX_MS;
    pool->retry_ms = clock_monotonic_ms() + pool->delay_ms;
    if (strncmp(pool->message, reason, sizeof pool->message - 1) != 0)
        log_warn("the warm pool of image %s cannot be filled: %s", pool->image, reason);
    snprintf(pool->message, sizeof pool->message, "%s", reason);
}

static bool make_one(provider_t *p, kit_pool_t *pool)
{
    struct sandbox_create_request request = {.image = pool->image,
                                             .cpu_milli = pool->cpu_milli,
                                             .memory_bytes = pool->memory_bytes,
                                             .disk_bytes = pool->disk_bytes,
                                             .pids_max = pool->pids_max,
                                             .network = pool->network};
    auto_err err_t *e = NULL;
    uuid16_t id;
    random_bytes(&id, sizeof id);
    kit_sandbox_t *ks = kit_create_begin(p, &id, &request, &e);
    if (!ks) {
        failed(pool, err_message(e));
        return false;
    }
    ks->pool = pool;
    kit_create(ks);
    return true;
}

static size_t making(const provider_t *p)
{
    const kit_pool_t *pool;
    size_t n = 0;
    TAILQ_FOREACH(pool, &p->pools, entry)
    n += kit_pool_count(p, pool, SANDBOX_CREATING);
    return n;
}

/* Room for one more beside what users have running. */
static bool has_room(const provider_t *p)
{
    int64_t max = p->daemon->config.max_sandboxes;
    const kit_sandbox_t *ks;
    size_t n = 0;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    n += ks->pub.state != SANDBOX_STOPPED;
    return max == 0 || n < (size_t)max;
}

static kit_pool_t *pool_to_fill(provider_t *p, uint64_t now)
{
    kit_pool_t *pool;
    TAILQ_FOREACH(pool, &p->pools, entry)
    if (pool->retry_ms <= now &&
        kit_pool_count(p, pool, SANDBOX_WARM) + kit_pool_count(p, pool, SANDBOX_CREATING) < pool->size)
        return pool;
    return NULL;
}

static bool is_stale(kit_sandbox_t *ks)
{
    const provider_ops_t *ops = ks->pub.provider->ops;
    return !ks->pub.stream || !stream_is_ready(ks->pub.stream) || (ops->is_current && !ops->is_current(&ks->pub));
}

/* The newest of a pool that has too many. */
static kit_sandbox_t *surplus(const provider_t *p, const kit_pool_t *pool)
{
    kit_sandbox_t *ks;
    if (kit_pool_count(p, pool, SANDBOX_WARM) <= pool->size)
        return NULL;
    TAILQ_FOREACH_REVERSE(ks, &p->sandboxes, kit_sandbox_list, entry)
    if (ks->pool == pool && ks->pub.state == SANDBOX_WARM)
        return ks;
    return NULL;
}

static void drop(kit_sandbox_t *ks, const char *why)
{
    kit_log(ks, LOG_LEVEL_INFO, "a warm sandbox is given up", why);
    kit_destroy(ks);
}

static void sweep(provider_t *p)
{
    kit_pool_t *pool, *next;
    kit_sandbox_t *ks;
    for (pool = TAILQ_FIRST(&p->pools); pool; pool = next) {
        next = TAILQ_NEXT(pool, entry);
        while ((ks = surplus(p, pool)))
            drop(ks, "the pool has enough");
        bool is_used = false;
        TAILQ_FOREACH(ks, &p->sandboxes, entry)
        is_used |= ks->pool == pool;
        if (pool->size == 0 && !is_used)
            kit_pool_free(p, pool);
    }
}

static size_t making_max(void)
{
    int cpus = get_nprocs();
    return cpus < 2 ? 1 : cpus > KIT_POOL_MAKING_MAX ? KIT_POOL_MAKING_MAX : (size_t)cpus;
}

void kit_pool_fill(provider_t *p)
{
    kit_pool_t *pool;
    sweep(p);
    if (p->is_draining || p->is_drained || !p->ops->apply_limits || p->probed_ms == 0 || !p->ops->status(p)->healthy)
        return;
    while (making(p) < making_max() && has_room(p) && (pool = pool_to_fill(p, clock_monotonic_ms())))
        if (!make_one(p, pool))
            continue; /* its retry_ms keeps it out of the next round */
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    kit_pool_fill(arg);
}

void kit_pool_made(kit_sandbox_t *ks)
{
    auto_err err_t *e = NULL;
    ks->pub.state = SANDBOX_WARM;
    /* Not all of a pool at one moment. */
    uint32_t spread;
    random_bytes(&spread, sizeof spread);
    ks->checked_ms = clock_monotonic_ms() - spread % KIT_POOL_CHECK_MS;
    ks->pool->delay_ms = 0;
    ks->pool->message[0] = '\0';
    if (kit_registry_save(ks, &e) < 0) {
        failed(ks->pool, err_message(e));
        kit_destroy(ks);
        return;
    }
    kit_log(ks, LOG_LEVEL_INFO, "warm", NULL);
    kit_pool_fill(ks->pub.provider);
}

void kit_pool_failed(kit_sandbox_t *ks, const err_t *err)
{
    if (ks->pub.state != SANDBOX_DESTROYING)
        failed(ks->pool, err_message(err));
}

/* ---- are they alive? ---- */

static void on_checked(kit_sandbox_t *ks, void *arg, const uint8_t *body, size_t len, bool is_error)
{
    (void)arg;
    (void)body;
    (void)len;
    ks->is_checking = false;
    if (is_error && ks->pub.state == SANDBOX_WARM)
        drop(ks, "its agent answers with an error");
}

static void check(kit_sandbox_t *ks, uint64_t now)
{
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    struct agent_stats_request request = {0};
    if (now - ks->checked_ms < KIT_POOL_CHECK_MS)
        return;
    if (is_stale(ks) || ks->is_checking) {
        drop(ks, ks->is_checking ? "its agent does not answer" : "one would be made otherwise now");
        return;
    }
    ks->checked_ms = now;
    ks->is_checking = proto_encode(MSG_agent_stats_request, &request, &body, &e) == 0 &&
                      kit_relay_call(ks, VERB_agent_stats, body.data, body.len, on_checked, NULL);
    if (!ks->is_checking)
        drop(ks, "its agent takes no call");
}

void kit_pool_tick(provider_t *p)
{
    uint64_t now = clock_monotonic_ms();
    kit_sandbox_t *ks, *next;
    if (TAILQ_EMPTY(&p->pools))
        return;
    for (ks = TAILQ_FIRST(&p->sandboxes); ks; ks = next) {
        next = TAILQ_NEXT(ks, entry);
        if (ks->pub.state == SANDBOX_WARM)
            check(ks, now);
    }
    if (!evtimer_pending(p->pool_timer, NULL))
        kit_pool_fill(p);
}

/* ---- claims ---- */

void kit_pool_claim_failed(kit_sandbox_t *ks, const err_t *err)
{
    provider_t *p = ks->pub.provider;
    sandbox_spec_t *spec = &ks->pub.spec;
    uuid16_t id = ks->pub.id, other;
    auto_err err_t *e = NULL;
    struct sandbox_create_request request = {.image = spec->image,
                                             .cpu_milli = spec->cpu_milli,
                                             .memory_bytes = spec->memory_bytes,
                                             .disk_bytes = spec->disk_bytes,
                                             .pids_max = spec->pids_max,
                                             .network = spec->network};
    kit_log(ks, LOG_LEVEL_WARN, "a warm sandbox cannot be used, a cold one is made", err_message(err));
    ks->was_warm = false;
    random_bytes(&other, sizeof other);
    kit_sandbox_set_id(ks, &other);
    ks->pool = kit_pool_find(p, spec->image, spec->disk_bytes, spec->network); /* it takes no user's room any more */
    kit_sandbox_t *cold = kit_create_begin(p, &id, &request, &e);
    if (cold) {
        json_decref(cold->pub.spec.env);
        json_decref(cold->pub.spec.labels);
        cold->pub.spec.env = STEAL_PTR(spec->env);
        cold->pub.spec.labels = STEAL_PTR(spec->labels);
        STAILQ_CONCAT(&cold->create_waiters, &ks->create_waiters);
        if (kit_registry_save(cold, &e) < 0)
            kit_fail_create(cold, e);
        else
            kit_create(cold);
    } else {
        kit_waiters_error(p, &ks->create_waiters, e);
    }
    kit_destroy(ks);
}

static void on_claim_opened(kit_sandbox_t *ks, const char *failure)
{
    auto_err err_t *e = NULL;
    if (!failure) {
        kit_configure(ks, true, kit_create_configured);
        return;
    }
    err_set(&e, ERR_SANDBOX_FAILED, "the warm sandbox could not be taken over: %s", failure);
    kit_fail_create(ks, e);
}

static void take_spec(kit_sandbox_t *ks, const struct sandbox_create_request *request)
{
    sandbox_spec_t *spec = &ks->pub.spec;
    spec->cpu_milli = request->cpu_milli;
    spec->memory_bytes = request->memory_bytes;
    spec->pids_max = kit_pids_max(ks->pub.provider, request);
    json_decref(spec->env);
    json_decref(spec->labels);
    spec->env = kit_map_to_json(&request->env);
    spec->labels = kit_map_to_json(&request->labels);
}

static kit_sandbox_t *oldest_warm(provider_t *p, const kit_pool_t *pool)
{
    kit_sandbox_t *ks;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    if (ks->pool == pool && ks->pub.state == SANDBOX_WARM && !is_stale(ks))
        return ks;
    return NULL;
}

/* What is kept of one that did not take its new limits is nothing. */
static kit_sandbox_t *take(provider_t *p, kit_pool_t *pool, const struct sandbox_create_request *request)
{
    for (kit_sandbox_t *ks; (ks = oldest_warm(p, pool));) {
        auto_err err_t *e = NULL;
        take_spec(ks, request);
        if (p->ops->apply_limits(&ks->pub, &e) == 0)
            return ks;
        drop(ks, err_message(e));
    }
    return NULL;
}

kit_sandbox_t *kit_pool_claim(kit_peer_t *kp, const envelope_t *env, const struct sandbox_create_request *request)
{
    provider_t *p = kp->provider;
    auto_err err_t *e = NULL;
    const char *image = request->image && *request->image ? request->image : p->daemon->config.default_image;
    if (!request->use_warm || (request->snapshot_id && *request->snapshot_id) || !p->ops->apply_limits)
        return NULL;
    kit_pool_t *pool = kit_pool_find(p, image, request->disk_bytes, request->network);
    if (!pool || pool->size == 0) {
        p->pool_misses_other++;
        return NULL;
    }
    kit_sandbox_t *ks = take(p, pool, request);
    if (!ks) {
        pool->misses++;
        fill_later(p, KIT_POOL_FILL_MS);
        return NULL;
    }
    pool->hits++;
    ks->pool = NULL;
    ks->was_warm = true;
    ks->is_checking = false;
    ks->created_at_ms = clock_realtime_ms();
    ks->started_ms = ks->made_ms = clock_monotonic_ms();
    json_object_set_new(ks->pub.private_, "phases", json_object());
    kit_sandbox_set_id(ks, &env->sandbox);
    ks->pub.state = SANDBOX_CREATING; /* in memory: on disk it is warm until it is ready */
    kit_waiter_add(&ks->create_waiters, kp, env);
    err_set(&e, ERR_CANCELLED, "the sandbox is claimed");
    kit_line_close(ks, e); /* a check may be under way */
    err_free(&e);
    e = NULL;
    if (kit_line_open(ks, on_claim_opened, KIT_CLAIM_MS, &e) < 0)
        kit_fail_create(ks, e);
    fill_later(p, KIT_POOL_FILL_MS);
    return ks;
}

/* ---- start and end ---- */

void kit_pools_init(provider_t *p)
{
    TAILQ_INIT(&p->pools);
    p->pool_timer = evtimer_new(p->daemon->base, on_timer, p);
}

void kit_pools_free(provider_t *p)
{
    if (p->pool_timer)
        event_free(p->pool_timer);
    for (kit_pool_t *pool; (pool = TAILQ_FIRST(&p->pools));)
        kit_pool_free(p, pool);
}
