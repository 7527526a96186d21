/* SPDX-License-Identifier: Apache-2.0
 *
 * Before the end of the machine, the container or the pod: everything that runs is stopped with its processes kept,
 * then the daemon ends. Nothing new begins meanwhile. What cannot be stopped is left as it is and told in the log.
 */
#include "common/provider/kit.h"

#include "common/mem.h"

#include <signal.h>

static bool is_busy(const kit_sandbox_t *ks)
{
    return ks->op != KIT_OP_NONE || ks->pub.state == SANDBOX_STOPPING || ks->pub.state == SANDBOX_CREATING ||
           ks->pub.state == SANDBOX_RESUMING || ks->pub.state == SANDBOX_DESTROYING || ks->grace_timer ||
           ks->is_adopting || ks->snapshot;
}

static size_t count_busy(const provider_t *p)
{
    const kit_sandbox_t *ks;
    size_t n = 0;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    n += is_busy(ks) && !ks->is_restart_queued;
    return n;
}

static kit_sandbox_t *next_to_stop(const provider_t *p)
{
    kit_sandbox_t *ks;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    if (ks->pub.state == SANDBOX_READY && !is_busy(ks) && !ks->was_drained)
        return ks;
    return NULL;
}

static void report(const provider_t *p)
{
    const kit_sandbox_t *ks;
    TAILQ_FOREACH(ks, &p->sandboxes, entry)
    if (ks->pub.state == SANDBOX_READY)
        kit_log(ks, LOG_LEVEL_ERROR, "it could not be stopped for the drain and runs on", NULL);
}

void kit_drain_turn(provider_t *p)
{
    kit_sandbox_t *ks;
    if (!p->is_draining)
        return;
    while (count_busy(p) < KIT_DRAIN_AT_ONCE && (ks = next_to_stop(p))) {
        ks->was_drained = true;
        kit_stop(ks, true);
    }
    if (count_busy(p) > 0 || next_to_stop(p))
        return;
    report(p);
    log_info("drained: nothing runs any more that could be stopped");
    p->is_draining = false;
    p->is_drained = true;
    daemon_stop(p->daemon);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    (void)number;
    (void)what;
    provider_t *p = arg;
    if (p->is_draining || p->is_drained)
        return;
    log_info("draining: every sandbox is stopped with its processes, then the daemon ends");
    p->is_draining = true;
    kit_pools_give_up(p);
    kit_status_push(p);
    kit_drain_turn(p);
}

int kit_drain_init(provider_t *p, err_t **e)
{
    p->drain_signal = evsignal_new(p->daemon->base, SIGUSR2, on_signal, p);
    if (!p->drain_signal || event_add(p->drain_signal, NULL) < 0)
        return err_set(e, ERR_INTERNAL, "cannot watch signal %d", SIGUSR2);
    return 0;
}

void kit_drain_free(provider_t *p)
{
    if (p->drain_signal)
        event_free(p->drain_signal);
}
