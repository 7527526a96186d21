/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests for the daemon itself: put together from their frames, answered as fast as the hub grants credit.
 */
#include "common/provider/kit.h"

#include "common/mem.h"

static void request_free(kit_peer_t *kp, kit_request_t *r)
{
    TAILQ_REMOVE(&kp->requests, r, entry);
    kp->request_count--;
    buf_free(&r->body);
    buf_free(&r->reply);
    free(r);
}

void kit_requests_free(kit_peer_t *kp)
{
    for (kit_request_t *r; (r = TAILQ_FIRST(&kp->requests));)
        request_free(kp, r);
}

static kit_request_t *request_find(kit_peer_t *kp, uint64_t call_id)
{
    kit_request_t *r;
    TAILQ_FOREACH(r, &kp->requests, entry)
    if (r->env.call_id == call_id)
        return r;
    return NULL;
}

static void reply_pump(kit_peer_t *kp, kit_request_t *r)
{
    while (r->reply_sent < r->reply.len && r->credit > 0) {
        size_t n = r->reply.len - r->reply_sent;
        n = n < FABRIC_BODY_MAX ? n : FABRIC_BODY_MAX;
        n = n < r->credit ? n : r->credit;
        bool is_last = r->reply_sent + n == r->reply.len;
        envelope_t env = {.kind = ENVELOPE_KIND_REPLY,
                          .flags = is_last ? 0 : ENVELOPE_MORE,
                          .call_id = r->env.call_id,
                          .sandbox = r->env.sandbox,
                          .trace = r->env.trace};
        kit_send(kp, &env, r->reply.data + r->reply_sent, n, NULL);
        r->reply_sent += n;
        r->credit -= n;
    }
    if (r->reply_sent == r->reply.len)
        request_free(kp, r);
}

void kit_reply(kit_peer_t *kp, const envelope_t *request, unsigned msg_id, const void *msg)
{
    auto_err err_t *e = NULL;
    kit_request_t *r = mem_alloc(sizeof *r);
    r->env = *request;
    r->is_replying = true;
    r->credit = request->credit ? request->credit : CALL_WINDOW;
    buf_init(&r->reply, CALL_MESSAGE_MAX);
    TAILQ_INSERT_TAIL(&kp->requests, r, entry);
    kp->request_count++;
    if (proto_encode(msg_id, msg, &r->reply, &e) < 0) {
        kit_send_error(kp, request, e);
        request_free(kp, r);
        return;
    }
    reply_pump(kp, r);
}

void kit_verb_credit(kit_peer_t *kp, const envelope_t *env)
{
    kit_request_t *r = request_find(kp, env->call_id);
    if (!r || !r->is_replying)
        return;
    r->credit += env->credit;
    reply_pump(kp, r);
}

/* The work itself goes on: a sandbox that is being made is found by its id and destroyed by who made it. */
void kit_verb_cancel(kit_peer_t *kp, const envelope_t *env)
{
    kit_request_t *r = request_find(kp, env->call_id);
    if (r)
        request_free(kp, r);
}

/* A REQUEST frame for the daemon itself; longer ones come in several. */
void kit_verb_frame(kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len)
{
    if (!kp->is_gateway) {
        kit_send_error_code(kp, env, ERR_FORBIDDEN, "only a gateway may make, list or destroy sandboxes");
        return;
    }
    kit_request_t *r = request_find(kp, env->call_id);
    if (!r && !(env->flags & ENVELOPE_MORE)) {
        kit_dispatch(kp, env, body, len);
        return;
    }
    if (!r) {
        if (kp->request_count >= KIT_REQUESTS_MAX) {
            kit_send_error_code(kp, env, ERR_OVERLOADED, "too many requests for this daemon at once");
            return;
        }
        r = mem_alloc(sizeof *r);
        r->env = *env;
        buf_init(&r->body, KIT_REQUEST_MAX);
        TAILQ_INSERT_TAIL(&kp->requests, r, entry);
        kp->request_count++;
    }
    if (r->is_replying)
        return;
    buf_append(&r->body, body, len);
    if (buf_failed(&r->body)) {
        kit_send_error_code(kp, env, ERR_PAYLOAD_TOO_LARGE, "a request for the daemon has at most %d bytes",
                            KIT_REQUEST_MAX);
        request_free(kp, r);
    } else if (env->flags & ENVELOPE_MORE) {
        envelope_t credit = {
            .kind = ENVELOPE_KIND_CREDIT, .call_id = env->call_id, .sandbox = env->sandbox, .credit = (uint32_t)len};
        kit_send(kp, &credit, NULL, 0, NULL);
    } else {
        envelope_t first = r->env;
        auto_buf buf_t whole = r->body;
        buf_init(&r->body, 0);
        request_free(kp, r);
        kit_dispatch(kp, &first, whole.data, whole.len);
    }
}
