/* SPDX-License-Identifier: Apache-2.0
 *
 * The gateway's context and the interfaces between its parts: api (routes, gate, replies), tools (verbs over REST),
 * workspaces (rows, cache, lifecycle), orchestrator (which provider), store (SQL actor), auth (who is it).
 */
#ifndef EW_GATEWAY_GATEWAY_H
#define EW_GATEWAY_GATEWAY_H

#include "common/call.h"
#include "common/daemon.h"
#include "common/fabric.h"
#include "common/json_writer.h"
#include "services/gateway/http/http.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

typedef struct store store_t;
typedef struct workspaces workspaces_t;
typedef struct snapshots snapshots_t;
typedef struct orchestrator orchestrator_t;
typedef struct auth auth_t;
typedef struct metrics metrics_t;
typedef struct api api_t;
typedef struct idempotency idempotency_t;
typedef struct warm_pool_set warm_pool_set_t;
typedef struct audit audit_t;

typedef struct gateway {
    daemon_t daemon;
    fabric_t *fabric;
    call_table_t *calls;
    http_server_t *http;
    store_t *store;
    workspaces_t *workspaces;
    snapshots_t *snapshots;
    orchestrator_t *orchestrator;
    auth_t *auth;
    api_t *api;
    metrics_t *metrics;
    idempotency_t *idempotency;
    warm_pool_set_t *warm_pools;
    audit_t *audit; /* NULL: nothing is audited (tests) */
} gateway_t;

/* ---- one REST request, from the gate to the reply (api.c) ---- */

enum scope { SCOPE_NONE, SCOPE_READ, SCOPE_WRITE }; /* none, admin:read, admin:write */

typedef struct caller {
    char name[64];  /* of the API key, for the audit log */
    char owner[64]; /* whose rows it sees */
    bool can_read;
    bool can_write;
    bool is_operator;      /* came with the standalone key itself: may name owners, sees all keys */
    int64_t expires_at_ms; /* of its key, 0 = never: what it makes must not outlive it */
} caller_t;

typedef struct api_request api_request_t;
typedef struct workspace_row workspace_row_t;
typedef struct route route_t;
typedef void (*route_fn)(api_request_t *r);

/* How the gate treats the body. */
enum body_kind {
    BODY_NONE,   /* any body is refused */
    BODY_JSON,   /* collected up to body_max, parsed; absent = {} */
    BODY_STREAM, /* handed on in chunks through api_request.on_body */
};

struct route {
    const char *method;
    const char *path; /* "/api/v1/agent/workspaces/:id/files"; :id and :pid are parameters */
    enum scope scope;
    enum body_kind body;
    uint64_t body_max;
    route_fn handler;
    unsigned verb;    /* tool routes: the verb, else 0 */
    unsigned request; /* message id of the JSON body, 0 = none or free form; for OpenAPI and the schema gate */
    unsigned reply;   /* message id of the reply, 0 = none */
    int status;       /* of success */
    const char *doc;
};

struct api_request {
    gateway_t *gw;
    http_request_t *http;
    const route_t *route;
    caller_t caller;
    char request_id[64]; /* X-Request-Id: taken over when well formed, else made */
    uuid16_t trace;
    const char *params[2]; /* values of :parameters in order */
    char *param_storage;
    json_t *json;  /* BODY_JSON: the object (never NULL then), until the handler returns */
    buf_t encoded; /* BODY_JSON with route->request: the encoded message; a large one until the handler returns */
    void *state;   /* the handler's own */
    void (*on_body)(api_request_t *r, const uint8_t *bytes, size_t len); /* BODY_STREAM; set by the handler */
    void (*on_body_end)(api_request_t *r);
    void (*on_writable)(api_request_t *r);
    void (*on_close)(api_request_t *r, bool is_hangup); /* free state, cancel calls; set by the handler */
    uint64_t started_us;
    bool is_replied;
    int status; /* of the reply, for log and metrics */

    /* api.c's own */
    buf_t body;    /* BODY_JSON: as it comes */
    buf_t scratch; /* the reply being written */
    uint64_t body_seen;
    bool is_public_cache; /* the handler set Cache-Control itself */
    bool is_sse;
    char *audit;                    /* what was asked, without contents; freed with the request */
    char workspace[UUID_TEXT_SIZE]; /* for log and audit, "" = none */
    char session[UUID_TEXT_SIZE];
    char error_code[32], error_text[160]; /* of a failed one, for the audit line */
    api_request_t *next, **link;          /* spare list, or list of open event streams */
};

/* The gate. api_open before http_server_new(…, api_http_handlers(), gw). */
int api_open(gateway_t *gw, err_t **e);
void api_close(gateway_t *gw);
/* Ends the streams that would last for ever; the rest finishes. */
void api_drain(gateway_t *gw);
const http_handlers_t *api_http_handlers(void);
/* The workspace of :id when it is ready, and its daemon; NULL after the error was replied. */
workspace_row_t *api_ready_workspace(api_request_t *r, fabric_peer_t **peer);
/* Query parameters as the JSON object of route->request (kinds by its rows). NULL + error for a value that cannot be
 * one. */
