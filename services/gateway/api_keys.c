// SPDX-License-Identifier: Apache-2.0
/* REST over the table of API keys. The key itself is shown once, at its creation. A caller sees and makes keys of its
 * own owner with at most its own scopes; only the standalone key, the operator's, may name another owner and sees all.
 */
#include "services/gateway/auth_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gateway/store.h"
#include "services/gateway/workspace_time.h"

#include <stdio.h>

#define PREFIX_SHOWN 10

static void write_text(json_writer_t *w, const char *name, const char *value)
{
    json_write_key(w, name);
    json_write_strn(w, value, strlen(value));
}

static void write_time(json_writer_t *w, const char *name, int64_t ms)
{
    char text[RFC3339_SIZE];
    if (ms != 0)
        write_text(w, name, rfc3339_format(ms, text));
}

/* secret NULL: not shown. */
static void write_key(json_writer_t *w, const api_key_t *key, const char *secret)
{
    json_write_open_object(w);
    write_text(w, "id", key->id);
    write_text(w, "name", key->name);
    write_text(w, "owner", key->owner);
    write_text(w, "prefix", key->prefix);
    json_write_key(w, "scopes");
    json_write_open_array(w);
    if (key->can_read)
        json_write_str(w, "admin:read");
    if (key->can_write)
        json_write_str(w, "admin:write");
    json_write_close_array(w);
    write_time(w, "expires_at", key->expires_at_ms);
    write_time(w, "created_at", key->created_at_ms);
    write_time(w, "last_used_at", key->last_used_at_ms);
    if (secret != NULL)
        write_text(w, "key", secret);
    json_write_close_object(w);
}

static int by_age(const void *a, const void *b)
{
    const api_key_t *x = *(api_key_t *const *)a, *y = *(api_key_t *const *)b;
    if (x->created_at_ms != y->created_at_ms)
        return x->created_at_ms < y->created_at_ms ? -1 : 1;
    return strcmp(x->id, y->id);
}

void api_key_list(api_request_t *r)
{
    auth_t *a = r->gw->auth;
    api_key_t **keys = mem_alloc_array(a->count + 1, sizeof(*keys));
    size_t count = 0;
    for (size_t i = 0; i < a->count; i++)
        if (r->caller.is_operator || strcmp(a->keys[i]->owner, r->caller.owner) == 0)
            keys[count++] = a->keys[i];
    qsort(keys, count, sizeof(*keys), by_age);
    auto_buf buf_t json = {0};
    json_writer_t w;
    json_writer_init(&w, &json);
    json_write_open_array(&w);
    for (size_t i = 0; i < count; i++)
        write_key(&w, keys[i], NULL);
    json_write_close_array(&w);
    free(keys);
    api_reply_json(r, 200, &json);
}

/* ---- POST ---- */

static int take_text(const json_t *object, const char *field, bool is_required, char *out, size_t size, err_t **e)
{
    const json_t *value = json_object_get(object, field);
    if (value == NULL || json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0))
        return is_required ? err_set(e, ERR_BAD_REQUEST, "%s is required", field) : 0;
    if (!json_is_string(value))
        return err_set(e, ERR_BAD_REQUEST, "%s must be a string", field);
    const char *text = json_string_value(value);
    if (json_string_length(value) >= size)
        return err_set(e, ERR_BAD_REQUEST, "%s must be at most %zu bytes", field, size - 1);
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return err_set(e, ERR_BAD_REQUEST, "%s must not contain control characters", field);
    snprintf(out, size, "%s", text);
    return 0;
}

