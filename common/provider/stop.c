/* SPDX-License-Identifier: Apache-2.0
 *
 * ready or dead -> stopping -> stopped. "stopping" is saved before anything happens, "stopped" after the provider has
 * synced everything; in between the daemon may be killed at any step.
 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/mem.h"

static void stop_run(kit_sandbox_t *ks);

void kit_stop_reply(kit_sandbox_t *ks, struct kit_waiter_list *list)
{
    auto_buf buf_t warnings = {0};
    auto_free char *phases = kit_phases(ks, "stop_phases");
    const json_t *kept = json_object_get(ks->pub.private_, "kept_bytes");
    struct sandbox_stop_reply reply = {.has_processes = ks->pub.has_processes,
                                       .total_ms = ks->stop_ms,
                                       .kept_bytes = (uint64_t)json_integer_value(kept),
                                       .phases = phases,
                                       .warnings = kit_warnings_list(ks->warnings, NULL, &warnings)};
    ks->are_warnings_told = true;
    kit_waiters_reply(ks->pub.provider, list, MSG_sandbox_stop_reply, &reply);
}

static void stop_failed(kit_sandbox_t *ks)
{
    auto_err err_t *e = STEAL_PTR(ks->op_error);
    kit_log(ks, LOG_LEVEL_WARN, "it was not stopped", err_message(e));
    kit_waiters_error(ks->pub.provider, &ks->stop_waiters, e);
}

/* It runs on as before; the agent's calls have lost their hubs. */
static void on_reopened(kit_sandbox_t *ks, const char *failure)
{
    ks->pub.state = SANDBOX_READY;
    if (failure) {
        stop_failed(ks);
        kit_died(ks, failure);
        return;
    }
    kit_save(ks);
    stop_failed(ks);
}

static void stopped_well(kit_sandbox_t *ks)
{
    ks->pub.state = SANDBOX_STOPPED;
    ks->stop_ms = (uint32_t)(clock_monotonic_ms() - ks->started_ms);
    free(STEAL_PTR(ks->pub.reason));
    kit_save(ks); /* a restart finds "stopping" otherwise, and finishes it again */
    kit_log(ks, LOG_LEVEL_INFO, "stopped", NULL);
    kit_stop_reply(ks, &ks->stop_waiters);
    if (ks->was_drained)
        kit_event(ks, "stopped", "its provider is being drained");
    kit_status_push(ks->pub.provider);
    kit_drain_turn(ks->pub.provider);
}

static void on_stopped(void *arg, const err_t *err)
{
    kit_sandbox_t *ks = arg;
    auto_free char *died = STEAL_PTR(ks->died);
    auto_err err_t *e = NULL;
    if (kit_op_ended(ks))
        return;
    if (!err) {
        stopped_well(ks);
        return;
    }
    if (died && ks->keeps_processes) {
        provider_sandbox_warn(&ks->pub, "its processes ended while it was being stopped; its files are kept");
        ks->keeps_processes = false;
        stop_run(ks);
        return;
    }
    err_set(&ks->op_error, err_code(err), "%s", err_message(err));
    if (!died && ks->came_from == SANDBOX_READY && kit_line_open(ks, on_reopened, KIT_ADOPT_TIMEOUT_MS, &e) == 0)
        return;
    auto_free char *why = mem_strdup(died ? died : err_message(e ? e : err));
    stop_failed(ks);
    kit_mark_dead(ks, why);
}

static void stop_run(kit_sandbox_t *ks)
{
    free(STEAL_PTR(ks->died));
    ks->op = KIT_OP_STOP;
    ks->pub.provider->ops->stop(&ks->pub, ks->keeps_processes, on_stopped, ks);
}

static void on_quiesced(kit_sandbox_t *ks, bool is_quiet)
{
    auto_err err_t *e = NULL;
    if (!is_quiet && ks->keeps_processes) {
        ks->keeps_processes = false;
        provider_sandbox_warn(&ks->pub, ks->died ? "it ended while it was being stopped; its files are kept"
                                                 : "its agent did not answer in time, so its processes were ended; "
                                                   "its files are kept");
    }
    err_set(&e, ERR_CONFLICT,
            "sandbox '%s' was stopped during the call, which goes on when it is resumed; the same Idempotency-Key then "
            "gives its result",
            ks->pub.id_text);
    kit_line_close(ks, e);
    stop_run(ks);
}

void kit_stop(kit_sandbox_t *ks, bool keeps_processes)
{
    auto_err err_t *e = NULL;
    ks->came_from = ks->pub.state;
    ks->started_ms = clock_monotonic_ms();
    ks->keeps_processes = keeps_processes && ks->came_from == SANDBOX_READY;
    if (ks->came_from == SANDBOX_READY)
        ks->pub.has_processes = false; /* of an earlier stop; nothing is kept yet */
    kit_warnings_begin(ks);
    ks->pub.state = SANDBOX_STOPPING;
    if (kit_registry_save(ks, &e) < 0) {
        ks->pub.state = ks->came_from;
        kit_waiters_error(ks->pub.provider, &ks->stop_waiters, e);
    } else if (ks->came_from == SANDBOX_READY) {
        kit_quiesce(ks, on_quiesced);
    } else {
        stop_run(ks);
    }
}

void kit_stop_finish(kit_sandbox_t *ks)
{
    ks->came_from = SANDBOX_DEAD;
    ks->started_ms = clock_monotonic_ms();
    stop_run(ks);
}
