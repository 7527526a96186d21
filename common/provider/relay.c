/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames pass undecoded. What the relay knows is which hub a call belongs to: a hub can touch its own calls only, and a
 * frame from a sandbox goes to the hub that asked, or nowhere.
 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#define BUCKETS_START 16
#define BUCKETS_MAX 2048

static struct kit_call_list *bucket(kit_sandbox_t *ks, uint64_t call_id)
{
    return &ks->calls[(call_id ^ (call_id >> 32)) & (ks->call_buckets - 1)];
}

static kit_call_t *call_find(kit_sandbox_t *ks, uint64_t call_id)
{
    kit_call_t *c;
    if (!ks->calls)
        return NULL;
    LIST_FOREACH(c, bucket(ks, call_id), entry)
    if (c->call_id == call_id)
        return c;
    return NULL;
}

static void buckets_grow(kit_sandbox_t *ks)
{
    size_t old_count = ks->call_buckets;
    struct kit_call_list *old = ks->calls;
    ks->call_buckets = old_count ? old_count * 4 : BUCKETS_START;
    ks->calls = mem_alloc_array(ks->call_buckets, sizeof *ks->calls);
    for (size_t i = 0; i < old_count; i++)
        for (kit_call_t *c; (c = LIST_FIRST(&old[i]));) {
            LIST_REMOVE(c, entry);
            LIST_INSERT_HEAD(bucket(ks, c->call_id), c, entry);
        }
    free(old);
}

static kit_call_t *call_add(kit_sandbox_t *ks, uint64_t call_id)
{
    if (!ks->calls || (ks->call_count > 2 * ks->call_buckets && ks->call_buckets < BUCKETS_MAX))
        buckets_grow(ks);
    kit_call_t *c = mem_alloc(sizeof *c);
    c->call_id = call_id;
    LIST_INSERT_HEAD(bucket(ks, call_id), c, entry);
    ks->call_count++;
    return c;
}

static void call_free(kit_sandbox_t *ks, kit_call_t *c)
{
    LIST_REMOVE(c, entry);
    ks->call_count--;
    if (c->internal_body) {
        buf_free(c->internal_body);
        free(c->internal_body);
    }
    free(c);
}

/* False: no room for it. While a snapshot is taken everything waits. */
static bool send_down(kit_sandbox_t *ks, const envelope_t *env, const void *body, size_t len)
{
    if (!ks->is_stalled && STAILQ_EMPTY(&ks->down) && stream_send(ks->pub.stream, env, body, len))
        return true;
    if (ks->down_bytes + len > KIT_DOWN_QUEUE_MAX)
        return false;
    kit_frame_t *f = kit_frame_new(env, body, len, NULL);
    STAILQ_INSERT_TAIL(&ks->down, f, entry);
    ks->down_bytes += sizeof *f + len;
    return true;
}

void kit_relay_flush(kit_sandbox_t *ks)
{
    for (kit_frame_t *f; ks->pub.stream && !ks->is_stalled && (f = STAILQ_FIRST(&ks->down));) {
        if (!stream_send(ks->pub.stream, &f->env, f->body, f->len))
            return;
        STAILQ_REMOVE_HEAD(&ks->down, entry);
        ks->down_bytes -= sizeof *f + f->len;
        free(f);
    }
}

static void send_cancel(kit_sandbox_t *ks, const kit_call_t *c)
{
    envelope_t env = {.kind = ENVELOPE_KIND_CANCEL, .call_id = c->call_id, .sandbox = ks->pub.id, .trace = c->trace};
    if (!send_down(ks, &env, NULL, 0))
        log_warn("sandbox %s does not take its frames; a cancel was dropped", ks->pub.id_text);
}

static void request_down(kit_sandbox_t *ks, kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len)
{
    kit_call_t *c = call_find(ks, env->call_id);
    bool is_new = !c;
    if (c && c->internal) {
        kit_send_error_code(kp, env, ERR_CONFLICT, "the call id is in use");
        return;
    }
    if (!c && (ks->call_count >= KIT_CALLS_MAX || (!ks->is_stalled && !STAILQ_EMPTY(&ks->down)))) {
        kit_send_error_code(kp, env, ERR_OVERLOADED, "sandbox %s has %zu calls in flight; retry when some have ended",
                            ks->pub.id_text, ks->call_count);
        return;
    }
    if (!c)
        c = call_add(ks, env->call_id);
    /* A repeated id may come over another hub, or the same one after its restart: the answer goes to who asked last. */
    c->peer = kp;
    c->peer_serial = kp->serial;
    c->trace = env->trace;
    c->is_cancelled = false;
    if (send_down(ks, env, body, len))
        return;
    kit_send_error_code(kp, env, ERR_OVERLOADED, "sandbox %s does not read its requests", ks->pub.id_text);
    if (!is_new)
        send_cancel(ks, c);
    call_free(ks, c);
}

