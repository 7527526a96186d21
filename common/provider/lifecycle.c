/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <stdio.h>

#define PROGRAMS_MAX 8192

static void log_sandbox(enum log_level level, const kit_sandbox_t *ks, const char *what, const char *detail)
{
    log_ctx_t ctx = {.sandbox = ks->pub.id_text};
    log_write(level, &ctx, "%s%s%s", what, detail ? ": " : "", detail ? detail : "");
}

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

static void save_or_log(kit_sandbox_t *ks)
{
    auto_err err_t *e = NULL;
    if (kit_registry_save(ks, &e) < 0)
        log_sandbox(LOG_LEVEL_ERROR, ks, "its state cannot be saved", err_message(e));
}

static void fail_create(kit_sandbox_t *ks, const err_t *err)
{
    log_sandbox(LOG_LEVEL_WARN, ks, "create failed", err_message(err));
    kit_waiters_error(ks->pub.provider, &ks->create_waiters, err);
    kit_destroy(ks);
}

void kit_mark_dead(kit_sandbox_t *ks, const char *reason)
{
    log_sandbox(LOG_LEVEL_WARN, ks, "the sandbox has ended", reason);
    kit_grace_stop(ks);
    stream_destroy(&ks->pub.stream);
    ks->held = 0;
    kit_peer_t *kp;
    TAILQ_FOREACH(kp, &ks->pub.provider->peers, entry)
    kit_outbox_forget(kp, ks);
    auto_err err_t *e = NULL;
    err_set(&e, ERR_SANDBOX_FAILED, "the sandbox ended during the call: %s", reason);
    kit_relay_fail_all(ks, e);
    free(ks->pub.reason);
    ks->pub.reason = mem_strdup(reason);
    ks->pub.state = SANDBOX_DEAD;
    ks->is_adopting = false;
    save_or_log(ks);
    /* What no call can reach any more must not go on computing or talking to the network. */
    if (ks->pub.provider->ops->end)
        ks->pub.provider->ops->end(&ks->pub);
    kit_event(ks, "dead", reason);
    kit_links_open_if_adopted(ks->pub.provider);
}

static void on_stream_ready(void *arg, const struct adopt *adopt)
{
    kit_sandbox_t *ks = arg;
    buf_free(&ks->programs);
    buf_init(&ks->programs, PROGRAMS_MAX);
    ks->program_count = 0;
    proto_iter_t it = proto_iter(&adopt->programs);
    for (const char *s; proto_iter_str(&it, &s) && strlen(s) < 64;) {
        proto_list_add_str(&ks->programs, s);
        ks->program_count++;
    }
    if (ks->pub.state != SANDBOX_CREATING) {
        ks->is_adopting = false;
        log_sandbox(LOG_LEVEL_INFO, ks, "adopted", NULL);
        kit_links_open_if_adopted(ks->pub.provider);
        return;
    }
    ks->pub.state = SANDBOX_READY;
    uint64_t now = clock_monotonic_ms();
    ks->total_ms = (uint32_t)(now - ks->started_ms);
    json_object_set_new(json_object_get(ks->pub.private_, "phases"), "agent_ms",
                        json_integer((json_int_t)(now - ks->made_ms)));
    auto_err err_t *e = NULL;
    if (kit_registry_save(ks, &e) < 0) {
        fail_create(ks, e);
        return;
    }
    log_sandbox(LOG_LEVEL_INFO, ks, "ready", NULL);
    kit_reply_created(ks);
    kit_event(ks, "ready", NULL);
}

static void on_stream_frame(void *arg, const envelope_t *env, const uint8_t *body, size_t len)
{
    kit_relay_up(arg, env, body, len);
}

static void on_stream_writable(void *arg)
{
    kit_relay_flush(arg);
}

static void on_stream_broken(void *arg, const char *reason)
{
    kit_sandbox_t *ks = arg;
    char text[300];
    snprintf(text, sizeof text, "its agent cannot be talked to: %s", reason);
    if (ks->pub.state == SANDBOX_CREATING) {
        auto_err err_t *e = NULL;
        err_set(&e, ERR_SANDBOX_FAILED, "the sandbox was started but %s", text);
        fail_create(ks, e);
    } else if (ks->pub.state == SANDBOX_READY) {
        kit_mark_dead(ks, text);
    } else {
        stream_destroy(&ks->pub.stream);
    }
}

static const stream_events_t STREAM_EVENTS = {.on_ready = on_stream_ready,
                                              .on_frame = on_stream_frame,
                                              .on_writable = on_stream_writable,
                                              .on_broken = on_stream_broken};

