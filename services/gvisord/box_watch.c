/* SPDX-License-Identifier: Apache-2.0 */
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gvisord/box_private.h"
#include "services/gvisord/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_MAX 65536
#define STAT_MAX 4096
#define STAT_START_FIELD 22 /* proc(5): starttime */
#define GOFER_ARGUMENT "gofer"

static const char *const PID_KEYS[2] = {"sandbox_pid", "gofer_pid"};
static const char *const START_KEYS[2] = {"sandbox_start", "gofer_start"};

/* ---- what the runtime writes ---- */

int box_make_outputs(const char *dir, err_t **e)
{
    static const char *const names[] = {"runtime.log", "pid"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        auto_free char *path = mem_printf("%s/%s", dir, names[i]);
        auto_close int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0)
            return err_set_errno(e, ERR_NONE, errno, "cannot make %s", path);
    }
    return 0;
}

static void append_once(buf_t *out, const char *text)
{
    if (text && !strstr(buf_cstr(out), text))
        buf_printf(out, "%s%s", out->len ? "; " : "", text);
}

/* JSON objects, one after the other, with or without newlines between them. */
char *box_runtime_log(const box_t *box)
{
    auto_free char *path = mem_printf("%s/runtime.log", box->dir);
    auto_buf buf_t text = {0}, out = {0};
    buf_init(&out, 800);
    auto_err err_t *e = NULL;
    if (file_read(path, LOG_MAX, &text, &e) < 0)
        return NULL;
    for (size_t at = 0; at < text.len;) {
        json_error_t je;
        json_t *line = json_loadb((const char *)text.data + at, text.len - at, JSON_DISABLE_EOF_CHECK, &je);
        if (!line || je.position <= 0) {
            json_decref(line);
            break;
        }
        const char *level = json_string_value(json_object_get(line, "level"));
        if (!level || strcmp(level, "error") == 0)
            append_once(&out, json_string_value(json_object_get(line, "msg")));
        json_decref(line);
        at += (size_t)je.position;
    }
    return out.len ? buf_steal(&out) : NULL;
}

/* ---- processes ---- */

/* Clock ticks since boot when it started; 0 = there is no such process. With the pid it names a process for ever. */
static uint64_t start_time(pid_t pid)
{
    auto_free char *path = mem_printf("/proc/%d/stat", pid);
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    uint64_t value = 0;
    if (file_read(path, STAT_MAX, &text, &e) < 0)
        return 0;
    const char *at = strrchr(buf_cstr(&text), ')'); /* the name before it may hold anything */
    for (int field = 2; at && field < STAT_START_FIELD; field++)
        at = strchr(at + 1, ' ');
    return at && sscanf(at, " %" SCNu64, &value) == 1 ? value : 0;
}

int box_find_pids(box_t *box, err_t **e)
{
    auto_free char *path = mem_printf("%s/pid", box->dir);
    auto_buf buf_t text = {0};
    uint64_t pid;
    if (file_read(path, 64, &text, e) < 0)
        return -1;
    auto_free char *line = mem_strdup(buf_cstr(&text));
    line[strcspn(line, "\n")] = '\0';
    if (!text_to_u64(line, &pid) || pid == 0 || pid > INT32_MAX)
        return err_set(e, ERR_SANDBOX_FAILED, "the runtime wrote no pid to %s", path);
    pid_t pids[2] = {(pid_t)pid,
                     box->variant.is_crun ? 0 : cgroup_find_process(&box->gv->cgroups, box->id, GOFER_ARGUMENT)};
    for (int i = 0; i < 2; i++) {
        if (pids[i] == 0)
            continue;
        json_object_set_new(box->facts, PID_KEYS[i], json_integer(pids[i]));
        json_object_set_new(box->facts, START_KEYS[i], json_integer((json_int_t)start_time(pids[i])));
    }
    return 0;
}

void box_forget_pids(box_t *box)
{
    for (size_t i = 0; i < COUNT_OF(PID_KEYS); i++) {
        json_object_del(box->facts, PID_KEYS[i]);
        json_object_del(box->facts, START_KEYS[i]);
    }
}

static void drop_watch(box_t *box, int i)
{
    pid_watch_destroy(&box->watches[i]);
    if (box->watched[i])
        reaper_disown(box->watched[i]);
    box->watched[i] = 0;
}

static void describe_end(const box_t *box, int i, int status, char *out, size_t size)
{
    uint64_t kills = cgroup_oom_kills(&box->gv->cgroups, box->id);
    const char *who = i == 0 ? "its process" : "its file server";
    if (kills > 0)
        snprintf(out, size, "memory ran out: the limit of %" PRIu64 " MiB was reached and the kernel ended the sandbox",
                 box->spec->memory_bytes >> 20);
    else if (status == -1)
        snprintf(out, size, "%s has ended", who);
    else if (WIFSIGNALED(status))
        snprintf(out, size, "%s was ended by signal %d", who, WTERMSIG(status));
    else
        snprintf(out, size, "%s ended with status %d", who, WEXITSTATUS(status));
}

