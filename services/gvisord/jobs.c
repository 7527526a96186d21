/* SPDX-License-Identifier: Apache-2.0
 *
 * Jobs run in children of the worker, which was forked from the daemon after jobs_init: what the context says was known
 * then.
 */
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/disk.h"
#include "services/gvisord/file_copy.h"
#include "services/gvisord/jobs_private.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOWERS_MAX 8

const gvisord_t *jobs_context;

void jobs_init(const gvisord_t *gv)
{
    jobs_context = gv;
}

int jobs_slot(const json_t *args, network_slot_t *slot, bool *has_slot, err_t **e)
{
    const json_t *number = json_object_get(args, "slot");
    *has_slot = json_is_integer(number);
    if (!*has_slot)
        return 0;
    return network_slot_of(&jobs_context->pool, jobs_context->tag, (uint32_t)json_integer_value(number), slot, e);
}

static int write_hosts(const json_t *args, char **hosts, char **hostname)
{
    const char *name = json_string_value(json_object_get(args, "hostname"));
    *hosts = mem_printf("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t%s\n", name);
    *hostname = mem_printf("%s\n", name);
    return 0;
}

int jobs_disk_and_network(const json_t *args, bool is_kept, bool with_etc, err_t **e)
{
    const char *lowers[LOWERS_MAX + 1] = {0};
    const json_t *list = json_object_get(args, "lowers");
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)list, i, one) if (i < LOWERS_MAX) lowers[i] = json_string_value(one);
    auto_free char *hosts = NULL, *hostname = NULL;
    write_hosts(args, &hosts, &hostname);
    network_slot_t slot;
    bool has_slot;
    if (jobs_slot(args, &slot, &has_slot, e) < 0)
        return -1;
    const disk_file_t etc[] = {{"hosts", hosts},
                               {"hostname", hostname},
                               {"resolv.conf", has_slot ? jobs_context->resolv_conf : ""},
                               {NULL, NULL}};
    disk_spec_t disk = {.dir = json_string_value(json_object_get(args, "dir")),
                        .template_dir = jobs_context->template_dir,
                        .size_bytes = (uint64_t)json_integer_value(json_object_get(args, "disk_bytes")),
                        .lowers = lowers,
                        .etc = with_etc ? etc : NULL,
                        .has_loop = json_is_true(json_object_get(args, "has_loop")),
                        .is_kept = is_kept};
    if (disk_prepare(&disk, e) < 0)
        return -1;
    return has_slot ? network_up(&slot, e) : 0;
}

int job_prepare(const json_t *args, json_t *result, err_t **e)
{
    (void)result;
    return jobs_disk_and_network(args, false, true, e);
}

/* What the runtime keeps under its --root is named by the sandbox's id: runsc has files `<id>_sandbox:<id>.state|.lock`
 * and `runsc-<id>.sock`, crun a directory. The processes are gone, so removing it is all that `delete` would still do,
 * without 25 ms of start-up and without waiting for a parent that reaps late. */
int jobs_remove_runtime_state(const char *id, err_t **e)
{
    DIR *d = opendir(jobs_context->runtime_root);
    if (!d)
        return errno == ENOENT ? 0
                               : err_set_errno(e, ERR_INTERNAL, errno, "cannot list %s", jobs_context->runtime_root);
    int rc = 0;
    for (struct dirent *de; rc == 0 && (de = readdir(d));) {
        if (de->d_name[0] == '.' || !strstr(de->d_name, id))
            continue;
        auto_free char *path = mem_printf("%s/%s", jobs_context->runtime_root, de->d_name);
        rc = dir_remove(path, e);
        if (rc < 0 && unlink(path) == 0) {
            err_free(e);
            rc = 0;
        }
    }
    closedir(d);
    return rc;
}

static const char *const BOX_FILES[] = {"config.json", "in", "out", "pid", "runtime.log", JOBS_PAUSED_FILE};
static const char *const BOX_DIRECTORIES[] = {JOBS_CHECKPOINT, JOBS_CHECKPOINT_NEW, JOBS_CHECKPOINT_USED};

