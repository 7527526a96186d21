/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"

void kit_log(const kit_sandbox_t *ks, enum log_level level, const char *what, const char *detail)
{
    log_ctx_t ctx = {.sandbox = ks->pub.id_text};
    log_write(level, &ctx, "%s%s%s", what, detail ? ": " : "", detail ? detail : "");
}

void kit_save(kit_sandbox_t *ks)
{
    auto_err err_t *e = NULL;
    if (kit_registry_save(ks, &e) < 0)
        kit_log(ks, LOG_LEVEL_ERROR, "its state cannot be saved", err_message(e));
}

/* ---- who waits ---- */

void kit_waiter_add(struct kit_waiter_list *list, const kit_peer_t *kp, const envelope_t *env)
{
    kit_waiter_t *w = mem_alloc(sizeof *w);
    w->peer_serial = kp->serial;
    w->env = *env;
    STAILQ_INSERT_TAIL(list, w, entry);
}

void kit_waiters_error(provider_t *p, struct kit_waiter_list *list, const err_t *err)
{
    for (kit_waiter_t *w; (w = STAILQ_FIRST(list));) {
        STAILQ_REMOVE_HEAD(list, entry);
        kit_peer_t *kp = kit_peer_by_serial(p, w->peer_serial);
        if (kp)
            kit_send_error(kp, &w->env, err);
        free(w);
    }
}

void kit_waiters_reply(provider_t *p, struct kit_waiter_list *list, unsigned msg_id, const void *msg)
{
    for (kit_waiter_t *w; (w = STAILQ_FIRST(list));) {
        STAILQ_REMOVE_HEAD(list, entry);
        kit_peer_t *kp = kit_peer_by_serial(p, w->peer_serial);
        if (kp)
            kit_reply(kp, &w->env, msg_id, msg);
        free(w);
    }
}

/* ---- create ---- */

static void origin_release(kit_sandbox_t *ks)
{
    if (ks->origin)
        ks->origin->users--;
    ks->origin = NULL;
}

void kit_fail_create(kit_sandbox_t *ks, const err_t *err)
{
    if (ks->was_warm && ks->pub.state == SANDBOX_CREATING) {
        kit_pool_claim_failed(ks, err);
        return;
    }
    kit_log(ks, LOG_LEVEL_WARN, "create failed", err_message(err));
    if (ks->pool)
        kit_pool_failed(ks, err);
    kit_waiters_error(ks->pub.provider, &ks->create_waiters, err);
    kit_destroy(ks);
}

static void create_end(kit_sandbox_t *ks)
{
    uint64_t now = clock_monotonic_ms();
    auto_err err_t *e = NULL;
    if (ks->pool) {
        kit_pool_made(ks);
        return;
    }
    ks->pub.state = SANDBOX_READY;
    ks->total_ms = (uint32_t)(now - ks->started_ms);
    json_object_set_new(json_object_get(ks->pub.private_, "phases"), "agent_ms",
                        json_integer((json_int_t)(now - ks->made_ms)));
    if (kit_registry_save(ks, &e) < 0) {
        kit_fail_create(ks, e);
        return;
    }
    kit_log(ks, LOG_LEVEL_INFO, "ready", NULL);
    kit_reply_created(ks);
    kit_event(ks, "ready", NULL);
}

void kit_create_configured(kit_sandbox_t *ks, const err_t *err)
{
    if (err)
        kit_fail_create(ks, err);
    else
        create_end(ks);
}

static void on_create_opened(kit_sandbox_t *ks, const char *failure)
{
    auto_err err_t *e = NULL;
    bool is_copy = ks->origin != NULL;
    origin_release(ks);
    if (failure) {
        err_set(&e, ERR_SANDBOX_FAILED, "the sandbox was started but %s", failure);
        kit_fail_create(ks, e);
    } else {
        kit_configure(ks, is_copy, kit_create_configured);
    }
}

static void on_made(void *arg, const err_t *err)
{
    kit_sandbox_t *ks = arg;
    auto_err err_t *e = NULL;
    ks->op = KIT_OP_NONE;
    ks->made_ms = clock_monotonic_ms();
    if (ks->is_destroy_wanted) {
        err_set(&e, ERR_CANCELLED, "the sandbox was destroyed while it was made");
        kit_waiters_error(ks->pub.provider, &ks->create_waiters, e);
        kit_destroy(ks);
        return;
    }
    if (!err && ks->died)
        err_set(&e, ERR_SANDBOX_FAILED, "the sandbox ended before its agent answered: %s", ks->died);
    else if (!err)
        kit_line_open(ks, on_create_opened, 0, &e);
    if (err || e)
        kit_fail_create(ks, err ? err : e);
}

