// SPDX-License-Identifier: Apache-2.0
/* A workspace as a SQL row (env and mcp_config sealed) and as the REST message. */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gateway/workspace_time.h"

#include <stdio.h>

#define SEAL_ENV "workspace.env"
#define SEAL_MCP "workspace.mcp_config"

/* In the order of WORKSPACE_INSERT and WORKSPACE_ALL (store_sql.def). */
enum column {
    COLUMN_ID,
    COLUMN_OWNER,
    COLUMN_SESSION,
    COLUMN_TYPE,
    COLUMN_PROVIDER,
    COLUMN_PROVIDER_ID,
    COLUMN_NODE,
    COLUMN_REQUESTED,
    COLUMN_WARM,
    COLUMN_REPOSITORY,
    COLUMN_BRANCH,
    COLUMN_MODE,
    COLUMN_LIFECYCLE,
    COLUMN_STATUS,
    COLUMN_CREATED,
    COLUMN_USED,
    COLUMN_EXPIRES,
    COLUMN_LIMITS,
    COLUMN_SNAPSHOT,
    COLUMN_MCP,
    COLUMN_METADATA,
    COLUMN_IMAGE,
    COLUMN_NETWORK,
    COLUMN_REASON,
    COLUMN_WARNINGS,
    COLUMN_ENV,
    COLUMN_UPDATED,
    COLUMN_INTENT,
    COLUMN_STOP_REASON,
    COLUMN_TTL,
};

static char *limits_text(const workspace_row_t *row)
{
    json_t *limits = json_pack("{s:s, s:s, s:s}", "cpu", row->cpu, "memory", row->memory, "disk", row->disk);
    char *text = json_dumps(limits, JSON_COMPACT);
    json_decref(limits);
    return text;
}

static int seal_json(const workspace_t *ws, const char *purpose, const json_t *value, buf_t *out, err_t **e)
{
    if (value == NULL)
        return 0;
    char *text = json_dumps(value, JSON_COMPACT);
    int result = sealer_seal(ws->all->sealer, purpose, ws->row.id_text, text, strlen(text), out, e);
    mem_wipe(text, strlen(text));
    free(text);
    return result;
}

static store_value_t time_value(int64_t ms)
{
    return ms == 0 ? store_text(NULL) : store_int(ms);
}

static void dump_texts(const workspace_t *ws, workspace_row_storage_t *storage)
{
    memset(storage, 0, sizeof(*storage));
    storage->limits = limits_text(&ws->row);
    storage->metadata = json_dumps(ws->row.metadata, JSON_COMPACT);
    storage->warnings = json_dumps(ws->row.warnings, JSON_COMPACT);
}

