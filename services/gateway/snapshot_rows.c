// SPDX-License-Identifier: Apache-2.0
/* A snapshot as a SQL row and as the REST message. */
#include "services/gateway/snapshots_internal.h"

#include "common/mem.h"
#include "services/gateway/workspace_time.h"

#include <stdio.h>

/* In the order of SNAPSHOT_INSERT and SNAPSHOT_ALL (store_sql.def). */
enum column {
    COLUMN_ID,
    COLUMN_OWNER,
    COLUMN_WORKSPACE,
    COLUMN_PROVIDER,
    COLUMN_NODE,
    COLUMN_NAME,
    COLUMN_DESCRIPTION,
    COLUMN_STATUS,
    COLUMN_HIDDEN,
    COLUMN_PROCESSES,
    COLUMN_SIZE,
    COLUMN_STALL,
    COLUMN_LIMITS,
    COLUMN_IMAGE,
    COLUMN_NETWORK,
    COLUMN_CREATED,
    COLUMN_EXPIRES,
    COLUMN_REASON,
    COLUMN_WARNINGS,
};

static store_value_t time_value(int64_t ms)
{
    return ms == 0 ? store_text(NULL) : store_int(ms);
}

size_t snapshot_insert_values(const snapshot_t *s, store_value_t *values, snapshot_storage_t *storage)
{
    json_t *limits = json_pack("{s:s, s:s, s:s}", "cpu", s->cpu, "memory", s->memory, "disk", s->disk);
    storage->limits = json_dumps(limits, JSON_COMPACT);
    json_decref(limits);
    storage->warnings = json_dumps(s->warnings, JSON_COMPACT);
    const store_value_t all[SNAPSHOT_COLUMN_COUNT] = {
        [COLUMN_ID] = store_text(s->id_text),
        [COLUMN_OWNER] = store_text(s->owner),
        [COLUMN_WORKSPACE] = store_text(s->workspace_id),
        [COLUMN_PROVIDER] = store_text(s->provider),
        [COLUMN_NODE] = store_text(s->node),
        [COLUMN_NAME] = store_text(s->name),
        [COLUMN_DESCRIPTION] = store_text(s->description),
        [COLUMN_STATUS] = store_text(snapshot_status_name(s->status)),
        [COLUMN_HIDDEN] = store_int(s->is_hidden),
        [COLUMN_PROCESSES] = store_int(s->has_processes),
        [COLUMN_SIZE] = store_int(s->size_bytes),
        [COLUMN_STALL] = store_int(s->stall_ms),
        [COLUMN_LIMITS] = store_text(storage->limits),
        [COLUMN_IMAGE] = store_text(s->image),
        [COLUMN_NETWORK] = store_text(s->network),
        [COLUMN_CREATED] = store_int(s->created_at_ms),
        [COLUMN_EXPIRES] = time_value(s->expires_at_ms),
        [COLUMN_REASON] = store_text(s->failure_reason),
        [COLUMN_WARNINGS] = store_text(storage->warnings),
    };
    memcpy(values, all, sizeof(all));
    return COUNT_OF(all);
}

/* For SNAPSHOT_UPDATE: what changes in a snapshot's life. */
size_t snapshot_update_values(const snapshot_t *s, enum snapshot_status status, store_value_t *values,
                              snapshot_storage_t *storage)
{
    storage->warnings = json_dumps(s->warnings, JSON_COMPACT);
    const store_value_t all[] = {
        store_text(s->id_text),        store_text(snapshot_status_name(status)),
        store_int(s->has_processes),   store_int(s->size_bytes),
        store_int(s->stall_ms),        store_text(s->failure_reason),
        store_text(storage->warnings),
    };
    memcpy(values, all, sizeof(all));
    return COUNT_OF(all);
}

void snapshot_storage_free(snapshot_storage_t *storage)
{
    free(storage->limits);
    free(storage->warnings);
}

/* ---- row → struct ---- */

static char *copy_or_empty(const store_result_t *rows, size_t row, enum column column)
{
    const char *text = store_text_at(rows, row, column);
    return mem_strdup(text == NULL ? "" : text);
}

static char *limit_of(const json_t *limits, const char *name)
{
    const char *text = json_string_value(json_object_get(limits, name));
    return mem_strdup(text == NULL ? "" : text);
}

