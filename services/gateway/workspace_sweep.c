// SPDX-License-Identifier: Apache-2.0
/* What goes by itself: expired workspaces are destroyed, unused ones are stopped. A call under way is use. */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/log.h"

static bool is_in_use(workspace_t *ws)
{
    gateway_t *gw = ws->all->gw;
    if (call_table_count_of(gw->calls, &ws->row.id) == 0 && workspace_count_waiters(ws, WAITER_TOOL) == 0)
        return false;
    workspaces_touch(gw, &ws->row);
    return true;
}

void workspaces_sweep(workspaces_t *all)
{
    int64_t now = (int64_t)clock_realtime_ms();
    for (workspace_t *ws = all->newest, *older; ws != NULL; ws = older) {
        older = ws->older;
        const workspace_row_t *row = &ws->row;
        if (row->expires_at_ms == 0 || row->expires_at_ms > now || !ws->is_committed || ws->destruction != NULL ||
            strcmp(row->lifecycle, "persistent") == 0 || is_in_use(ws))
            continue;
        log_write(LOG_LEVEL_INFO, &(log_ctx_t){.sandbox = row->id_text}, "the workspace expired and is destroyed");
        audit_note(all->gw, "expire", row, NULL, NULL);
        workspace_start_destruction(ws);
    }
}

void workspaces_stop_idle(workspaces_t *all)
{
    int64_t now = (int64_t)clock_realtime_ms();
    uint64_t settled_before = clock_monotonic_ms() - (uint64_t)all->idle_stop_ms; /* one that failed is not hurried */
    for (workspace_t *ws = all->newest; ws != NULL && all->idle_stop_ms > 0; ws = ws->older) {
        const workspace_row_t *row = &ws->row;
        if (now - row->last_used_at_ms < all->idle_stop_ms || ws->settled_ms > settled_before || !ws->is_committed ||
            ws->commit != NULL || strcmp(row->container_type, "agent_workspace") != 0)
            continue;
        auto_err err_t *e = NULL;
        if (workspace_judge(row, OPERATION_STOP, &e) != VERDICT_ALLOWED || is_in_use(ws))
            continue;
        if (workspace_start_stop(ws, false, "idle", &e) != 0)
            continue;
        log_write(LOG_LEVEL_INFO, &(log_ctx_t){.sandbox = row->id_text}, "nobody uses the workspace: it is stopped");
        audit_note(all->gw, "idle_stop", row, NULL, NULL);
    }
}
