// SPDX-License-Identifier: Apache-2.0
/* GET …/audit of one workspace, which may be gone, and of all of an owner: a bare array, newest first. The operator
 * sees every owner's lines with all_owners=true, chain by chain, as `emergent audit verify` wants them. */
#include "services/gateway/audit.h"
#include "services/gateway/store.h"
#include "services/gateway/workspace_time.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "proto/proto_json.h"

#include <inttypes.h>
#include <stdio.h>

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 1000
#define STATUS_MAX 999
#define FIRST_CHAIN "g" /* sorts behind every UUID */
#define PARAMS_ALL 9
#define PARAMS_OWNER 11
#define PARAMS_WORKSPACE 12

enum column {
    COLUMN_CHAIN,
    COLUMN_SEQUENCE,
    COLUMN_AT,
    COLUMN_OWNER,
    COLUMN_WORKSPACE,
    COLUMN_OPERATION,
    COLUMN_METHOD,
    COLUMN_STATUS,
    COLUMN_DURATION,
    COLUMN_CALLER,
    COLUMN_SESSION,
    COLUMN_REQUEST,
    COLUMN_SUMMARY,
    COLUMN_ERROR_CODE,
    COLUMN_ERROR,
    COLUMN_HASH,
    COLUMN_PREVIOUS
};

/* One request; outlives it when the client goes before the database answers. */
typedef struct listing {
    api_request_t *r; /* NULL: the client is gone */
    gateway_t *gw;
    enum store_statement statement;
    char owner[64];
    char workspace[UUID_TEXT_SIZE]; /* "" = all */
    char operation[65], session[UUID_TEXT_SIZE];
    int64_t status_min, status_max, from_ms, to_ms;
    uint64_t limit;
    int64_t cursor_ms, cursor_sequence;
    char cursor_chain[UUID_TEXT_SIZE];
} listing_t;

/* ---- what is asked ---- */

static const char *query(const api_request_t *r, const char *name)
{
    const char *value = http_query(r->http, name);
    return value == NULL || value[0] == '\0' ? NULL : value;
}

/* "404" or "4xx" */
static bool parse_status(const char *text, listing_t *l)
{
    uint64_t status;
    bool is_class =
        strlen(text) == 3 && text[0] >= '1' && text[0] <= '5' && (text[1] | 0x20) == 'x' && (text[2] | 0x20) == 'x';
    if (is_class) {
        l->status_min = (text[0] - '0') * 100;
        l->status_max = l->status_min + 99;
        return true;
    }
    if (!text_to_u64(text, &status) || status < 100 || status > STATUS_MAX)
        return false;
    l->status_min = l->status_max = (int64_t)status;
    return true;
}

/* base64 of "<at>.<sequence>.<chain>" of the last line shown; hostile here. */
static bool parse_cursor(const char *text, listing_t *l)
{
    auto_buf buf_t plain = {.max = 128};
    if (!base64_decode(&plain, text, strlen(text)) || buf_failed(&plain))
        return false;
    char copy[129];
    snprintf(copy, sizeof(copy), "%s", buf_cstr(&plain));
    char *sequence = strchr(copy, '.');
    char *chain = sequence == NULL ? NULL : strchr(sequence + 1, '.');
    uuid16_t id;
    if (strlen(copy) != plain.len || chain == NULL || !uuid16_parse(&id, chain + 1))
        return false;
    *sequence = *chain = '\0';
    uuid16_format(&id, l->cursor_chain);
    return text_to_i64(copy, &l->cursor_ms) && text_to_i64(sequence + 1, &l->cursor_sequence);
}

static int parse_session(const api_request_t *r, listing_t *l, err_t **e)
{
    const char *text = query(r, "agent_session_id");
    uuid16_t id;
    if (text == NULL)
        return 0;
    if (!uuid16_parse(&id, text))
        return err_set(e, ERR_BAD_REQUEST, "agent_session_id must be a UUID");
    uuid16_format(&id, l->session);
    return 0;
}