int workspace_row_values(const workspace_t *ws, enum workspace_status status, store_value_t *values,
                         workspace_row_storage_t *storage, err_t **e)
{
    const workspace_row_t *row = &ws->row;
    dump_texts(ws, storage);
    if (seal_json(ws, SEAL_MCP, row->mcp_config, &storage->mcp_config, e) != 0 ||
        seal_json(ws, SEAL_ENV, row->env, &storage->env, e) != 0)
        return -1;
    const store_value_t all[WORKSPACE_COLUMN_COUNT] = {
        [COLUMN_ID] = store_text(row->id_text),
        [COLUMN_OWNER] = store_text(row->owner),
        [COLUMN_SESSION] = store_text(row->agent_session_id),
        [COLUMN_TYPE] = store_text(row->container_type),
        [COLUMN_PROVIDER] = store_text(row->provider),
        [COLUMN_PROVIDER_ID] = store_text(row->provider_workspace_id),
        [COLUMN_NODE] = store_text(ws->node),
        [COLUMN_REQUESTED] = store_text(ws->requested_provider),
        [COLUMN_WARM] = store_int(ws->use_warm),
        [COLUMN_REPOSITORY] = store_text(row->repository_url),
        [COLUMN_BRANCH] = store_text(row->branch),
        [COLUMN_MODE] = store_text(row->deployment_mode),
        [COLUMN_LIFECYCLE] = store_text(row->lifecycle),
        [COLUMN_STATUS] = store_text(workspace_status_name(status)),
        [COLUMN_CREATED] = store_int(row->created_at_ms),
        [COLUMN_USED] = store_int(row->last_used_at_ms),
        [COLUMN_EXPIRES] = time_value(row->expires_at_ms),
        [COLUMN_LIMITS] = store_text(storage->limits),
        [COLUMN_SNAPSHOT] = store_text(row->snapshot_id),
        [COLUMN_MCP] = store_blob(storage->mcp_config.data, storage->mcp_config.len),
        [COLUMN_METADATA] = store_text(storage->metadata),
        [COLUMN_IMAGE] = store_text(row->image),
        [COLUMN_NETWORK] = store_text(row->network),
        [COLUMN_REASON] = store_text(row->failure_reason),
        [COLUMN_WARNINGS] = store_text(storage->warnings),
        [COLUMN_ENV] = store_blob(storage->env.data, storage->env.len),
        [COLUMN_UPDATED] = store_int((int64_t)clock_realtime_ms()),
        [COLUMN_INTENT] = store_text(workspace_intent_name(row->intent)),
        [COLUMN_STOP_REASON] = store_text(row->stop_reason),
        [COLUMN_TTL] = time_value(row->ttl_seconds),
    };
    memcpy(values, all, sizeof(all));
    return 0;
}

/* For WORKSPACE_UPDATE: what changes in a workspace's life. */
size_t workspace_update_values(const workspace_t *ws, enum workspace_status status, enum workspace_intent intent,
                               store_value_t *values, workspace_row_storage_t *storage)
{
    const workspace_row_t *row = &ws->row;
    dump_texts(ws, storage);
    const store_value_t all[] = {
        store_text(row->id_text),
        store_text(workspace_intent_name(intent)),
        store_text(row->provider),
        store_text(row->provider_workspace_id),
        store_text(ws->node),
        store_text(workspace_status_name(status)),
        store_int(row->last_used_at_ms),
        time_value(row->expires_at_ms),
        store_text(row->snapshot_id),
        store_text(storage->metadata),
        store_text(row->failure_reason),
        store_text(storage->warnings),
        store_int((int64_t)clock_realtime_ms()),
        store_text(row->stop_reason),
    };
    memcpy(values, all, sizeof(all));
    return COUNT_OF(all);
}

int workspace_save_note(workspace_t *ws, store_done_fn done, void *arg, err_t **e)
{
    const workspace_row_t *row = &ws->row;
    workspace_row_storage_t storage;
    dump_texts(ws, &storage);
    const store_value_t values[] = {
        store_text(row->id_text),     store_text(storage.metadata),   store_text(storage.warnings),
        time_value(row->ttl_seconds), time_value(row->expires_at_ms), store_int((int64_t)clock_realtime_ms()),
    };
    int result = store_exec(ws->all->gw->store, STORE_WORKSPACE_NOTE, values, COUNT_OF(values), done, arg, e);
    workspace_row_free(&storage);
    return result;
}

void workspace_row_free(workspace_row_storage_t *storage)
{
    free(storage->limits);
    free(storage->metadata);
    free(storage->warnings);
    buf_free(&storage->mcp_config);
    buf_free(&storage->env);
}

/* ---- row → struct ---- */

static char *copy_text(const store_result_t *rows, size_t row, enum column column)
{
    const char *text = store_text_at(rows, row, column);
    return text == NULL ? NULL : mem_strdup(text);
}

static char *copy_or_empty(const store_result_t *rows, size_t row, enum column column)
{
    const char *text = store_text_at(rows, row, column);
    return mem_strdup(text == NULL ? "" : text);
}

static json_t *parse_json(const char *text, json_t *otherwise)
{
    json_t *value = text == NULL ? NULL : json_loads(text, 0, NULL);
    if (value == NULL)
        return otherwise;
    json_decref(otherwise);
    return value;
}

