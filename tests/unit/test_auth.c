// SPDX-License-Identifier: Apache-2.0
// LINK: services/gateway/auth.c services/gateway/api_keys.c services/gateway/workspace_time.c
// LINK: services/gateway/store.c services/gateway/store_sqlite.c services/gateway/store_migrations.c
#include "services/gateway/store.h"
#include "services/gateway/workspace_time.h"
#include "tests/unit/fake_api.h"

#include "common/clock.h"
#include "common/file.h"

#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    gateway_t gw;
    char dir[64];
} fixture_t;

static void open_all(fixture_t *f)
{
    auto_err err_t *e = NULL;
    auto_free char *path = mem_printf("%s/gateway.db", f->dir);
    f->gw.store = store_open_at(f->gw.daemon.base, path, &e);
    cr_assert_not_null(f->gw.store, "%s", err_message(e));
    cr_assert_eq(auth_open(&f->gw, &e), 0, "%s", err_message(e));
}

static void close_all(fixture_t *f)
{
    auth_close(&f->gw);
    store_close(&f->gw.store);
}

static void start(fixture_t *f, const char *standalone_key)
{
    memset(f, 0, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/test_auth.XXXXXX");
    cr_assert_not_null(mkdtemp(f->dir));
    f->gw.daemon.base = event_base_new();
    f->gw.daemon.config.state_dir = f->dir;
    f->gw.daemon.config.standalone_mode = true;
    f->gw.daemon.config.standalone_api_key = (char *)(uintptr_t)standalone_key;
    open_all(f);
}

static void finish(fixture_t *f)
{
    close_all(f);
    event_base_free(f->gw.daemon.base);
    auto_err err_t *e = NULL;
    cr_assert_eq(dir_remove(f->dir, &e), 0);
}

static enum err_code check(fixture_t *f, const char *header, const char *value, caller_t *caller)
{
    http_request_t http = {.headers = {{header, value}}};
    auto_err err_t *e = NULL;
    memset(caller, 0, sizeof(*caller));
    (void)auth_check(&f->gw, &http, caller, &e);
    return err_code(e);
}

static enum err_code check_bearer(fixture_t *f, const char *key, caller_t *caller)
{
    auto_free char *value = mem_printf("Bearer %s", key);
    return check(f, "Authorization", value, caller);
}

#define KEY "a-standalone-key-for-tests"

Test(auth, the_standalone_key_opens_everything, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    caller_t caller;
    cr_assert_eq(check(&f, "X-API-Key", KEY, &caller), ERR_NONE);
    cr_assert_str_eq(caller.owner, "standalone");
    cr_assert(caller.can_read && caller.can_write);
    cr_assert_eq(check(&f, "Authorization", "Bearer " KEY, &caller), ERR_NONE);
    cr_assert_eq(check(&f, "authorization", "bearer " KEY, &caller), ERR_NONE);
    finish(&f);
}

static const struct refusal {
    const char *header, *value;
    enum err_code code;
} REFUSALS[] = {
    {NULL, NULL, ERR_MISSING_TOKEN},
    {"X-API-Key", "", ERR_MISSING_TOKEN},
    {"Authorization", "", ERR_MISSING_TOKEN},
    {"Authorization", "Bearer ", ERR_MISSING_TOKEN},
    {"Authorization", "Basic " KEY, ERR_MISSING_TOKEN},
    {"Authorization", KEY, ERR_MISSING_TOKEN},
    {"X-API-Key", "a-standalone-key-for-test", ERR_INVALID_TOKEN},
    {"X-API-Key", KEY "s", ERR_INVALID_TOKEN},
    {"X-API-Key", "A-standalone-key-for-tests", ERR_INVALID_TOKEN},
    {"Authorization", "Bearer wrong", ERR_INVALID_TOKEN},
    {"Authorization", "Bearer e2e-anything", ERR_INVALID_TOKEN},
    {"Authorization", "Bearer all-scopes", ERR_INVALID_TOKEN},
    {"Authorization", "Bearer ewk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ERR_INVALID_TOKEN},
    {"Authorization", "Bearer " KEY " " KEY, ERR_INVALID_TOKEN},
};

Test(auth, refuses_everything_else_with_the_right_code, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    for (size_t i = 0; i < COUNT_OF(REFUSALS); i++) {
        caller_t caller;
        cr_expect_eq(check(&f, REFUSALS[i].header, REFUSALS[i].value, &caller), REFUSALS[i].code, "row %zu: %s %s", i,
                     REFUSALS[i].header, REFUSALS[i].value);
        cr_expect_str_empty(caller.owner);
    }
    finish(&f);
}

Test(auth, never_looks_at_the_query, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    http_request_t http = {.query = {{"token", KEY}, {"api_key", KEY}}};
    caller_t caller;
    auto_err err_t *e = NULL;
    cr_assert_eq(auth_check(&f.gw, &http, &caller, &e), -1);
    cr_assert_str_eq(err_message(e), "Missing authorization token");
    finish(&f);
}

Test(auth, a_key_is_made_once_and_kept_private, .timeout = 20)
{
    fixture_t f;
    start(&f, "");
    auto_free char *path = mem_printf("%s/api-key", f.dir);
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    auto_err err_t *e = NULL;
    auto_buf buf_t first = {0};
    cr_assert_eq(file_read(path, 1000, &first, &e), 0);
    cr_assert_eq(strncmp(buf_cstr(&first), "ew_", 3), 0);
    cr_assert_eq(first.len, 3 + 43 + 1);
    buf_truncate(&first, first.len - 1);
    close_all(&f);
    open_all(&f);
    caller_t caller;
    cr_assert_eq(check(&f, "X-API-Key", buf_cstr(&first), &caller), ERR_NONE, "the next start reads the same key");
    finish(&f);
}

Test(auth, without_standalone_mode_the_key_opens_nothing, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    close_all(&f);
    f.gw.daemon.config.standalone_mode = false;
    open_all(&f);
    caller_t caller;
    cr_assert_eq(check(&f, "X-API-Key", KEY, &caller), ERR_INVALID_TOKEN);
    cr_assert_eq(check_bearer(&f, KEY, &caller), ERR_INVALID_TOKEN);
    finish(&f);
}

/* ---- keys of the table ---- */

static fake_request_t *post_key(fixture_t *f, const char *owner, const char *body)
{
    fake_request_t *request = fake_request_new(&f->gw, owner);
    request->r.json = json_loads(body, 0, NULL);
    cr_assert_not_null(request->r.json, "%s", body);
    api_key_create(&request->r);
    while (request->status == 0)
        event_base_loop(f->gw.daemon.base, EVLOOP_ONCE);
    return request;
}

Test(auth, a_made_key_opens_with_its_scopes_and_survives_a_restart, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    fake_request_t *made =
        post_key(&f, "standalone", "{\"name\":\"ci\",\"scopes\":[\"admin:read\"],\"owner\":\"team-a\"}");
    cr_assert_eq(made->status, 201, "%s", made->body);
    const char *secret = fake_text(made, "key");
    cr_assert_eq(strncmp(secret, "ewk_", 4), 0);
    for (int round = 0; round < 2; round++) {
        caller_t caller;
        cr_assert_eq(check_bearer(&f, secret, &caller), ERR_NONE);
        cr_assert_str_eq(caller.owner, "team-a");
        cr_assert_str_eq(caller.name, "ci");
        cr_assert(caller.can_read && !caller.can_write);
        cr_assert_eq(check(&f, "X-API-Key", secret, &caller), ERR_INVALID_TOKEN, "X-API-Key is for the standalone key");
        close_all(&f);
        open_all(&f);
    }
    fake_request_free(made);
    finish(&f);
}

Test(auth, lists_never_show_a_secret_and_only_ones_own, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    fake_request_t *a = post_key(&f, "team-a", "{\"name\":\"one\",\"scopes\":[\"admin:read\",\"admin:write\"]}");
    fake_request_t *b = post_key(&f, "team-b", "{\"name\":\"two\",\"scopes\":[\"admin:read\"]}");
    cr_assert_eq(a->status, 201);
    const char *owners[] = {"team-a", "team-b", "standalone"};
    size_t counts[] = {1, 1, 2};
    for (size_t i = 0; i < 3; i++) {
        fake_request_t *list = fake_request_new(&f.gw, owners[i]);
        api_key_list(&list->r);
        cr_assert_eq(json_array_size(list->json), counts[i], "%s", list->body);
        cr_assert_null(strstr(list->body, fake_text(a, "key")));
        cr_assert_null(strstr(list->body, "hash"));
        fake_request_free(list);
    }
    fake_request_free(a);
    fake_request_free(b);
    finish(&f);
}

Test(auth, an_expired_key_opens_nothing, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    char time[RFC3339_SIZE], body[200];
    snprintf(body, sizeof(body), "{\"name\":\"short\",\"scopes\":[\"admin:read\"],\"expires_at\":\"%s\"}",
             rfc3339_format((int64_t)clock_realtime_ms() + 300, time));
    fake_request_t *made = post_key(&f, "team-a", body);
    cr_assert_eq(made->status, 201, "%s", made->body);
    caller_t caller;
    cr_assert_eq(check_bearer(&f, fake_text(made, "key"), &caller), ERR_NONE);
    usleep(350000);
    cr_assert_eq(check_bearer(&f, fake_text(made, "key"), &caller), ERR_INVALID_TOKEN);
    fake_request_free(made);
    finish(&f);
}

static fake_request_t *delete_key(fixture_t *f, const char *owner, const char *id)
{
    fake_request_t *request = fake_request_new(&f->gw, owner);
    request->r.params[0] = id;
    api_key_delete(&request->r);
    while (request->status == 0)
        event_base_loop(f->gw.daemon.base, EVLOOP_ONCE);
    return request;
}

Test(auth, a_deleted_key_opens_nothing_for_ever, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    fake_request_t *made = post_key(&f, "team-a", "{\"name\":\"x\",\"scopes\":[\"admin:read\"]}");
    const struct {
        const char *owner, *id;
        int status;
    } STEPS[] = {
        {"team-b", fake_text(made, "id"), 404},
        {"team-a", "not-a-uuid", 400},
        {"team-a", "00000000-0000-4000-8000-000000000000", 404},
        {"team-a", fake_text(made, "id"), 204},
        {"team-a", fake_text(made, "id"), 404},
    };
    for (size_t i = 0; i < COUNT_OF(STEPS); i++) {
        fake_request_t *gone = delete_key(&f, STEPS[i].owner, STEPS[i].id);
        cr_expect_eq(gone->status, STEPS[i].status, "step %zu: %d", i, gone->status);
        fake_request_free(gone);
    }
    caller_t caller;
    cr_assert_eq(check_bearer(&f, fake_text(made, "key"), &caller), ERR_INVALID_TOKEN);
    close_all(&f);
    open_all(&f);
    cr_assert_eq(check_bearer(&f, fake_text(made, "key"), &caller), ERR_INVALID_TOKEN);
    fake_request_free(made);
    finish(&f);
}

static const struct bad_key {
    const char *body;
    int status;
    const char *text;
} BAD_KEYS[] = {
    {"{}", 400, "name is required"},
    {"{\"name\":\"\",\"scopes\":[\"admin:read\"]}", 400, "name is required"},
    {"{\"name\":7,\"scopes\":[\"admin:read\"]}", 400, "name must be a string"},
    {"{\"name\":\"a\\nb\",\"scopes\":[\"admin:read\"]}", 400, "control characters"},
    {"{\"name\":\"0123456789012345678901234567890123456789012345678901234567890123\",\"scopes\":[\"admin:read\"]}", 400,
     "at most 63"},
    {"{\"name\":\"a\"}", 400, "scopes is required"},
    {"{\"name\":\"a\",\"scopes\":[]}", 400, "scopes is required"},
    {"{\"name\":\"a\",\"scopes\":\"admin:read\"}", 400, "scopes is required"},
    {"{\"name\":\"a\",\"scopes\":[\"admin:all\"]}", 400, "only"},
    {"{\"name\":\"a\",\"scopes\":[null]}", 400, "only"},
    {"{\"name\":\"a\",\"scopes\":[\"admin:read\"],\"expires_at\":\"tomorrow\"}", 400, "RFC 3339"},
    {"{\"name\":\"a\",\"scopes\":[\"admin:read\"],\"expires_at\":12}", 400, "RFC 3339"},
    {"{\"name\":\"a\",\"scopes\":[\"admin:read\"],\"expires_at\":\"2020-01-01T00:00:00Z\"}", 400, "future"},
    {"{\"name\":\"a\",\"scopes\":[\"admin:read\"],\"expires_at\":\"2031-02-30T00:00:00Z\"}", 400, "RFC 3339"},
    {"{\"name\":\"a\",\"scopes\":[\"admin:read\"],\"owner\":\"team-b\"}", 403, "another owner"},
};

Test(auth, a_bad_key_request_is_named, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    for (size_t i = 0; i < COUNT_OF(BAD_KEYS); i++) {
        fake_request_t *made = post_key(&f, "team-a", BAD_KEYS[i].body);
        cr_expect_eq(made->status, BAD_KEYS[i].status, "%s: %d", BAD_KEYS[i].body, made->status);
        cr_expect_not_null(strstr(made->body, BAD_KEYS[i].text), "%s: %s", BAD_KEYS[i].body, made->body);
        fake_request_free(made);
    }
    finish(&f);
}

Test(auth, a_key_gives_no_more_than_it_has, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    fake_request_t *request = fake_request_new(&f.gw, "team-a");
    request->r.caller.can_read = false;
    request->r.json = json_loads("{\"name\":\"a\",\"scopes\":[\"admin:read\"]}", 0, NULL);
    api_key_create(&request->r);
    cr_assert_eq(request->status, 403);
    fake_request_free(request);
    finish(&f);
}

/* The standalone key makes keys of its own owner unless told otherwise; such a key is no operator's. */
Test(auth, a_key_of_the_standalone_owner_is_not_the_operator, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    fake_request_t *a = post_key(&f, "team-a", "{\"name\":\"one\",\"scopes\":[\"admin:read\"]}");
    fake_request_t *made = post_key(&f, "standalone", "{\"name\":\"x\",\"scopes\":[\"admin:read\",\"admin:write\"]}");
    cr_assert_eq(made->status, 201, "%s", made->body);
    caller_t caller;
    cr_assert_eq(check_bearer(&f, fake_text(made, "key"), &caller), ERR_NONE);
    cr_assert_str_eq(caller.owner, "standalone");
    cr_assert_not(caller.is_operator);
    fake_request_t *list = fake_request_new(&f.gw, "standalone");
    list->r.caller = caller;
    api_key_list(&list->r);
    cr_assert_eq(json_array_size(list->json), 1, "%s", list->body);
    fake_request_t *other = fake_request_new(&f.gw, "standalone");
    other->r.caller = caller;
    other->r.json = json_loads("{\"name\":\"a\",\"scopes\":[\"admin:read\"],\"owner\":\"team-a\"}", 0, NULL);
    api_key_create(&other->r);
    cr_assert_eq(other->status, 403);
    cr_assert_eq(check(&f, "X-API-Key", KEY, &caller), ERR_NONE);
    cr_assert(caller.is_operator);
    fake_request_free(other);
    fake_request_free(list);
    fake_request_free(made);
    fake_request_free(a);
    finish(&f);
}

Test(auth, a_key_makes_none_that_outlives_it, .timeout = 20)
{
    fixture_t f;
    start(&f, KEY);
    int64_t soon = (int64_t)clock_realtime_ms() + 60000;
    static const struct {
        const char *more;
        int status;
    } ROWS[] = {{"", 201}, {",\"expires_at\":null", 201}, {",\"expires_at\":\"2099-01-01T00:00:00Z\"", 403}};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char body[200];
        snprintf(body, sizeof(body), "{\"name\":\"a\",\"scopes\":[\"admin:read\"]%s}", ROWS[i].more);
        fake_request_t *request = fake_request_new(&f.gw, "team-a");
        request->r.caller.expires_at_ms = soon;
        request->r.json = json_loads(body, 0, NULL);
        api_key_create(&request->r);
        while (request->status == 0)
            event_base_loop(f.gw.daemon.base, EVLOOP_ONCE);
        cr_assert_eq(request->status, ROWS[i].status, "%s", request->body);
        cr_assert(request->status != 201 || strstr(request->body, "expires_at"), "%s", request->body);
        fake_request_free(request);
    }
    finish(&f);
}
