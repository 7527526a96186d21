/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/mem.h"

static bool has_user_namespace(const kit_sandbox_t *ks)
{
    const char *isolation = json_string_value(json_object_get(ks->pub.private_, "isolation"));
    return isolation && strstr(isolation, "user namespace");
}

static int encode_pools(provider_t *p, buf_t *out, uint32_t *number, err_t **e)
{
    kit_pool_t *pool;
    *number = 0;
    TAILQ_FOREACH(pool, &p->pools, entry)
    {
        const kit_sandbox_t *ks, *one = NULL;
        TAILQ_FOREACH(ks, &p->sandboxes, entry)
        if (ks->pool == pool && ks->pub.state == SANDBOX_WARM)
            one = ks;
        struct pool_status status = {.image = pool->image,
                                     .disk_bytes = pool->disk_bytes,
                                     .network = pool->network,
                                     .has_user_namespace = one && has_user_namespace(one),
                                     .size = pool->size,
                                     .ready = (uint32_t)kit_pool_count(p, pool, SANDBOX_WARM),
                                     .making = (uint32_t)kit_pool_count(p, pool, SANDBOX_CREATING),
                                     .hits = pool->hits,
                                     .misses = pool->misses,
                                     .message = pool->message[0] ? pool->message : NULL};
        if (pool->size == 0)
            continue;
        if (proto_list_add_msg(out, MSG_pool_status, &status, e) < 0)
            return -1;
        (*number)++;
    }
    return 0;
}

int kit_pools_status(provider_t *p, struct provider_status *status, buf_t *storage, err_t **e)
{
    uint32_t number;
    if (encode_pools(p, storage, &number, e) < 0)
        return -1;
    status->pools = proto_list_of(number, storage);
    status->pool_misses_other = p->pool_misses_other;
    return 0;
}

void kit_verb_pool_list(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    (void)msg;
    auto_buf buf_t list = {0};
    auto_err err_t *e = NULL;
    uint32_t number;
    if (encode_pools(kp->provider, &list, &number, &e) < 0) {
        kit_send_error(kp, env, e);
        return;
    }
    struct pool_list_reply reply = {.pools = proto_list_of(number, &list)};
    kit_reply(kp, env, MSG_pool_list_reply, &reply);
}

/* Those that are given up and wait for the end of their sandboxes do not count. */
static size_t pools_in_use(const provider_t *p)
{
    const kit_pool_t *pool;
    size_t n = 0;
    TAILQ_FOREACH(pool, &p->pools, entry)
    n += pool->size > 0;
    return n;
}

static int take_target(provider_t *p, const struct pool_target *target, err_t **e)
{
    const char *image = target->image && *target->image ? target->image : p->daemon->config.default_image;
    kit_pool_t *pool = kit_pool_find(p, image, target->disk_bytes, target->network);
    if (!(pool && pool->size > 0) && pools_in_use(p) >= KIT_POOLS_MAX)
        return err_set(e, ERR_LIMIT_REACHED, "a daemon has at most %d warm pools", KIT_POOLS_MAX);
    if (!pool) {
        pool = mem_alloc(sizeof *pool);
        pool->image = mem_strdup(image);
        pool->network = mem_strdup(target->network);
        pool->disk_bytes = target->disk_bytes;
        TAILQ_INSERT_TAIL(&p->pools, pool, entry);
    }
    pool->size = target->size;
    pool->memory_bytes = target->memory_bytes;
    pool->cpu_milli = target->cpu_milli;
    pool->pids_max = target->pids_max;
    pool->retry_ms = pool->delay_ms = 0;
    return 0;
}

void kit_verb_pool_set(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    const struct pool_set_request *request = msg;
    provider_t *p = kp->provider;
    auto_err err_t *e = NULL;
    kit_pool_t *pool;
    if (!p->ops->apply_limits) {
        kit_send_error_code(kp, env, ERR_VALIDATION, "provider %s cannot make sandboxes ahead", p->ops->name);
        return;
    }
    TAILQ_FOREACH(pool, &p->pools, entry)
    pool->size = 0;
    proto_iter_t it = proto_iter(&request->pools);
    for (proto_nested_t nested; proto_iter_msg(&it, &nested);) {
        struct pool_target target;
        if (proto_decode(MSG_pool_target, &target, nested.bytes, nested.len, &e) < 0 ||
            take_target(p, &target, &e) < 0) {
            kit_send_error(kp, env, e);
            return;
        }
    }
    kit_pool_fill(p);
    kit_verb_pool_list(kp, env, msg);
}

static bool has_warm(const provider_t *p)
{
    const kit_sandbox_t *ks;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    if (ks->pool)
        return true;
    return false;
}

void kit_pools_give_up(provider_t *p)
{
    kit_pool_t *pool;
    kit_sandbox_t *ks, *next;
    TAILQ_FOREACH(pool, &p->pools, entry)
    pool->size = 0;
    for (ks = TAILQ_FIRST(&p->sandboxes); ks; ks = next) {
        next = TAILQ_NEXT(ks, entry);
        if (ks->pool)
            kit_destroy(ks);
    }
}

void provider_drain_pools(provider_t *p)
{
    uint64_t until = clock_monotonic_ms() + KIT_POOL_DRAIN_MS;
    kit_pools_give_up(p);
    /* The tick wakes the loop. */
    while (has_warm(p) && clock_monotonic_ms() < until && event_base_loop(p->daemon->base, EVLOOP_ONCE) == 0)
        ;
}
