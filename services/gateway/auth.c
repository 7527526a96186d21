// SPDX-License-Identifier: Apache-2.0
/* Who is it: the standalone key (X-API-Key or Bearer), or a key of the table (Bearer), from memory. Only hashes of keys
 * are kept. */
#include "services/gateway/auth_internal.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gateway/store.h"

#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>

#define KEY_FILE_MAX 1024
#define STANDALONE_KEY_WEAK 16
#define TOUCH_EVERY_MS 60000 /* last_used_at is that exact */
#define TOUCH_FLUSH_S 1

static int compare_keys(const void *a, const void *b)
{
    return memcmp((*(api_key_t *const *)a)->hash, (*(api_key_t *const *)b)->hash, SHA256_SIZE);
}

void auth_add_key(auth_t *a, api_key_t *key)
{
    if (a->count == a->cap) {
        a->cap = a->cap == 0 ? 16 : a->cap * 2;
        a->keys = mem_realloc(a->keys, a->cap * sizeof(api_key_t *));
    }
    a->keys[a->count++] = key;
    qsort(a->keys, a->count, sizeof(api_key_t *), compare_keys);
}

void auth_take_key(auth_t *a, api_key_t *key)
{
    for (size_t i = 0; i < a->count; i++)
        if (a->keys[i] == key) {
            memmove(&a->keys[i], &a->keys[i + 1], (a->count - i - 1) * sizeof(api_key_t *));
            a->count--;
            return;
        }
}

api_key_t *auth_key_by_id(auth_t *a, const char *id)
{
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->keys[i]->id, id) == 0)
            return a->keys[i];
    return NULL;
}

const char *auth_scopes_text(bool can_read, bool can_write)
{
    return can_read && can_write ? "admin:read admin:write" : can_read ? "admin:read" : can_write ? "admin:write" : "";
}

char *auth_new_secret(const char *prefix)
{
    uint8_t random[32];
    random_bytes(random, sizeof(random));
    buf_t text = {0};
    buf_append_str(&text, prefix);
    base64_encode(&text, random, sizeof(random));
    mem_wipe(random, sizeof(random));
    for (size_t i = 0; i < text.len; i++) {
        uint8_t *c = &text.data[i];
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    }
    while (text.len > 0 && text.data[text.len - 1] == '=')
        buf_truncate(&text, text.len - 1);
    return buf_steal(&text);
}

/* ---- the standalone key ---- */

/* A key that a client can send in a header: printable, no blanks. */
static int check_standalone(const char *key, const char *where, err_t **e)
{
    size_t len = strlen(key);
    if (len == 0 || len > AUTH_TOKEN_MAX)
        return err_set(e, ERR_BAD_REQUEST, "%s must have 1 to %d characters", where, AUTH_TOKEN_MAX);
    if (len < STANDALONE_KEY_WEAK)
        log_warn("%s is short and can be guessed: use at least %d random characters", where, STANDALONE_KEY_WEAK);
    for (const char *c = key; *c != '\0'; c++)
        if (*c <= ' ' || *c == 0x7f)
            return err_set(e, ERR_BAD_REQUEST, "%s must be printable ASCII without blanks", where);
    return 0;
}

static char *read_key_file(const char *path, err_t **e)
{
    struct stat st;
    buf_t content = {0};
    if (file_read(path, KEY_FILE_MAX, &content, e) != 0) {
        buf_free(&content);
        return NULL;
    }
    if (stat(path, &st) == 0 && (st.st_mode & 077) != 0)
        log_warn("%s can be read by others; set its mode to 0600", path);
    while (content.len > 0 && (content.data[content.len - 1] == '\n' || content.data[content.len - 1] == '\r'))
        buf_truncate(&content, content.len - 1);
    char *key = buf_steal(&content);
    if (check_standalone(key, path, e) != 0) {
        free(key);
        return NULL;
    }
    return key;
}

static char *make_key_file(const char *path, err_t **e)
{
    char *key = auth_new_secret(AUTH_STANDALONE_PREFIX);
    auto_free char *line = mem_printf("%s\n", key);
    if (file_write_atomic(path, line, strlen(line), 0600, e) != 0) {
        free(key);
        key = NULL;
    } else {
        log_info("an API key was made: %s", path);
    }
    mem_wipe(line, strlen(line));
    return key;
}

static int load_standalone(auth_t *a, err_t **e)
{
    const config_t *config = &a->gw->daemon.config;
    if (!config->standalone_mode)
        return 0;
    if (config->standalone_api_key != NULL && config->standalone_api_key[0] != '\0') {
        if (check_standalone(config->standalone_api_key, "STANDALONE_API_KEY", e) != 0)
            return -1;
        a->standalone = mem_strdup(config->standalone_api_key);
        return 0;
    }
    auto_free char *path = mem_printf("%s/api-key", config->state_dir);
    auto_err err_t *missing = NULL;
    a->standalone = read_key_file(path, &missing);
    if (a->standalone == NULL && err_code(missing) == ERR_NOT_FOUND)
        a->standalone = make_key_file(path, e);
    else if (a->standalone == NULL)
        return err_set(e, err_code(missing), "%s", err_message(missing));
    return a->standalone == NULL ? -1 : 0;
}

/* ---- the table of keys ---- */

