/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/mem.h"

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
    if (ks->pub.state != SANDBOX_READY || ks->snapshot)
        kit_destroy(ks);
    else if (!ks->grace_timer)
        kit_grace_start(ks, request->has.grace_ms ? request->grace_ms : KIT_GRACE_DEFAULT_MS);
}

static kit_sandbox_t *sandbox_of(kit_peer_t *kp, const envelope_t *env)
{
    kit_sandbox_t *ks = kit_sandbox_find(kp->provider, &env->sandbox);
    char id[UUID_TEXT_SIZE];
    uuid16_format(&env->sandbox, id);
    if (!ks)
        kit_send_error_code(kp, env, ERR_NOT_FOUND, "sandbox '%s' is not on this daemon", id);
    return ks;
}

static void verb_stop(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    const struct sandbox_stop_request *request = msg;
    const provider_ops_t *ops = kp->provider->ops;
    auto_err err_t *e = NULL;
    kit_sandbox_t *ks = sandbox_of(kp, env);
    if (!ks)
        return;
    enum kit_answer answer = kit_answer(ks, KIT_WANT_STOP, &e);
    if (!ops->stop)
        err_set(&e, ERR_VALIDATION, "provider %s cannot stop sandboxes", ops->name);
    if (e) {
        kit_send_error(kp, env, e);
        return;
    }
    kit_waiter_add(&ks->stop_waiters, kp, env);
    if (answer == KIT_BEGIN)
        kit_stop(ks, !request->without_processes);
    else if (answer == KIT_DONE)
        kit_stop_reply(ks, &ks->stop_waiters);
}

static void verb_resume(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    (void)msg;
    const provider_ops_t *ops = kp->provider->ops;
    auto_err err_t *e = NULL;
    kit_sandbox_t *ks = sandbox_of(kp, env);
    if (!ks)
        return;
    enum kit_answer answer = kit_answer(ks, KIT_WANT_RESUME, &e);
    if (answer == KIT_BEGIN && !ops->resume)
        err_set(&e, ERR_VALIDATION, "provider %s cannot resume sandboxes", ops->name);
    else if (answer == KIT_BEGIN)
        (void)kit_check_room(kp->provider, ks, &e);
    if (e) {
        kit_send_error(kp, env, e);
        return;
    }
    kit_waiter_add(&ks->resume_waiters, kp, env);
    if (answer == KIT_BEGIN)
        kit_resume(ks);
    else if (answer == KIT_DONE)
        kit_resume_reply(ks, &ks->resume_waiters);
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
        if (ks->pool)
            continue; /* nobody's */
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
    {VERB_sandbox_create, kit_verb_create},
    {VERB_sandbox_destroy, verb_destroy},
    {VERB_sandbox_list, verb_list},
    {VERB_sandbox_stop, verb_stop},
    {VERB_sandbox_resume, verb_resume},
    {VERB_snapshot_create, kit_verb_snapshot_create},
    {VERB_snapshot_delete, kit_verb_snapshot_delete},
    {VERB_snapshot_list, kit_verb_snapshot_list},
    {VERB_provider_status, verb_status},
    {VERB_image_list, verb_images},
    {VERB_pool_set, kit_verb_pool_set},
    {VERB_pool_list, kit_verb_pool_list},
};

void kit_dispatch(kit_peer_t *kp, const envelope_t *env, const uint8_t *body, size_t len)
{
    const verb_row_t *row = verb_row(env->verb);
    union {
        struct sandbox_create_request create;
        struct sandbox_destroy_request destroy;
        struct sandbox_stop_request stop;
        struct snapshot_create_request snapshot;
        struct snapshot_ref snapshot_ref;
        struct pool_set_request pool_set;
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