static int take_scopes(const api_request_t *r, api_key_t *key, err_t **e)
{
    const json_t *scopes = json_object_get(r->json, "scopes");
    if (!json_is_array(scopes) || json_array_size(scopes) == 0)
        return err_set(e, ERR_BAD_REQUEST, "scopes is required: an array of admin:read and admin:write");
    size_t i;
    const json_t *scope;
    json_array_foreach(scopes, i, scope)
    {
        const char *text = json_string_value(scope);
        if (text != NULL && strcmp(text, "admin:read") == 0)
            key->can_read = true;
        else if (text != NULL && strcmp(text, "admin:write") == 0)
            key->can_write = true;
        else
            return err_set(e, ERR_BAD_REQUEST, "scopes may hold admin:read and admin:write only");
    }
    if ((key->can_read && !r->caller.can_read) || (key->can_write && !r->caller.can_write))
        return err_set(e, ERR_FORBIDDEN, "a key cannot give scopes that it does not have");
    return 0;
}

static int take_expiry(const api_request_t *r, api_key_t *key, err_t **e)
{
    const json_t *value = json_object_get(r->json, "expires_at");
    key->expires_at_ms = r->caller.expires_at_ms;
    if (value == NULL || json_is_null(value))
        return 0;
    if (!json_is_string(value) || !rfc3339_parse(json_string_value(value), &key->expires_at_ms))
        return err_set(e, ERR_BAD_REQUEST, "expires_at must be an RFC 3339 time such as 2030-01-31T12:00:00Z");
    if (key->expires_at_ms <= (int64_t)clock_realtime_ms())
        return err_set(e, ERR_BAD_REQUEST, "expires_at must be in the future");
    if (r->caller.expires_at_ms != 0 && key->expires_at_ms > r->caller.expires_at_ms)
        return err_set(e, ERR_FORBIDDEN, "a key cannot make a key that lives longer than itself");
    return 0;
}

static int take_key(const api_request_t *r, api_key_t *key, err_t **e)
{
    snprintf(key->owner, sizeof(key->owner), "%s", r->caller.owner);
    if (take_text(r->json, "name", true, key->name, sizeof(key->name), e) != 0 || take_scopes(r, key, e) != 0 ||
        take_expiry(r, key, e) != 0 || take_text(r->json, "owner", false, key->owner, sizeof(key->owner), e) != 0)
        return -1;
    if (strcmp(key->owner, r->caller.owner) != 0 && !r->caller.is_operator)
        return err_set(e, ERR_FORBIDDEN, "only the standalone key may make keys of another owner");
    if (r->gw->auth->count >= API_KEYS_MAX)
        return err_set(e, ERR_LIMIT_REACHED, "there are %d API keys already; delete some", API_KEYS_MAX);
    return 0;
}

/* A change of the table under way; r becomes NULL when the client leaves, the change goes on. */
typedef struct change {
    gateway_t *gw;
    api_request_t *r;
    api_key_t *key; /* create: not in the cache yet; delete: not in it any more */
    char *secret;
} change_t;

static void on_change_close(api_request_t *r, bool is_hangup)
{
    (void)is_hangup;
    change_t *c = r->state;
    if (c != NULL)
        c->r = NULL;
    r->state = NULL;
}

static change_t *change_new(api_request_t *r)
{
    change_t *c = mem_alloc(sizeof(*c));
    c->gw = r->gw;
    c->r = r;
    r->state = c;
    r->on_close = on_change_close;
    return c;
}

static api_request_t *change_end(change_t *c)
{
    api_request_t *r = c->r;
    if (r != NULL)
        r->state = NULL;
    if (c->secret != NULL)
        mem_wipe(c->secret, strlen(c->secret));
    free(c->secret);
    free(c);
    return r;
}

static void fail_change(change_t *c, const err_t *err)
{
    log_error("change the API keys: %s", err_message(err));
    api_request_t *r = change_end(c);
    if (r != NULL && err_code(err) == ERR_DATABASE_UNAVAILABLE)
        api_reply_error(r, err);
    else if (r != NULL)
        api_fail(r, ERR_DATABASE, "Database operation failed");
}

