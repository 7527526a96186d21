/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/file.h"
#include "common/mem.h"

#include <inttypes.h>

#define MEMORY_MIN ((uint64_t)16 << 20)
#define DISK_MIN ((uint64_t)16 << 20)
#define PIDS_MIN 64 /* in the smallest sandbox */

json_t *kit_map_to_json(const proto_list_t *map)
{
    json_t *object = json_object();
    proto_iter_t it = proto_iter_map(map);
    for (const char *key, *value; proto_iter_str(&it, &key) && proto_iter_str(&it, &value);)
        json_object_set_new(object, key, json_string(value));
    return object;
}

void kit_reply_created(kit_sandbox_t *ks)
{
    const json_t *facts = ks->pub.private_;
    auto_buf buf_t warnings = {0};
    auto_free char *phases = kit_phases(ks, "phases");
    struct sandbox_create_reply reply = {.provider_workspace_id = ks->pub.id_text,
                                         .total_ms = ks->total_ms,
                                         .phases = phases,
                                         .warnings = kit_warnings_list(ks->warnings, facts, &warnings),
                                         .isolation = json_string_value(json_object_get(facts, "isolation")),
                                         .programs = proto_list_of(ks->program_count, &ks->programs),
                                         .was_warm = ks->was_warm,
                                         .has_processes = ks->pub.has_processes};
    ks->are_warnings_told = true;
    kit_waiters_reply(ks->pub.provider, &ks->create_waiters, MSG_sandbox_create_reply, &reply);
}

/* What is stopped needs no memory: it does not count until it is to run again. */
static size_t count_running(const provider_t *p, const kit_sandbox_t *but)
{
    const kit_sandbox_t *ks;
    size_t n = 0;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    n += ks != but && ks->pub.state != SANDBOX_STOPPED && !ks->pool;
    return n;
}

