/* SPDX-License-Identifier: Apache-2.0
 *
 * The one table of REST routes, and its matcher. OpenAPI, metrics and tests walk the same rows. A static segment stands
 * before a :parameter in the same place.
 */
#include "services/gateway/api_internal.h"

#include "common/mem.h"

#include <stdio.h>
#include <string.h>

#define WS "/api/v1/agent/workspaces"
#define SNAPSHOTS "/api/v1/agent/snapshots"
#define BODY_SMALL (1024 * 1024)
#define BODY_CONTENT (6ULL * MAX_CONTENT) /* a byte of content is at most six of JSON */
#define BODY_COMMAND (BODY_CONTENT)       /* bash carries stdin */
#define BODY_FILE INT64_MAX               /* the workspace's disk is the limit */

#define R(method_, path_, scope_, body_, max_, handler_, verb_, request_, reply_, status_, doc_)                 \
    {                                                                                                            \
        .method = (method_), .path = (path_), .scope = SCOPE_##scope_, .body = BODY_##body_, .body_max = (max_), \
        .handler = (handler_), .verb = (verb_), .request = (request_), .reply = (reply_), .status = (status_),   \
        .doc = (doc_)                                                                                            \
    }

#define TOOL(name, max, handler, doc)                                                                                  \
    R("POST", WS "/:id/" #name, WRITE, JSON, max, handler, VERB_##name, MSG_##name##_request, MSG_##name##_reply, 200, \
      doc)

