/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/log.h"
#include "common/mem.h"

#include <stdarg.h>
#include <stdio.h>

kit_frame_t *kit_frame_new(const envelope_t *env, const void *body, size_t len, kit_sandbox_t *source)
{
    kit_frame_t *f = mem_alloc(sizeof *f + len);
    f->env = *env;
    f->source = source;
    f->len = len;
    if (len)
        memcpy(f->body, body, len);
    return f;
}

/* A hub that does not take frames slows the sandbox they come from, and nobody else. */
static void hold(kit_sandbox_t *ks)
{
    if (ks->held++ == 0 && ks->pub.stream)
        stream_pause(ks->pub.stream, true);
}

static void release(kit_sandbox_t *ks)
{
    if (--ks->held == 0 && ks->pub.stream)
        stream_pause(ks->pub.stream, false);
}

void kit_send(kit_peer_t *kp, const envelope_t *env, const void *body, size_t len, kit_sandbox_t *source)
{
    if (STAILQ_EMPTY(&kp->outbox)) {
        enum fabric_result r = fabric_send(kp->peer, env, body, len);
        if (r != FABRIC_FULL)
            return; /* sent, or the hub is gone and on_down follows */
    }
    kit_frame_t *f = kit_frame_new(env, body, len, source);
    STAILQ_INSERT_TAIL(&kp->outbox, f, entry);
    kp->outbox_bytes += len;
    if (source)
        hold(source);
}

void kit_send_error(kit_peer_t *kp, const envelope_t *request, const err_t *err)
{
    struct error msg = {.code = err_code_name(err_code(err)), .message = err_message(err), .details = err_details(err)};
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    if (proto_encode(MSG_error, &msg, &body, &e) < 0) {
        log_error("cannot encode an error: %s", err_message(e));
        return;
    }
    envelope_t env = {
        .kind = ENVELOPE_KIND_ERROR, .call_id = request->call_id, .sandbox = request->sandbox, .trace = request->trace};
    kit_send(kp, &env, body.data, body.len, NULL);
}

void kit_send_error_code(kit_peer_t *kp, const envelope_t *request, enum err_code code, const char *fmt, ...)
{
    char text[1001];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    auto_err err_t *e = NULL;
    err_set(&e, code, "%s", text);
    kit_send_error(kp, request, e);
}

static void drop_head(kit_peer_t *kp)
{
    kit_frame_t *f = STAILQ_FIRST(&kp->outbox);
    STAILQ_REMOVE_HEAD(&kp->outbox, entry);
    kp->outbox_bytes -= f->len;
    kit_sandbox_t *source = f->source;
    free(f);
    if (source)
        release(source);
}

void kit_outbox_flush(kit_peer_t *kp)
{
    while (!STAILQ_EMPTY(&kp->outbox)) {
        const kit_frame_t *f = STAILQ_FIRST(&kp->outbox);
        if (fabric_send(kp->peer, &f->env, f->body, f->len) == FABRIC_FULL)
            return;
        drop_head(kp);
    }
}

void kit_outbox_free(kit_peer_t *kp)
{
    while (!STAILQ_EMPTY(&kp->outbox))
        drop_head(kp);
}

void kit_outbox_forget(kit_peer_t *kp, kit_sandbox_t *source)
{
    kit_frame_t *f;
    STAILQ_FOREACH(f, &kp->outbox, entry)
    if (f->source == source) {
        source->held--;
        f->source = NULL;
    }
}