void kit_create(kit_sandbox_t *ks)
{
    const provider_ops_t *ops = ks->pub.provider->ops;
    ks->started_ms = clock_monotonic_ms();
    ks->op = KIT_OP_CREATE;
    if (ks->origin)
        ops->create_from(&ks->pub, &ks->origin->pub, on_made, ks);
    else
        ops->create(&ks->pub, on_made, ks);
}

/* ---- destroy ---- */

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    kit_destroy(arg);
}

static void retry_later(kit_sandbox_t *ks)
{
    struct timeval tv = {.tv_sec = KIT_DESTROY_RETRY_MS / 1000};
    if (!ks->retry_timer)
        ks->retry_timer = evtimer_new(ks->pub.provider->daemon->base, on_retry, ks);
    evtimer_add(ks->retry_timer, &tv);
}

static void on_destroyed(void *arg, const err_t *err)
{
    kit_sandbox_t *ks = arg;
    provider_t *p = ks->pub.provider;
    ks->op = KIT_OP_NONE;
    auto_err err_t *e = NULL;
    if (!err && dir_remove(ks->pub.dir, &e) < 0)
        err = e;
    if (err) {
        kit_log(ks, LOG_LEVEL_ERROR, "destroy failed, it is tried again", err_message(err));
        kit_waiters_error(p, &ks->destroy_waiters, err);
        retry_later(ks);
        return;
    }
    kit_log(ks, LOG_LEVEL_INFO, "destroyed", NULL);
    struct empty nothing = {0};
    kit_waiters_reply(p, &ks->destroy_waiters, MSG_empty, &nothing);
    kit_sandbox_free(ks);
    kit_status_push(p);
    kit_restart_pump(p);
}

void kit_destroy(kit_sandbox_t *ks)
{
    provider_t *p = ks->pub.provider;
    auto_err err_t *e = NULL;
    kit_grace_stop(ks);
    if (ks->pub.state != SANDBOX_DESTROYING) {
        ks->pub.state = SANDBOX_DESTROYING;
        ks->is_restart_queued = false;
        kit_restart_stop(ks);
        kit_save(ks);
    }
    if (ks->op == KIT_OP_DESTROY)
        return;
    if (ks->op != KIT_OP_NONE) {
        ks->is_destroy_wanted = true;
        return;
    }
    err_set(&e, ERR_SANDBOX_FAILED, "sandbox '%s' was destroyed during the call", ks->pub.id_text);
    if (ks->snapshot)
        kit_snapshot_interrupt(ks, e);
    origin_release(ks);
    kit_line_close(ks, e);
    kit_waiters_error(p, &ks->create_waiters, e);
    kit_waiters_error(p, &ks->stop_waiters, e);
    kit_waiters_error(p, &ks->resume_waiters, e);
    ks->op = KIT_OP_DESTROY;
    p->ops->destroy(&ks->pub, on_destroyed, ks);
}

bool kit_op_ended(kit_sandbox_t *ks)
{
    ks->op = KIT_OP_NONE;
    if (!ks->is_destroy_wanted)
        return false;
    kit_destroy(ks);
    return true;
}

/* ---- after a restart of the daemon ---- */

static void on_adopted(kit_sandbox_t *ks, const char *failure)
{
    if (failure) {
        kit_died(ks, failure);
        return;
    }
    ks->is_adopting = false;
    kit_log(ks, LOG_LEVEL_INFO, "adopted", NULL);
    kit_save(ks); /* the epoch */
    kit_links_open_if_adopted(ks->pub.provider);
}

void kit_adopt_ready(kit_sandbox_t *ks)
{
    auto_err err_t *e = NULL;
    ks->is_adopting = true;
    if (ks->pub.provider->ops->adopt(&ks->pub, &e) < 0 || kit_line_open(ks, on_adopted, KIT_ADOPT_TIMEOUT_MS, &e) < 0)
        kit_died(ks, err_message(e));
    else
        kit_save(ks);
}

/* ---- what the provider tells ---- */

void provider_sandbox_died(sandbox_t *s, const char *reason)
{
    kit_sandbox_t *ks = (kit_sandbox_t *)s;
    if (ks->op == KIT_OP_CREATE)
        return; /* create fails by itself and says more */
    kit_line_lost(ks, reason);
}

void provider_sandbox_event(sandbox_t *s, const char *type, const char *reason)
{
    kit_event((kit_sandbox_t *)s, type, reason);
}

int provider_sandbox_save(sandbox_t *s, err_t **e)
{
    return kit_registry_save((kit_sandbox_t *)s, e);
}
