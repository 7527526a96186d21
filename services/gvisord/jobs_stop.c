/* SPDX-License-Identifier: Apache-2.0
 *
 * stop and resume as one job each: they go on when the daemon is killed, and the next daemon waits for them. What is
 * left on disk tells how far one came: `checkpoint` takes its name when it is complete and its sandbox has ended, and
 * loses it before the first process runs again.
 */
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "services/gvisord/box_private.h"
#include "services/gvisord/checkpoint.h"
#include "services/gvisord/disk.h"
#include "services/gvisord/file_copy.h"
#include "services/gvisord/jobs_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIMEOUT_MIN_MS 30000
#define BYTES_PER_MS ((uint64_t)20 * 1024) /* 20 MB/s: a slow disk, shared */
#define REASON_MAX 200
#define OUTPUT_MAX 4096

unsigned jobs_timeout_ms(uint64_t bytes)
{
    uint64_t ms = TIMEOUT_MIN_MS + bytes / BYTES_PER_MS;
    return ms > INT32_MAX ? INT32_MAX : (unsigned)ms;
}

static void phase(json_t *result, const char *name, uint64_t *since_us)
{
    uint64_t now = clock_monotonic_us();
    json_object_set_new(result, name, json_integer((json_int_t)((now - *since_us) / 1000)));
    *since_us = now;
}

static void warn(json_t *result, const char *what, const char *why)
{
    auto_free char *text = mem_printf("%s: %s", what, why);
    json_object_set_new(result, "warning", json_string(text));
}

static const char *text_of(const json_t *args, const char *key)
{
    return json_string_value(json_object_get(args, key));
}

/* ---- stop ---- */

