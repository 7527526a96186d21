/* SPDX-License-Identifier: Apache-2.0
 *
 * A sandbox that ended by itself (its memory ran out, the host was rebooted) comes back with its files. One that keeps
 * ending stays dead: something in it does that.
 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/mem.h"

#define WARNING_MAX 1000
#define PHASES_MAX 2000

/* ---- what its user should know ---- */

void kit_warnings_begin(kit_sandbox_t *ks)
{
    if (ks->are_warnings_told)
        json_array_clear(ks->warnings);
    ks->are_warnings_told = false;
}

static void warning_add(json_t *list, const char *text)
{
    auto_free char *cut = mem_strndup(text, WARNING_MAX);
    if (json_array_size(list) >= KIT_WARNINGS_MAX)
        return;
    json_t *value = json_string(cut);
    json_array_append_new(list, value ? value : json_string("a warning of the provider is not UTF-8"));
}

void provider_sandbox_warn(sandbox_t *s, const char *text)
{
    kit_sandbox_t *ks = (kit_sandbox_t *)s;
    kit_log(ks, LOG_LEVEL_WARN, "warning", text);
    if (ks->op == KIT_OP_SNAPSHOT && ks->snapshot) {
        warning_add(ks->snapshot->pub.warnings, text);
        return;
    }
    if (ks->op == KIT_OP_NONE && ks->are_warnings_told)
        kit_warnings_begin(ks); /* for the next operation */
    warning_add(ks->warnings, text);
}

static uint32_t list_add(buf_t *storage, const json_t *warnings, uint32_t count)
{
    size_t i;
    json_t *w;
    json_array_foreach(warnings, i, w)
    {
        if (!json_is_string(w) || count >= KIT_WARNINGS_MAX)
            continue;
        proto_list_add_str(storage, json_string_value(w));
        count++;
    }
    return count;
}

proto_list_t kit_warnings_list(const json_t *warnings, const json_t *facts, buf_t *storage)
{
    uint32_t count = list_add(storage, warnings, 0);
    if (facts)
        count = list_add(storage, json_object_get(facts, "warnings"), count);
    return proto_list_of(count, storage);
}

char *kit_phases(const kit_sandbox_t *ks, const char *key)
{
    const json_t *phases = json_object_get(ks->pub.private_, key);
    char *text = phases ? json_dumps(phases, JSON_COMPACT) : NULL;
    if (text && strlen(text) >= PHASES_MAX)
        free(STEAL_PTR(text));
    return text;
}

/* ---- the end, and a new beginning ---- */

void kit_mark_dead(kit_sandbox_t *ks, const char *reason)
{
    provider_t *p = ks->pub.provider;
    auto_err err_t *e = NULL;
    auto_free char *why = mem_strdup(reason);
    kit_log(ks, LOG_LEVEL_WARN, "the sandbox has ended", why);
    kit_grace_stop(ks);
    err_set(&e, ERR_SANDBOX_FAILED, "the sandbox ended during the call: %s", why);
    kit_line_close(ks, e);
    free(ks->pub.reason);
    ks->pub.reason = STEAL_PTR(why);
    ks->pub.state = SANDBOX_DEAD;
    ks->is_adopting = false;
    free(STEAL_PTR(ks->restart_reason));
    kit_save(ks);
    /* What no call can reach any more must not go on computing or talking to the network. */
    if (p->ops->end)
        p->ops->end(&ks->pub);
    kit_event(ks, "dead", ks->pub.reason);
    kit_links_open_if_adopted(p);
    kit_restart_pump(p);
}

/* Counts this death; true: there were not too many lately. */
static bool may_restart(kit_sandbox_t *ks)
{
    uint64_t now = clock_realtime_ms();
    for (size_t i = json_array_size(ks->deaths); i-- > 0;) {
        uint64_t at = (uint64_t)json_integer_value(json_array_get(ks->deaths, i));
        if (at > now || now - at > KIT_DEATHS_MS)
            json_array_remove(ks->deaths, i);
    }
    json_array_append_new(ks->deaths, json_integer((json_int_t)now));
    return ks->pub.provider->ops->resume && json_array_size(ks->deaths) < KIT_DEATHS_MAX;
}

void kit_died(kit_sandbox_t *ks, const char *reason)
{
    provider_t *p = ks->pub.provider;
    auto_err err_t *e = NULL;
    auto_free char *why = mem_strdup(reason);
    bool is_going = ks->grace_timer || !STAILQ_EMPTY(&ks->destroy_waiters);
    err_set(&e, ERR_SANDBOX_FAILED, "the sandbox ended during the call: %s", why);
    if (ks->snapshot)
        kit_snapshot_interrupt(ks, e);
    if (is_going) {
        kit_destroy(ks);
        return;
    }
    if (!may_restart(ks)) {
        kit_mark_dead(ks, why);
        return;
    }
    kit_log(ks, LOG_LEVEL_WARN, "the sandbox has ended and is started anew", why);
    kit_line_close(ks, e);
    ks->pub.state = SANDBOX_RESUMING;
    ks->pub.has_processes = false;
    ks->is_adopting = false;
    free(ks->restart_reason);
    ks->restart_reason = STEAL_PTR(why);
    ks->came_from = SANDBOX_DEAD;
    ks->restart_tries = 0;
    kit_save(ks);
    if (p->ops->end)
        p->ops->end(&ks->pub);
    kit_restart_queue(ks);
    kit_links_open_if_adopted(p);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    kit_restart_queue(arg);
}

void kit_restart_later(kit_sandbox_t *ks)
{
    struct timeval wait = {.tv_sec = ++ks->restart_tries};
    if (!ks->restart_timer)
        ks->restart_timer = evtimer_new(ks->pub.provider->daemon->base, on_later, ks);
    evtimer_add(ks->restart_timer, &wait);
}

void kit_restart_stop(kit_sandbox_t *ks)
{
    if (ks->restart_timer)
        event_free(ks->restart_timer);
    ks->restart_timer = NULL;
}

void kit_restart_queue(kit_sandbox_t *ks)
{
    ks->is_restart_queued = true;
    ks->came_from = SANDBOX_DEAD;
    kit_restart_pump(ks->pub.provider);
}

static size_t restarts_running(const provider_t *p)
{
    const kit_sandbox_t *ks;
    size_t n = 0;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    n += ks->pub.state == SANDBOX_RESUMING && ks->restart_reason && !ks->is_restart_queued;
    return n;
}

static kit_sandbox_t *restart_next(const provider_t *p)
{
    kit_sandbox_t *ks;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    if (ks->is_restart_queued && ks->op == KIT_OP_NONE)
        return ks;
    return NULL;
}

/* Not before the provider knows what works here, and somebody can be told. */
void kit_restart_pump(provider_t *p)
{
    kit_sandbox_t *ks;
    if (p->is_draining || p->is_drained || p->is_pumping || p->probed_ms == 0 || !p->are_links_open ||
        !p->ops->status(p)->healthy)
        return;
    p->is_pumping = true;
    while ((ks = restart_next(p)) && restarts_running(p) < KIT_RESTARTS_MAX) {
        ks->is_restart_queued = false;
        kit_warnings_begin(ks);
        kit_resume_run(ks);
    }
    p->is_pumping = false;
}
