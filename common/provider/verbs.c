/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"

#include <inttypes.h>

#define REPLY_PHASES_MAX 2000
#define MEMORY_MIN ((uint64_t)16 << 20)
#define DISK_MIN ((uint64_t)16 << 20)
#define PIDS_MIN 64 /* in the smallest sandbox */

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

/* ---- sandbox_create ---- */

static json_t *map_to_json(const proto_list_t *map)
{
    json_t *object = json_object();
    proto_iter_t it = proto_iter_map(map);
    for (const char *key, *value; proto_iter_str(&it, &key) && proto_iter_str(&it, &value);)
        json_object_set_new(object, key, json_string(value));
    return object;
}

static void reply_ready(kit_sandbox_t *ks, kit_peer_t *kp, const envelope_t *env)
{
    const json_t *facts = ks->pub.private_;
    const json_t *warnings = json_object_get(facts, "warnings");
    auto_buf buf_t list = {0};
    uint32_t count = 0;
    size_t i;
    json_t *w;
    json_array_foreach(warnings, i, w)
    {
        if (!json_is_string(w))
            continue;
        proto_list_add_str(&list, json_string_value(w));
        count++;
    }
    auto_free char *phases = NULL;
    const json_t *measured = json_object_get(facts, "phases");
    if (measured)
        phases = json_dumps(measured, JSON_COMPACT);
    struct sandbox_create_reply reply = {.provider_workspace_id = ks->pub.id_text,
                                         .total_ms = ks->total_ms,
                                         .phases = phases && strlen(phases) < REPLY_PHASES_MAX ? phases : NULL,
                                         .warnings = proto_list_of(count, &list),
                                         .isolation = json_string_value(json_object_get(facts, "isolation")),
                                         .programs = proto_list_of(ks->program_count, &ks->programs)};
    kit_reply(kp, env, MSG_sandbox_create_reply, &reply);
}

void kit_reply_created(kit_sandbox_t *ks)
{
    for (kit_waiter_t *w; (w = STAILQ_FIRST(&ks->create_waiters));) {
        STAILQ_REMOVE_HEAD(&ks->create_waiters, entry);
        kit_peer_t *kp = kit_peer_by_serial(ks->pub.provider, w->peer_serial);
        if (kp)
            reply_ready(ks, kp, &w->env);
        free(w);
    }
}

static int check_room(provider_t *p, err_t **e)
{
    const struct provider_status *status = p->ops->status(p);
    if (!status->healthy)
        return err_set(e, ERR_PROVIDER_UNAVAILABLE, "%s cannot make sandboxes now: %s", p->ops->name,
                       status->message ? status->message : "its probe has not ended");
    int64_t max = p->daemon->config.max_sandboxes;
    if (max > 0 && p->sandbox_count >= (size_t)max)
        return err_set(e, ERR_LIMIT_REACHED, "this daemon has %zu sandboxes, EW_MAX_SANDBOXES allows no more",
                       p->sandbox_count);
    return 0;
}

static int check_spec(const struct sandbox_create_request *request, err_t **e)
{
    if (request->cpu_milli == 0)
        return err_set(e, ERR_VALIDATION, "cpu_milli must be more than 0");
    if (request->memory_bytes < MEMORY_MIN || request->memory_bytes > INT64_MAX)
        return err_set(e, ERR_VALIDATION, "a sandbox needs at least 16 MiB of memory, not %" PRIu64 " bytes",
                       request->memory_bytes);
    if (request->disk_bytes < DISK_MIN || request->disk_bytes > INT64_MAX)
        return err_set(e, ERR_VALIDATION, "a sandbox needs at least 16 MiB of disk, not %" PRIu64 " bytes",
                       request->disk_bytes);
    if (request->pids_max < 16)
        return err_set(e, ERR_VALIDATION, "a sandbox needs room for at least 16 processes, not %u", request->pids_max);
    return 0;
}

static uint32_t pids_max_of(const provider_t *p, const struct sandbox_create_request *request)
{
    uint64_t room = p->ops->process_bytes > 0 ? request->memory_bytes / p->ops->process_bytes : UINT32_MAX;
    room = room < PIDS_MIN ? PIDS_MIN : room;
    return request->pids_max < room ? request->pids_max : (uint32_t)room;
}

static kit_sandbox_t *sandbox_begin(provider_t *p, const uuid16_t *id, const struct sandbox_create_request *request,
                                    err_t **e)
{
    if (check_room(p, e) < 0 || check_spec(request, e) < 0)
        return NULL;
    const char *image = request->image && *request->image ? request->image : p->daemon->config.default_image;
    kit_sandbox_t *ks = kit_sandbox_new(p, id);
    ks->pub.state = SANDBOX_CREATING;
    ks->pub.spec = (sandbox_spec_t){.image = mem_strdup(image),
                                    .cpu_milli = request->cpu_milli,
                                    .memory_bytes = request->memory_bytes,
                                    .disk_bytes = request->disk_bytes,
                                    .pids_max = pids_max_of(p, request),
                                    .network = mem_strdup(request->network),
                                    .env = map_to_json(&request->env),
                                    .labels = map_to_json(&request->labels)};
    if (dir_make(ks->pub.dir, 0700, e) == 0 && kit_registry_save(ks, e) == 0)
        return ks;
    auto_err err_t *ignored = NULL;
    (void)dir_remove(ks->pub.dir, &ignored);
    kit_sandbox_free(ks);
    return NULL;
}

