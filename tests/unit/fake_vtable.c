/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_vtable.h"

#include "common/file.h"
#include "common/mem.h"
#include "common/process.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEP_MS 3

typedef struct box {
    sandbox_t *s;
    bool is_busy;
    bool has_worked;
    enum fake_op op;
    bool keeps;
    snapshot_t *snap;
    const snapshot_t *origin;
    provider_done_fn done;
    void *arg;
    struct event *timer;
    pid_watch_t *watch;
} box_t;

static fake_t *fake_of(const sandbox_t *s)
{
    return provider_data(s->provider);
}

/* ---- the agent ---- */

static pid_t pid_of(const sandbox_t *s)
{
    return (pid_t)json_integer_value(json_object_get(s->private_, "pid"));
}

static bool is_frozen(const sandbox_t *s)
{
    return json_is_true(json_object_get(s->private_, "is_frozen"));
}

static void fact_set(sandbox_t *s, const char *key, json_t *value)
{
    auto_err err_t *e = NULL;
    json_object_set_new(s->private_, key, value);
    provider_sandbox_save(s, &e);
}

/* Not reaped yet counts as dead. */
static bool is_alive(pid_t pid)
{
    siginfo_t info = {0};
    if (pid <= 0 || kill(pid, 0) < 0)
        return false;
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0;
}

static void on_gone(void *arg, int status)
{
    (void)status;
    box_t *box = arg;
    pid_watch_destroy(&box->watch);
    provider_sandbox_died(box->s, "its agent is gone");
}

static void watch(box_t *box)
{
    auto_err err_t *e = NULL;
    pid_watch_destroy(&box->watch);
    box->watch = pid_watch_new(provider_daemon(box->s->provider)->base, pid_of(box->s), on_gone, box, &e);
}

static void agent_kill(box_t *box)
{
    pid_t pid = pid_of(box->s);
    pid_watch_destroy(&box->watch);
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    json_object_del(box->s->private_, "pid");
    fact_set(box->s, "is_frozen", json_false());
}

static void agent_path(char *out, size_t size)
{
    char exe[PATH_MAX] = "";
    const char *env = getenv("EW_AGENT");
    if (env)
        snprintf(out, size, "%s", env);
    else if (readlink("/proc/self/exe", exe, sizeof exe - 1) > 0)
        snprintf(out, size, "%s/../bin/ew-agent", dirname(exe));
}

static int pipe_open(const sandbox_t *s, const char *name)
{
    auto_free char *path = mem_printf("%s/%s", s->dir, name);
    mkfifo(path, 0600);
    return open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
}