/* Its memory gets its name when it is on disk. */
static int keep_memory(const json_t *args, const runtime_t *r, uint64_t used_bytes, err_t **e)
{
    const char *dir = text_of(args, "dir");
    auto_free char *fresh = mem_printf("%s/" JOBS_CHECKPOINT_NEW, dir);
    auto_free char *kept = mem_printf("%s/" JOBS_CHECKPOINT, dir);
    if (checkpoint_take(r, text_of(args, "id"), fresh, json_object_get(args, "key"), false, jobs_timeout_ms(used_bytes),
                        e) < 0)
        return -1;
    if (dir_sync(fresh, e) < 0)
        return -1;
    if (rename(fresh, kept) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot name %s", kept);
    return file_sync(dir, e);
}

static int stop_processes(const json_t *args, json_t *result, err_t **e)
{
    const char *id = text_of(args, "id"), *dir = text_of(args, "dir");
    static const char what[] = "its processes were ended and only its files are kept";
    auto_err err_t *why = NULL;
    runtime_t r;
    runtime_from_json(&r, json_object_get(args, "runtime"));
    if (r.is_crun) {
        warn(result, what, "without gVisor, memory cannot be kept");
        return 0;
    }
    if (!cgroup_has_processes(&jobs_context->cgroups, id)) {
        if (json_is_true(json_object_get(args, "was_running")))
            warn(result, what, "they had ended before they could be kept");
        return 0;
    }
    if (!r.path) {
        warn(result, what, "runsc is not to be found");
        return 0;
    }
    uint64_t used = cgroup_memory_used(&jobs_context->cgroups, id);
    if (dir_require_space(dir, used, "the sandbox's memory", e) < 0)
        return -1;
    if (keep_memory(args, &r, used, &why) < 0)
        warn(result, what, err_message(why));
    return 0;
}

int job_stop(const json_t *args, json_t *result, err_t **e)
{
    const char *dir = text_of(args, "dir");
    auto_free char *kept = mem_printf("%s/" JOBS_CHECKPOINT, dir);
    auto_free char *fresh = mem_printf("%s/" JOBS_CHECKPOINT_NEW, dir);
    auto_free char *used = mem_printf("%s/" JOBS_CHECKPOINT_USED, dir);
    uint64_t since = clock_monotonic_us();
    /* One that is there is of an earlier try that came further than this daemon knows. */
    if (!checkpoint_exists(kept) && json_is_true(json_object_get(args, "keep")) && stop_processes(args, result, e) < 0)
        return -1;
    phase(result, "checkpoint_ms", &since);
    json_object_set_new(result, "has_begun", json_true());
    if (jobs_remove_host_objects(args, e) < 0)
        return -1;
    phase(result, "end_ms", &since);
    if (disk_detach(dir, e) < 0 || jobs_remove_files(dir, e) < 0 || dir_remove(fresh, e) < 0 || dir_remove(used, e) < 0)
        return -1;
    phase(result, "disk_ms", &since);
    bool has_processes = checkpoint_exists(kept);
    json_object_set_new(result, "has_processes", json_boolean(has_processes));
    json_object_set_new(result, "kept_bytes", json_integer((json_int_t)(has_processes ? dir_used_bytes(kept) : 0)));
    return 0;
}

/* ---- resume, and create from a snapshot ---- */

static int make_fifo(const char *dir, const char *name, err_t **e)
{
    auto_free char *path = mem_printf("%s/%s", dir, name);
    if ((unlink(path) < 0 && errno != ENOENT) || mkfifo(path, 0600) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot make %s", path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 ? err_set_errno(e, ERR_NONE, errno, "cannot open %s", path) : fd;
}

static int explain(const char *dir, int exit_code, err_t **e)
{
    const box_t box = {.dir = dir};
    auto_free char *why = box_runtime_log(&box);
    size_t len = why ? strcspn(why, "\n") : 0;
    return err_set(e, ERR_SANDBOX_FAILED, "the runtime could not start it (status %d): %.*s", exit_code,
                   (int)(len < REASON_MAX ? len : REASON_MAX), why ? why : "");
}

static int execute(const json_t *args, const char *const *argv, uint64_t bytes, err_t **e)
{
    const char *dir = text_of(args, "dir");
    network_slot_t slot;
    bool has_slot;
    char *procs[CGROUP_CONTROLLERS + 1];
    auto_close int in = make_fifo(dir, "in", e), out = in < 0 ? -1 : make_fifo(dir, "out", e);
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (in < 0 || out < 0 || jobs_slot(args, &slot, &has_slot, e) < 0)
        return -1;
    auto_close int netns = has_slot ? open(slot.netns_path, O_RDONLY | O_CLOEXEC) : -1;
    if (has_slot && netns < 0)
        return err_set_errno(e, ERR_SANDBOX_FAILED, errno, "cannot open %s", slot.netns_path);
    process_options_t options = {.argv = argv,
                                 .fd_stdin = in,
                                 .fd_stdout = out,
                                 .fd_stderr = null,
                                 .netns_fd = netns,
                                 .mask_proc_sys_net_core = netns >= 0,
                                 .timeout_ms = jobs_timeout_ms(bytes),
                                 .output_max = OUTPUT_MAX};
    cgroup_procs_paths(&jobs_context->cgroups, text_of(args, "id"), procs);
    for (int i = 0; procs[i]; i++)
        options.cgroup_procs[i] = procs[i];
    int rc = worker_exec_with(&options, e);
    for (int i = 0; procs[i]; i++)
        free(procs[i]);
    return rc > 0 ? explain(dir, rc, e) : rc;
}

/* image NULL: a start from the files. */
static int run(const json_t *args, const char *image, err_t **e)
{
    const char *dir = text_of(args, "dir");
    auto_free char *log = mem_printf("%s/runtime.log", dir);
    auto_free char *pid = mem_printf("%s/pid", dir);
    runtime_command_t c;
    runtime_t r;
    if (box_make_outputs(dir, e) < 0)
        return -1;
    runtime_from_json(&r, json_object_get(args, "runtime"));
    runtime_begin(&c, &r, log);
    runtime_add(&c, image ? "restore" : "run");
    runtime_add(&c, "--detach");
    if (image) {
        runtime_add(&c, "--image-path");
        runtime_add(&c, image);
    }
    runtime_add(&c, "--bundle");
    runtime_add(&c, dir);
    runtime_add(&c, "--pid-file");
    runtime_add(&c, pid);
    runtime_add(&c, text_of(args, "id"));
    return execute(args, c.argv, image ? dir_used_bytes(image) : 0, e);
}

/* After a restore that failed: whatever it left, and with it what a start needs. */
static int begin_again(const json_t *args, err_t **e)
{
    const json_t *l = json_object_get(args, "limits");
    cgroup_limits_t limits = {.cpu_milli = (uint32_t)json_integer_value(json_object_get(l, "cpu")),
                              .memory_budget_bytes = (uint64_t)json_integer_value(json_object_get(l, "memory")),
                              .pids_max = (uint32_t)json_integer_value(json_object_get(l, "pids"))};
    network_slot_t slot;
    bool has_slot;
    if (jobs_remove_host_objects(args, e) < 0 ||
        cgroup_make(&jobs_context->cgroups, text_of(args, "id"), &limits, e) < 0 ||
        jobs_slot(args, &slot, &has_slot, e) < 0)
        return -1;
    return has_slot ? network_up(&slot, e) : 0;
}

/* Its own image is used up by this: its name says so before a process runs. */
static int restore(const json_t *args, const char *image, err_t **e)
{
    const char *dir = text_of(args, "dir");
    if (!json_is_true(json_object_get(args, "is_own_image")))
        return run(args, image, e);
    auto_free char *used = mem_printf("%s/" JOBS_CHECKPOINT_USED, dir);
    if (dir_remove(used, e) < 0)
        return -1;
    if (rename(image, used) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot rename %s", image);
    return file_sync(dir, e) < 0 ? -1 : run(args, used, e);
}

static int start_from_files(const json_t *args, err_t **e)
{
    auto_free char *kept = mem_printf("%s/" JOBS_CHECKPOINT, text_of(args, "dir"));
    auto_free char *used = mem_printf("%s/" JOBS_CHECKPOINT_USED, text_of(args, "dir"));
    if (dir_remove(kept, e) < 0 || dir_remove(used, e) < 0)
        return -1;
    return run(args, NULL, e);
}

static int copy_files(const json_t *args, const char *from, err_t **e)
{
    const char *dir = text_of(args, "dir");
    bool is_shared = false;
    auto_free char *image = mem_printf("%s/disk.img", dir);
    if (!json_is_true(json_object_get(args, "has_reflink")) &&
        dir_require_space(dir, disk_used_bytes(from), "the snapshot's files", e) < 0)
        return -1;
    if (disk_copy(from, dir, &is_shared, e) < 0 ||
        disk_grow(dir, (uint64_t)json_integer_value(json_object_get(args, "disk_bytes")), e) < 0)
        return -1;
    return access(image, F_OK) < 0 ? 0 : file_sync(image, e);
}

int job_start(const json_t *args, json_t *result, err_t **e)
{
    static const char what[] = "its processes could not be continued, it was started anew from its files";
    const char *image = text_of(args, "image"), *from = text_of(args, "copy_from");
    uint64_t since = clock_monotonic_us();
    if (from && copy_files(args, from, e) < 0)
        return -1;
    phase(result, "copy_ms", &since);
    auto_free char *mismatch = image ? checkpoint_mismatch(image, json_object_get(args, "key")) : NULL;
    bool is_restored = false;
    if (jobs_disk_and_network(args, true, from && (!image || mismatch), e) < 0)
        return -1;
    phase(result, "prepare_ms", &since);
    if (mismatch) {
        warn(result, what, mismatch);
    } else if (image) {
        auto_err err_t *why = NULL;
        is_restored = restore(args, image, &why) == 0;
        if (!is_restored) {
            warn(result, what, err_message(why));
            if (begin_again(args, e) < 0)
                return -1;
        }
        phase(result, "restore_ms", &since);
    }
    json_object_set_new(result, "has_processes", json_boolean(is_restored));
    if (!is_restored && start_from_files(args, e) < 0)
        return -1;
    phase(result, "runtime_ms", &since);
    return 0;
}

/* ---- what is no longer needed ---- */

/* The directory stays: it says that processes were restored. */
int job_forget_used(const json_t *args, json_t *result, err_t **e)
{
    (void)result;
    auto_free char *used = mem_printf("%s/" JOBS_CHECKPOINT_USED, text_of(args, "dir"));
    if (access(used, F_OK) < 0)
        return 0;
    return dir_remove(used, e) < 0 ? -1 : dir_make(used, 0700, e);
}

/* Ends what is left of a sandbox and keeps its files as they are: before it is started from them. */
int job_clear(const json_t *args, json_t *result, err_t **e)
{
    (void)result;
    const char *dir = text_of(args, "dir");
    auto_free char *fresh = mem_printf("%s/" JOBS_CHECKPOINT_NEW, dir);
    if (jobs_remove_host_objects(args, e) < 0 || disk_detach(dir, e) < 0 || jobs_remove_files(dir, e) < 0)
        return -1;
    return dir_remove(fresh, e);
}
