/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/gvisord_life.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK_BYTES ((uint64_t)256 << 20)

void life_open(hub_t *h)
{
    hub_open(h, "gateway");
    hub_start_daemon(h, NULL);
}

void life_open_on(hub_t *h, uint64_t bytes)
{
    char options[64];
    auto_err err_t *e = NULL;
    hub_open(h, "gateway");
    auto_free char *dir = mem_printf("%s/gvisord", h->dir);
    snprintf(options, sizeof options, "size=%llu,mode=0700", (unsigned long long)bytes);
    cr_assert_eq(dir_make(dir, 0700, &e), 0);
    cr_assert_eq(mount("tmpfs", dir, "tmpfs", 0, options), 0);
    hub_start_daemon(h, NULL);
}

void life_close_on(hub_t *h)
{
    auto_free char *dir = mem_printf("%s/gvisord", h->dir);
    hub_kill_daemon(h, SIGTERM);
    cr_assert_eq(umount2(dir, 0), 0, "something is left in %s", dir);
    hub_close(h);
}

void life_create(hub_t *h, uuid16_t *id, const char *network)
{
    hub_reply_t r;
    hub_create(h, id, network, &r);
    cr_assert_eq(r.code, ERR_NONE, "create: %s", r.message);
    buf_free(&r.body);
}

static void join(const proto_list_t *list, char *out, size_t size)
{
    proto_iter_t it = proto_iter(list);
    out[0] = '\0';
    for (const char *s; proto_iter_str(&it, &s);) {
        size_t len = strlen(out);
        snprintf(out + len, size - len, "%s%s", len ? "; " : "", s);
    }
}

static void call(hub_t *h, enum verb verb, const uuid16_t *id, unsigned msg_id, const void *msg, hub_reply_t *r)
{
    hub_call(h, verb, id, msg_id, msg, r);
    cr_assert_eq(r->code, ERR_NONE, "verb %d: %s", verb, r->message);
}

void life_stop(hub_t *h, const uuid16_t *id, bool without_processes, life_t *l)
{
    struct sandbox_stop_request request = {.without_processes = without_processes};
    struct sandbox_stop_reply reply;
    hub_reply_t r;
    auto_err err_t *e = NULL;
    call(h, VERB_sandbox_stop, id, MSG_sandbox_stop_request, &request, &r);
    cr_assert_eq(proto_decode(MSG_sandbox_stop_reply, &reply, r.body.data, r.body.len, &e), 0);
    *l = (life_t){.has_processes = reply.has_processes, .total_ms = reply.total_ms, .bytes = reply.kept_bytes};
    snprintf(l->phases, sizeof l->phases, "%s", reply.phases ? reply.phases : "");
    join(&reply.warnings, l->warnings, sizeof l->warnings);
    buf_free(&r.body);
}

void life_assert_freed(hub_t *h)
{
    static const char wanted[] = "1 sandbox directories ";
    char left[256];
    /* A daemon that has just started verifies its probe beside the work: once there is nothing between its sandboxes.
     */
    for (int i = 0; i < 100; i++) {
        snprintf(left, sizeof left, "%s", hub_leftovers(h));
        if (strcmp(left, wanted) == 0)
            return;
        hub_run_for(h, 100);
    }
    cr_assert(false, "left: %s", left);
}

void life_resume(hub_t *h, const uuid16_t *id, life_t *l)
{
    struct empty nothing = {0};
    struct sandbox_resume_reply reply;
    hub_reply_t r;
    auto_err err_t *e = NULL;
    call(h, VERB_sandbox_resume, id, MSG_empty, &nothing, &r);
    cr_assert_eq(proto_decode(MSG_sandbox_resume_reply, &reply, r.body.data, r.body.len, &e), 0);
    *l = (life_t){.has_processes = reply.has_processes, .total_ms = reply.total_ms};
    snprintf(l->phases, sizeof l->phases, "%s", reply.phases ? reply.phases : "");
    join(&reply.warnings, l->warnings, sizeof l->warnings);
    buf_free(&r.body);
}