static void take_texts(snapshot_t *s, const store_result_t *rows, size_t i)
{
    const char *reason = store_text_at(rows, i, COLUMN_REASON);
    snprintf(s->owner, sizeof(s->owner), "%s", store_text_at(rows, i, COLUMN_OWNER));
    snprintf(s->workspace_id, sizeof(s->workspace_id), "%s", store_text_at(rows, i, COLUMN_WORKSPACE));
    s->provider = copy_or_empty(rows, i, COLUMN_PROVIDER);
    s->node = copy_or_empty(rows, i, COLUMN_NODE);
    s->name = copy_or_empty(rows, i, COLUMN_NAME);
    s->description = copy_or_empty(rows, i, COLUMN_DESCRIPTION);
    s->image = copy_or_empty(rows, i, COLUMN_IMAGE);
    s->network = copy_or_empty(rows, i, COLUMN_NETWORK);
    s->failure_reason = reason == NULL ? NULL : mem_strdup(reason);
}

static void take_limits_and_warnings(snapshot_t *s, const store_result_t *rows, size_t i)
{
    const char *text = store_text_at(rows, i, COLUMN_LIMITS);
    json_t *limits = text == NULL ? NULL : json_loads(text, 0, NULL);
    s->cpu = limit_of(limits, "cpu");
    s->memory = limit_of(limits, "memory");
    s->disk = limit_of(limits, "disk");
    json_decref(limits);
    text = store_text_at(rows, i, COLUMN_WARNINGS);
    s->warnings = text == NULL ? NULL : json_loads(text, 0, NULL);
    if (!json_is_array(s->warnings)) {
        json_decref(s->warnings);
        s->warnings = json_array();
    }
}

snapshot_t *snapshot_from_row(snapshots_t *all, const store_result_t *rows, size_t i, err_t **e)
{
    snapshot_t *s = snapshot_new(all);
    const char *id = store_text_at(rows, i, COLUMN_ID);
    const char *status = store_text_at(rows, i, COLUMN_STATUS);
    take_texts(s, rows, i);
    take_limits_and_warnings(s, rows, i);
    if (id == NULL || !uuid16_parse(&s->id, id) || status == NULL || !snapshot_status_parse(status, &s->status)) {
        err_set(e, ERR_DATABASE, "the database has a snapshot with id '%s' and status '%s', which cannot be",
                id == NULL ? "" : id, status == NULL ? "" : status);
        snapshot_free(s);
        return NULL;
    }
    uuid16_format(&s->id, s->id_text);
    s->is_hidden = store_int_at(rows, i, COLUMN_HIDDEN) != 0;
    s->has_processes = store_int_at(rows, i, COLUMN_PROCESSES) != 0;
    s->size_bytes = store_int_at(rows, i, COLUMN_SIZE);
    s->stall_ms = store_int_at(rows, i, COLUMN_STALL);
    s->created_at_ms = store_int_at(rows, i, COLUMN_CREATED);
    s->expires_at_ms = store_int_at(rows, i, COLUMN_EXPIRES);
    s->is_committed = true;
    return s;
}

/* ---- struct → REST ---- */

int snapshot_encode(const snapshot_t *s, buf_t *out, err_t **e)
{
    char created[RFC3339_SIZE], expires[RFC3339_SIZE];
    auto_buf buf_t limits = {0};
    auto_buf buf_t warnings = {0};
    struct resource_limits of = {.cpu = s->cpu, .memory = s->memory, .disk = s->disk};
    size_t i;
    json_t *warning;
    if (proto_encode(MSG_resource_limits, &of, &limits, e) != 0)
        return -1;
    json_array_foreach(s->warnings, i, warning) proto_list_add_str(&warnings, json_string_value(warning));
    int64_t expiry = snapshot_expiry(s);
    struct snapshot message = {
        .snapshot_id = s->id_text,
        .workspace_id = s->workspace_id,
        .provider = s->provider,
        .created_at = rfc3339_format(s->created_at_ms, created),
        .name = s->name,
        .description = s->description,
        .status = snapshot_status_name(s->status),
        .has_processes = s->status == SNAPSHOT_READY && s->has_processes,
        .size_bytes = (uint64_t)s->size_bytes,
        .stall_ms = (uint32_t)s->stall_ms,
        .resource_limits = {.bytes = limits.data, .len = limits.len},
        .image = s->image,
        .network = s->network,
        .expires_at = expiry == 0 ? NULL : rfc3339_format(expiry, expires),
        .failure_reason = s->failure_reason,
        .warnings = proto_list_of((uint32_t)json_array_size(s->warnings), &warnings),
    };
    return proto_encode(MSG_snapshot, &message, out, e);
}

void snapshot_reply(api_request_t *r, const snapshot_t *s, int status)
{
    auto_buf buf_t encoded = {0};
    auto_err err_t *e = NULL;
    if (snapshot_encode(s, &encoded, &e) != 0)
        api_reply_error(r, e);
    else
        api_reply_message(r, status, MSG_snapshot, encoded.data, encoded.len, 0);
}
