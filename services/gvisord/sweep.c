/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/gvisord.h"

#include "common/log.h"
#include "common/mem.h"

#include <dirent.h>

static void on_swept(void *arg, const json_t *result, const err_t *err)
{
    (void)arg;
    (void)result;
    if (err)
        log_warn("a leftover stays: %s", err_message(err));
}

static void run(gvisord_t *gv, json_t *args)
{
    auto_err err_t *e = NULL;
    if (!worker_run(gv->worker, job_teardown, args, on_swept, NULL, &e))
        log_warn("a leftover stays: %s", err_message(e));
}

/* A stopped one has nothing on the host but its files. */
static bool is_known(gvisord_t *gv, const char *id)
{
    for (sandbox_t *s = NULL; (s = provider_sandbox_next(gv->provider, s));)
        if (strcmp(s->host_id, id) == 0)
            return s->state != SANDBOX_STOPPED;
    return false;
}

static void sweep_group(void *arg, const char *name)
{
    gvisord_t *gv = arg;
    uuid16_t id;
    if (!uuid16_parse(&id, name) || is_known(gv, name))
        return;
    log_info("removing the leftovers of sandbox %s", name);
    run(gv, json_pack("{s:s}", "id", name));
}

static void sweep_slot(void *arg, uint32_t number)
{
    gvisord_t *gv = arg;
    for (sandbox_t *s = NULL; (s = provider_sandbox_next(gv->provider, s));) {
        const json_t *slot = json_object_get(s->private_, "slot");
        if (json_is_integer(slot) && json_integer_value(slot) == (json_int_t)number && s->state != SANDBOX_STOPPED)
            return;
    }
    log_info("removing the unused network namespace %u", number);
    run(gv, json_pack("{s:I}", "slot", (json_int_t)number));
}

static void sweep_probes(gvisord_t *gv)
{
    DIR *d = opendir(gv->probe_dir);
    if (!d)
        return;
    for (struct dirent *de; (de = readdir(d));) {
        if (de->d_name[0] == '.')
            continue;
        auto_free char *dir = mem_printf("%s/%s", gv->probe_dir, de->d_name);
        run(gv, json_pack("{s:s,s:s,s:b}", "id", de->d_name, "dir", dir, "is_whole", 1));
    }
    closedir(d);
}

/* State of a runtime whose cgroup is gone already. */
static void sweep_runtime(gvisord_t *gv)
{
    DIR *d = opendir(gv->runtime_root);
    if (!d)
        return;
    for (struct dirent *de; (de = readdir(d));) {
        const char *at = strncmp(de->d_name, "runsc-", 6) == 0 ? de->d_name + 6 : de->d_name;
        auto_free char *name = mem_strndup(at, UUID_TEXT_SIZE - 1);
        sweep_group(gv, name);
    }
    closedir(d);
}

void sweep_start(gvisord_t *gv)
{
    cgroup_each(&gv->cgroups, sweep_group, gv);
    sweep_runtime(gv);
    network_each(gv->tag, sweep_slot, gv);
    sweep_probes(gv);
}
