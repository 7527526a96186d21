/* SPDX-License-Identifier: Apache-2.0
 *
 * One snapshot as one job. Of a running sandbox: pause → memory → freeze the disk → copy it → thaw → resume; then, with
 * the sandbox running on, job_snapshot_durable syncs everything. gVisor writes through to the disk's file system
 * (--overlay2=none, direct descriptors), so pausing and freezing is all that the files need.
 */
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "services/gvisord/checkpoint.h"
#include "services/gvisord/disk.h"
#include "services/gvisord/file_copy.h"
#include "services/gvisord/jobs_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* In JOBS_PAUSED_FILE. */
#define MARKER_RUNS 'r'
#define MARKER_PAUSING 'w' /* or not yet, or already */
#define MARKER_PAUSED 'p'
#define MARKER_PAUSED_BY_COMMAND 'c'

typedef struct work {
    const char *id, *dir, *target;
    const json_t *args;
    json_t *result;
    runtime_t runtime;
    char *image; /* memory, below target */
    char *marker_path;
    _Atomic char *marker;
    bool keep, is_paused, by_command, is_frozen, is_shared;
} work_t;

static void warn(work_t *w, const char *what, const char *why)
{
    auto_free char *text = mem_printf("%s: %s", what, why);
    json_object_set_new(w->result, "warning", json_string(text));
}

/* One byte in a file, shared by mapping: setting it is a store, which neither waits for a disk nor is lost when this
 * process is killed. */
static int marker_open(work_t *w, err_t **e)
{
    auto_close int fd = open(w->marker_path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 1) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot make %s", w->marker_path);
    void *at = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return err_set_errno(e, ERR_NONE, errno, "cannot map %s", w->marker_path);
    w->marker = at;
    atomic_store(w->marker, MARKER_RUNS);
    return 0;
}

/* How it is paused; who asks has to let it go on. A job that the daemon has given up meets the one that heals here: one
 * that is resumed twice ends. */
static char marker_take(_Atomic char *marker)
{
    return atomic_exchange(marker, MARKER_RUNS);
}

static void marker_close(work_t *w)
{
    if (w->marker)
        (void)munmap(w->marker, 1);
    w->marker = NULL;
    (void)unlink(w->marker_path);
}

/* What is paused when this process is killed is found by job_heal. */
static int pause_it(work_t *w, err_t **e)
{
    if (w->runtime.is_crun)
        return 0;
    atomic_store(w->marker, MARKER_PAUSING);
    if (checkpoint_pause(&w->runtime, w->id, &w->by_command, e) < 0)
        return -1;
    atomic_store(w->marker, w->by_command ? MARKER_PAUSED_BY_COMMAND : MARKER_PAUSED);
    w->is_paused = true;
    return 0;
}

static int go_on(work_t *w, err_t **e)
{
    if (w->is_frozen)
        disk_thaw(w->dir);
    w->is_frozen = false;
    if (!w->is_paused)
        return 0;
    w->is_paused = false;
    if (marker_take(w->marker) == MARKER_RUNS)
        return 0;
    return checkpoint_unpause(&w->runtime, w->id, w->by_command, e);
}

static int take_memory(work_t *w)
{
    static const char what[] = "the snapshot has only the files, not the processes";
    auto_err err_t *why = NULL;
    if (w->runtime.is_crun) {
        warn(w, what, "without gVisor, memory cannot be kept");
        return -1;
    }
    uint64_t used = cgroup_memory_used(&jobs_context->cgroups, w->id);
    if (checkpoint_take(&w->runtime, w->id, w->image, json_object_get(w->args, "key"), true, jobs_timeout_ms(used),
                        &why) == 0)
        return 0;
    warn(w, what, err_message(why));
    return -1;
}

/* While it stands still. */
static int take(work_t *w, err_t **e)
{
    if (pause_it(w, e) < 0)
        return -1;
    bool has_memory = w->keep && take_memory(w) == 0;
    json_object_set_new(w->result, "has_processes", json_boolean(has_memory));
    if (disk_freeze(w->dir, e) < 0)
        return -1;
    w->is_frozen = true;
    return disk_copy(w->dir, w->target, &w->is_shared, e);
}

static int require_space(const work_t *w, bool with_memory, err_t **e)
{
    uint64_t bytes = with_memory ? cgroup_memory_used(&jobs_context->cgroups, w->id) : 0;
    if (!json_is_true(json_object_get(w->args, "has_reflink")))
        bytes += disk_used_bytes(w->dir);
    return dir_require_space(w->target, bytes, "the snapshot", e);
}