static int stream_start(kit_sandbox_t *ks, err_t **e)
{
    provider_t *p = ks->pub.provider;
    int fd_in = -1, fd_out = -1;
    if (p->ops->open_stream(&ks->pub, &fd_in, &fd_out, e) < 0)
        return -1;
    ks->epoch++;
    char machine_id[33];
    hex_encode(machine_id, ks->pub.id.bytes, sizeof ks->pub.id.bytes);
    stream_identity_t identity = {.sandbox = ks->pub.id,
                                  .epoch = ks->epoch,
                                  .machine_id = machine_id,
                                  .hostname = ks->pub.id_text,
                                  .pids_max = ks->pub.spec.pids_max,
                                  .memory_budget_bytes = ks->pub.spec.memory_bytes};
    ks->pub.stream = stream_open(p->daemon->base, fd_in, fd_out, &identity, ks->is_adopting ? KIT_ADOPT_TIMEOUT_MS : 0,
                                 &STREAM_EVENTS, ks, e);
    return ks->pub.stream ? 0 : -1;
}

static void on_made(void *arg, const err_t *err)
{
    kit_sandbox_t *ks = arg;
    ks->is_making = false;
    ks->made_ms = clock_monotonic_ms();
    if (err && !ks->is_destroy_wanted) {
        fail_create(ks, err);
        return;
    }
    auto_err err_t *e = NULL;
    if (ks->is_destroy_wanted) {
        err_set(&e, ERR_CANCELLED, "the sandbox was destroyed while it was made");
        kit_waiters_error(ks->pub.provider, &ks->create_waiters, e);
        kit_destroy(ks);
    } else if (stream_start(ks, &e) < 0) {
        fail_create(ks, e);
    }
}

void kit_create(kit_sandbox_t *ks)
{
    ks->started_ms = clock_monotonic_ms();
    ks->is_making = true;
    ks->pub.provider->ops->create(&ks->pub, on_made, ks);
}

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
    ks->is_destroy_running = false;
    auto_err err_t *e = NULL;
    if (!err && dir_remove(ks->pub.dir, &e) < 0)
        err = e;
    if (err) {
        log_sandbox(LOG_LEVEL_ERROR, ks, "destroy failed, it is tried again", err_message(err));
        kit_waiters_error(p, &ks->destroy_waiters, err);
        retry_later(ks);
        return;
    }
    log_sandbox(LOG_LEVEL_INFO, ks, "destroyed", NULL);
    struct empty nothing = {0};
    for (kit_waiter_t *w; (w = STAILQ_FIRST(&ks->destroy_waiters));) {
        STAILQ_REMOVE_HEAD(&ks->destroy_waiters, entry);
        kit_peer_t *kp = kit_peer_by_serial(p, w->peer_serial);
        if (kp)
            kit_reply(kp, &w->env, MSG_empty, &nothing);
        free(w);
    }
    kit_sandbox_free(ks);
    kit_status_push(p);
}

void kit_destroy(kit_sandbox_t *ks)
{
    kit_grace_stop(ks);
    if (ks->pub.state != SANDBOX_DESTROYING) {
        ks->pub.state = SANDBOX_DESTROYING;
        save_or_log(ks);
    }
    if (ks->is_making) {
        ks->is_destroy_wanted = true;
        return;
    }
    if (ks->is_destroy_running)
        return;
    stream_destroy(&ks->pub.stream);
    auto_err err_t *e = NULL;
    err_set(&e, ERR_SANDBOX_FAILED, "sandbox '%s' was destroyed during the call", ks->pub.id_text);
    kit_relay_fail_all(ks, e);
    kit_waiters_error(ks->pub.provider, &ks->create_waiters, e);
    ks->is_destroy_running = true;
    ks->pub.provider->ops->destroy(&ks->pub, on_destroyed, ks);
}

void kit_adopt(kit_sandbox_t *ks)
{
    auto_err err_t *e = NULL;
    switch (ks->pub.state) {
    case SANDBOX_CREATING:
    case SANDBOX_DESTROYING:
        log_sandbox(LOG_LEVEL_INFO, ks, "half made or half destroyed, removing it", NULL);
        kit_destroy(ks);
        break;
    case SANDBOX_READY:
        ks->is_adopting = true;
        if (ks->pub.provider->ops->adopt(&ks->pub, &e) < 0 || stream_start(ks, &e) < 0)
            kit_mark_dead(ks, err_message(e));
        else
            save_or_log(ks); /* the epoch */
        break;
    case SANDBOX_STOPPED:
    case SANDBOX_DEAD:
        break;
    }
}

void provider_sandbox_died(sandbox_t *s, const char *reason)
{
    kit_sandbox_t *ks = (kit_sandbox_t *)s;
    if (ks->is_making)
        return; /* create fails by itself and says more */
    if (s->state == SANDBOX_CREATING) {
        auto_err err_t *e = NULL;
        err_set(&e, ERR_SANDBOX_FAILED, "the sandbox ended before its agent answered: %s", reason);
        fail_create(ks, e);
    } else if (s->state == SANDBOX_READY) {
        kit_mark_dead(ks, reason);
    }
}

void provider_sandbox_event(sandbox_t *s, const char *type, const char *reason)
{
    kit_event((kit_sandbox_t *)s, type, reason);
}

int provider_sandbox_save(sandbox_t *s, err_t **e)
{
    return kit_registry_save((kit_sandbox_t *)s, e);
}
