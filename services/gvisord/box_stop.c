/* SPDX-License-Identifier: Apache-2.0
 *
 * stop, resume and create_from: the loop's side of jobs_stop.c.
 */
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gvisord/box_private.h"
#include "services/gvisord/checkpoint.h"
#include "services/gvisord/jobs_private.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <unistd.h>

#define KEY_FORMAT 1
#define CPU_DIGITS 16
#define MORE_MS 60000 /* for mounts, network, the end of processes */

static const char *const PHASES[] = {"copy_ms", "prepare_ms", "restore_ms", "runtime_ms"};
static const char *const STOP_PHASES[] = {"checkpoint_ms", "end_ms", "disk_ms"};

/* ---- the key ---- */

/* A restored process goes on using what it found: all features of the processor must be there. */
static const char *cpu_features(void)
{
    static char digits[CPU_DIGITS + 1];
    uint8_t digest[SHA256_DIGEST_LENGTH];
    FILE *f = digits[0] ? NULL : fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t size = 0;
    while (f && getline(&line, &size, f) > 0) {
        if (strncmp(line, "flags", 5) != 0 && strncmp(line, "Features", 8) != 0)
            continue;
        SHA256((const unsigned char *)line, strlen(line), digest);
        hex_encode(digits, digest, CPU_DIGITS / 2);
        break;
    }
    free(line);
    if (f)
        fclose(f);
    return digits;
}

json_t *box_key(const box_t *box)
{
    auto_free char *network =
        box_has_network(box)
            ? mem_printf("full %lld", (long long)json_integer_value(json_object_get(box->facts, "slot")))
            : mem_strdup(box->spec->network);
    return json_pack(
        "{s:i,s:s,s:s,s:s,s:O*,s:O*,s:O*,s:O*,s:O*}", "format", KEY_FORMAT, "flags", RUNTIME_FLAGS, "network", network,
        "cpu", cpu_features(), "runtime", json_object_get(box->facts, "runtime_version"), "platform",
        json_object_get(box->facts, "platform"), "user_namespace", json_object_get(box->facts, "user_namespace"),
        "rootfs", json_object_get(box->facts, "rootfs"), "agent_layer", json_object_get(box->facts, "agent_layer"));
}

/* ---- shared ---- */

static void begin(box_t *box, provider_done_fn done, void *arg)
{
    box->done = done;
    box->done_arg = arg;
    box->result = (box_result_t){0};
    box->has_ended = false;
    box->fds[0] = box->fds[1] = box->fds[2] = box->netns_fd = -1;
    box->phase_start_us = clock_monotonic_us();
    worker_forget(&box->job);
}

static void take_result(box_t *box, const json_t *result)
{
    const char *warning = json_string_value(json_object_get(result, "warning"));
    box->result.has_processes = json_is_true(json_object_get(result, "has_processes"));
    snprintf(box->result.warning, sizeof box->result.warning, "%s", warning ? warning : "");
}

static void copy_phases(const json_t *result, const char *const *names, size_t count, json_t *phases)
{
    for (size_t i = 0; i < count; i++) {
        json_t *one = json_object_get(result, names[i]);
        if (one)
            json_object_set(phases, names[i], one);
    }
}

/* Takes args. */
static void run_job(box_t *box, worker_fn fn, json_t *args, worker_done_fn done, uint64_t bytes)
{
    auto_err err_t *e = NULL;
    box->job = worker_run(box->gv->worker, fn, args, done, box, &e);
    if (box->job)
        worker_job_deadline(box->job, jobs_timeout_ms(bytes) + MORE_MS);
    else
        done(box, NULL, e);
}

static json_t *names(const box_t *box)
{
    return json_pack("{s:s,s:s,s:O*}", "id", box->id, "dir", box->dir, "slot", json_object_get(box->facts, "slot"));
}

/* ---- stop ---- */

