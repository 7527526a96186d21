/* SPDX-License-Identifier: Apache-2.0
 *
 * stopped or dead -> resuming -> ready. Where that fails, nothing half started is left: back to stopped.
 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/mem.h"

static void run_again(kit_sandbox_t *ks);

void kit_resume_reply(kit_sandbox_t *ks, struct kit_waiter_list *list)
{
    auto_buf buf_t warnings = {0};
    auto_free char *phases = kit_phases(ks, "phases");
    struct sandbox_resume_reply reply = {.has_processes = ks->pub.has_processes,
                                         .total_ms = ks->total_ms,
                                         .phases = phases,
                                         .warnings = kit_warnings_list(ks->warnings, NULL, &warnings),
                                         .programs = proto_list_of(ks->program_count, &ks->programs)};
    ks->are_warnings_told = true;
    kit_waiters_reply(ks->pub.provider, list, MSG_sandbox_resume_reply, &reply);
}

static void resume_failed(kit_sandbox_t *ks, const char *reason)
{
    auto_err err_t *e = STEAL_PTR(ks->op_error);
    free(ks->pub.reason);
    ks->pub.reason = mem_strdup(reason);
    kit_save(ks);
    kit_log(ks, LOG_LEVEL_WARN, "it was not resumed", err_message(e));
    kit_waiters_error(ks->pub.provider, &ks->resume_waiters, e);
}

static void on_undone(void *arg, const err_t *err)
{
    kit_sandbox_t *ks = arg;
    bool is_after_start = !ks->op_error;
    free(STEAL_PTR(ks->died));
    if (kit_op_ended(ks))
        return;
    if (!err && is_after_start && !STAILQ_EMPTY(&ks->resume_waiters)) { /* asked again since the daemon is back */
        ks->pub.state = SANDBOX_STOPPED;
        kit_resume(ks);
        return;
    }
    if (is_after_start)
        err_set(&ks->op_error, ERR_SANDBOX_FAILED, "the daemon was restarted while it was being resumed");
    auto_free char *why = mem_printf("it could not be resumed: %s", err_message(err ? err : ks->op_error));
    if (err) {
        resume_failed(ks, why);
        kit_mark_dead(ks, why);
        return;
    }
    ks->pub.state = SANDBOX_STOPPED;
    resume_failed(ks, why);
}

/* Takes back what was begun. keeps_processes: what is kept of processes may be there still. */
static void undo(kit_sandbox_t *ks, bool keeps_processes)
{
    provider_t *p = ks->pub.provider;
    if (ks->restart_reason && ks->restart_tries < KIT_RESTART_TRIES) {
        kit_log(ks, LOG_LEVEL_WARN, "it could not be started again yet", err_message(ks->op_error));
        kit_line_close(ks, ks->op_error);
        if (p->ops->end)
            p->ops->end(&ks->pub);
        kit_restart_later(ks);
    } else if (ks->restart_reason) {
        auto_err err_t *e = STEAL_PTR(ks->op_error);
        auto_free char *why = mem_printf("%s; it could not be started again: %s", ks->restart_reason, err_message(e));
        kit_waiters_error(p, &ks->resume_waiters, e);
        kit_mark_dead(ks, why);
    } else if (!p->ops->stop) {
        auto_free char *why = mem_printf("it could not be resumed: %s", err_message(ks->op_error));
        resume_failed(ks, why);
        kit_mark_dead(ks, why);
    } else {
        ks->op = KIT_OP_STOP;
        p->ops->stop(&ks->pub, keeps_processes, on_undone, ks);
    }
}

static void resumed_well(kit_sandbox_t *ks)
{
    uint64_t now = clock_monotonic_ms();
    auto_free char *restart = STEAL_PTR(ks->restart_reason);
    ks->pub.state = SANDBOX_READY;
    ks->is_adopting = false;
    ks->total_ms = (uint32_t)(now - ks->started_ms);
    json_object_set_new(json_object_get(ks->pub.private_, "phases"), "agent_ms",
                        json_integer((json_int_t)(now - ks->made_ms)));
    free(STEAL_PTR(ks->pub.reason));
    kit_save(ks); /* a restart finds "resuming" otherwise, and adopts it */
    kit_log(ks, LOG_LEVEL_INFO, restart ? "restarted" : "resumed", NULL);
    kit_resume_reply(ks, &ks->resume_waiters);
    if (restart && !kit_has_gateway(ks->pub.provider)) {
        free(ks->untold_restart);
        ks->untold_restart = mem_strdup(restart);
    }
    kit_event(ks, restart ? "restarted" : "ready", restart);
    kit_status_push(ks->pub.provider);
    kit_restart_pump(ks->pub.provider);
}