void life_snapshot(hub_t *h, const uuid16_t *id, bool without_processes, uuid16_t *snapshot, life_t *l)
{
    char text[UUID_TEXT_SIZE];
    random_bytes(snapshot, sizeof *snapshot);
    uuid16_format(snapshot, text);
    struct snapshot_create_request request = {.snapshot_id = text, .without_processes = without_processes};
    struct snapshot_info info;
    hub_reply_t r;
    auto_err err_t *e = NULL;
    call(h, VERB_snapshot_create, id, MSG_snapshot_create_request, &request, &r);
    cr_assert_eq(proto_decode(MSG_snapshot_info, &info, r.body.data, r.body.len, &e), 0);
    *l = (life_t){.has_processes = info.has_processes,
                  .total_ms = info.total_ms,
                  .stall_ms = info.stall_ms,
                  .bytes = info.size_bytes};
    join(&info.warnings, l->warnings, sizeof l->warnings);
    buf_free(&r.body);
}

void life_snapshot_delete(hub_t *h, const uuid16_t *snapshot)
{
    char text[UUID_TEXT_SIZE];
    uuid16_format(snapshot, text);
    struct snapshot_ref ref = {.snapshot_id = text};
    hub_reply_t r;
    call(h, VERB_snapshot_delete, NULL, MSG_snapshot_ref, &ref, &r);
    buf_free(&r.body);
}

static void from_snapshot(hub_t *h, const uuid16_t *snapshot, uint64_t disk_bytes, uuid16_t *id, hub_reply_t *r)
{
    char text[UUID_TEXT_SIZE];
    uuid16_format(snapshot, text);
    struct sandbox_create_request request = {.image = "base",
                                             .cpu_milli = 2000,
                                             .memory_bytes = (uint64_t)512 << 20,
                                             .disk_bytes = disk_bytes ? disk_bytes : DISK_BYTES,
                                             .pids_max = 256,
                                             .network = "none",
                                             .snapshot_id = text};
    random_bytes(id, sizeof *id);
    hub_call(h, VERB_sandbox_create, id, MSG_sandbox_create_request, &request, r);
}

void life_from_snapshot(hub_t *h, const uuid16_t *snapshot, uint64_t disk_bytes, uuid16_t *id, life_t *l)
{
    struct sandbox_create_reply reply;
    hub_reply_t r;
    auto_err err_t *e = NULL;
    from_snapshot(h, snapshot, disk_bytes, id, &r);
    cr_assert_eq(r.code, ERR_NONE, "create from a snapshot: %s", r.message);
    cr_assert_eq(proto_decode(MSG_sandbox_create_reply, &reply, r.body.data, r.body.len, &e), 0);
    *l = (life_t){.has_processes = reply.has_processes, .total_ms = reply.total_ms};
    snprintf(l->phases, sizeof l->phases, "%s", reply.phases ? reply.phases : "");
    join(&reply.warnings, l->warnings, sizeof l->warnings);
    buf_free(&r.body);
}

enum err_code life_from_snapshot_fails(hub_t *h, const uuid16_t *snapshot, uint64_t disk_bytes)
{
    uuid16_t id;
    hub_reply_t r;
    from_snapshot(h, snapshot, disk_bytes, &id, &r);
    buf_free(&r.body);
    return r.code;
}

void life_resume_patiently(hub_t *h, const uuid16_t *id, life_t *l)
{
    struct empty nothing = {0};
    for (int i = 0; i < 150; i++) {
        hub_reply_t r;
        hub_call(h, VERB_sandbox_resume, id, MSG_empty, &nothing, &r);
        buf_free(&r.body);
        if (r.code == ERR_NONE)
            return;
        hub_run_for(h, 100);
    }
    life_resume(h, id, l);
}

/* ---- the process that counts ---- */

void life_start_counter(hub_t *h, const uuid16_t *id)
{
    static const char command[] =
        "cat > counter.sh <<'END'\n"
        "exec 3>> /workspace/counter\n"
        "i=0\n"
        "while true; do i=$((i + 1)); echo $i >&3; sleep 0.1; done\n"
        "END\n"
        "setsid sh counter.sh > /dev/null 2>&1 < /dev/null & echo $! > counter.pid; while [ ! -s counter ]; do sleep "
        "0.1; done";
    cr_assert_eq(hub_bash(h, id, command, NULL, 0), 0);
}