/* CHUNK, CREDIT, CANCEL, ACK: of the hub's own calls. */
static void other_down(kit_sandbox_t *ks, kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len)
{
    kit_call_t *c = call_find(ks, env->call_id);
    if (c && c->peer != kp)
        return;
    /* A call that has ended, or one from before our restart: only the agent knows; CANCEL and ACK are harmless to
     * repeat. */
    if (!c && env->kind != ENVELOPE_KIND_CANCEL && env->kind != ENVELOPE_KIND_ACK)
        return;
    if (c && env->kind == ENVELOPE_KIND_CANCEL)
        c->is_cancelled = true;
    if (send_down(ks, env, body, len) || !c)
        return;
    kit_send_error_code(kp, env, ERR_OVERLOADED, "sandbox %s does not read its input", ks->pub.id_text);
    call_free(ks, c);
}

void kit_relay_down(kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len)
{
    bool is_request = env->kind == ENVELOPE_KIND_REQUEST;
    kit_sandbox_t *ks = kit_sandbox_find(kp->provider, &env->sandbox);
    if (!ks) {
        char id[UUID_TEXT_SIZE];
        uuid16_format(&env->sandbox, id);
        if (is_request)
            kit_send_error_code(kp, env, ERR_NOT_FOUND, "sandbox '%s' is not on this daemon", id);
        return;
    }
    bool is_open = ks->is_stalled || (ks->pub.stream && stream_is_ready(ks->pub.stream));
    if (ks->pub.state != SANDBOX_READY || !is_open) {
        if (is_request)
            kit_refuse_call(ks, kp, env);
        return;
    }
    if (is_request && env->verb == VERB_agent_configure) {
        kit_send_error_code(kp, env, ERR_FORBIDDEN, "agent_configure comes from the provider daemon only");
        return;
    }
    if (env->call_id == 0)
        return;
    if (is_request)
        request_down(ks, kp, env, body, len);
    else
        other_down(ks, kp, env, body, len);
}

static void internal_up(kit_sandbox_t *ks, kit_call_t *c, const envelope_t *env, const uint8_t *body, size_t len)
{
    if (env->kind != ENVELOPE_KIND_REPLY && env->kind != ENVELOPE_KIND_ERROR)
        return;
    buf_append(c->internal_body, body, len);
    bool is_failed = buf_failed(c->internal_body);
    if ((env->flags & ENVELOPE_MORE) && !is_failed) {
        envelope_t credit = {
            .kind = ENVELOPE_KIND_CREDIT, .call_id = c->call_id, .sandbox = ks->pub.id, .credit = (uint32_t)len};
        (void)send_down(ks, &credit, NULL, 0);
        return;
    }
    kit_internal_fn fn = c->internal;
    void *arg = c->internal_arg;
    auto_buf buf_t taken = *c->internal_body;
    buf_init(c->internal_body, 0);
    call_free(ks, c);
    fn(ks, arg, taken.data, taken.len, is_failed || env->kind == ENVELOPE_KIND_ERROR);
}

/* Notices go to every gateway without a window: a sandbox that sends nothing else would fill the daemon's memory and
 * the gateway's database. */
static bool may_notice(kit_sandbox_t *ks)
{
    uint64_t now = clock_monotonic_ms(), earned = (now - ks->notice_ms) / KIT_NOTICE_MS;
    if (ks->notice_ms == 0 || earned + ks->notice_tokens >= KIT_NOTICE_BURST) {
        ks->notice_tokens = KIT_NOTICE_BURST;
        ks->notice_ms = now;
    } else {
        ks->notice_tokens += (uint32_t)earned;
        ks->notice_ms += earned * KIT_NOTICE_MS;
    }
    if (ks->notice_tokens == 0)
        return false;
    ks->notice_tokens--;
    return true;
}