static int parse_filter(const api_request_t *r, listing_t *l, err_t **e)
{
    const char *operation = query(r, "operation"), *status = query(r, "status"), *from = query(r, "from");
    const char *to = query(r, "to"), *limit = query(r, "limit"), *cursor = query(r, "cursor");
    if (operation != NULL &&
        (strlen(operation) >= sizeof(l->operation) || !utf8_is_valid(operation, strlen(operation))))
        return err_set(e, ERR_BAD_REQUEST, "operation must be the name of one, such as bash or create");
    snprintf(l->operation, sizeof(l->operation), "%s", operation == NULL ? "" : operation);
    if (status != NULL && !parse_status(status, l))
        return err_set(e, ERR_BAD_REQUEST, "status must be an HTTP status such as 404, or a class such as 4xx");
    if (from != NULL && !rfc3339_parse(from, &l->from_ms))
        return err_set(e, ERR_BAD_REQUEST, "from must be an RFC 3339 time such as 2026-11-26T17:04:35Z");
    if (to != NULL && !rfc3339_parse(to, &l->to_ms))
        return err_set(e, ERR_BAD_REQUEST, "to must be an RFC 3339 time such as 2026-11-26T17:04:35Z");
    if (parse_session(r, l, e) != 0)
        return -1;
    if (limit != NULL && (!text_to_u64(limit, &l->limit) || l->limit == 0 || l->limit > LIMIT_MAX))
        return err_set(e, ERR_BAD_REQUEST, "limit must be a whole number from 1 to %d", LIMIT_MAX);
    if (cursor != NULL && !parse_cursor(cursor, l))
        return err_set(e, ERR_BAD_REQUEST, "cursor must be taken from X-Next-Cursor of an earlier reply");
    return 0;
}

/* ---- the answer ---- */

static void add_cursor(api_request_t *r, const store_result_t *rows, size_t last)
{
    char plain[128];
    int len = snprintf(plain, sizeof(plain), "%" PRId64 ".%" PRId64 ".%s", store_int_at(rows, last, COLUMN_AT),
                       store_int_at(rows, last, COLUMN_SEQUENCE), store_text_at(rows, last, COLUMN_CHAIN));
    auto_buf buf_t text = {0};
    base64_encode(&text, plain, (size_t)len);
    for (size_t i = 0; i < text.len; i++) { /* safe in a URL as it is */
        uint8_t *c = &text.data[i];
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    }
    while (text.len > 0 && text.data[text.len - 1] == '=')
        buf_truncate(&text, text.len - 1);
    http_add_header(r->http, "X-Next-Cursor", buf_cstr(&text));
}

static int write_line(const store_result_t *rows, size_t i, json_writer_t *w, err_t **e)
{
    char at[RFC3339_SIZE];
    auto_buf buf_t encoded = {0};
    struct audit_entry entry = {
        .sequence = (uint64_t)store_int_at(rows, i, COLUMN_SEQUENCE),
        .chain = store_text_at(rows, i, COLUMN_CHAIN),
        .at = rfc3339_format(store_int_at(rows, i, COLUMN_AT), at),
        .owner = store_text_at(rows, i, COLUMN_OWNER),
        .workspace_id = store_text_at(rows, i, COLUMN_WORKSPACE),
        .operation = store_text_at(rows, i, COLUMN_OPERATION),
        .method = store_text_at(rows, i, COLUMN_METHOD),
        .status = (uint32_t)store_int_at(rows, i, COLUMN_STATUS),
        .duration_ms = (uint64_t)store_int_at(rows, i, COLUMN_DURATION),
        .caller = store_text_at(rows, i, COLUMN_CALLER),
        .agent_session_id = store_text_at(rows, i, COLUMN_SESSION),
        .request_id = store_text_at(rows, i, COLUMN_REQUEST),
        .summary = store_text_at(rows, i, COLUMN_SUMMARY),
        .error_code = store_text_at(rows, i, COLUMN_ERROR_CODE),
        .error = store_text_at(rows, i, COLUMN_ERROR),
        .hash = store_text_at(rows, i, COLUMN_HASH),
        .previous_hash = store_text_at(rows, i, COLUMN_PREVIOUS),
    };
    if (proto_encode(MSG_audit_entry, &entry, &encoded, e) != 0)
        return -1;
    return proto_to_json(MSG_audit_entry, encoded.data, encoded.len, 0, w, e);
}

static void reply(listing_t *l, const store_result_t *rows)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t json = {0};
    json_writer_t w;
    json_writer_init(&w, &json);
    json_write_open_array(&w);
    size_t shown = rows->row_count < l->limit ? rows->row_count : (size_t)l->limit;
    for (size_t i = 0; i < shown; i++)
        if (write_line(rows, i, &w, &e) != 0) {
            api_reply_error(l->r, e);
            return;
        }
    json_write_close_array(&w);
    if (rows->row_count > l->limit) /* one more than asked for was fetched */
        add_cursor(l->r, rows, shown - 1);
    api_reply_json(l->r, 200, &json);
}

static void listing_free(listing_t *l)
{
    if (l->r != NULL)
        l->r->state = NULL;
    free(l);
}

/* True when there is nothing more to do. */
static bool is_over(listing_t *l, const err_t *err)
{
    if (l->r != NULL && err == NULL)
        return false;
    if (l->r != NULL)
        api_reply_error(l->r, err);
    listing_free(l);
    return true;
}