static const route_t routes[] = {
    TOOL(bash, BODY_COMMAND, tool_bash,
         "Run a shell command. With `Accept: text/event-stream`: output as it comes, then the result."),
    TOOL(read, BODY_SMALL, tool_call, "Read a text file by lines, or list a directory."),
    TOOL(write, BODY_CONTENT, tool_call, "Write a whole file; parents are made, the new content appears at once."),
    TOOL(edit, BODY_CONTENT, tool_call, "Replace an exact string in a file."),
    TOOL(glob, BODY_SMALL, tool_call, "Find files by pattern, newest first."),
    TOOL(grep, BODY_SMALL, tool_call, "Find lines by regular expression."),
    TOOL(git, BODY_SMALL * 20, tool_call, "Run one git action in the workspace."),
    R("POST", WS "/:id/exec", WRITE, JSON, BODY_COMMAND, tool_bash, VERB_bash, MSG_bash_request, MSG_bash_reply, 200,
      "The same as /bash."),

    R("POST", WS, WRITE, JSON, BODY_SMALL, workspace_create, 0, MSG_workspace_create, MSG_workspace, 201,
      "Create a workspace. `?wait=` seconds waits until it is ready."),
    R("GET", WS, READ, NONE, 0, workspace_list, 0, 0, MSG_workspace, 200,
      "List workspaces; filters container_type, provider, status, agent_session_id; limit and cursor."),
    R("GET", WS "/providers", READ, NONE, 0, workspace_providers, 0, 0, MSG_provider_status, 200,
      "Health, capabilities and room of every provider."),
    R("POST", WS "/from-snapshot", WRITE, JSON, BODY_SMALL, workspace_from_snapshot, 0, MSG_workspace_from_snapshot,
      MSG_workspace, 201, "Make a workspace from a snapshot; answered when it is ready."),
    R("GET", WS "/:id", READ, NONE, 0, workspace_get, 0, 0, MSG_workspace, 200, "One workspace."),
    R("DELETE", WS "/:id", WRITE, NONE, 0, workspace_delete, 0, 0, 0, 204,
      "Destroy a workspace and everything in it. `?force=true`: forget it when its provider daemon is not there; that "
      "destroys it should it come back."),
    R("PATCH", WS "/:id", WRITE, JSON, BODY_SMALL, workspace_patch, 0, MSG_workspace_patch, MSG_workspace, 200,
      "Change a workspace's TTL and merge into its metadata."),
    R("POST", WS "/:id/stop", WRITE, JSON, BODY_SMALL, workspace_stop, 0, MSG_workspace_stop, MSG_workspace, 200,
      "Stop a workspace: files and, where possible, processes stay on disk, its memory is freed."),
    R("POST", WS "/:id/resume", WRITE, JSON, BODY_SMALL, workspace_resume, 0, 0, MSG_workspace, 200,
      "Resume a stopped workspace where it stood."),
    R("POST", WS "/:id/attach", WRITE, JSON, BODY_SMALL, workspace_attach, 0, MSG_workspace_attach, MSG_workspace, 200,
      "Give a workspace to a session; a stopped one is resumed."),
    R("POST", WS "/:id/detach", WRITE, JSON, BODY_SMALL, workspace_detach, 0, MSG_workspace_detach, MSG_workspace, 200,
      "Take a workspace back from its session."),
    R("GET", WS "/:id/assignments", READ, NONE, 0, workspace_assignments, 0, 0, MSG_assignment, 200,
      "The sessions that held the workspace, newest first; limit and cursor."),
    R("GET", WS "/:id/events", READ, NONE, 0, workspace_events, 0, 0, 0, 200,
      "Changes of the workspace as server-sent events."),

    R("POST", WS "/:id/snapshot", WRITE, JSON, BODY_SMALL, snapshot_take, 0, MSG_workspace_snapshot, MSG_snapshot, 201,
      "Take a snapshot of a ready or stopped workspace; answered when it is complete and on disk."),
    R("POST", WS "/:id/fork", WRITE, JSON, BODY_SMALL, workspace_fork, 0, MSG_workspace_fork, MSG_workspace_fork_reply,
      201, "Make copies of a workspace, all or none; answered when all are ready."),
    R("GET", SNAPSHOTS, READ, NONE, 0, snapshot_list, 0, 0, MSG_snapshot, 200,
      "List snapshots; filters workspace_id, provider, status; limit and cursor."),
    R("GET", SNAPSHOTS "/:id", READ, NONE, 0, snapshot_get, 0, 0, MSG_snapshot, 200, "One snapshot."),
    R("DELETE", SNAPSHOTS "/:id", WRITE, NONE, 0, snapshot_delete, 0, 0, 0, 204,
      "Delete a snapshot; answered when nothing of it is left."),

    R("GET", WS "/:id/files", READ, NONE, 0, file_get, VERB_file_get, MSG_file_get_request, 0, 200,
      "Download a file: Range, If-Range, If-None-Match, HEAD."),
    R("PUT", WS "/:id/files", WRITE, STREAM, BODY_FILE, file_put, VERB_file_put, MSG_file_put_request,
      MSG_file_put_reply, 200, "Upload a file of any size; the body is its content."),
    R("DELETE", WS "/:id/files", WRITE, NONE, 0, tool_call, VERB_file_remove, MSG_file_remove_request,
      MSG_file_remove_reply, 200, "Remove a file or, with recursive, a tree."),
    R("GET", WS "/:id/files/stat", READ, NONE, 0, tool_call, VERB_file_stat, MSG_file_ref, MSG_file_entry, 200,
      "Describe a path."),
    R("GET", WS "/:id/files/list", READ, NONE, 0, tool_call, VERB_file_list, MSG_file_list_request, MSG_file_list_reply,
      200, "List a directory, with depth for a tree."),
    R("POST", WS "/:id/files/mkdir", WRITE, JSON, BODY_SMALL, tool_call, VERB_file_mkdir, MSG_file_mkdir_request,
      MSG_file_entry, 200, "Make a directory and its parents."),
    R("POST", WS "/:id/files/move", WRITE, JSON, BODY_SMALL, tool_call, VERB_file_move, MSG_file_move_request,
      MSG_file_entry, 200, "Move or rename."),
    R("GET", WS "/:id/files/watch", READ, NONE, 0, file_watch, VERB_file_watch, MSG_file_watch_request, MSG_file_event,
      200, "Changes below a path as server-sent events."),

    R("POST", WS "/:id/processes", WRITE, JSON, BODY_SMALL * 8, tool_call, VERB_process_start,
      MSG_process_start_request, MSG_process_start_reply, 201, "Start a background process."),
    R("GET", WS "/:id/processes", READ, NONE, 0, tool_call, VERB_process_list, MSG_empty, MSG_process_list_reply, 200,
      "List background processes."),
    R("GET", WS "/:id/processes/:pid/output", READ, NONE, 0, process_output, VERB_process_output,
      MSG_process_output_request, MSG_process_output_reply, 200,
      "Output from an offset. With `Accept: text/event-stream`: follow it; Last-Event-ID goes on where a stream "
      "broke."),
    R("POST", WS "/:id/processes/:pid/input", WRITE, JSON, BODY_SMALL * 8, tool_call, VERB_process_input,
      MSG_process_input_request, MSG_process_input_reply, 200, "Write to standard input."),
    R("POST", WS "/:id/processes/:pid/signal", WRITE, JSON, BODY_SMALL, tool_call, VERB_process_signal,
      MSG_process_signal_request, 0, 204, "Send a signal to the process or its tree."),
    R("POST", WS "/:id/processes/:pid/wait", WRITE, JSON, BODY_SMALL, tool_call, VERB_process_wait,
      MSG_process_wait_request, MSG_process_output_reply, 200, "Wait for the end of a process."),

    R("GET", WS "/:id/stats", READ, NONE, 0, tool_call, VERB_agent_stats, MSG_agent_stats_request,
      MSG_agent_stats_reply, 200, "Processes, memory and disk as the sandbox sees them."),

    R("GET", WS "/:id/audit", READ, NONE, 0, audit_list_workspace, 0, 0, MSG_audit_entry, 200,
      "What was done to a workspace, newest first, also after its end; filters operation, status (404 or 4xx), from, "
      "to, "
      "agent_session_id; limit and cursor."),
    R("GET", "/api/v1/agent/audit", READ, NONE, 0, audit_list, 0, 0, MSG_audit_entry, 200,
      "What was done to all of the owner's workspaces and keys; the same filters."),

    R("GET", "/api/v1/admin/api-keys", READ, NONE, 0, api_key_list, 0, 0, 0, 200,
      "List API keys, without the keys themselves."),
    R("POST", "/api/v1/admin/api-keys", WRITE, JSON, BODY_SMALL, api_key_create, 0, 0, 0, 201,
      "Make an API key; it is shown once."),
    R("DELETE", "/api/v1/admin/api-keys/:id", WRITE, NONE, 0, api_key_delete, 0, 0, 0, 204, "Revoke an API key."),

    R("GET", "/api/v1/admin/warm-pools", READ, NONE, 0, warm_pool_list, 0, 0, 0, 200,
      "Warm pools: what there should be, and what each node has."),
    R("PUT", "/api/v1/admin/warm-pools", WRITE, JSON, BODY_SMALL, warm_pool_set, 0, MSG_warm_pools, 0, 200,
      "Set all warm pools; takes the place of WORKSPACE_WARM_POOL_SIZE. Standalone key only."),
    R("DELETE", "/api/v1/admin/warm-pools", WRITE, NONE, 0, warm_pool_reset, 0, 0, 0, 200,
      "Back to the pools of the configuration. Standalone key only."),

    R("GET", "/health", NONE, NONE, 0, system_health, 0, 0, 0, 200,
      "The gateway answers; with the state of each provider."),
    R("GET", "/ready", NONE, NONE, 0, system_ready, 0, 0, 0, 200,
      "200 when a workspace can be made, else 503 with the reason."),
    R("GET", "/version", NONE, NONE, 0, system_version, 0, 0, 0, 200, "Release and protocol version."),
    R("GET", "/openapi.json", NONE, NONE, 0, system_openapi, 0, 0, 0, 200, "This API as OpenAPI 3.1."),
    R("GET", "/metrics", READ, NONE, 0, system_metrics, 0, 0, 0, 200, "Prometheus metrics."),
};