static void notice_up(kit_sandbox_t *ks, const uint8_t *body, size_t len)
{
    if (!may_notice(ks))
        return;
    struct notice notice;
    auto_err err_t *e = NULL;
    if (proto_decode(MSG_notice, &notice, body, len, &e) < 0) {
        log_ctx_t ctx = {.sandbox = ks->pub.id_text};
        log_write(LOG_LEVEL_WARN, &ctx, "a notice of the agent was dropped: %s", err_message(e));
        return;
    }
    bool is_oom = strcmp(notice.type, "oom_kill") == 0;
    kit_event(ks, is_oom ? "oom" : "notice", notice.detail ? notice.detail : notice.type);
}

/* What costs nothing of a window could come without an end. */
static bool is_empty_frame(const envelope_t *env, size_t len)
{
    return (env->kind == ENVELOPE_KIND_CHUNK && len == 0 && !(env->flags & ENVELOPE_END)) ||
           (env->kind == ENVELOPE_KIND_CREDIT && env->credit == 0);
}

void kit_relay_up(kit_sandbox_t *ks, const envelope_t *env, const uint8_t *body, size_t len)
{
    if (env->call_id == 0) {
        if (env->kind == ENVELOPE_KIND_NOTICE)
            notice_up(ks, body, len);
        return;
    }
    kit_call_t *c = call_find(ks, env->call_id);
    if (!c)
        return; /* its hub has given it up, or it is from before our restart */
    if (c->internal) {
        internal_up(ks, c, env, body, len);
        return;
    }
    kit_peer_t *kp = c->peer;
    bool is_last =
        (env->kind == ENVELOPE_KIND_REPLY || env->kind == ENVELOPE_KIND_ERROR) && !(env->flags & ENVELOPE_MORE);
    bool is_wanted = kp && (is_last || !c->is_cancelled) && !is_empty_frame(env, len);
    if (is_last)
        call_free(ks, c);
    if (is_wanted)
        kit_send(kp, env, body, len, ks);
}

void kit_relay_peer_gone(kit_sandbox_t *ks, kit_peer_t *kp)
{
    kit_call_t *c;
    for (size_t i = 0; i < ks->call_buckets; i++)
        LIST_FOREACH(c, &ks->calls[i], entry)
    if (c->peer == kp)
        c->peer = NULL; /* the command goes on; its hub may ask again by the call id */
}

void kit_relay_fail_all(kit_sandbox_t *ks, const err_t *err)
{
    for (size_t i = 0; i < ks->call_buckets; i++)
        for (kit_call_t *c; (c = LIST_FIRST(&ks->calls[i]));) {
            envelope_t env = {.call_id = c->call_id, .sandbox = ks->pub.id, .trace = c->trace};
            kit_peer_t *kp = c->peer;
            call_free(ks, c);
            if (kp)
                kit_send_error(kp, &env, err);
        }
    for (kit_frame_t *f; (f = STAILQ_FIRST(&ks->down));) {
        STAILQ_REMOVE_HEAD(&ks->down, entry);
        free(f);
    }
    ks->down_bytes = 0;
}

void kit_relay_cancel_all(kit_sandbox_t *ks)
{
    kit_call_t *c;
    for (size_t i = 0; i < ks->call_buckets; i++)
        LIST_FOREACH(c, &ks->calls[i], entry)
    if (!c->internal)
        send_cancel(ks, c);
}

size_t kit_relay_hub_calls(const kit_sandbox_t *ks)
{
    const kit_call_t *c;
    size_t n = 0;
    for (size_t i = 0; i < ks->call_buckets; i++)
        LIST_FOREACH(c, &ks->calls[i], entry)
    n += !c->internal;
    return n;
}

bool kit_relay_call(kit_sandbox_t *ks, enum verb verb, const void *body, size_t len, kit_internal_fn fn, void *arg)
{
    envelope_t env = {
        .kind = ENVELOPE_KIND_REQUEST, .verb = (uint16_t)verb, .sandbox = ks->pub.id, .credit = CALL_WINDOW};
    random_bytes(&env.call_id, sizeof env.call_id);
    if (env.call_id == 0 || call_find(ks, env.call_id) || ks->is_stalled || !stream_is_ready(ks->pub.stream) ||
        !stream_send(ks->pub.stream, &env, body, len))
        return false;
    kit_call_t *c = call_add(ks, env.call_id);
    c->internal = fn;
    c->internal_arg = arg;
    c->internal_body = mem_alloc(sizeof *c->internal_body);
    buf_init(c->internal_body, KIT_REQUEST_MAX);
    return true;
}
