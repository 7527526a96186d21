/* SPDX-License-Identifier: Apache-2.0
 *
 * A snapshot is taken: the agent is made quiet, the provider copies, the agent talks again. Calls in flight notice a
 * stall and nothing else: everything that came up before QUIESCED was passed on, what hubs send meanwhile waits, and
 * the agent knows by its being quiesced that nothing was lost.
 */
#include "common/provider/kit.h"

#include "common/clock.h"
#include "common/mem.h"

static void finish(kit_sandbox_t *ks)
{
    kit_snapshot_t *snap = STEAL_PTR(ks->snapshot);
    auto_err err_t *e = STEAL_PTR(ks->op_error);
    snap->pub.total_ms = (uint32_t)(clock_monotonic_ms() - snap->started_ms);
    if (!e)
        kit_snapshot_complete(snap, &e);
    if (e) {
        kit_log(ks, LOG_LEVEL_WARN, "a snapshot failed", err_message(e));
        kit_waiters_error(ks->pub.provider, &snap->create_waiters, e);
        kit_snapshot_remove(snap);
        return;
    }
    kit_log(ks, LOG_LEVEL_INFO, "a snapshot was taken", snap->pub.id_text);
    kit_snapshot_reply(snap, &snap->create_waiters);
}

void kit_snapshot_interrupt(kit_sandbox_t *ks, const err_t *err)
{
    if (!ks->snapshot->is_taken && !ks->op_error)
        err_set(&ks->op_error, err_code(err), "the snapshot was not taken: %s", err_message(err));
    finish(ks);
}

/* Both must have come: the end of the copy and the agent's voice. */
static void finish_if_over(kit_sandbox_t *ks)
{
    if (ks->snapshot && ks->snapshot->is_taken && !ks->is_stalled)
        finish(ks);
}

static void on_reopened(kit_sandbox_t *ks, const char *failure)
{
    if (failure && ks->op != KIT_OP_NONE) {
        ks->died = mem_strdup(failure);
        return;
    }
    if (failure) {
        kit_died(ks, failure);
        return;
    }
    kit_snapshot_t *snap = ks->snapshot;
    uint32_t stall = (uint32_t)(clock_monotonic_ms() - snap->stalled_ms);
    if (stall > snap->pub.stall_ms)
        snap->pub.stall_ms = stall;
    kit_relay_flush(ks);
    kit_save(ks); /* the epoch */
    finish_if_over(ks);
}

/* The hubs of calls that may have lost bytes are told so, or they would wait for the rest. */
static void calls_lost(kit_sandbox_t *ks)
{
    auto_err err_t *e = NULL;
    err_set(&e, ERR_PROVIDER_UNAVAILABLE,
            "the agent of sandbox '%s' did not answer when a snapshot was taken; try again, with the same "
            "Idempotency-Key for the same call",
            ks->pub.id_text);
    kit_relay_fail_all(ks, e);
}

static void reopen(kit_sandbox_t *ks)
{
    auto_err err_t *e = NULL;
    if (kit_line_go_on(ks, on_reopened, &e) < 0)
        on_reopened(ks, err_message(e));
}

void provider_sandbox_runs_on(sandbox_t *s)
{
    kit_sandbox_t *ks = (kit_sandbox_t *)s;
    if (ks->op == KIT_OP_SNAPSHOT && ks->is_stalled && !ks->on_opened && !ks->died && !ks->is_destroy_wanted)
        reopen(ks);
}

static void on_taken(void *arg, const err_t *err)
{
    kit_sandbox_t *ks = arg;
    auto_free char *died = STEAL_PTR(ks->died);
    ks->snapshot->is_taken = true;
    if (err)
        err_set(&ks->op_error, err_code(err), "%s", err_message(err));
    if (kit_op_ended(ks))
        return;
    if (died)
        kit_died(ks, died);
    else if (ks->is_stalled && !ks->on_opened)
        reopen(ks);
    else
        finish_if_over(ks);
}

static void run(kit_sandbox_t *ks)
{
    kit_snapshot_t *snap = ks->snapshot;
    ks->op = KIT_OP_SNAPSHOT;
    ks->pub.provider->ops->snapshot(&ks->pub, &snap->pub, snap->keeps_processes, on_taken, ks);
}

static void on_quiesced(kit_sandbox_t *ks, bool is_quiet)
{
    kit_snapshot_t *snap = ks->snapshot;
    auto_free char *died = STEAL_PTR(ks->died);
    if (died) {
        kit_died(ks, died);
        return;
    }
    if (!is_quiet) {
        stream_destroy(&ks->pub.stream); /* it would break of itself while the copy is made */
        calls_lost(ks);
        if (snap->keeps_processes)
            json_array_append_new(snap->pub.warnings,
                                  json_string("the agent did not answer in time, so only files were kept"));
        snap->keeps_processes = false;
    }
    run(ks);
}

void kit_snapshot_take(kit_sandbox_t *ks, kit_snapshot_t *snap)
{
    ks->snapshot = snap;
    err_free(&ks->op_error);
    free(STEAL_PTR(ks->died));
    snap->stalled_ms = clock_monotonic_ms();
    if (ks->pub.state == SANDBOX_READY)
        kit_quiesce(ks, on_quiesced);
    else
        run(ks);
}