const route_t *api_route_at(size_t i)
{
    return i < COUNT_OF(routes) ? &routes[i] : NULL;
}

size_t route_count(void)
{
    return COUNT_OF(routes);
}

size_t route_index(const route_t *route)
{
    return (size_t)(route - routes);
}

/* Where the parameters of a matching path are. */
typedef struct match {
    const char *at[2];
    size_t len[2];
    unsigned count;
} match_t;

static bool path_matches(const char *pattern, const char *path, match_t *m)
{
    m->count = 0;
    while (*pattern) {
        if (*pattern != ':') {
            if (*pattern++ != *path++) {
                return false;
            }
            continue;
        }
        size_t len = strcspn(path, "/");
        if (len == 0 || m->count == COUNT_OF(m->at)) {
            return false;
        }
        m->at[m->count] = path;
        m->len[m->count++] = len;
        path += len;
        pattern += strcspn(pattern, "/");
    }
    return *path == 0;
}

static bool keep_params(const match_t *m, const char *params[2], char *storage, size_t size)
{
    size_t used = 0;
    for (unsigned i = 0; i < m->count; i++) {
        if (m->len[i] >= size - used) {
            return false;
        }
        memcpy(storage + used, m->at[i], m->len[i]);
        storage[used + m->len[i]] = 0;
        params[i] = storage + used;
        used += m->len[i] + 1;
    }
    return true;
}

static void add_allowed(const char *method, char *allow, size_t size)
{
    size_t len = strlen(allow);
    snprintf(allow + len, size - len, "%s%s%s", len ? ", " : "", method, strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

const route_t *route_match(const char *method, const char *path, const char *params[2], char *storage,
                           size_t storage_size, char *allow, size_t allow_size)
{
    const char *pattern = NULL; /* the first that matched: later rows must have the same */
    bool is_head = strcmp(method, "HEAD") == 0;
    match_t m;
    allow[0] = 0;
    params[0] = params[1] = NULL;
    for (size_t i = 0; i < COUNT_OF(routes); i++) {
        const route_t *route = &routes[i];
        if (pattern ? strcmp(pattern, route->path) != 0 : !path_matches(route->path, path, &m)) {
            continue;
        }
        pattern = route->path;
        if (strcmp(route->method, is_head ? "GET" : method) == 0) {
            return keep_params(&m, params, storage, storage_size) ? route : NULL;
        }
        add_allowed(route->method, allow, allow_size);
    }
    return NULL;
}
