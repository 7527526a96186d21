/* SPDX-License-Identifier: Apache-2.0
 *
 * The snapshots on disk. A directory says by its name what it is: `<uuid>` complete, `.new-<uuid>` being made,
 * `.old-<uuid>-<n>` being removed. Names change by rename, with the directories synced before and after.
 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SNAPSHOT_FILE "snapshot.json"
#define SNAPSHOT_FILE_MAX (2 * 1024 * 1024)
#define SNAPSHOT_FORMAT 1
#define NEW_PREFIX ".new-"
#define OLD_PREFIX ".old-"

static kit_snapshot_t *snapshot_add(provider_t *p, const uuid16_t *id)
{
    kit_snapshot_t *snap = mem_alloc(sizeof *snap);
    snap->provider = p;
    snap->pub.id = *id;
    uuid16_format(id, snap->pub.id_text);
    STAILQ_INIT(&snap->create_waiters);
    STAILQ_INIT(&snap->delete_waiters);
    TAILQ_INSERT_TAIL(&p->snapshots, snap, entry);
    return snap;
}

static void snapshot_free(kit_snapshot_t *snap)
{
    auto_err err_t *gone = NULL;
    err_set(&gone, ERR_CANCELLED, "the snapshot is gone");
    kit_waiters_error(snap->provider, &snap->create_waiters, gone);
    kit_waiters_error(snap->provider, &snap->delete_waiters, gone);
    TAILQ_REMOVE(&snap->provider->snapshots, snap, entry);
    kit_spec_free(&snap->pub.spec);
    json_decref(snap->pub.labels);
    json_decref(snap->pub.warnings);
    json_decref(snap->pub.private_);
    free(snap->pub.dir);
    free(snap->unreadable);
    free(snap);
}

void kit_snapshots_free(provider_t *p)
{
    for (kit_snapshot_t *snap; (snap = TAILQ_FIRST(&p->snapshots));)
        snapshot_free(snap);
}

kit_snapshot_t *kit_snapshot_find(provider_t *p, const uuid16_t *id)
{
    kit_snapshot_t *snap;
    TAILQ_FOREACH(snap, &p->snapshots, entry)
    if (memcmp(snap->pub.id.bytes, id->bytes, sizeof id->bytes) == 0)
        return snap;
    return NULL;
}

const snapshot_t *provider_snapshot_next(provider_t *p, const snapshot_t *after)
{
    const kit_snapshot_t *snap = (const kit_snapshot_t *)after;
    snap = snap ? TAILQ_NEXT(snap, entry) : TAILQ_FIRST(&p->snapshots);
    while (snap && (snap->state != KIT_SNAPSHOT_READY || snap->unreadable))
        snap = TAILQ_NEXT(snap, entry);
    return (const snapshot_t *)snap;
}

/* ---- making and removing ---- */

static char *dup_or_null(const char *s)
{
    return s ? mem_strdup(s) : NULL;
}

kit_snapshot_t *kit_snapshot_new(kit_sandbox_t *ks, const uuid16_t *id, err_t **e)
{
    provider_t *p = ks->pub.provider;
    const sandbox_spec_t *spec = &ks->pub.spec;
    char text[UUID_TEXT_SIZE];
    uuid16_format(id, text);
    auto_free char *dir = mem_printf("%s/" NEW_PREFIX "%s", p->snapshots_dir, text);
    if (mkdir(dir, 0700) < 0) {
        err_set_errno(e, ERR_NONE, errno, "cannot make the directory %s of a snapshot", dir);
        return NULL;
    }
    kit_snapshot_t *snap = snapshot_add(p, id);
    snap->pub.dir = STEAL_PTR(dir);
    snap->pub.source = ks->pub.id;
    snap->pub.spec = *spec;
    snap->pub.spec.image = dup_or_null(spec->image);
    snap->pub.spec.network = dup_or_null(spec->network);
    snap->pub.spec.env = json_object();
    snap->pub.spec.labels = json_deep_copy(spec->labels);
    snap->pub.created_at_ms = clock_realtime_ms();
    snap->pub.labels = json_object();
    snap->pub.warnings = json_array();
    snap->pub.private_ = json_object();
    snap->started_ms = clock_monotonic_ms();
    return snap;
}