void life_assert_counting(hub_t *h, const uuid16_t *id)
{
    char out[256];
    int code = hub_bash(h, id,
                        "n=$(wc -l < counter); for i in $(seq 100); do [ $(wc -l < counter) -gt $n ] && break; sleep "
                        "0.1; done; [ $(wc -l < counter) -gt $n ] || echo stands still at $n; m=$(wc -l < counter); "
                        "head -n $m counter > seen; seq $m > wanted; cmp seen wanted && echo fine",
                        out, sizeof out);
    cr_assert_eq(code, 0, "%s", out);
    cr_assert_str_eq(out, "fine\n");
}

/* ---- the daemon and its worker ---- */

static bool is_worker(int pid)
{
    char path[64];
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    return file_read(path, 64, &text, &e) == 0 && strcmp(buf_cstr(&text), "gvisord-worker\n") == 0;
}

static void kill_workers(int pid)
{
    char path[64];
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
    if (file_read(path, 65536, &text, &e) < 0)
        return;
    for (char *at = (char *)(uintptr_t)buf_cstr(&text), *end; *at; at = end) {
        int child = (int)strtol(at, &end, 10);
        if (end == at)
            break;
        if (!is_worker(child))
            continue;
        kill(child, SIGSTOP); /* starts no more */
        kill_workers(child);
        kill(child, SIGKILL);
    }
}

void life_kill_worker(const hub_t *h)
{
    char path[64];
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", h->daemon, h->daemon);
    cr_assert_eq(file_read(path, 65536, &text, &e), 0, "%s", err_message(e));
    for (char *at = (char *)(uintptr_t)buf_cstr(&text), *end; *at; at = end) {
        int child = (int)strtol(at, &end, 10);
        if (end == at)
            break;
        if (!is_worker(child))
            continue;
        cr_assert_eq(kill(child, SIGKILL), 0);
        return;
    }
    cr_assert(false, "the daemon has no worker");
}

void life_kill_all(hub_t *h)
{
    kill(h->daemon, SIGSTOP);
    kill_workers(h->daemon);
    hub_kill_daemon(h, SIGKILL);
}

/* ---- the daemon's files ---- */

char *life_dir(const hub_t *h, const char *kind, const uuid16_t *id)
{
    char text[UUID_TEXT_SIZE];
    uuid16_format(id, text);
    return mem_printf("%s/gvisord/%s/%s", h->dir, kind, text);
}

void life_edit_key(hub_t *h, const uuid16_t *id, const char *version)
{
    auto_free char *dir = life_dir(h, "sandboxes", id);
    auto_free char *path = mem_printf("%s/checkpoint/key.json", dir);
    json_t *key = json_load_file(path, 0, NULL);
    cr_assert_not_null(key, "%s", path);
    cr_assert(json_is_string(json_object_get(key, "runtime")));
    json_object_set_new(key, "runtime", json_string(version));
    cr_assert_eq(json_dump_file(key, path, 0), 0);
    json_decref(key);
}

void life_damage_image(hub_t *h, const uuid16_t *id)
{
    auto_free char *dir = life_dir(h, "sandboxes", id);
    auto_free char *path = mem_printf("%s/checkpoint/checkpoint.img", dir);
    cr_assert_eq(truncate(path, 1000), 0, "%s", path);
}

static size_t readable;

static int look(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)type;
    (void)ftw;
    if (!S_ISLNK(st->st_mode) && (st->st_mode & 077) != 0) {
        fprintf(stderr, "%s has mode %o\n", path, st->st_mode & 07777);
        readable++;
    }
    return 0;
}

size_t life_count_readable(const hub_t *h)
{
    static const char *const kinds[] = {"sandboxes", "snapshots"};
    readable = 0;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        auto_free char *path = mem_printf("%s/gvisord/%s", h->dir, kinds[i]);
        (void)nftw(path, look, 16, FTW_PHYS | FTW_MOUNT);
    }
    return readable;
}

int life_run(const char *const *argv)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