static api_key_t *key_from_row(const store_result_t *rows, size_t i)
{
    const char *hash = store_text_at(rows, i, 3);
    const char *scopes = store_text_at(rows, i, 5);
    api_key_t *key = mem_alloc(sizeof(*key));
    if (hash == NULL || scopes == NULL || !hex_decode(key->hash, SHA256_SIZE, hash)) {
        log_error("API key %s has a malformed row and is not used", store_text_at(rows, i, 0));
        free(key);
        return NULL;
    }
    snprintf(key->id, sizeof(key->id), "%s", store_text_at(rows, i, 0));
    snprintf(key->name, sizeof(key->name), "%s", store_text_at(rows, i, 1));
    snprintf(key->owner, sizeof(key->owner), "%s", store_text_at(rows, i, 2));
    snprintf(key->prefix, sizeof(key->prefix), "%s", store_text_at(rows, i, 4));
    key->can_read = strstr(scopes, "admin:read") != NULL;
    key->can_write = strstr(scopes, "admin:write") != NULL;
    key->expires_at_ms = store_int_at(rows, i, 6);
    key->created_at_ms = store_int_at(rows, i, 7);
    key->last_used_at_ms = store_int_at(rows, i, 8);
    return key;
}

static void on_keys(void *arg, const store_result_t *result, const err_t *err)
{
    (void)err;
    for (size_t i = 0; i < result->row_count; i++) {
        api_key_t *key = key_from_row(result, i);
        if (key != NULL)
            auth_add_key(arg, key);
    }
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    auth_t *a = arg;
    store_value_t *values = mem_alloc_array(a->count * 2 + 1, sizeof(*values));
    size_t rows = 0;
    for (size_t i = 0; i < a->count; i++) {
        if (!a->keys[i]->is_touched)
            continue;
        a->keys[i]->is_touched = false;
        values[2 * rows] = store_text(a->keys[i]->id);
        values[2 * rows + 1] = store_int(a->keys[i]->last_used_at_ms);
        rows++;
    }
    auto_err err_t *e = NULL;
    if (rows > 0 && store_exec_batch(a->gw->store, STORE_API_KEY_TOUCH, values, 2, rows, NULL, NULL, &e) != 0)
        log_warn("last use of %zu API keys is not noted: %s", rows, err_message(e));
    free(values);
}

static void touch(auth_t *a, api_key_t *key, int64_t now)
{
    if (now - key->last_used_at_ms < TOUCH_EVERY_MS)
        return;
    key->last_used_at_ms = now;
    key->is_touched = true;
    static const struct timeval LATER = {.tv_sec = TOUCH_FLUSH_S};
    if (!evtimer_pending(a->flush_timer, NULL))
        event_add(a->flush_timer, &LATER);
}

/* ---- the check ---- */

static void be_standalone(caller_t *caller)
{
    *caller = (caller_t){
        .name = "standalone", .owner = AUTH_OWNER_STANDALONE, .can_read = true, .can_write = true, .is_operator = true};
}

static bool is_standalone(const auth_t *a, const char *token)
{
    return a->standalone != NULL && token != NULL && token[0] != '\0' && crypto_equal_text(token, a->standalone);
}

static api_key_t *find_key(auth_t *a, const char *token)
{
    if (a->count == 0 || strncmp(token, AUTH_API_KEY_PREFIX, strlen(AUTH_API_KEY_PREFIX)) != 0)
        return NULL;
    api_key_t wanted;
    api_key_t *pointer = &wanted;
    sha256(wanted.hash, token, strlen(token));
    api_key_t **found = bsearch(&pointer, a->keys, a->count, sizeof(api_key_t *), compare_keys);
    return found == NULL ? NULL : *found;
}

/* The token of `Authorization: Bearer <token>`; NULL without one. */
static const char *bearer(const http_request_t *r)
{
    const char *value = http_header(r, "authorization");
    if (value == NULL || strncasecmp(value, "bearer ", 7) != 0)
        return NULL;
    value += 7;
    while (*value == ' ')
        value++;
    return value[0] == '\0' ? NULL : value;
}

int auth_check(gateway_t *gw, const http_request_t *r, caller_t *caller, err_t **e)
{
    auth_t *a = gw->auth;
    const char *header = http_header(r, "x-api-key");
    const char *token = bearer(r);
    if (is_standalone(a, header) || is_standalone(a, token)) {
        be_standalone(caller);
        return 0;
    }
    if (token == NULL) {
        if (header == NULL || header[0] == '\0')
            return err_set(e, ERR_MISSING_TOKEN, "Missing authorization token");
        return err_set(e, ERR_INVALID_TOKEN, "Invalid or expired token");
    }
    int64_t now = (int64_t)clock_realtime_ms();
    api_key_t *key = strlen(token) > AUTH_TOKEN_MAX ? NULL : find_key(a, token);
    if (key == NULL || (key->expires_at_ms != 0 && key->expires_at_ms <= now))
        return err_set(e, ERR_INVALID_TOKEN, "Invalid or expired token");
    touch(a, key, now);
    *caller = (caller_t){.can_read = key->can_read, .can_write = key->can_write, .expires_at_ms = key->expires_at_ms};
    snprintf(caller->name, sizeof(caller->name), "%s", key->name);
    snprintf(caller->owner, sizeof(caller->owner), "%s", key->owner);
    return 0;
}

int auth_open(gateway_t *gw, err_t **e)
{
    auth_t *a = mem_alloc(sizeof(*a));
    a->gw = gw;
    gw->auth = a;
    a->flush_timer = evtimer_new(gw->daemon.base, on_flush, a);
    if (load_standalone(a, e) != 0 || store_exec_wait(gw->store, STORE_API_KEY_ALL, NULL, 0, on_keys, a, e) != 0) {
        auth_close(gw);
        return -1;
    }
    return 0;
}

void auth_close(gateway_t *gw)
{
    auth_t *a = gw->auth;
    if (a == NULL)
        return;
    on_flush(-1, 0, a);
    event_free(a->flush_timer);
    if (a->standalone != NULL)
        mem_wipe(a->standalone, strlen(a->standalone));
    free(a->standalone);
    for (size_t i = 0; i < a->count; i++)
        free(a->keys[i]);
    free(a->keys);
    free(a);
    gw->auth = NULL;
}
