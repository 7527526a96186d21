/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots: the loop's side of jobs_snapshot.c.
 */
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/box_private.h"
#include "services/gvisord/jobs_private.h"

#include <stdio.h>
#include <unistd.h>

#define MORE_MS 60000
#define HEAL_WAIT_MS 4000 /* an agent that runs answers in a few milliseconds; less than KIT_ADOPT_WAIT_MS */

static void snapshot_finish(box_t *box, const err_t *err)
{
    box_snapshot_fn done = box->snapshot_done;
    box->snapshot_done = NULL;
    if (done)
        done(box->done_arg, &box->snapshot, err);
}

static void on_durable(void *arg, const json_t *result, const err_t *err)
{
    box_t *box = arg;
    box->job = NULL;
    box->snapshot.size_bytes = (uint64_t)json_integer_value(json_object_get(result, "size_bytes"));
    snapshot_finish(box, err);
}

static void on_taken(void *arg, const json_t *result, const err_t *err)
{
    box_t *box = arg;
    auto_err err_t *e = NULL;
    const char *warning = json_string_value(json_object_get(result, "warning"));
    box->job = NULL;
    if (err) {
        box_heal(box); /* the job undoes what it did, unless it was killed */
        snapshot_finish(box, err);
        return;
    }
    box->snapshot.has_processes = json_is_true(json_object_get(result, "has_processes"));
    box->snapshot.is_shared = json_is_true(json_object_get(result, "is_shared"));
    box->snapshot.stall_ms = (uint32_t)json_integer_value(json_object_get(result, "stall_ms"));
    snprintf(box->snapshot.warning, sizeof box->snapshot.warning, "%s", warning ? warning : "");
    if (box->on_runs_on)
        box->on_runs_on(box);
    json_t *args = json_pack("{s:s}", "target", box->snapshot_target);
    box->job = worker_run(box->gv->worker, job_snapshot_durable, args, on_durable, box, &e);
    if (box->job)
        worker_job_deadline(box->job, jobs_timeout_ms(box->spec->memory_bytes + box->spec->disk_bytes) + MORE_MS);
    else
        snapshot_finish(box, e);
}

void box_snapshot(box_t *box, const char *target, bool is_running, bool keep_processes, box_snapshot_fn done, void *arg)
{
    auto_err err_t *e = NULL;
    box->snapshot_done = done;
    box->done_arg = arg;
    box->snapshot = (box_snapshot_result_t){0};
    free(box->snapshot_target);
    box->snapshot_target = mem_strdup(target);
    box_recall_variant(box);
    const runtime_t r = box_runtime(box);
    json_t *args =
        json_pack("{s:s,s:s,s:s,s:b,s:b,s:b,s:o,s:o}", "id", box->id, "dir", box->dir, "target", target, "is_running",
                  is_running, "keep", keep_processes && r.path, "has_reflink",
                  probe_result(box->gv->probe)->has_reflink, "runtime", runtime_to_json(&r), "key", box_key(box));
    worker_forget(&box->job);
    box->job = worker_run(box->gv->worker, job_snapshot, args, on_taken, box, &e);
    if (box->job)
        worker_job_deadline(box->job, jobs_timeout_ms(box->spec->memory_bytes + box->spec->disk_bytes) + MORE_MS);
    else
        snapshot_finish(box, e);
}

/* ---- what a snapshot that was broken off has left ---- */

static void heal(box_t *box, bool force);
static void heal_later(box_t *box);

/* One that runs has answered long since. */
static void on_heal_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    box_t *box = arg;
    auto_free char *marker = mem_printf("%s/" JOBS_PAUSED_FILE, box->dir);
    if (box->watched[0] == 0)
        return;
    if (box->job)
        heal_later(box);
    else if (!box->is_answering(box))
        heal(box, true);
    else
        (void)unlink(marker); /* a later daemon must not wonder about it again */
}

static void heal_later(box_t *box)
{
    struct timeval wait = {.tv_sec = HEAL_WAIT_MS / 1000};
    if (!box->heal_timer)
        box->heal_timer = evtimer_new(box->gv->daemon.base, on_heal_timer, box);
    evtimer_add(box->heal_timer, &wait);
}

static void on_healed(void *arg, const json_t *result, const err_t *err)
{
    box_t *box = arg;
    box->heal_job = NULL;
    if (err)
        log_warn("a sandbox that a snapshot had paused does not go on: %s", err_message(err));
    if (json_is_true(json_object_get(result, "may_be_paused")) && box->is_answering)
        heal_later(box);
}

static void heal(box_t *box, bool force)
{
    auto_err err_t *e = NULL;
    const runtime_t r = box_runtime(box);
    json_t *args =
        json_pack("{s:s,s:s,s:o,s:b}", "id", box->id, "dir", box->dir, "runtime", runtime_to_json(&r), "force", force);
    worker_forget(&box->heal_job);
    box->heal_job = worker_run(box->gv->worker, job_heal, args, on_healed, box, &e);
    if (!box->heal_job)
        log_warn("what a snapshot may have left is not undone: %s", err_message(e));
}

void box_heal(box_t *box)
{
    heal(box, false);
}

void box_heal_stop(box_t *box)
{
    worker_forget(&box->heal_job);
    if (box->heal_timer)
        event_free(box->heal_timer);
    box->heal_timer = NULL;
}