/* What writes to a file system that a broken off snapshot has left frozen does not end, not even by KILL. */
static void thaw(const json_t *args)
{
    const char *dir = json_string_value(json_object_get(args, "dir"));
    if (dir)
        disk_thaw(dir);
}

int job_end(const json_t *args, json_t *result, err_t **e)
{
    (void)result;
    thaw(args);
    return cgroup_destroy(&jobs_context->cgroups, json_string_value(json_object_get(args, "id")), e);
}

int jobs_remove_host_objects(const json_t *args, err_t **e)
{
    const char *id = json_string_value(json_object_get(args, "id"));
    network_slot_t slot;
    bool has_slot;
    thaw(args);
    if (jobs_slot(args, &slot, &has_slot, e) < 0)
        return -1;
    if (id && (cgroup_destroy(&jobs_context->cgroups, id, e) < 0 || jobs_remove_runtime_state(id, e) < 0))
        return -1;
    return has_slot ? network_down(&slot, e) : 0;
}

int jobs_remove_files(const char *dir, err_t **e)
{
    for (size_t i = 0; i < COUNT_OF(BOX_FILES); i++) {
        auto_free char *path = mem_printf("%s/%s", dir, BOX_FILES[i]);
        if (unlink(path) < 0 && errno != ENOENT)
            return err_set_errno(e, ERR_INTERNAL, errno, "cannot remove %s", path);
    }
    return 0;
}

int job_teardown(const json_t *args, json_t *result, err_t **e)
{
    (void)result;
    const char *dir = json_string_value(json_object_get(args, "dir"));
    if (jobs_remove_host_objects(args, e) < 0)
        return -1;
    if (!dir)
        return 0;
    if (disk_unmount_below(dir, e) < 0 || disk_teardown(dir, e) < 0 || jobs_remove_files(dir, e) < 0)
        return -1;
    for (size_t i = 0; i < COUNT_OF(BOX_DIRECTORIES); i++) {
        auto_free char *path = mem_printf("%s/%s", dir, BOX_DIRECTORIES[i]);
        if (dir_remove(path, e) < 0)
            return -1;
    }
    if (json_is_true(json_object_get(args, "is_whole")))
        return dir_remove(dir, e);
    return 0;
}

int job_network_rules(const json_t *args, json_t *result, err_t **e)
{
    (void)args;
    (void)result;
    return network_rules_load(&jobs_context->pool, jobs_context->tag, e);
}

int job_host_facts(const json_t *args, json_t *result, err_t **e)
{
    (void)args;
    (void)e;
    auto_err err_t *why = NULL;
    bool has_loop = disk_has_loop(jobs_context->daemon.state_dir, &why);
    json_object_set_new(result, "has_loop", json_boolean(has_loop));
    if (!has_loop)
        json_object_set_new(result, "disk_message", json_string(err_message(why)));
    json_object_set_new(result, "has_reflink", json_boolean(dir_has_reflink(jobs_context->daemon.state_dir)));
    return 0;
}

int job_watch_memory(const json_t *args, json_t *result, err_t **e)
{
    (void)result;
    return cgroup_watch_register(&jobs_context->cgroups, json_string_value(json_object_get(args, "id")),
                                 (uint64_t)json_integer_value(json_object_get(args, "budget_bytes")),
                                 (int)json_integer_value(json_object_get(args, "pid")),
                                 (int)json_integer_value(json_object_get(args, "fd")), e);
}

static bool is_in_use(void *arg, const char *rootfs)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)arg, i, one) if (strcmp(json_string_value(one), rootfs) == 0) return true;
    return false;
}

int job_prune(const json_t *args, json_t *result, err_t **e)
{
    (void)result;
    (void)e;
    image_prune(jobs_context->image_dir, is_in_use, json_object_get(args, "rootfs"));
    agent_layer_prune(jobs_context->daemon.state_dir, is_in_use, json_object_get(args, "layers"));
    return 0;
}
