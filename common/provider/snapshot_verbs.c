/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/mem.h"

/* What an info points at. */
typedef struct info_storage {
    buf_t labels;
    buf_t warnings;
    char source[UUID_TEXT_SIZE];
} info_storage_t;

static void storage_free(info_storage_t *storage)
{
    buf_free(&storage->labels);
    buf_free(&storage->warnings);
}
#define auto_storage __attribute__((cleanup(storage_free)))

static const char *state_of(const kit_snapshot_t *snap)
{
    static const char *const names[] = {
        [KIT_SNAPSHOT_CREATING] = "creating", [KIT_SNAPSHOT_READY] = "ready", [KIT_SNAPSHOT_DESTROYING] = "destroying"};
    return names[snap->state];
}

static struct snapshot_info info_of(const kit_snapshot_t *snap, info_storage_t *storage)
{
    const snapshot_t *s = &snap->pub;
    uint32_t label_count = 0;
    const char *key;
    json_t *value;
    json_object_foreach(s->labels, key, value)
    {
        proto_list_add_str(&storage->labels, key);
        proto_list_add_str(&storage->labels, json_string_value(value));
        label_count++;
    }
    uuid16_format(&s->source, storage->source);
    return (struct snapshot_info){.snapshot_id = s->id_text,
                                  .state = state_of(snap),
                                  .sandbox_id = uuid16_is_zero(&s->source) ? NULL : storage->source,
                                  .has_processes = s->has_processes,
                                  .size_bytes = s->size_bytes,
                                  .created_at_ms = s->created_at_ms,
                                  .stall_ms = s->stall_ms,
                                  .total_ms = s->total_ms,
                                  .image = s->spec.image,
                                  .cpu_milli = s->spec.cpu_milli,
                                  .memory_bytes = s->spec.memory_bytes,
                                  .disk_bytes = s->spec.disk_bytes,
                                  .pids_max = s->spec.pids_max,
                                  .network = s->spec.network,
                                  .labels = proto_list_of(label_count, &storage->labels),
                                  .warnings = kit_warnings_list(s->warnings, NULL, &storage->warnings)};
}

void kit_snapshot_reply(kit_snapshot_t *snap, struct kit_waiter_list *list)
{
    auto_storage info_storage_t storage = {0};
    struct snapshot_info info = info_of(snap, &storage);
    kit_waiters_reply(snap->provider, list, MSG_snapshot_info, &info);
}

/* ---- create ---- */

/* NULL: refused, with the error. */
static kit_snapshot_t *snapshot_begin(kit_peer_t *kp, const envelope_t *env, const uuid16_t *id, err_t **e)
{
    provider_t *p = kp->provider;
    kit_sandbox_t *ks = kit_sandbox_find(p, &env->sandbox);
    if (!p->ops->snapshot) {
        err_set(e, ERR_VALIDATION, "provider %s cannot take snapshots", p->ops->name);
        return NULL;
    }
    if (!ks) {
        char text[UUID_TEXT_SIZE];
        uuid16_format(&env->sandbox, text);
        err_set(e, ERR_NOT_FOUND, "sandbox '%s' is not on this daemon", text);
        return NULL;
    }
    if (kit_answer(ks, KIT_WANT_SNAPSHOT, e) == KIT_REFUSE)
        return NULL;
    return kit_snapshot_new(ks, id, e);
}

void kit_verb_snapshot_create(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    const struct snapshot_create_request *request = msg;
    auto_err err_t *e = NULL;
    uuid16_t id;
    if (!uuid16_parse(&id, request->snapshot_id)) {
        kit_send_error_code(kp, env, ERR_VALIDATION, "snapshot_id must be a UUID");
        return;
    }
    kit_snapshot_t *snap = kit_snapshot_find(kp->provider, &id);
    if (snap && (snap->unreadable || snap->state == KIT_SNAPSHOT_DESTROYING)) {
        kit_send_error_code(kp, env, ERR_CONFLICT, "snapshot '%s' %s", snap->pub.id_text,
                            snap->unreadable ? "cannot be read" : "is being deleted");
        return;
    }
    if (snap) {
        kit_waiter_add(&snap->create_waiters, kp, env);
        if (snap->state == KIT_SNAPSHOT_READY)
            kit_snapshot_reply(snap, &snap->create_waiters);
        return;
    }
    snap = snapshot_begin(kp, env, &id, &e);
    if (!snap) {
        kit_send_error(kp, env, e);
        return;
    }
    json_decref(snap->pub.labels);
    snap->pub.labels = kit_map_to_json(&request->labels);
    snap->keeps_processes = !request->without_processes;
    kit_waiter_add(&snap->create_waiters, kp, env);
    kit_snapshot_take(kit_sandbox_find(kp->provider, &env->sandbox), snap);
}

/* ---- the others ---- */

void kit_verb_snapshot_delete(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    const struct snapshot_ref *request = msg;
    struct empty nothing = {0};
    uuid16_t id;
    kit_snapshot_t *snap = uuid16_parse(&id, request->snapshot_id) ? kit_snapshot_find(kp->provider, &id) : NULL;
    if (!snap) {
        kit_reply(kp, env, MSG_empty, &nothing);
        return;
    }
    if (snap->state == KIT_SNAPSHOT_CREATING || snap->users > 0) {
        kit_send_error_code(kp, env, ERR_CONFLICT, "snapshot '%s' cannot be deleted now: %s", snap->pub.id_text,
                            snap->users > 0 ? "a sandbox is being made from it" : "it is being taken");
        return;
    }
    kit_waiter_add(&snap->delete_waiters, kp, env);
    if (snap->state == KIT_SNAPSHOT_READY)
        kit_snapshot_remove(snap);
}

void kit_verb_snapshot_list(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    (void)msg;
    auto_buf buf_t list = {0};
    buf_init(&list, CALL_MESSAGE_MAX - 1024);
    uint32_t count = 0;
    const kit_snapshot_t *snap;
    TAILQ_FOREACH(snap, &kp->provider->snapshots, entry)
    {
        auto_storage info_storage_t storage = {0};
        auto_err err_t *e = NULL;
        struct snapshot_info info = info_of(snap, &storage);
        if (snap->unreadable)
            continue;
        if (proto_list_add_msg(&list, MSG_snapshot_info, &info, &e) < 0) {
            kit_send_error(kp, env, e);
            return;
        }
        count++;
    }
    struct snapshot_list_reply reply = {.snapshots = proto_list_of(count, &list)};
    kit_reply(kp, env, MSG_snapshot_list_reply, &reply);
}