static void gone(box_t *box, int i, int status)
{
    char reason[300];
    describe_end(box, i, status, reason, sizeof reason);
    drop_watch(box, i);
    box->has_ended = true;
    if (!box->is_destroying && box->on_gone)
        box->on_gone(box, reason);
}

static void sandbox_gone(void *arg, int status)
{
    gone(arg, 0, status);
}

static void gofer_gone(void *arg, int status)
{
    gone(arg, 1, status);
}

static void on_pressure(void *arg)
{
    box_t *box = arg;
    if (box->on_pressure)
        box->on_pressure(box, cgroup_memory_used(&box->gv->cgroups, box->id));
}

static void on_memory_watched(void *arg, const json_t *result, const err_t *err)
{
    (void)arg;
    (void)result;
    if (err)
        log_warn("memory pressure in a sandbox will not be noticed: %s", err_message(err));
}

/* Without it a sandbox still has its limits; it is only ended as a whole where the agent would have ended one process.
 */
void box_watch_memory(box_t *box)
{
    cgroup_watch_free(&box->pressure);
    auto_err err_t *e = NULL;
    box->pressure = cgroup_watch_new(&box->gv->cgroups, box->id, box->gv->daemon.base, on_pressure, box, &e);
    int fd = box->pressure ? cgroup_watch_fd(box->pressure) : -1;
    if (fd >= 0) {
        json_t *args = json_pack("{s:s,s:I,s:i,s:i}", "id", box->id, "budget_bytes",
                                 (json_int_t)box->spec->memory_bytes, "pid", getpid(), "fd", fd);
        (void)worker_run(box->gv->worker, job_watch_memory, args, on_memory_watched, NULL, &e);
    }
    if (e)
        log_warn("memory pressure in sandbox %s will not be noticed: %s", box->id, err_message(e));
}

int box_watch(box_t *box, err_t **e)
{
    static void (*const handlers[2])(void *, int) = {sandbox_gone, gofer_gone};
    for (int i = 0; i < 2; i++) {
        pid_t pid = (pid_t)json_integer_value(json_object_get(box->facts, PID_KEYS[i]));
        if (pid <= 0 && i == 1)
            continue;
        box->watches[i] = pid > 0 ? pid_watch_new(box->gv->daemon.base, pid, handlers[i], box, e) : NULL;
        if (!box->watches[i])
            return pid > 0 ? -1 : err_set(e, ERR_SANDBOX_FAILED, "its process was never known");
        box->watched[i] = pid;
        reaper_own(pid);
        /* After the watch holds the process: a number that was given to another process since is noticed here. */
        if ((json_int_t)start_time(pid) != json_integer_value(json_object_get(box->facts, START_KEYS[i])))
            return err_set(e, ERR_SANDBOX_FAILED, "its process %d has ended", pid);
    }
    box_watch_memory(box);
    return 0;
}

void box_recall_variant(box_t *box)
{
    const char *platform = json_string_value(json_object_get(box->facts, "platform"));
    box->variant.is_crun = json_is_true(json_object_get(box->facts, "is_crun"));
    box->variant.has_user_namespace = json_is_true(json_object_get(box->facts, "user_namespace"));
    snprintf(box->variant.platform, sizeof box->variant.platform, "%s", platform ? platform : "systrap");
}

int box_adopt(box_t *box, err_t **e)
{
    box->fds[0] = box->fds[1] = box->fds[2] = box->netns_fd = -1;
    auto_err err_t *ignored = NULL;
    box_recall_variant(box);
    /* A start that went on when the daemon was killed has ended by now, but nobody has written down its processes. */
    if (!json_object_get(box->facts, PID_KEYS[0]) && cgroup_has_processes(&box->gv->cgroups, box->id))
        (void)box_find_pids(box, &ignored);
    if (!disk_is_mounted(box->dir))
        return err_set(e, ERR_SANDBOX_FAILED, "its file system is not mounted any more; was the host restarted?");
    if (box_watch(box, e) == 0) {
        box_heal(box);
        return 0;
    }
    box_release(box);
    return -1;
}

void box_release(box_t *box)
{
    drop_watch(box, 0);
    drop_watch(box, 1);
    cgroup_watch_free(&box->pressure);
}

void box_close(box_t *box)
{
    worker_forget(&box->job);
    worker_forget(&box->end_job);
    box_heal_stop(box);
    process_cancel(&box->process);
    box_release(box);
    json_decref(box->start);
    box->start = NULL;
    free(STEAL_PTR(box->snapshot_target));
}