/* A secret that does not open (the key file was lost) is no reason to lose the workspace: it is said on the row and in
 * the log. */
static json_t *unseal_json(workspace_t *ws, const char *purpose, const store_value_t *value)
{
    if (value->kind != STORE_BLOB)
        return NULL;
    buf_t plain = {0};
    auto_err err_t *e = NULL;
    json_t *json = NULL;
    if (sealer_unseal(ws->all->sealer, purpose, ws->row.id_text, value->bytes, value->len, &plain, &e) == 0) {
        json = json_loadb((const char *)plain.data, plain.len, 0, NULL);
    } else {
        log_write(LOG_LEVEL_ERROR, &(log_ctx_t){.sandbox = ws->row.id_text}, "%s", err_message(e));
        auto_free char *warning = mem_printf("%s could not be unsealed and is lost", purpose);
        workspace_warn(ws, warning);
    }
    buf_wipe(&plain);
    return json;
}

static char *limit_of(json_t *limits, const char *name)
{
    const char *text = json_string_value(json_object_get(limits, name));
    return mem_strdup(text == NULL ? "" : text);
}

static void take_texts(workspace_t *ws, const store_result_t *rows, size_t i)
{
    workspace_row_t *row = &ws->row;
    snprintf(row->owner, sizeof(row->owner), "%s", store_text_at(rows, i, COLUMN_OWNER));
    row->agent_session_id = copy_text(rows, i, COLUMN_SESSION);
    row->container_type = copy_or_empty(rows, i, COLUMN_TYPE);
    row->provider = copy_or_empty(rows, i, COLUMN_PROVIDER);
    row->provider_workspace_id = copy_or_empty(rows, i, COLUMN_PROVIDER_ID);
    ws->node = copy_or_empty(rows, i, COLUMN_NODE);
    ws->requested_provider = copy_or_empty(rows, i, COLUMN_REQUESTED);
    ws->use_warm = store_int_at(rows, i, COLUMN_WARM) != 0;
    row->repository_url = copy_text(rows, i, COLUMN_REPOSITORY);
    row->branch = copy_text(rows, i, COLUMN_BRANCH);
    row->deployment_mode = copy_or_empty(rows, i, COLUMN_MODE);
    row->lifecycle = copy_or_empty(rows, i, COLUMN_LIFECYCLE);
    row->snapshot_id = copy_text(rows, i, COLUMN_SNAPSHOT);
    row->image = copy_or_empty(rows, i, COLUMN_IMAGE);
    row->network = copy_or_empty(rows, i, COLUMN_NETWORK);
    row->failure_reason = copy_text(rows, i, COLUMN_REASON);
    row->created_at_ms = store_int_at(rows, i, COLUMN_CREATED);
    row->last_used_at_ms = store_int_at(rows, i, COLUMN_USED);
    row->expires_at_ms = store_int_at(rows, i, COLUMN_EXPIRES);
    row->stop_reason = copy_text(rows, i, COLUMN_STOP_REASON);
    row->ttl_seconds = store_int_at(rows, i, COLUMN_TTL);
}