static int of_running(work_t *w, err_t **e)
{
    auto_err err_t *resume_error = NULL;
    /* The first sync is not part of the stall, and leaves little for the one that freezing does. */
    if (require_space(w, w->keep, e) < 0 || disk_sync(w->dir, e) < 0 || marker_open(w, e) < 0)
        return -1;
    uint64_t since = clock_monotonic_us();
    int rc = take(w, e);
    int resumed = go_on(w, &resume_error);
    json_object_set_new(w->result, "stall_ms", json_integer((json_int_t)((clock_monotonic_us() - since) / 1000)));
    marker_close(w);
    if (resumed < 0)
        return rc < 0 ? -1 : err_set(e, err_code(resume_error), "%s", err_message(resume_error));
    return rc;
}

/* A stopped one's memory image never changes: the snapshot gets second names for its files. */
static int link_memory(const work_t *w, const char *from, err_t **e)
{
    DIR *d = opendir(from);
    int rc = d ? dir_make(w->image, 0700, e) : err_set_errno(e, ERR_NONE, errno, "cannot list %s", from);
    for (struct dirent *de; rc == 0 && (de = readdir(d));) {
        auto_free char *source = mem_printf("%s/%s", from, de->d_name);
        auto_free char *target = mem_printf("%s/%s", w->image, de->d_name);
        if (de->d_type == DT_REG)
            rc = file_link_or_copy(source, target, e);
    }
    if (d)
        closedir(d);
    return rc;
}

static int of_stopped(work_t *w, err_t **e)
{
    auto_free char *kept = mem_printf("%s/" JOBS_CHECKPOINT, w->dir);
    bool has_memory = w->keep && checkpoint_exists(kept);
    if (require_space(w, false, e) < 0 || (has_memory && link_memory(w, kept, e) < 0))
        return -1;
    json_object_set_new(w->result, "has_processes", json_boolean(has_memory));
    json_object_set_new(w->result, "stall_ms", json_integer(0));
    return disk_copy(w->dir, w->target, &w->is_shared, e);
}

int job_snapshot_durable(const json_t *args, json_t *result, err_t **e)
{
    const char *target = json_string_value(json_object_get(args, "target"));
    auto_free char *image = mem_printf("%s/" JOBS_CHECKPOINT, target);
    auto_free char *tree = mem_printf("%s/disk", target);
    if (access(image, F_OK) == 0 && dir_sync(image, e) < 0)
        return -1;
    if (access(tree, F_OK) == 0) {
        auto_close int fd = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || syncfs(fd) < 0)
            return err_set_errno(e, ERR_NONE, errno, "cannot make %s durable", tree);
    }
    json_object_set_new(result, "size_bytes", json_integer((json_int_t)dir_used_bytes(target)));
    return dir_sync(target, e);
}

int job_snapshot(const json_t *args, json_t *result, err_t **e)
{
    work_t w = {.id = json_string_value(json_object_get(args, "id")),
                .dir = json_string_value(json_object_get(args, "dir")),
                .target = json_string_value(json_object_get(args, "target")),
                .args = args,
                .result = result,
                .keep = json_is_true(json_object_get(args, "keep"))};
    auto_free char *image = mem_printf("%s/" JOBS_CHECKPOINT, w.target);
    auto_free char *marker = mem_printf("%s/" JOBS_PAUSED_FILE, w.dir);
    w.image = image;
    w.marker_path = marker;
    runtime_from_json(&w.runtime, json_object_get(args, "runtime"));
    bool is_running = json_is_true(json_object_get(args, "is_running"));
    if ((is_running ? of_running(&w, e) : of_stopped(&w, e)) < 0)
        return -1;
    json_object_set_new(result, "is_shared", json_boolean(w.is_shared));
    return 0;
}

static char marker_take_file(const char *path)
{
    struct stat st;
    auto_close int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
        return MARKER_RUNS;
    void *at = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return MARKER_RUNS;
    char state = marker_take(at);
    (void)munmap(at, 1);
    return state == '\0' ? MARKER_RUNS : state;
}

/* Nobody can ask gVisor whether it is paused, and one that runs must not be resumed: with `force` the daemon has seen
 * that it stands still. */
int job_heal(const json_t *args, json_t *result, err_t **e)
{
    const char *id = json_string_value(json_object_get(args, "id")),
               *dir = json_string_value(json_object_get(args, "dir"));
    auto_free char *marker = mem_printf("%s/" JOBS_PAUSED_FILE, dir);
    runtime_t r;
    runtime_from_json(&r, json_object_get(args, "runtime"));
    disk_thaw(dir);
    char state = marker_take_file(marker);
    if (state == MARKER_PAUSING && !json_is_true(json_object_get(args, "force"))) {
        static const char content = MARKER_PAUSING; /* for the next daemon */
        json_object_set_new(result, "may_be_paused", json_true());
        return file_write_atomic(marker, &content, 1, 0600, e);
    }
    (void)unlink(marker);
    return state == MARKER_RUNS ? 0 : checkpoint_unpause(&r, id, state == MARKER_PAUSED_BY_COMMAND, e);
}