int kit_check_room(provider_t *p, const kit_sandbox_t *self, err_t **e)
{
    const struct provider_status *status = p->ops->status(p);
    if (p->is_draining || p->is_drained)
        return err_set(e, ERR_PROVIDER_UNAVAILABLE, "%s is being drained; try again when its daemon is back",
                       p->ops->name);
    if (!status->healthy)
        return err_set(e, ERR_PROVIDER_UNAVAILABLE, "%s cannot run sandboxes now: %s", p->ops->name,
                       status->message ? status->message : "its probe has not ended");
    int64_t max = p->daemon->config.max_sandboxes;
    size_t count = max > 0 ? count_running(p, self) : 0;
    if (max > 0 && count >= (size_t)max)
        return err_set(e, ERR_LIMIT_REACHED, "this daemon has %zu sandboxes, EW_MAX_SANDBOXES allows no more", count);
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

uint32_t kit_pids_max(const provider_t *p, const struct sandbox_create_request *request)
{
    uint64_t room = p->ops->process_bytes > 0 ? request->memory_bytes / p->ops->process_bytes : UINT32_MAX;
    room = room < PIDS_MIN ? PIDS_MIN : room;
    return request->pids_max < room ? request->pids_max : (uint32_t)room;
}

/* The snapshot it is to be made from; NULL without an error: none. */
static kit_snapshot_t *origin_of(provider_t *p, const struct sandbox_create_request *request, err_t **e)
{
    uuid16_t id;
    if (!request->snapshot_id || !*request->snapshot_id)
        return NULL;
    kit_snapshot_t *snap = uuid16_parse(&id, request->snapshot_id) ? kit_snapshot_find(p, &id) : NULL;
    if (!snap)
        err_set(e, ERR_NOT_FOUND, "snapshot '%s' is not on this daemon", request->snapshot_id);
    else if (snap->unreadable)
        err_set(e, ERR_INTERNAL, "snapshot '%s' cannot be read: %s", snap->pub.id_text, snap->unreadable);
    else if (snap->state != KIT_SNAPSHOT_READY)
        err_set(e, ERR_CONFLICT, "snapshot '%s' is %s", snap->pub.id_text,
                snap->state == KIT_SNAPSHOT_CREATING ? "still being taken" : "being deleted");
    else if (!p->ops->create_from)
        err_set(e, ERR_VALIDATION, "provider %s cannot make sandboxes from snapshots", p->ops->name);
    return snap;
}

static int check_origin(const kit_snapshot_t *snap, const struct sandbox_create_request *request, err_t **e)
{
    const sandbox_spec_t *spec = &snap->pub.spec;
    if (request->image && *request->image && spec->image && strcmp(request->image, spec->image) != 0)
        return err_set(e, ERR_VALIDATION, "snapshot '%s' is of image '%s', not '%s'; leave the image out",
                       snap->pub.id_text, spec->image, request->image);
    if (request->disk_bytes < spec->disk_bytes)
        return err_set(e, ERR_VALIDATION,
                       "the disk of snapshot '%s' has %" PRIu64 " bytes and cannot shrink to %" PRIu64,
                       snap->pub.id_text, spec->disk_bytes, request->disk_bytes);
    if (snap->pub.has_processes && spec->network && strcmp(request->network, spec->network) != 0)
        return err_set(e, ERR_VALIDATION,
                       "the processes in snapshot '%s' have network '%s'; take that, or a snapshot without processes",
                       snap->pub.id_text, spec->network);
    return 0;
}

static const char *image_of(const provider_t *p, const kit_snapshot_t *origin,
                            const struct sandbox_create_request *request)
{
    if (origin && origin->pub.spec.image)
        return origin->pub.spec.image;
    return request->image && *request->image ? request->image : p->daemon->config.default_image;
}

kit_sandbox_t *kit_create_begin(provider_t *p, const uuid16_t *id, const struct sandbox_create_request *request,
                                err_t **e)
{
    kit_snapshot_t *origin = origin_of(p, request, e);
    if (*e || kit_check_room(p, NULL, e) < 0 || check_spec(request, e) < 0 ||
        (origin && check_origin(origin, request, e) < 0))
        return NULL;
    kit_sandbox_t *ks = kit_sandbox_new(p, id);
    ks->pub.state = SANDBOX_CREATING;
    ks->pub.spec = (sandbox_spec_t){.image = mem_strdup(image_of(p, origin, request)),
                                    .cpu_milli = request->cpu_milli,
                                    .memory_bytes = request->memory_bytes,
                                    .disk_bytes = request->disk_bytes,
                                    .pids_max = kit_pids_max(p, request),
                                    .network = mem_strdup(request->network),
                                    .env = kit_map_to_json(&request->env),
                                    .labels = kit_map_to_json(&request->labels)};
    if (dir_make(ks->pub.dir, 0700, e) < 0 || kit_registry_save(ks, e) < 0) {
        auto_err err_t *ignored = NULL;
        (void)dir_remove(ks->pub.dir, &ignored);
        kit_sandbox_free(ks);
        return NULL;
    }
    ks->origin = origin;
    if (origin)
        origin->users++;
    return ks;
}

void kit_verb_create(kit_peer_t *kp, const envelope_t *env, const void *msg)
{
    provider_t *p = kp->provider;
    auto_err err_t *e = NULL;
    if (uuid16_is_zero(&env->sandbox)) {
        kit_send_error_code(kp, env, ERR_BAD_REQUEST, "sandbox_create needs the sandbox's id in the envelope");
        return;
    }
    kit_sandbox_t *ks = kit_sandbox_find(p, &env->sandbox);
    if (!ks && check_spec(msg, &e) == 0 && kit_check_room(p, NULL, &e) == 0 && kit_pool_claim(kp, env, msg))
        return;
    bool is_new = !ks && !e;
    enum kit_answer answer = ks ? kit_answer(ks, KIT_WANT_CREATE, &e) : KIT_BEGIN;
    if (is_new)
        ks = kit_create_begin(p, &env->sandbox, msg, &e);
    if (e) {
        kit_send_error(kp, env, e);
        return;
    }
    kit_waiter_add(&ks->create_waiters, kp, env);
    if (answer == KIT_BEGIN)
        kit_create(ks);
    else if (answer == KIT_DONE)
        kit_reply_created(ks);
}