workspace_t *workspace_from_row(workspaces_t *all, const store_result_t *rows, size_t i, err_t **e)
{
    workspace_t *ws = workspace_new(all);
    workspace_row_t *row = &ws->row;
    const char *id = store_text_at(rows, i, COLUMN_ID);
    const char *status = store_text_at(rows, i, COLUMN_STATUS);
    take_texts(ws, rows, i);
    const char *intent = store_text_at(rows, i, COLUMN_INTENT);
    if (intent == NULL)
        intent = ""; /* a row of before there were any */
    if (id == NULL || !uuid16_parse(&row->id, id) || status == NULL || !workspace_status_parse(status, &row->status) ||
        !workspace_intent_parse(intent, &row->intent)) {
        err_set(e, ERR_DATABASE,
                "the database has a workspace with id '%s', status '%s' and intent '%s', which cannot be",
                id == NULL ? "" : id, status == NULL ? "" : status, intent);
        workspace_free(ws);
        return NULL;
    }
    uuid16_format(&row->id, row->id_text);
    if (row->status == WORKSPACE_STOPPING && row->intent == INTENT_NONE)
        row->intent = INTENT_DESTROY; /* written by a release that knew no other */
    json_t *limits = parse_json(store_text_at(rows, i, COLUMN_LIMITS), json_object());
    row->cpu = limit_of(limits, "cpu");
    row->memory = limit_of(limits, "memory");
    row->disk = limit_of(limits, "disk");
    json_decref(limits);
    row->metadata = parse_json(store_text_at(rows, i, COLUMN_METADATA), json_object());
    row->warnings = parse_json(store_text_at(rows, i, COLUMN_WARNINGS), json_array());
    row->mcp_config = unseal_json(ws, SEAL_MCP, store_at(rows, i, COLUMN_MCP));
    row->env = unseal_json(ws, SEAL_ENV, store_at(rows, i, COLUMN_ENV));
    return ws;
}

/* ---- struct → REST ---- */

/* The values of `environment` are secrets: only its names are shown. */
static char *public_mcp_config(const workspace_row_t *row)
{
    if (row->mcp_config == NULL)
        return NULL;
    json_t *shown = json_deep_copy(row->mcp_config);
    json_t *environment = json_object_get(shown, "environment");
    const char *name;
    json_t *value;
    json_object_foreach(environment, name, value) json_object_set_new(environment, name, json_string("***"));
    char *text = json_dumps(shown, JSON_COMPACT);
    json_decref(shown);
    return text;
}

static int encode_limits(const workspace_row_t *row, buf_t *out, err_t **e)
{
    struct resource_limits limits = {.cpu = row->cpu, .memory = row->memory, .disk = row->disk};
    return proto_encode(MSG_resource_limits, &limits, out, e);
}

static proto_list_t encode_warnings(const workspace_row_t *row, buf_t *out)
{
    size_t i;
    json_t *warning;
    json_array_foreach(row->warnings, i, warning) proto_list_add_str(out, json_string_value(warning));
    return proto_list_of((uint32_t)json_array_size(row->warnings), out);
}

int workspace_encode(const workspace_t *ws, buf_t *out, err_t **e)
{
    const workspace_row_t *row = &ws->row;
    char created[RFC3339_SIZE], used[RFC3339_SIZE], expires[RFC3339_SIZE];
    auto_buf buf_t limits = {0};
    auto_buf buf_t warnings = {0};
    auto_free char *metadata = json_object_size(row->metadata) == 0 ? NULL : json_dumps(row->metadata, JSON_COMPACT);
    auto_free char *mcp_config = public_mcp_config(row);
    if (encode_limits(row, &limits, e) != 0)
        return -1;
    struct workspace message = {
        .id = row->id_text,
        .agent_session_id = row->agent_session_id,
        .container_type = row->container_type,
        .provider = row->provider,
        .provider_workspace_id = row->provider_workspace_id,
        .repository_url = row->repository_url,
        .branch = row->branch,
        .deployment_mode = row->deployment_mode,
        .lifecycle = row->lifecycle,
        .status = workspace_status_name(row->status),
        .created_at = rfc3339_format(row->created_at_ms, created),
        .last_used_at = rfc3339_format(row->last_used_at_ms, used),
        .expires_at = row->expires_at_ms == 0 ? NULL : rfc3339_format(row->expires_at_ms, expires),
        .resource_limits = {.bytes = limits.data, .len = limits.len},
        .snapshot_id = row->snapshot_id,
        .mcp_config = mcp_config,
        .metadata = metadata,
        .failure_reason = row->failure_reason,
        .warnings = encode_warnings(row, &warnings),
        .image = row->image,
        .network = row->network,
    };
    return proto_encode(MSG_workspace, &message, out, e);
}