static void on_cleared(void *arg, const err_t *err)
{
    kit_sandbox_t *ks = arg;
    free(STEAL_PTR(ks->died));
    if (kit_op_ended(ks))
        return;
    if (err) {
        undo(ks, false);
        return;
    }
    err_free(&ks->op_error);
    run_again(ks);
}

static void resume_lost(kit_sandbox_t *ks, const char *failure)
{
    const provider_ops_t *ops = ks->pub.provider->ops;
    err_free(&ks->op_error);
    err_set(&ks->op_error, ERR_SANDBOX_FAILED, "the sandbox was started but %s", failure);
    stream_destroy(&ks->pub.stream);
    if (!ks->pub.has_processes || ks->has_retried || !ops->stop) {
        undo(ks, false);
        return;
    }
    /* Its files are as they were: better without its processes than not at all. */
    ks->has_retried = true;
    provider_sandbox_warn(&ks->pub,
                          "its processes did not answer after the resume; it was started anew from its files");
    ks->op = KIT_OP_STOP;
    ops->stop(&ks->pub, false, on_cleared, ks);
}

static void on_configured(kit_sandbox_t *ks, const err_t *err)
{
    if (err)
        resume_lost(ks, err_message(err));
    else
        resumed_well(ks);
}

static void on_resume_opened(kit_sandbox_t *ks, const char *failure)
{
    if (failure)
        resume_lost(ks, failure);
    else
        kit_configure(ks, false, on_configured);
}

static void on_resumed(void *arg, const err_t *err)
{
    kit_sandbox_t *ks = arg;
    auto_free char *died = STEAL_PTR(ks->died);
    auto_err err_t *e = NULL;
    if (kit_op_ended(ks))
        return;
    ks->made_ms = clock_monotonic_ms();
    if (!err && died) {
        resume_lost(ks, died);
        return;
    }
    if (!err && kit_line_open(ks, on_resume_opened, KIT_RESUME_TIMEOUT_MS, &e) == 0)
        return;
    err_free(&ks->op_error);
    err_set(&ks->op_error, err_code(err ? err : e), "%s", err_message(err ? err : e));
    undo(ks, err != NULL);
}

static void run_again(kit_sandbox_t *ks)
{
    free(STEAL_PTR(ks->died));
    ks->op = KIT_OP_RESUME;
    ks->pub.provider->ops->resume(&ks->pub, on_resumed, ks);
}

void kit_resume_run(kit_sandbox_t *ks)
{
    ks->started_ms = clock_monotonic_ms();
    ks->has_retried = false;
    err_free(&ks->op_error);
    run_again(ks);
}

void kit_resume(kit_sandbox_t *ks)
{
    auto_err err_t *e = NULL;
    ks->came_from = ks->pub.state;
    ks->pub.state = SANDBOX_RESUMING;
    kit_warnings_begin(ks);
    if (kit_registry_save(ks, &e) < 0) {
        ks->pub.state = ks->came_from;
        kit_waiters_error(ks->pub.provider, &ks->resume_waiters, e);
        return;
    }
    kit_resume_run(ks);
}

/* ---- after a restart of the daemon ---- */

void kit_resume_undo(kit_sandbox_t *ks)
{
    err_free(&ks->op_error);
    if (ks->pub.provider->ops->stop)
        undo(ks, true);
    else
        kit_mark_dead(ks, "the daemon was restarted while it was being resumed");
}

static void on_adopt_configured(kit_sandbox_t *ks, const err_t *err);

static void on_adopt_opened(kit_sandbox_t *ks, const char *failure)
{
    if (!failure) {
        kit_configure(ks, false, on_adopt_configured);
        return;
    }
    kit_log(ks, LOG_LEVEL_WARN, "it cannot be adopted", failure);
    ks->is_adopting = false;
    stream_destroy(&ks->pub.stream);
    if (ks->restart_reason)
        kit_restart_queue(ks);
    else
        kit_resume_undo(ks);
    kit_links_open_if_adopted(ks->pub.provider);
}

static void on_adopt_configured(kit_sandbox_t *ks, const err_t *err)
{
    if (err) {
        on_adopt_opened(ks, err_message(err));
        return;
    }
    resumed_well(ks);
    kit_links_open_if_adopted(ks->pub.provider);
}

void kit_resume_adopted(kit_sandbox_t *ks)
{
    auto_err err_t *e = NULL;
    ks->is_adopting = true;
    ks->came_from = SANDBOX_STOPPED;
    ks->started_ms = ks->made_ms = clock_monotonic_ms();
    ks->pub.state = SANDBOX_RESUMING;
    if (kit_line_open(ks, on_adopt_opened, KIT_ADOPT_TIMEOUT_MS, &e) < 0)
        on_adopt_opened(ks, err_message(e));
}