static int dir_sync(const char *path, err_t **e)
{
    auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot make %s durable", path);
    return 0;
}

static int snapshot_save(const kit_snapshot_t *snap, err_t **e)
{
    const snapshot_t *s = &snap->pub;
    char source[UUID_TEXT_SIZE];
    uuid16_format(&s->source, source);
    json_t *spec = kit_spec_pack(&s->spec);
    json_t *root = !spec
                       ? NULL
                       : json_pack("{s:i,s:s,s:s,s:b,s:I,s:I,s:I,s:I,s:O,s:O,s:O,s:O}", "format", SNAPSHOT_FORMAT, "id",
                                   s->id_text, "source", source, "has_processes", s->has_processes, "size_bytes",
                                   (json_int_t)s->size_bytes, "created_at_ms", (json_int_t)s->created_at_ms, "stall_ms",
                                   (json_int_t)s->stall_ms, "total_ms", (json_int_t)s->total_ms, "labels", s->labels,
                                   "warnings", s->warnings, "private", s->private_, "spec", spec);
    json_decref(spec);
    auto_free char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(e, ERR_INTERNAL, "cannot write down snapshot %s: a text in it is not UTF-8", s->id_text);
    auto_free char *path = mem_printf("%s/" SNAPSHOT_FILE, s->dir);
    return file_write_atomic(path, text, strlen(text), 0600, e); /* syncs the directory, too */
}