static void on_stopped(void *arg, const json_t *result, const err_t *err)
{
    box_t *box = arg;
    box->job = NULL;
    box->is_destroying = false;
    if (err) {
        bool was_watched = box->watched[0] != 0 || box->has_ended;
        if (was_watched && !cgroup_has_processes(&box->gv->cgroups, box->id)) {
            box_release(box);
            if (box->on_gone)
                box->on_gone(box, err_message(err));
        }
        box_finish(box, err);
        return;
    }
    box_release(box);
    box_forget_pids(box);
    take_result(box, result);
    json_t *phases = json_object();
    copy_phases(result, STOP_PHASES, COUNT_OF(STOP_PHASES), phases);
    json_object_set_new(box->facts, "stop_phases", phases);
    json_object_set(box->facts, "kept_bytes", json_object_get(result, "kept_bytes"));
    box_finish(box, NULL);
}

void box_stop(box_t *box, bool keep_processes, provider_done_fn done, void *arg)
{
    begin(box, done, arg);
    box->is_destroying = true; /* its end is no news; the watches stay until it has been reaped */
    box_recall_variant(box);
    const runtime_t r = box_runtime(box);
    json_t *args = names(box);
    json_object_set_new(args, "keep", json_boolean(keep_processes));
    json_object_set_new(args, "was_running", json_boolean(json_object_get(box->facts, "sandbox_pid") != NULL));
    json_object_set_new(args, "runtime", runtime_to_json(&r));
    json_object_set_new(args, "key", box_key(box));
    run_job(box, job_stop, args, on_stopped, box->spec->memory_bytes);
}

/* ---- resume ---- */

static void on_forgotten(void *arg, const json_t *result, const err_t *err)
{
    (void)arg;
    (void)result;
    if (err)
        log_warn("a memory image that was used stays on disk: %s", err_message(err));
}

static void on_started(void *arg, const json_t *result, const err_t *err)
{
    box_t *box = arg;
    box->job = NULL;
    auto_err err_t *e = NULL, *ignored = NULL;
    if (err) {
        err_set(&e, err_code(err) == ERR_INTERNAL ? ERR_SANDBOX_FAILED : err_code(err), "%s", err_message(err));
        box_fail(box, &e, "the sandbox could not be started from its files");
        return;
    }
    take_result(box, result);
    copy_phases(result, PHASES, COUNT_OF(PHASES), json_object_get(box->facts, "phases"));
    box->phase_start_us = clock_monotonic_us();
    if (box_find_pids(box, &e) < 0 || box_watch(box, &e) < 0) {
        box_fail(box, &e, "the sandbox was started but is gone");
        return;
    }
    (void)worker_run(box->gv->worker, job_forget_used, json_pack("{s:s}", "dir", box->dir), on_forgotten, NULL,
                     &ignored);
    box_finish(box, NULL);
}

static void on_cleared(void *arg, const json_t *result, const err_t *err)
{
    (void)result;
    box_t *box = arg;
    box->job = NULL;
    auto_err err_t *e = NULL;
    if (err) {
        box_finish(box, err);
        return;
    }
    if (box->start)
        box_phase_end(box, "clear_ms");
    network_slot_t slot = {0};
    const json_t *number = json_object_get(box->facts, "slot");
    const cgroup_limits_t limits = box_limits(box);
    json_t *args = box->start;
    box->start = NULL;
    if ((number &&
         network_slot_of(&box->gv->pool, box->gv->tag, (uint32_t)json_integer_value(number), &slot, &e) < 0) ||
        cgroup_make(&box->gv->cgroups, box->id, &limits, &e) < 0 ||
        box_write_config(box, number ? slot.netns_path : NULL, &e) < 0) {
        json_decref(args);
        box_fail(box, &e, "cannot make the sandbox");
        return;
    }
    run_job(box, job_start, args, on_started, 2 * box->spec->memory_bytes + box->spec->disk_bytes);
}