json_t *api_query_object(api_request_t *r, err_t **e);
/* route->request's encoded form of `object` into r->encoded; unknown names go to X-Unknown-Fields. */
int api_encode_request(api_request_t *r, const json_t *object, err_t **e);
/* Streamed replies: bytes are always taken; false = too slow now, on_writable follows. content_length -1 = unknown. */
void api_stream_start(api_request_t *r, int status, const char *content_type, int64_t content_length);
bool api_stream_bytes(api_request_t *r, const void *bytes, size_t len);
void api_stream_end(api_request_t *r);
void api_stream_abort(api_request_t *r);

/* Replies; each ends the request. */
void api_reply_error(api_request_t *r, const err_t *err);
void api_fail(api_request_t *r, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void api_reply_message(api_request_t *r, int status, unsigned msg_id, const void *encoded, size_t len,
                       unsigned json_flags);
void api_reply_json(api_request_t *r, int status, buf_t *json); /* takes the text out of json */
void api_reply_empty(api_request_t *r, int status);
/* Server-sent events: start, one event (id may be NULL; data is JSON text), end. An event is always taken. False: the
 * client is too slow now; send no more until on_writable, or lose the client once 4 MiB wait. */
void api_sse_start(api_request_t *r);
bool api_sse_event(api_request_t *r, const char *event, const char *id, const char *data, size_t len);
void api_sse_end(api_request_t *r);
bool api_wants_sse(const api_request_t *r);
const char *api_status_name(int status); /* "creating", "ready", … */
/* What goes with every reply; api_reply_* and api_stream_start call it. */
void api_reply_headers(api_request_t *r);
/* Errors without a reply: {"error":{…}} into out. */
void api_error_json(const err_t *err, buf_t *out);
const route_t *api_route_at(size_t i); /* NULL past the end: for OpenAPI, metrics, tests */

/* ---- workspaces (workspaces.c) ---- */

enum workspace_status { WORKSPACE_CREATING, WORKSPACE_READY, WORKSPACE_STOPPING, WORKSPACE_STOPPED, WORKSPACE_ERROR };
/* What is under way: decided at once in memory, on disk before the daemon is asked, finished after a crash. */
enum workspace_intent { INTENT_NONE, INTENT_STOP, INTENT_RESUME, INTENT_DESTROY };

/* One row, cached in memory; owned by workspaces_t, valid until the loop returns. */
struct workspace_row {
    uuid16_t id;
    char id_text[UUID_TEXT_SIZE];
    char owner[64];
    enum workspace_status status;
    enum workspace_intent intent;
    char *stop_reason;   /* who stopped it: "user", "idle", "daemon"; NULL unless stopped or being stopped */
    int64_t ttl_seconds; /* life after its last use; 0 = the configured one */
    char *agent_session_id;
    char *container_type, *provider, *provider_workspace_id, *repository_url, *branch, *deployment_mode, *lifecycle;
    char *image, *network, *failure_reason, *snapshot_id;
    char *cpu, *memory, *disk; /* resource_limits in force */
    json_t *metadata, *warnings, *mcp_config, *env;
    int64_t created_at_ms, last_used_at_ms, expires_at_ms; /* expires 0 = never */
};

/* Which workspace a request is about, for log and audit. */
static inline void api_note_workspace(api_request_t *r, const workspace_row_t *ws)
{
    memcpy(r->workspace, ws->id_text, sizeof r->workspace);
    snprintf(r->session, sizeof r->session, "%s", ws->agent_session_id ? ws->agent_session_id : "");
}

/* NULL + error: bad id (400 "invalid workspace id format"), unknown or foreign (404 "workspace '<id>' not found"). */
workspace_row_t *workspaces_find(gateway_t *gw, const char *id_text, const caller_t *caller, err_t **e);
/* The daemon that has the sandbox. NULL + provider_unavailable when it is not connected now. */
fabric_peer_t *workspaces_peer(gateway_t *gw, const workspace_row_t *ws, err_t **e);
/* May a tool run there now? REFUSED + error; WAKES: nobody used it and so it was stopped: workspaces_wake. */
enum workspace_admission { WORKSPACE_REFUSED, WORKSPACE_RUNS, WORKSPACE_WAKES };
enum workspace_admission workspaces_admit(const workspace_row_t *ws, err_t **e);
/* Resumes it; then `then` goes on with the request, or its error was replied. The request's state and on_close are in
 * use until then. */
void workspaces_wake(workspace_row_t *ws, api_request_t *r, route_fn then);
/* last_used_at and expires_at, in memory now, written in batches. */
void workspaces_touch(gateway_t *gw, workspace_row_t *ws);
/* Events for GET /:id/events: subscriber is called until unsubscribed. */
typedef void (*workspace_event_fn)(void *arg, const char *event, const char *json, size_t len);
uint64_t workspaces_subscribe(gateway_t *gw, const uuid16_t *id, workspace_event_fn fn, void *arg);
void workspaces_unsubscribe(gateway_t *gw, uint64_t subscription);
size_t workspaces_count(const gateway_t *gw, enum workspace_status status);

int workspaces_open(gateway_t *gw, err_t **e); /* loads the cache from the store, reconciles as daemons come up */
void workspaces_close(gateway_t *gw);
void workspaces_on_peer_up(gateway_t *gw, fabric_peer_t *peer);
void workspaces_on_peer_down(gateway_t *gw, fabric_peer_t *peer);
void workspaces_on_sandbox_event(gateway_t *gw, fabric_peer_t *peer, const uuid16_t *sandbox,
                                 const struct sandbox_event *event);

/* ---- snapshots (snapshots.c); open after workspaces, close before them ---- */

enum snapshot_status { SNAPSHOT_CREATING, SNAPSHOT_READY, SNAPSHOT_ERROR, SNAPSHOT_DELETING };

int snapshots_open(gateway_t *gw, err_t **e);
void snapshots_close(gateway_t *gw);
void snapshots_on_peer_up(gateway_t *gw, fabric_peer_t *peer);
size_t snapshots_count(const gateway_t *gw, enum snapshot_status status);
const char *snapshot_status_name(enum snapshot_status status); /* "creating", "ready", … */

/* ---- audit (audit.c): a line in the log and a row in the store ---- */

/* What the suite does by itself: "expire", "idle_stop", "restart", "sweep", … ws NULL = no workspace of anybody.
 * summary (may be NULL) and err (NULL = done) hold no contents and no secrets. Copied. */
void audit_note(gateway_t *gw, const char *operation, const workspace_row_t *ws, const char *summary, const err_t *err);

/* ---- orchestrator (orchestrator.c): which provider, with fallback ---- */

int orchestrator_open(gateway_t *gw, err_t **e);
void orchestrator_close(gateway_t *gw);
void orchestrator_on_peer_up(gateway_t *gw, fabric_peer_t *peer);
void orchestrator_on_peer_down(gateway_t *gw, fabric_peer_t *peer, const char *reason);
void orchestrator_on_status(gateway_t *gw, fabric_peer_t *peer, const uint8_t *body, size_t len);

/* ---- store (store.c): SQLite in one actor; see its header ---- */
store_t *store_open(gateway_t *gw, err_t **e);
void store_close(store_t **s);

/* ---- auth (auth.c) ---- */
int auth_open(gateway_t *gw,
              err_t **e); /* standalone key (generated into $EW_STATE_DIR/api-key if unset), API keys of the store */
void auth_close(gateway_t *gw);
/* Fills *caller or sets missing_token / invalid_token. Constant-time compares; never the query string. */
int auth_check(gateway_t *gw, const http_request_t *r, caller_t *caller, err_t **e);

/* Route handlers, one file per topic; rows are in routes.c. */
void workspace_create(api_request_t *r);
void workspace_list(api_request_t *r);
void workspace_get(api_request_t *r);
void workspace_delete(api_request_t *r);
void workspace_stop(api_request_t *r);
void workspace_resume(api_request_t *r);
void workspace_attach(api_request_t *r);
void workspace_detach(api_request_t *r);
void workspace_assignments(api_request_t *r);
void workspace_patch(api_request_t *r);
void workspace_providers(api_request_t *r);
void workspace_events(api_request_t *r);
void workspace_from_snapshot(api_request_t *r);
void workspace_fork(api_request_t *r);
void snapshot_take(api_request_t *r);
void snapshot_list(api_request_t *r);
void snapshot_get(api_request_t *r);
void snapshot_delete(api_request_t *r);
void tool_call(api_request_t *r);      /* every JSON verb */
void tool_bash(api_request_t *r);      /* + SSE, background */
void process_output(api_request_t *r); /* + SSE */
void file_get(api_request_t *r);
void file_put(api_request_t *r);
void file_watch(api_request_t *r);
void audit_list(api_request_t *r);
void audit_list_workspace(api_request_t *r);
void api_key_list(api_request_t *r);
void api_key_create(api_request_t *r);
void api_key_delete(api_request_t *r);
void warm_pool_list(api_request_t *r);
void warm_pool_set(api_request_t *r);
void warm_pool_reset(api_request_t *r);
void system_health(api_request_t *r);
void system_ready(api_request_t *r);
void system_version(api_request_t *r);
void system_metrics(api_request_t *r);
void system_openapi(api_request_t *r);

#endif