/* The same for what the store answered, in words for a client. */
static bool has_failed(listing_t *l, const err_t *err)
{
    auto_err err_t *e = NULL;
    if (err != NULL) {
        log_warn("read the audit: %s", err_message(err));
        store_client_error(err, &e);
    }
    return is_over(l, e);
}

static void on_known(void *arg, const store_result_t *result, const err_t *err)
{
    listing_t *l = arg;
    static const store_result_t NOTHING = {0};
    if (has_failed(l, err))
        return;
    if (result->row_count == 0)
        api_fail(l->r, ERR_NOT_FOUND, "workspace '%s' not found", l->workspace);
    else
        reply(l, &NOTHING);
    listing_free(l);
}

static bool is_known(const listing_t *l)
{
    auto_err err_t *ignored = NULL;
    return l->workspace[0] == '\0' || workspaces_find(l->gw, l->workspace, &l->r->caller, &ignored) != NULL;
}

static void on_rows(void *arg, const store_result_t *result, const err_t *err)
{
    listing_t *l = arg;
    auto_err err_t *e = NULL;
    if (has_failed(l, err))
        return;
    if (result->row_count > 0 || is_known(l)) {
        reply(l, result);
        listing_free(l);
        return;
    }
    /* Nothing fits the filters: of one that was, or of one that never was? */
    store_value_t params[] = {store_text(l->workspace), store_text(l->owner)};
    if (store_exec(l->gw->store, STORE_AUDIT_KNOWN, params, 2, on_known, l, &e) != 0)
        (void)is_over(l, e);
}

static void on_stored(void *arg)
{
    listing_t *l = arg;
    auto_err err_t *e = NULL;
    bool is_by_time = l->statement != STORE_AUDIT_ALL; /* then the index begins at the cursor */
    int64_t to_ms = is_by_time && l->cursor_ms < l->to_ms ? l->cursor_ms + 1 : l->to_ms;
    store_value_t params[PARAMS_WORKSPACE] = {
        store_text(l->operation),
        store_int(l->status_min),
        store_int(l->status_max),
        store_int(l->from_ms),
        store_int(to_ms),
        store_text(l->session),
        store_int((int64_t)l->limit + 1),
        store_text(l->cursor_chain),
        store_int(l->cursor_sequence),
        store_int(l->cursor_ms),
        store_text(l->owner),
        store_text(l->workspace),
    };
    size_t count = l->statement == STORE_AUDIT_ALL     ? PARAMS_ALL
                   : l->statement == STORE_AUDIT_OWNER ? PARAMS_OWNER
                                                       : PARAMS_WORKSPACE;
    if (is_over(l, NULL))
        return;
    if (store_exec(l->gw->store, l->statement, params, count, on_rows, l, &e) != 0)
        (void)is_over(l, e);
}

static void on_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    listing_t *l = r->state;
    if (l != NULL)
        l->r = NULL; /* the database's answer frees it */
}

static void start(api_request_t *r, enum store_statement statement, const char *workspace)
{
    auto_err err_t *e = NULL;
    listing_t *l = mem_alloc(sizeof(*l));
    *l = (listing_t){.r = r,
                     .gw = r->gw,
                     .statement = statement,
                     .status_max = STATUS_MAX,
                     .to_ms = INT64_MAX,
                     .limit = LIMIT_DEFAULT,
                     .cursor_ms = INT64_MAX,
                     .cursor_sequence = INT64_MAX,
                     .cursor_chain = FIRST_CHAIN};
    snprintf(l->owner, sizeof(l->owner), "%s", r->caller.owner);
    snprintf(l->workspace, sizeof(l->workspace), "%s", workspace);
    r->state = l;
    r->on_close = on_close;
    if (parse_filter(r, l, &e) != 0)
        (void)is_over(l, e);
    else
        audit_when_stored(r->gw, on_stored, l);
}

void audit_list(api_request_t *r)
{
    const char *all = query(r, "all_owners");
    bool is_all = all != NULL && strcmp(all, "true") == 0;
    if (all != NULL && !is_all && strcmp(all, "false") != 0)
        api_fail(r, ERR_BAD_REQUEST, "all_owners must be true or false");
    else if (is_all && !r->caller.is_operator)
        api_fail(r, ERR_FORBIDDEN, "only the standalone key sees the lines of all owners");
    else
        start(r, is_all ? STORE_AUDIT_ALL : STORE_AUDIT_OWNER, "");
}

void audit_list_workspace(api_request_t *r)
{
    uuid16_t id;
    char text[UUID_TEXT_SIZE];
    if (!uuid16_parse(&id, r->params[0])) {
        api_fail(r, ERR_BAD_REQUEST, "invalid workspace id format");
        return;
    }
    uuid16_format(&id, text);
    start(r, STORE_AUDIT_WORKSPACE, text);
}
