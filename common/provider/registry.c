/* SPDX-License-Identifier: Apache-2.0 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>

#define REGISTRY_FILE "sandbox.json"
#define REGISTRY_MAX (2 * 1024 * 1024)
#define REGISTRY_FORMAT 1

static struct kit_bucket *bucket_of(provider_t *p, const uuid16_t *id)
{
    return &p->by_id[(id->bytes[0] ^ id->bytes[5] ^ id->bytes[15]) % KIT_ID_BUCKETS];
}

kit_sandbox_t *kit_sandbox_new(provider_t *p, const uuid16_t *id)
{
    kit_sandbox_t *ks = mem_alloc(sizeof *ks);
    ks->pub.id = *id;
    uuid16_format(id, ks->pub.id_text);
    memcpy(ks->pub.host_id, ks->pub.id_text, sizeof ks->pub.host_id);
    ks->pub.dir = mem_printf("%s/%s", p->sandboxes_dir, ks->pub.host_id);
    ks->pub.provider = p;
    ks->pub.private_ = json_object();
    ks->deaths = json_array();
    ks->warnings = json_array();
    ks->created_at_ms = clock_realtime_ms();
    STAILQ_INIT(&ks->create_waiters);
    STAILQ_INIT(&ks->stop_waiters);
    STAILQ_INIT(&ks->resume_waiters);
    STAILQ_INIT(&ks->destroy_waiters);
    STAILQ_INIT(&ks->down);
    TAILQ_INSERT_TAIL(&p->sandboxes, ks, entry);
    LIST_INSERT_HEAD(bucket_of(p, id), ks, by_id);
    p->sandbox_count++;
    return ks;
}

void kit_sandbox_set_id(kit_sandbox_t *ks, const uuid16_t *id)
{
    LIST_REMOVE(ks, by_id);
    ks->pub.id = *id;
    uuid16_format(id, ks->pub.id_text);
    LIST_INSERT_HEAD(bucket_of(ks->pub.provider, id), ks, by_id);
}

kit_sandbox_t *kit_sandbox_find(provider_t *p, const uuid16_t *id)
{
    kit_sandbox_t *ks;
    LIST_FOREACH(ks, bucket_of(p, id), by_id)
    if (memcmp(ks->pub.id.bytes, id->bytes, sizeof id->bytes) == 0)
        return ks;
    return NULL;
}

void kit_spec_free(sandbox_spec_t *spec)
{
    free(spec->image);
    free(spec->network);
    json_decref(spec->env);
    json_decref(spec->labels);
}

void kit_sandbox_free(kit_sandbox_t *ks)
{
    provider_t *p = ks->pub.provider;
    kit_grace_stop(ks);
    kit_restart_stop(ks);
    if (ks->retry_timer)
        event_free(ks->retry_timer);
    auto_err err_t *gone = NULL;
    err_set(&gone, ERR_SANDBOX_FAILED, "the sandbox is gone");
    kit_line_close(ks, gone);
    free(ks->calls);
    if (ks->origin)
        ks->origin->users--;
    struct kit_waiter_list *waiters[] = {&ks->create_waiters, &ks->stop_waiters, &ks->resume_waiters,
                                         &ks->destroy_waiters};
    for (size_t i = 0; i < COUNT_OF(waiters); i++)
        kit_waiters_error(p, waiters[i], gone);
    p->ops->forget(&ks->pub);
    buf_free(&ks->programs);
    TAILQ_REMOVE(&p->sandboxes, ks, entry);
    LIST_REMOVE(ks, by_id);
    p->sandbox_count--;
    kit_spec_free(&ks->pub.spec);
    json_decref(ks->pub.private_);
    json_decref(ks->deaths);
    json_decref(ks->warnings);
    err_free(&ks->op_error);
    free(ks->died);
    free(ks->restart_reason);
    free(ks->untold_restart);
    free(ks->pub.reason);
    free(ks->pub.dir);
    free(ks);
}

/* ---- what is written ---- */

json_t *kit_spec_pack(const sandbox_spec_t *spec)
{
    return json_pack("{s:s*,s:I,s:I,s:I,s:I,s:s*,s:O*,s:O*}", "image", spec->image, "cpu_milli",
                     (json_int_t)spec->cpu_milli, "memory_bytes", (json_int_t)spec->memory_bytes, "disk_bytes",
                     (json_int_t)spec->disk_bytes, "pids_max", (json_int_t)spec->pids_max, "network", spec->network,
                     "env", spec->env, "labels", spec->labels);
}

static json_t *sandbox_pack(const kit_sandbox_t *ks)
{
    const sandbox_t *s = &ks->pub;
    json_t *spec = kit_spec_pack(&s->spec);
    json_t *root =
        !spec ? NULL
              : json_pack("{s:i,s:s,s:s,s:s,s:I,s:I,s:s*,s:b,s:b,s:I,s:s*,s:O,s:O,s:O,s:O}", "format", REGISTRY_FORMAT,
                          "id", s->id_text, "host_id", s->host_id, "state", kit_state_name(s->state), "created_at_ms",
                          (json_int_t)ks->created_at_ms, "epoch", (json_int_t)ks->epoch, "reason", s->reason,
                          "has_processes", s->has_processes, "keeps_processes", ks->keeps_processes, "stop_ms",
                          (json_int_t)ks->stop_ms, "restart_reason", ks->restart_reason, "deaths", ks->deaths,
                          "warnings", ks->warnings, "spec", spec, "private", s->private_);
    json_decref(spec);
    return root;
}

int kit_registry_save(kit_sandbox_t *ks, err_t **e)
{
    json_t *root = sandbox_pack(ks);
    auto_free char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(e, ERR_INTERNAL, "cannot write down sandbox %s: a text in it is not UTF-8", ks->pub.id_text);
    auto_free char *path = mem_printf("%s/%s", ks->pub.dir, REGISTRY_FILE);
    return file_write_atomic(path, text, strlen(text), 0600, e);
}