static void agent_exec(const sandbox_t *s, bool is_mute)
{
    char path[PATH_MAX], workspace[PATH_MAX + 32];
    agent_path(path, sizeof path);
    snprintf(workspace, sizeof workspace, "AGENT_WORKSPACE=%s/ws", s->dir);
    char *env[] = {workspace, (char *)(uintptr_t) "PATH=/usr/local/bin:/usr/bin:/bin", NULL};
    char *argv[] = {path, NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int in = pipe_open(s, "in"), out = pipe_open(s, "out");
    fcntl(in, F_SETFL, 0);
    fcntl(out, F_SETFL, 0);
    if (dup2(in, 0) != 0 || dup2(out, 1) != 1)
        _exit(126);
    while (is_mute)
        pause();
    execve(path, argv, env);
    _exit(127);
}

static void agent_start(box_t *box, bool is_mute)
{
    sandbox_t *s = box->s;
    auto_err err_t *e = NULL;
    auto_free char *workspace = mem_printf("%s/ws", s->dir);
    dir_make(workspace, 0755, &e);
    /* What an earlier agent did not read is no business of this one. */
    auto_free char *in = mem_printf("%s/in", s->dir);
    auto_free char *out = mem_printf("%s/out", s->dir);
    unlink(in);
    unlink(out);
    int fd_in = pipe_open(s, "in"), fd_out = pipe_open(s, "out");
    pid_t pid = fork();
    if (pid == 0)
        agent_exec(s, is_mute);
    close(fd_in);
    close(fd_out);
    fact_set(s, "pid", json_integer(pid));
    watch(box);
}

/* ---- the work of each function ---- */

static void copy_note(const char *from_dir, const char *to_dir)
{
    auto_free char *from = mem_printf("%s/note", from_dir);
    auto_free char *to = mem_printf("%s/note", to_dir);
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    dir_make(to_dir, 0755, &e);
    if (file_read(from, 1 << 20, &text, &e) == 0)
        file_write_atomic(to, text.data, text.len, 0644, &e);
}

static void work_create(box_t *box)
{
    json_object_set_new(box->s->private_, "phases", json_pack("{s:i}", "fake_ms", 1));
    agent_start(box, fake_of(box->s)->modes[box->op] == FAKE_MUTE);
}

static void work_destroy(box_t *box)
{
    agent_kill(box);
}

static void work_stop(box_t *box)
{
    sandbox_t *s = box->s;
    fake_of(s)->was_kept = box->keeps;
    json_object_set_new(s->private_, "stop_phases", json_pack("{s:i}", "freeze_ms", 2));
    json_object_set_new(s->private_, "kept_bytes", json_integer(box->keeps ? 12345 : 0));
    if (box->keeps && is_alive(pid_of(s))) {
        pid_watch_destroy(&box->watch);
        kill(pid_of(s), SIGSTOP);
        fact_set(s, "is_frozen", json_true());
        s->has_processes = true;
        return;
    }
    agent_kill(box);
    s->has_processes = false;
    if (box->keeps)
        provider_sandbox_warn(s, "nothing ran any more");
}

static void work_resume(box_t *box)
{
    sandbox_t *s = box->s;
    bool is_mute = fake_of(s)->modes[FAKE_RESUME] == FAKE_MUTE;
    json_object_set_new(s->private_, "phases", json_pack("{s:i}", "thaw_ms", 3));
    if (is_frozen(s) && is_alive(pid_of(s))) {
        s->has_processes = true;
        if (!is_mute)
            kill(pid_of(s), SIGCONT);
        fact_set(s, "is_frozen", json_false());
        watch(box);
        return;
    }
    agent_kill(box);
    if (s->has_processes)
        provider_sandbox_warn(s, "started anew from its files");
    s->has_processes = false;
    agent_start(box, is_mute);
}

static void work_snapshot(box_t *box)
{
    sandbox_t *s = box->s;
    auto_free char *workspace = mem_printf("%s/ws", s->dir);
    copy_note(workspace, box->snap->dir);
    box->snap->has_processes = box->keeps;
    box->snap->size_bytes = 777;
    box->snap->stall_ms = 1;
    json_object_set_new(box->snap->private_, "kind", json_string("fake"));
    provider_sandbox_warn(s, "copied");
    if (fake_of(s)->runs_on)
        provider_sandbox_runs_on(s);
}

static void work_create_from(box_t *box)
{
    auto_free char *workspace = mem_printf("%s/ws", box->s->dir);
    copy_note(box->origin->dir, workspace);
    work_create(box);
    box->s->has_processes = box->origin->has_processes;
}

static void (*const WORK[FAKE_OP_COUNT])(box_t *) = {
    [FAKE_CREATE] = work_create, [FAKE_DESTROY] = work_destroy,   [FAKE_STOP] = work_stop,
    [FAKE_RESUME] = work_resume, [FAKE_SNAPSHOT] = work_snapshot, [FAKE_CREATE_FROM] = work_create_from};

static void step_later(box_t *box)
{
    struct timeval tv = {.tv_usec = STEP_MS * 1000};
    evtimer_add(box->timer, &tv);
}

static void op_end(box_t *box, const err_t *err)
{
    box->is_busy = false;
    fake_of(box->s)->running--;
    box->done(box->arg, err);
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    box_t *box = arg;
    enum fake_mode mode = fake_of(box->s)->modes[box->op];
    auto_err err_t *e = NULL;
    if (mode == FAKE_FAIL || mode == FAKE_FAIL_DEAD) {
        if (mode == FAKE_FAIL_DEAD) {
            agent_kill(box);
            provider_sandbox_died(box->s, "it fell over");
        }
        err_set(&e, ERR_NO_SPACE, "the fake provider was told to fail");
        op_end(box, e);
        return;
    }
    if (mode == FAKE_WAIT_BEFORE) {
        step_later(box);
        return;
    }
    if (!box->has_worked)
        WORK[box->op](box);
    box->has_worked = true;
    if (mode == FAKE_WAIT_AFTER)
        step_later(box);
    else
        op_end(box, NULL);
}

/* ---- the vtable ---- */

static box_t *box_of(sandbox_t *s)
{
    if (s->data)
        return s->data;
    box_t *box = mem_alloc(sizeof *box);
    box->s = s;
    box->timer = evtimer_new(provider_daemon(s->provider)->base, on_step, box);
    return s->data = box;
}

static box_t *begin(sandbox_t *s, enum fake_op op, provider_done_fn done, void *arg)
{
    box_t *box = box_of(s);
    fake_t *fake = fake_of(s);
    fake->is_clumsy = fake->is_clumsy || box->is_busy;
    fake->calls[op]++;
    fake->running++;
    box->is_busy = true;
    box->has_worked = false;
    box->op = op;
    box->done = done;
    box->arg = arg;
    step_later(box);
    return box;
}

static void op_create(sandbox_t *s, provider_done_fn done, void *arg)
{
    begin(s, FAKE_CREATE, done, arg);
}

static void op_destroy(sandbox_t *s, provider_done_fn done, void *arg)
{
    begin(s, FAKE_DESTROY, done, arg);
}

static void op_stop(sandbox_t *s, bool keeps, provider_done_fn done, void *arg)
{
    begin(s, FAKE_STOP, done, arg)->keeps = keeps;
}

static void op_resume(sandbox_t *s, provider_done_fn done, void *arg)
{
    begin(s, FAKE_RESUME, done, arg);
}

static void op_snapshot(sandbox_t *s, snapshot_t *snap, bool keeps, provider_done_fn done, void *arg)
{
    box_t *box = begin(s, FAKE_SNAPSHOT, done, arg);
    box->keeps = keeps;
    box->snap = snap;
}

static void op_create_from(sandbox_t *s, const snapshot_t *origin, provider_done_fn done, void *arg)
{
    begin(s, FAKE_CREATE_FROM, done, arg)->origin = origin;
}

static void op_end_now(sandbox_t *s)
{
    agent_kill(box_of(s));
}

static int op_open_stream(sandbox_t *s, int *fd_in, int *fd_out, err_t **e)
{
    *fd_in = pipe_open(s, "out");
    *fd_out = pipe_open(s, "in");
    return *fd_in < 0 || *fd_out < 0 ? err_set_errno(e, ERR_INTERNAL, errno, "no pipes") : 0;
}

static int op_adopt(sandbox_t *s, err_t **e)
{
    if (!is_alive(pid_of(s)) || is_frozen(s))
        return err_set(e, ERR_SANDBOX_FAILED, "it does not run");
    watch(box_of(s));
    return 0;
}

static void op_forget(sandbox_t *s)
{
    box_t *box = s->data;
    s->data = NULL;
    if (!box)
        return;
    if (box->is_busy)
        fake_of(s)->running--;
    pid_watch_destroy(&box->watch);
    event_free(box->timer);
    free(box);
}

static void op_probe(provider_t *p, provider_done_fn done, void *arg)
{
    (void)p;
    done(arg, NULL);
}

static const struct provider_status *op_status(provider_t *p)
{
    fake_t *fake = provider_data(p);
    fake->status = (struct provider_status){.name = "fake", .type = "fake", .healthy = !fake->is_unhealthy};
    return &fake->status;
}

static void op_images(provider_t *p, struct image_list_reply *reply, buf_t *storage)
{
    (void)p;
    (void)storage;
    *reply = (struct image_list_reply){0};
}

const provider_ops_t fake_ops = {.name = "fake",
                                 .probe = op_probe,
                                 .status = op_status,
                                 .create = op_create,
                                 .destroy = op_destroy,
                                 .end = op_end_now,
                                 .open_stream = op_open_stream,
                                 .adopt = op_adopt,
                                 .forget = op_forget,
                                 .stop = op_stop,
                                 .resume = op_resume,
                                 .snapshot = op_snapshot,
                                 .create_from = op_create_from,
                                 .list_images = op_images};
const provider_ops_t fake_ops_small = {.name = "small",
                                       .probe = op_probe,
                                       .status = op_status,
                                       .create = op_create,
                                       .destroy = op_destroy,
                                       .end = op_end_now,
                                       .open_stream = op_open_stream,
                                       .adopt = op_adopt,
                                       .forget = op_forget,
                                       .list_images = op_images};