static json_t *start_args(const box_t *box)
{
    const runtime_t r = box_runtime(box);
    const cgroup_limits_t limits = box_limits(box);
    json_t *args = names(box);
    json_object_set_new(args, "hostname", json_string(box->id));
    json_object_set_new(args, "disk_bytes", json_integer((json_int_t)box->spec->disk_bytes));
    json_object_set_new(
        args, "lowers",
        json_pack("[O,O]", json_object_get(box->facts, "agent_layer"), json_object_get(box->facts, "rootfs")));
    json_object_set_new(args, "runtime", runtime_to_json(&r));
    json_object_set_new(args, "key", box_key(box));
    json_object_set_new(args, "has_reflink", json_boolean(probe_result(box->gv->probe)->has_reflink));
    json_object_set_new(args, "limits",
                        json_pack("{s:I,s:I,s:I}", "cpu", (json_int_t)limits.cpu_milli, "memory",
                                  (json_int_t)limits.memory_budget_bytes, "pids", (json_int_t)limits.pids_max));
    return args;
}

/* The same number as before is the sandbox's address inside of its kept memory; it stays reserved by the facts. */
static int ensure_slot(box_t *box, err_t **e)
{
    network_slot_t slot;
    return !box_has_network(box) || json_object_get(box->facts, "slot") ? 0 : box_choose_slot(box, &slot, e);
}

static int require_layers(const box_t *box, err_t **e)
{
    static const char *const keys[] = {"rootfs", "agent_layer"};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        const char *path = json_string_value(json_object_get(box->facts, keys[i]));
        if (!path || access(path, F_OK) < 0)
            return err_set(e, ERR_SANDBOX_FAILED, "%s, which its files are a layer over, is not there any more",
                           path ? path : "the image");
    }
    return 0;
}

static void clear(box_t *box)
{
    run_job(box, job_clear, names(box), on_cleared, 0);
}

void box_resume(box_t *box, const runtime_variant_t *variant, provider_done_fn done, void *arg)
{
    auto_free char *kept = mem_printf("%s/" JOBS_CHECKPOINT, box->dir);
    auto_err err_t *e = NULL;
    begin(box, done, arg);
    box_release(box);
    box->variant = *variant;
    box_describe(box);
    box_forget_pids(box);
    if (require_layers(box, &e) < 0 || ensure_slot(box, &e) < 0) {
        box_finish(box, e);
        return;
    }
    json_decref(box->start);
    box->start = start_args(box);
    if (checkpoint_exists(kept)) {
        json_object_set_new(box->start, "image", json_string(kept));
        json_object_set_new(box->start, "is_own_image", json_true());
    }
    if (box->end_job)
        box->after_end = clear;
    else
        clear(box);
}

/* ---- create from a snapshot ---- */

void box_create_from(box_t *box, const runtime_variant_t *variant, const char *snapshot_dir, const json_t *facts,
                     bool has_processes, provider_done_fn done, void *arg)
{
    auto_free char *image = mem_printf("%s/" JOBS_CHECKPOINT, snapshot_dir);
    auto_err err_t *e = NULL;
    begin(box, done, arg);
    box->variant = *variant;
    json_object_set(box->facts, "rootfs", json_object_get(facts, "rootfs"));
    json_object_set(box->facts, "agent_layer", json_object_get(facts, "agent_layer"));
    box_describe(box);
    if (require_layers(box, &e) < 0 || ensure_slot(box, &e) < 0) {
        box_finish(box, e);
        return;
    }
    box->start = start_args(box);
    json_object_set_new(box->start, "copy_from", json_string(snapshot_dir));
    if (has_processes)
        json_object_set_new(box->start, "image", json_string(image));
    on_cleared(box, NULL, NULL);
}

/* ---- limits ---- */

int box_apply_limits(box_t *box, err_t **e)
{
    const cgroup_limits_t limits = box_limits(box);
    if (cgroup_make(&box->gv->cgroups, box->id, &limits, e) < 0)
        return -1;
    box_watch_memory(box); /* its threshold is a share of the budget */
    return 0;
}