static void on_key_inserted(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    change_t *c = arg;
    if (err != NULL) {
        free(c->key);
        fail_change(c, err);
        return;
    }
    log_info("API key %s (%s) was made for owner %s", c->key->id, c->key->name, c->key->owner);
    auth_add_key(c->gw->auth, c->key);
    buf_t json = {0};
    json_writer_t w;
    json_writer_init(&w, &json);
    write_key(&w, c->key, c->secret);
    const api_key_t *key = c->key;
    api_request_t *r = change_end(c);
    if (r != NULL)
        r->audit = mem_printf("id=\"%s\" name=\"%s\" owner=\"%s\"", key->id, key->name, key->owner);
    if (r != NULL)
        api_reply_json(r, 201, &json);
    buf_wipe(&json);
}

static void fill_secret(api_key_t *key, const char *secret)
{
    uuid16_t id;
    random_bytes(&id, sizeof(id));
    id.bytes[6] = (uint8_t)((id.bytes[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
    id.bytes[8] = (uint8_t)((id.bytes[8] & 0x3f) | 0x80);
    uuid16_format(&id, key->id);
    sha256(key->hash, secret, strlen(secret));
    snprintf(key->prefix, sizeof(key->prefix), "%.*s", PREFIX_SHOWN, secret);
    key->created_at_ms = (int64_t)clock_realtime_ms();
}

void api_key_create(api_request_t *r)
{
    auto_err err_t *e = NULL;
    api_key_t *key = mem_alloc(sizeof(*key));
    if (take_key(r, key, &e) != 0) {
        free(key);
        api_reply_error(r, e);
        return;
    }
    change_t *c = change_new(r);
    c->key = key;
    c->secret = auth_new_secret(AUTH_API_KEY_PREFIX);
    fill_secret(key, c->secret);
    char hash[2 * SHA256_SIZE + 1];
    hex_encode(hash, key->hash, SHA256_SIZE);
    store_value_t values[] = {
        store_text(key->id),
        store_text(key->name),
        store_text(key->owner),
        store_text(hash),
        store_text(key->prefix),
        store_text(auth_scopes_text(key->can_read, key->can_write)),
        key->expires_at_ms == 0 ? store_text(NULL) : store_int(key->expires_at_ms),
        store_int(key->created_at_ms),
    };
    if (store_exec(r->gw->store, STORE_API_KEY_INSERT, values, COUNT_OF(values), on_key_inserted, c, &e) != 0) {
        free(key);
        (void)change_end(c);
        api_reply_error(r, e);
    }
}

/* ---- DELETE ---- */

static void on_key_revoked(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    change_t *c = arg;
    if (err != NULL) {
        auth_add_key(c->gw->auth, c->key); /* the caller is told and tries again */
        fail_change(c, err);
        return;
    }
    log_info("API key %s (%s) of owner %s is revoked", c->key->id, c->key->name, c->key->owner);
    free(c->key);
    api_request_t *r = change_end(c);
    if (r != NULL)
        api_reply_empty(r, 204);
}

void api_key_delete(api_request_t *r)
{
    auth_t *a = r->gw->auth;
    auto_err err_t *e = NULL;
    uuid16_t id;
    char text[UUID_TEXT_SIZE];
    if (!uuid16_parse(&id, r->params[0])) {
        api_fail(r, ERR_BAD_REQUEST, "invalid API key id format");
        return;
    }
    uuid16_format(&id, text);
    api_key_t *key = auth_key_by_id(a, text);
    if (key == NULL || (!r->caller.is_operator && strcmp(key->owner, r->caller.owner) != 0)) {
        api_fail(r, ERR_NOT_FOUND, "API key '%s' not found", text);
        return;
    }
    change_t *c = change_new(r);
    c->key = key;
    store_value_t values[] = {store_text(text), store_int((int64_t)clock_realtime_ms())};
    if (store_exec(r->gw->store, STORE_API_KEY_REVOKE, values, COUNT_OF(values), on_key_revoked, c, &e) != 0) {
        (void)change_end(c);
        api_reply_error(r, e);
        return;
    }
    auth_take_key(a, key); /* it opens nothing from this moment, however slow the disk */
}