static void verb_create(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    const struct sandbox_create_request *request = msg;
    if (uuid16_is_zero(&env->sandbox)) {
        kit_send_error_code(kp, env, ERR_BAD_REQUEST, "sandbox_create needs the sandbox's id in the envelope");
        return;
    }
    kit_sandbox_t *ks = kit_sandbox_find(kp->provider, &env->sandbox);
    if (!ks) {
        auto_err err_t *e = NULL;
        ks = sandbox_begin(kp->provider, &env->sandbox, request, &e);
        if (!ks) {
            kit_send_error(kp, env, e);
            return;
        }
        kit_waiter_add(&ks->create_waiters, kp, env);
        kit_create(ks);
    } else if (ks->pub.state == SANDBOX_CREATING) {
        kit_waiter_add(&ks->create_waiters, kp, env);
    } else if (ks->pub.state == SANDBOX_READY) {
        reply_ready(ks, kp, env);
    } else {
        kit_send_error_code(kp, env, ERR_CONFLICT, "sandbox '%s' exists and is %s", ks->pub.id_text,
                            kit_state_name(ks->pub.state));
    }
}

/* ---- the others ---- */

static void verb_destroy(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    const struct sandbox_destroy_request *request = msg;
    kit_sandbox_t *ks = kit_sandbox_find(kp->provider, &env->sandbox);
    struct empty nothing = {0};
    if (!ks) {
        kit_reply(kp, env, MSG_empty, &nothing);
        return;
    }
    kit_waiter_add(&ks->destroy_waiters, kp, env);
    if (ks->pub.state == SANDBOX_READY && !ks->grace_timer)
        kit_grace_start(ks, request->has.grace_ms ? request->grace_ms : KIT_GRACE_DEFAULT_MS);
    else if (ks->pub.state != SANDBOX_READY)
        kit_destroy(ks);
}

static void verb_list(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    (void)msg;
    auto_buf buf_t list = {0};
    buf_init(&list, CALL_MESSAGE_MAX - 1024);
    uint32_t count = 0;
    kit_sandbox_t *ks;
    TAILQ_FOREACH(ks, &kp->provider->sandboxes, entry)
    {
        auto_buf buf_t labels = {0};
        uint32_t label_count = 0;
        const char *key;
        json_t *value;
        json_object_foreach(ks->pub.spec.labels, key, value)
        {
            proto_list_add_str(&labels, key);
            proto_list_add_str(&labels, json_string_value(value));
            label_count++;
        }
        struct sandbox_info info = {.id = ks->pub.id_text,
                                    .state = kit_state_name(ks->pub.state),
                                    .image = ks->pub.spec.image,
                                    .labels = proto_list_of(label_count, &labels),
                                    .created_at_ms = ks->created_at_ms,
                                    .reason = ks->pub.reason};
        auto_err err_t *e = NULL;
        if (proto_list_add_msg(&list, MSG_sandbox_info, &info, &e) < 0) {
            kit_send_error(kp, env, e);
            return;
        }
        count++;
    }
    struct sandbox_list_reply reply = {.sandboxes = proto_list_of(count, &list)};
    kit_reply(kp, env, MSG_sandbox_list_reply, &reply);
}

static void verb_status(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    (void)msg;
    provider_t *p = kp->provider;
    kit_waiter_add(&p->probe_waiters, kp, env);
    kit_probe_start(p); /* answers at once when the last probe is fresh */
}

static void verb_images(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    (void)msg;
    auto_buf buf_t storage = {0};
    struct image_list_reply reply = {0};
    kp->provider->ops->list_images(kp->provider, &reply, &storage);
    kit_reply(kp, env, MSG_image_list_reply, &reply);
}

static const struct {
    unsigned verb;
    void (*run)(kit_peer_t *kp, const envelope_t *env, const void *msg);
} VERBS[] = {
    {VERB_sandbox_create, verb_create},  {VERB_sandbox_destroy, verb_destroy}, {VERB_sandbox_list, verb_list},
    {VERB_provider_status, verb_status}, {VERB_image_list, verb_images},
};

static void dispatch(kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len)
{
    const verb_row_t *row = verb_row(env->verb);
    union {
        struct sandbox_create_request create;
        struct sandbox_destroy_request destroy;
        struct empty empty;
    } msg;
    auto_err err_t *e = NULL;
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        if (VERBS[i].verb != env->verb)
            continue;
        if (proto_decode(row->request, &msg, body, len, &e) < 0)
            kit_send_error(kp, env, e);
        else
            VERBS[i].run(kp, env, &msg);
        return;
    }
    kit_send_error_code(kp, env, ERR_BAD_REQUEST, "verb %u is not known to this release", env->verb);
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
        dispatch(kp, env, body, len);
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
        dispatch(kp, &first, whole.data, whole.len);
    }
}