/* ---- what is read ---- */

static char *dup_or_null(const char *s)
{
    return s ? mem_strdup(s) : NULL;
}

int kit_spec_unpack(json_t *root, sandbox_spec_t *spec, err_t **e)
{
    const char *image = NULL, *network = NULL;
    json_int_t cpu = 0, memory = 0, disk = 0, pids = 0;
    json_t *env = NULL, *labels = NULL;
    json_error_t je;
    if (json_unpack_ex(root, &je, 0, "{s?s,s:I,s:I,s:I,s:I,s?s,s?o,s?o}", "image", &image, "cpu_milli", &cpu,
                       "memory_bytes", &memory, "disk_bytes", &disk, "pids_max", &pids, "network", &network, "env",
                       &env, "labels", &labels) < 0)
        return err_set(e, ERR_INTERNAL, "its spec: %s", je.text);
    *spec = (sandbox_spec_t){.image = dup_or_null(image),
                             .cpu_milli = (uint32_t)cpu,
                             .memory_bytes = (uint64_t)memory,
                             .disk_bytes = (uint64_t)disk,
                             .pids_max = (uint32_t)pids,
                             .network = dup_or_null(network),
                             .env = json_incref(env),
                             .labels = json_incref(labels)};
    return 0;
}

static void replace_list(json_t **list, json_t *with)
{
    if (!json_is_array(with))
        return;
    json_decref(*list);
    *list = json_incref(with);
}

static int parse_into(kit_sandbox_t *ks, json_t *root, err_t **e)
{
    const char *id_text = ks->pub.host_id, *host_id = ks->pub.host_id, *state = NULL, *reason = NULL, *restart = NULL;
    json_int_t created = 0, epoch = 0, stop_ms = 0;
    json_t *spec = NULL, *private_ = NULL, *deaths = NULL, *warnings = NULL;
    json_error_t je;
    uuid16_t id;
    int format = 0, has_processes = 0, keeps_processes = 0;
    if (json_unpack_ex(root, &je, 0, "{s:i,s?s,s?s,s:s,s:I,s:I,s?s,s?b,s?b,s?I,s?s,s?o,s?o,s:o,s:o}", "format", &format,
                       "id", &id_text, "host_id", &host_id, "state", &state, "created_at_ms", &created, "epoch", &epoch,
                       "reason", &reason, "has_processes", &has_processes, "keeps_processes", &keeps_processes,
                       "stop_ms", &stop_ms, "restart_reason", &restart, "deaths", &deaths, "warnings", &warnings,
                       "spec", &spec, "private", &private_) < 0)
        return err_set(e, ERR_INTERNAL, "%s", je.text);
    if (format != REGISTRY_FORMAT)
        return err_set(e, ERR_INTERNAL, "its format is %d, this release knows %d", format, REGISTRY_FORMAT);
    if (strcmp(host_id, ks->pub.host_id) != 0 || !uuid16_parse(&id, id_text))
        return err_set(e, ERR_INTERNAL, "it is of another sandbox");
    if (!kit_state_parse(state, &ks->pub.state) || !json_is_object(private_))
        return err_set(e, ERR_INTERNAL, "the state \"%s\" is unknown", state);
    if (kit_spec_unpack(spec, &ks->pub.spec, e) < 0)
        return -1;
    kit_sandbox_set_id(ks, &id);
    ks->created_at_ms = (uint64_t)created;
    ks->epoch = (uint64_t)epoch;
    ks->stop_ms = (uint32_t)stop_ms;
    ks->pub.has_processes = has_processes;
    ks->keeps_processes = keeps_processes;
    ks->pub.reason = dup_or_null(reason);
    ks->restart_reason = dup_or_null(restart);
    replace_list(&ks->deaths, deaths);
    replace_list(&ks->warnings, warnings);
    ks->are_warnings_told = true;
    json_decref(ks->pub.private_);
    ks->pub.private_ = json_incref(private_);
    return 0;
}

static int load_one(kit_sandbox_t *ks, err_t **e)
{
    auto_free char *path = mem_printf("%s/%s", ks->pub.dir, REGISTRY_FILE);
    auto_buf buf_t text = {0};
    if (file_read(path, REGISTRY_MAX, &text, e) < 0)
        return -1;
    json_error_t je;
    json_t *root = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return err_set(e, ERR_INTERNAL, "%s is not JSON: %s", path, je.text);
    int rc = parse_into(ks, root, e);
    json_decref(root);
    return rc < 0 ? err_wrap(e, "%s", path) : 0;
}

int kit_registry_load(provider_t *p, err_t **e)
{
    if (dir_make(p->sandboxes_dir, 0700, e) < 0)
        return -1;
    DIR *d = opendir(p->sandboxes_dir);
    if (!d)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot list %s", p->sandboxes_dir);
    for (struct dirent *de; (de = readdir(d));) {
        uuid16_t id;
        if (de->d_name[0] == '.')
            continue;
        if (!uuid16_parse(&id, de->d_name)) {
            log_warn("%s/%s is no sandbox of mine; left alone", p->sandboxes_dir, de->d_name);
            continue;
        }
        kit_sandbox_t *ks = kit_sandbox_new(p, &id);
        auto_err err_t *why = NULL;
        if (load_one(ks, &why) < 0) {
            /* Without its facts it cannot be used; destroy works by names alone. */
            log_warn("sandbox %s is removed: %s", ks->pub.id_text, err_message(why));
            ks->pub.state = SANDBOX_DESTROYING;
        }
    }
    closedir(d);
    return 0;
}
