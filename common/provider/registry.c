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

static const char *const STATE_NAMES[] = {
    [SANDBOX_CREATING] = "creating", [SANDBOX_READY] = "ready",           [SANDBOX_STOPPED] = "stopped",
    [SANDBOX_DEAD] = "dead",         [SANDBOX_DESTROYING] = "destroying",
};

const char *kit_state_name(enum sandbox_state state)
{
    return STATE_NAMES[state];
}

static struct kit_bucket *bucket_of(provider_t *p, const uuid16_t *id)
{
    return &p->by_id[(id->bytes[0] ^ id->bytes[5] ^ id->bytes[15]) % KIT_ID_BUCKETS];
}

kit_sandbox_t *kit_sandbox_new(provider_t *p, const uuid16_t *id)
{
    kit_sandbox_t *ks = mem_alloc(sizeof *ks);
    ks->pub.id = *id;
    uuid16_format(id, ks->pub.id_text);
    ks->pub.dir = mem_printf("%s/%s", p->sandboxes_dir, ks->pub.id_text);
    ks->pub.provider = p;
    ks->pub.private_ = json_object();
    ks->created_at_ms = clock_realtime_ms();
    STAILQ_INIT(&ks->create_waiters);
    STAILQ_INIT(&ks->destroy_waiters);
    STAILQ_INIT(&ks->down);
    TAILQ_INSERT_TAIL(&p->sandboxes, ks, entry);
    LIST_INSERT_HEAD(bucket_of(p, id), ks, by_id);
    p->sandbox_count++;
    return ks;
}

kit_sandbox_t *kit_sandbox_find(provider_t *p, const uuid16_t *id)
{
    kit_sandbox_t *ks;
    LIST_FOREACH(ks, bucket_of(p, id), by_id)
    if (memcmp(ks->pub.id.bytes, id->bytes, sizeof id->bytes) == 0)
        return ks;
    return NULL;
}

static void spec_free(sandbox_spec_t *spec)
{
    free(spec->image);
    free(spec->network);
    json_decref(spec->env);
    json_decref(spec->labels);
}

void kit_sandbox_free(kit_sandbox_t *ks)
{
    provider_t *p = ks->pub.provider;
    kit_peer_t *kp;
    TAILQ_FOREACH(kp, &p->peers, entry)
    kit_outbox_forget(kp, ks);
    kit_grace_stop(ks);
    if (ks->retry_timer)
        event_free(ks->retry_timer);
    stream_destroy(&ks->pub.stream);
    auto_err err_t *gone = NULL;
    err_set(&gone, ERR_SANDBOX_FAILED, "the sandbox is gone");
    kit_relay_fail_all(ks, gone);
    free(ks->calls);
    kit_waiters_error(p, &ks->create_waiters, gone);
    kit_waiters_error(p, &ks->destroy_waiters, gone);
    p->ops->forget(&ks->pub);
    buf_free(&ks->programs);
    TAILQ_REMOVE(&p->sandboxes, ks, entry);
    LIST_REMOVE(ks, by_id);
    p->sandbox_count--;
    spec_free(&ks->pub.spec);
    json_decref(ks->pub.private_);
    free(ks->pub.reason);
    free(ks->pub.dir);
    free(ks);
}

int kit_registry_save(kit_sandbox_t *ks, err_t **e)
{
    const sandbox_spec_t *spec = &ks->pub.spec;
    json_t *root = json_pack("{s:i,s:s,s:s,s:I,s:I,s:s*,s:{s:s*,s:I,s:I,s:I,s:I,s:s*,s:O*,s:O*},s:O}", "format",
                             REGISTRY_FORMAT, "id", ks->pub.id_text, "state", kit_state_name(ks->pub.state),
                             "created_at_ms", (json_int_t)ks->created_at_ms, "epoch", (json_int_t)ks->epoch, "reason",
                             ks->pub.reason, "spec", "image", spec->image, "cpu_milli", (json_int_t)spec->cpu_milli,
                             "memory_bytes", (json_int_t)spec->memory_bytes, "disk_bytes", (json_int_t)spec->disk_bytes,
                             "pids_max", (json_int_t)spec->pids_max, "network", spec->network, "env", spec->env,
                             "labels", spec->labels, "private", ks->pub.private_);
    auto_free char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(e, ERR_INTERNAL, "cannot write down sandbox %s: a text in it is not UTF-8", ks->pub.id_text);
    auto_free char *path = mem_printf("%s/%s", ks->pub.dir, REGISTRY_FILE);
    return file_write_atomic(path, text, strlen(text), 0600, e);
}

static bool state_parse(const char *name, enum sandbox_state *state)
{
    for (unsigned i = 0; i < COUNT_OF(STATE_NAMES); i++)
        if (strcmp(STATE_NAMES[i], name) == 0) {
            *state = (enum sandbox_state)i;
            return true;
        }
    return false;
}

static char *dup_or_null(const char *s)
{
    return s ? mem_strdup(s) : NULL;
}

static int parse_into(kit_sandbox_t *ks, json_t *root, err_t **e)
{
    const char *state = NULL, *reason = NULL, *image = NULL, *network = NULL;
    json_int_t created = 0, epoch = 0, cpu = 0, memory = 0, disk = 0, pids = 0;
    json_t *env = NULL, *labels = NULL, *private_ = NULL;
    json_error_t je;
    int format = 0;
    if (json_unpack_ex(root, &je, 0, "{s:i,s:s,s:I,s:I,s?s,s:{s?s,s:I,s:I,s:I,s:I,s?s,s?o,s?o},s:o}", "format", &format,
                       "state", &state, "created_at_ms", &created, "epoch", &epoch, "reason", &reason, "spec", "image",
                       &image, "cpu_milli", &cpu, "memory_bytes", &memory, "disk_bytes", &disk, "pids_max", &pids,
                       "network", &network, "env", &env, "labels", &labels, "private", &private_) < 0)
        return err_set(e, ERR_INTERNAL, "%s", je.text);
    if (format != REGISTRY_FORMAT)
        return err_set(e, ERR_INTERNAL, "its format is %d, this release knows %d", format, REGISTRY_FORMAT);
    if (!state_parse(state, &ks->pub.state) || !json_is_object(private_))
        return err_set(e, ERR_INTERNAL, "the state \"%s\" is unknown", state);
    ks->created_at_ms = (uint64_t)created;
    ks->epoch = (uint64_t)epoch;
    ks->pub.reason = dup_or_null(reason);
    ks->pub.spec = (sandbox_spec_t){.image = dup_or_null(image),
                                    .cpu_milli = (uint32_t)cpu,
                                    .memory_bytes = (uint64_t)memory,
                                    .disk_bytes = (uint64_t)disk,
                                    .pids_max = (uint32_t)pids,
                                    .network = dup_or_null(network),
                                    .env = json_incref(env),
                                    .labels = json_incref(labels)};
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