int kit_snapshot_complete(kit_snapshot_t *snap, err_t **e)
{
    auto_free char *name = mem_printf("%s/%s", snap->provider->snapshots_dir, snap->pub.id_text);
    if (snapshot_save(snap, e) < 0)
        return -1;
    if (rename(snap->pub.dir, name) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot give snapshot %s its name", snap->pub.id_text);
    free(snap->pub.dir);
    snap->pub.dir = STEAL_PTR(name);
    if (dir_sync(snap->provider->snapshots_dir, e) < 0)
        return -1;
    snap->state = KIT_SNAPSHOT_READY;
    return 0;
}

static void on_removed(void *arg, bool is_gone)
{
    kit_snapshot_t *snap = arg;
    struct empty nothing = {0};
    if (is_gone)
        kit_waiters_reply(snap->provider, &snap->delete_waiters, MSG_empty, &nothing);
    auto_err err_t *e = NULL;
    err_set(&e, ERR_INTERNAL, "snapshot '%s' is deleted, but its files could not be removed yet", snap->pub.id_text);
    kit_waiters_error(snap->provider, &snap->delete_waiters, e);
    snapshot_free(snap);
}

/* A name under which it waits to be removed: the same id may be used again meanwhile. */
static char *old_name(const provider_t *p, const char *id_text)
{
    uint32_t number = 0;
    random_bytes(&number, sizeof number);
    return mem_printf("%s/" OLD_PREFIX "%s-%08x", p->snapshots_dir, id_text, number);
}

void kit_snapshot_remove(kit_snapshot_t *snap)
{
    provider_t *p = snap->provider;
    auto_err err_t *e = NULL;
    auto_free char *name = old_name(p, snap->pub.id_text);
    bool has_name = snap->state == KIT_SNAPSHOT_READY;
    if (rename(snap->pub.dir, name) == 0) {
        free(snap->pub.dir);
        snap->pub.dir = STEAL_PTR(name);
    } else if (has_name) {
        err_set_errno(&e, ERR_NONE, errno, "cannot delete snapshot '%s'", snap->pub.id_text);
    }
    if (!e && has_name)
        dir_sync(p->snapshots_dir, &e);
    if (e && has_name) { /* it is not durably gone: it stays what it is */
        kit_waiters_error(p, &snap->delete_waiters, e);
        log_error("%s", err_message(e));
        return;
    }
    snap->state = KIT_SNAPSHOT_DESTROYING;
    kit_trash_add(p, snap->pub.dir, on_removed, snap);
}

/* ---- reading ---- */

static int parse_into(kit_snapshot_t *snap, json_t *root, err_t **e)
{
    snapshot_t *s = &snap->pub;
    const char *source = NULL;
    json_int_t size = 0, created = 0, stall = 0, total = 0;
    json_t *labels = NULL, *warnings = NULL, *private_ = NULL, *spec = NULL;
    json_error_t je;
    int format = 0, has_processes = 0;
    if (json_unpack_ex(root, &je, 0, "{s:i,s:s,s:b,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:o}", "format", &format, "source",
                       &source, "has_processes", &has_processes, "size_bytes", &size, "created_at_ms", &created,
                       "stall_ms", &stall, "total_ms", &total, "labels", &labels, "warnings", &warnings, "private",
                       &private_, "spec", &spec) < 0)
        return err_set(e, ERR_INTERNAL, "%s", je.text);
    if (format != SNAPSHOT_FORMAT)
        return err_set(e, ERR_INTERNAL, "its format is %d, this release knows %d", format, SNAPSHOT_FORMAT);
    if (!uuid16_parse(&s->source, source) || !json_is_object(labels) || !json_is_array(warnings) ||
        !json_is_object(private_))
        return err_set(e, ERR_INTERNAL, "a field has a wrong type");
    s->has_processes = has_processes;
    s->size_bytes = (uint64_t)size;
    s->created_at_ms = (uint64_t)created;
    s->stall_ms = (uint32_t)stall;
    s->total_ms = (uint32_t)total;
    s->labels = json_incref(labels);
    s->warnings = json_incref(warnings);
    s->private_ = json_incref(private_);
    return kit_spec_unpack(spec, &s->spec, e);
}

static int load_one(kit_snapshot_t *snap, err_t **e)
{
    auto_free char *path = mem_printf("%s/" SNAPSHOT_FILE, snap->pub.dir);
    auto_buf buf_t text = {0};
    if (file_read(path, SNAPSHOT_FILE_MAX, &text, e) < 0)
        return -1;
    json_error_t je;
    json_t *root = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return err_set(e, ERR_INTERNAL, "%s is not JSON: %s", path, je.text);
    int rc = parse_into(snap, root, e);
    json_decref(root);
    return rc < 0 ? err_wrap(e, "%s", path) : 0;
}

static bool has_prefix(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static void found(provider_t *p, const char *name)
{
    uuid16_t id;
    auto_free char *path = mem_printf("%s/%s", p->snapshots_dir, name);
    if (has_prefix(name, NEW_PREFIX) || has_prefix(name, OLD_PREFIX)) {
        log_info("a snapshot that is half made or half deleted is removed: %s", path);
        auto_free char *old = has_prefix(name, NEW_PREFIX) ? old_name(p, name + strlen(NEW_PREFIX)) : NULL;
        kit_trash_add(p, old && rename(path, old) == 0 ? old : path, NULL, NULL);
    } else if (uuid16_parse(&id, name)) {
        auto_err err_t *why = NULL;
        kit_snapshot_t *snap = snapshot_add(p, &id);
        snap->state = KIT_SNAPSHOT_READY;
        snap->pub.dir = STEAL_PTR(path);
        if (load_one(snap, &why) < 0) {
            log_error("snapshot %s cannot be used, it is kept: %s", snap->pub.id_text, err_message(why));
            snap->unreadable = mem_strdup(err_message(why));
        }
    } else if (name[0] != '.') {
        log_warn("%s is no snapshot of mine; left alone", path);
    }
}

int kit_snapshots_load(provider_t *p, err_t **e)
{
    if (dir_make(p->snapshots_dir, 0700, e) < 0)
        return -1;
    DIR *d = opendir(p->snapshots_dir);
    if (!d)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot list %s", p->snapshots_dir);
    for (struct dirent *de; (de = readdir(d));)
        found(p, de->d_name);
    closedir(d);
    return 0;
}
