/* SPDX-License-Identifier: Apache-2.0
 *
 * The line to one sandbox's agent: its stream is opened, made quiet, lost. Whoever opened or quieted it hears once how
 * that went; after that a broken line means that the sandbox is lost.
 */
#include "common/provider/kit.h"

#include "common/mem.h"
#include "common/text.h"

#include <stdio.h>

#define PROGRAMS_MAX 8192

static void programs_take(kit_sandbox_t *ks, const struct adopt *adopt)
{
    buf_free(&ks->programs);
    buf_init(&ks->programs, PROGRAMS_MAX);
    ks->program_count = 0;
    proto_iter_t it = proto_iter(&adopt->programs);
    for (const char *s; proto_iter_str(&it, &s) && strlen(s) < 64;) {
        proto_list_add_str(&ks->programs, s);
        ks->program_count++;
    }
}

static void on_stream_ready(void *arg, const struct adopt *adopt)
{
    kit_sandbox_t *ks = arg;
    programs_take(ks, adopt);
    ks->is_stalled = false;
    if (ks->held > 0)
        stream_pause(ks->pub.stream, true);
    kit_opened_fn fn = STEAL_PTR(ks->on_opened);
    if (fn)
        fn(ks, NULL);
}

static void on_stream_frame(void *arg, const envelope_t *env, const uint8_t *body, size_t len)
{
    kit_sandbox_t *ks = arg;
    if (env->kind == ENVELOPE_KIND_QUIESCED) {
        kit_quiesced(ks);
        return;
    }
    kit_relay_up(ks, env, body, len);
}

static void on_stream_writable(void *arg)
{
    kit_relay_flush(arg);
}

static void on_stream_broken(void *arg, const char *reason)
{
    char text[300];
    snprintf(text, sizeof text, "its agent cannot be talked to: %s", reason);
    kit_line_lost(arg, text);
}

static const stream_events_t STREAM_EVENTS = {.on_ready = on_stream_ready,
                                              .on_frame = on_stream_frame,
                                              .on_writable = on_stream_writable,
                                              .on_broken = on_stream_broken};

/* Who it is, for RESYNC; machine_id is where that is written. */
static stream_identity_t identity_next(kit_sandbox_t *ks, char machine_id[33])
{
    ks->epoch++;
    hex_encode(machine_id, ks->pub.id.bytes, sizeof ks->pub.id.bytes);
    return (stream_identity_t){.sandbox = ks->pub.id,
                               .epoch = ks->epoch,
                               .machine_id = machine_id,
                               .hostname = ks->pub.id_text,
                               .pids_max = ks->pub.spec.pids_max,
                               .memory_budget_bytes = ks->pub.spec.memory_bytes};
}

int kit_line_open(kit_sandbox_t *ks, kit_opened_fn fn, uint32_t timeout_ms, err_t **e)
{
    provider_t *p = ks->pub.provider;
    char machine_id[33];
    int fd_in = -1, fd_out = -1;
    stream_destroy(&ks->pub.stream);
    if (p->ops->open_stream(&ks->pub, &fd_in, &fd_out, e) < 0)
        return -1;
    stream_identity_t identity = identity_next(ks, machine_id);
    ks->pub.stream = stream_open(p->daemon->base, fd_in, fd_out, &identity, timeout_ms, &STREAM_EVENTS, ks, e);
    if (!ks->pub.stream)
        return -1;
    ks->on_opened = fn;
    return 0;
}

int kit_line_go_on(kit_sandbox_t *ks, kit_opened_fn fn, err_t **e)
{
    char machine_id[33];
    if (!ks->pub.stream || !stream_is_quiesced(ks->pub.stream))
        return kit_line_open(ks, fn, KIT_ADOPT_TIMEOUT_MS, e);
    stream_identity_t identity = identity_next(ks, machine_id);
    if (stream_resync(ks->pub.stream, &identity, KIT_ADOPT_TIMEOUT_MS, e) < 0)
        return -1;
    ks->on_opened = fn;
    return 0;
}

void kit_line_close(kit_sandbox_t *ks, const err_t *err)
{
    stream_destroy(&ks->pub.stream);
    kit_line_timers_free(ks);
    ks->on_opened = NULL;
    ks->on_quiesced = NULL;
    ks->is_stalled = false;
    kit_configure_stop(ks);
    kit_peer_t *kp;
    TAILQ_FOREACH(kp, &ks->pub.provider->peers, entry)
    kit_outbox_forget(kp, ks);
    kit_relay_fail_all(ks, err);
}

static void quiesce_end(kit_sandbox_t *ks, bool is_quiet)
{
    kit_quiesced_fn fn = STEAL_PTR(ks->on_quiesced);
    if (ks->quiesce_timer)
        evtimer_del(ks->quiesce_timer);
    if (fn)
        fn(ks, is_quiet);
}

void kit_line_lost(kit_sandbox_t *ks, const char *reason)
{
    auto_free char *why = mem_strdup(reason); /* it may be the stream's own */
    stream_destroy(&ks->pub.stream);
    kit_opened_fn on_opened = STEAL_PTR(ks->on_opened);
    if (on_opened) {
        on_opened(ks, why);
    } else if (ks->on_configured) {
        kit_configure_lost(ks, why);
    } else if (ks->on_quiesced || ks->op != KIT_OP_NONE) {
        free(ks->died);
        ks->died = STEAL_PTR(why);
        quiesce_end(ks, false);
    } else if (ks->pub.state == SANDBOX_CREATING) {
        auto_err err_t *e = NULL;
        err_set(&e, ERR_SANDBOX_FAILED, "the sandbox was started but %s", why);
        kit_fail_create(ks, e);
    } else if (ks->pub.state == SANDBOX_READY) {
        kit_died(ks, why);
    } else if (ks->pub.state == SANDBOX_WARM) {
        kit_log(ks, LOG_LEVEL_INFO, "a warm sandbox has ended", why);
        kit_destroy(ks);
    }
}

/* ---- quiet ---- */

static void on_quiesce_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    quiesce_end(arg, false);
}

void kit_quiesced(kit_sandbox_t *ks)
{
    quiesce_end(ks, true);
}

void kit_quiesce(kit_sandbox_t *ks, kit_quiesced_fn fn)
{
    struct timeval wait = {.tv_sec = KIT_QUIESCE_MS / 1000};
    ks->on_quiesced = fn;
    ks->is_stalled = true;
    free(STEAL_PTR(ks->died));
    /* The stream's own limit is longer: it would be the end of the line. */
    if (!ks->pub.stream || !stream_quiesce(ks->pub.stream, 2 * KIT_QUIESCE_MS))
        wait.tv_sec = 0;
    if (!ks->quiesce_timer)
        ks->quiesce_timer = evtimer_new(ks->pub.provider->daemon->base, on_quiesce_timer, ks);
    evtimer_add(ks->quiesce_timer, &wait);
}

void kit_line_timers_free(kit_sandbox_t *ks)
{
    if (ks->quiesce_timer)
        event_free(ks->quiesce_timer);
    ks->quiesce_timer = NULL;
}
