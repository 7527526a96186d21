/* SPDX-License-Identifier: Apache-2.0
 *
 * Handlers that the route table points to, for tests that look at the table only. Each is a function of its own, so
 * that they differ.
 */
#include "services/gateway/gateway.h"

#include <stdlib.h>

#define HANDLER(name)                                                                                             \
    void name(api_request_t *r)                                                                                   \
    {                                                                                                             \
        (void)r;                                                                                                  \
        __asm__ volatile("" : : "i"(__LINE__ * 1000 + __COUNTER__)); /* the same code would be folded into one */ \
        abort();                                                                                                  \
    }

HANDLER(workspace_create)
HANDLER(workspace_list)
HANDLER(workspace_get)
HANDLER(workspace_delete)
HANDLER(workspace_stop)
HANDLER(workspace_resume)
HANDLER(workspace_attach)
HANDLER(workspace_detach)
HANDLER(workspace_assignments)
HANDLER(workspace_patch)
HANDLER(workspace_providers)
HANDLER(workspace_events)
HANDLER(workspace_from_snapshot)
HANDLER(workspace_fork)
HANDLER(snapshot_take)
HANDLER(snapshot_list)
HANDLER(snapshot_get)
HANDLER(snapshot_delete)
HANDLER(tool_call)
HANDLER(tool_bash)
HANDLER(process_output)
HANDLER(file_get)
HANDLER(file_put)
HANDLER(file_watch)
HANDLER(audit_list)
HANDLER(audit_list_workspace)
HANDLER(api_key_list)
HANDLER(api_key_create)
HANDLER(api_key_delete)
HANDLER(warm_pool_list)
HANDLER(warm_pool_set)
HANDLER(warm_pool_reset)
HANDLER(system_health)
HANDLER(system_ready)
HANDLER(system_version)
HANDLER(system_metrics)
HANDLER(system_openapi)
