// SPDX-License-Identifier: Apache-2.0
// LINK: services/gateway/idempotency.c
// LINK: services/gateway/workspaces.c services/gateway/workspace_rows.c services/gateway/workspace_commit.c
// LINK: services/gateway/workspace_request.c services/gateway/workspace_create.c services/gateway/workspace_destroy.c
// LINK: services/gateway/workspace_reconcile.c services/gateway/workspace_events.c services/gateway/workspace_list.c
// LINK: services/gateway/workspace_handlers.c services/gateway/workspace_time.c services/gateway/orchestrator.c
// LINK: services/gateway/orchestrator_pick.c services/gateway/store.c services/gateway/store_sqlite.c
// LINK: services/gateway/store_migrations.c services/gateway/workspace_quota.c services/gateway/workspace_states.c
// LINK: services/gateway/workspace_stop.c services/gateway/workspace_sessions.c services/gateway/workspace_patch.c
// LINK: services/gateway/workspace_sweep.c
/* Making and listing workspaces. Covers S-001, S-008, S-010, S-104, S-110, S-111, S-113, S-114, S-118 with
 * test_workspaces_life.c. */
#include "tests/unit/workspaces_world.h"

/* ---- create ---- */

Test(workspaces, a_create_without_wishes_becomes_ready_with_the_defaults, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_expect_str_eq(fake_text(made, "status"), "ready");
    cr_expect_str_eq(fake_text(made, "provider"), "gvisor");
    cr_expect_str_eq(fake_text(made, "provider_workspace_id"), "fake-1");
    cr_expect_str_eq(fake_text(made, "lifecycle"), "ephemeral");
    json_t *limits = json_object_get(made->json, "resource_limits");
    cr_expect_str_eq(json_string_value(json_object_get(limits, "memory")), "4G");
    json_t *metadata = json_object_get(made->json, "metadata");
    cr_expect_eq(json_array_size(json_object_get(metadata, "attempts")), 1, "%s", made->body);
    cr_expect_str_eq(json_string_value(json_object_get(metadata, "isolation")), "fake/none");
    cr_expect_eq(json_array_size(json_object_get(made->json, "warnings")), 1);
    cr_expect_eq(f.gvisor.cpu_milli, 2000);
    cr_expect_eq(f.gvisor.memory_bytes, 4ULL << 30);
    cr_expect_eq(f.gvisor.disk_bytes, 10ULL << 30);
    cr_expect_eq(f.gvisor.pids_max, 1024);
    cr_expect(f.gvisor.use_warm);
    cr_expect_str_eq(f.gvisor.network, "none");
    cr_expect_str_eq(now(&f, fake_text(made, "id")), "ready");
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, without_wait_it_is_creating_first_and_events_tell_the_rest, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    f.gvisor.is_holding = true;
    fake_request_t *made = post(&f, "me", NULL, AGENT);
    cr_assert(RUN_UNTIL(&f, made->status != 0));
    cr_assert_str_eq(fake_text(made, "status"), "creating");
    fake_request_t *events = fake_request_new(&f.gw, "me");
    events->r.params[0] = fake_text(made, "id");
    workspace_events(&events->r);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    fake_provider_release(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, fake_text(made, "id")), "ready") == 0));
    cr_assert_eq(status_of(&f, workspace_delete, "me", fake_text(made, "id")), 204);
    cr_assert(events->is_ended);
    const char *expected[] = {"\"creating\"", "\"ready\"", "\"stopping\"", "deleted "};
    const char *at = buf_cstr(&events->events);
    for (size_t i = 0; i < COUNT_OF(expected); i++) {
        at = strstr(at, expected[i]);
        cr_assert_not_null(at, "no %s in order in:\n%s", expected[i], buf_cstr(&events->events));
    }
    fake_request_free(events);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, what_was_asked_reaches_the_provider, .timeout = 60)
{
    fixture_t f;
    start(&f);
    f.gvisor.modes = "full";
    f.gvisor.images = "node";
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(
        &f, "me",
        "{\"container_type\":\"agent_workspace\",\"provider\":\"GVisor\",\"image\":\"node\",\"network\":\"full\","
        "\"warm_start\":false,"
        "\"resource_limits\":{\"cpu\":\"0.5\",\"memory\":\"512M\"},\"env\":{\"A\":\"1\",\"B\":\"two words\"},"
        "\"metadata\":{\"mine\":true},\"agent_session_id\":\"AAAAAAAA-0000-4000-8000-000000000001\","
        "\"repository_url\":\"https://example.org/x.git\",\"branch\":\"main\"}");
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_expect_str_eq(fake_text(made, "status"), "ready", "%s", made->body);
    cr_expect_eq(f.gvisor.cpu_milli, 500);
    cr_expect_eq(f.gvisor.memory_bytes, 512ULL << 20);
    cr_expect_eq(f.gvisor.disk_bytes, 10ULL << 30);
    cr_expect_not(f.gvisor.use_warm);
    cr_expect_str_eq(f.gvisor.image, "node");
    cr_expect_str_eq(f.gvisor.network, "full");
    cr_expect_str_eq(f.gvisor.env, "A=1;B=two words;");
    cr_expect_str_eq(fake_text(made, "agent_session_id"), "aaaaaaaa-0000-4000-8000-000000000001");
    cr_expect_not_null(strstr(made->body, "\"mine\":true"));
    cr_expect_not_null(strstr(made->body, "repository was not cloned: no gitsync daemon is connected"));
    cr_expect_null(strstr(made->body, "two words"), "env is not shown");
    fake_request_free(made);
    finish(&f);
}

static const struct bad_request {
    const char *body, *text;
} BAD[] = {
    {"{}", "container_type must be 'agent_workspace' or 'mcp_server'"},
    {"{\"container_type\":\"vm\"}", "container_type must be 'agent_workspace' or 'mcp_server'"},
    {"{\"container_type\":\"agent_workspace\",\"provider\":\"docker\"}",
     "provider must be one of auto, firecracker, e2b, gvisor"},
    {"{\"container_type\":\"mcp_server\",\"repository_url\":\"https://example.org/x\"}", "repository_url is only for"},
    {"{\"container_type\":\"mcp_server\",\"branch\":\"main\"}", "branch is only for"},
    {"{\"container_type\":\"agent_workspace\",\"branch\":\"main\"}", "branch needs repository_url"},
    {"{\"container_type\":\"agent_workspace\",\"repository_url\":\"https://u:p@example.org/x\"}",
     "must not contain credentials"},
    {"{\"container_type\":\"agent_workspace\",\"repository_url\":\"file:///etc\"}",
     "must be an https:// or http:// URL"},
    {"{\"container_type\":\"agent_workspace\",\"repository_url\":\"https://example.org/"
     "x\",\"branch\":\"--upload-pack=x\"}",
     "must not begin with '-'"},
    {"{\"container_type\":\"agent_workspace\",\"mcp_config\":{}}", "mcp_config is only for"},
    {"{\"container_type\":\"agent_workspace\",\"resource_limits\":{\"memory\":\"1M\"}}",
     "resource_limits.memory must be at least 64M"},
    {"{\"container_type\":\"agent_workspace\",\"resource_limits\":{\"memory\":\"lots\"}}",
     "resource_limits.memory must be a size"},
    {"{\"container_type\":\"agent_workspace\",\"resource_limits\":{\"disk\":\"-4G\"}}",
     "resource_limits.disk must be a size"},
    {"{\"container_type\":\"agent_workspace\",\"resource_limits\":{\"cpu\":\"0\"}}", "resource_limits.cpu must be"},
    {"{\"container_type\":\"agent_workspace\",\"env\":{\"1A\":\"x\"}}", "env has a bad name"},
    {"{\"container_type\":\"agent_workspace\",\"env\":{\"\":\"x\"}}", "env has a bad name"},
    {"{\"container_type\":\"agent_workspace\",\"metadata\":[1]}", "metadata must be an object"},
    {"{\"container_type\":\"agent_workspace\",\"metadata\":{\"attempts\":1}}", "metadata.attempts is reserved"},
    {"{\"container_type\":\"agent_workspace\",\"agent_session_id\":\"x\"}", "agent_session_id must be a UUID"},
    {"{\"container_type\":\"agent_workspace\",\"network\":\"host\"}", "network"},
    {"{\"container_type\":\"agent_workspace\",\"image\":\"nope\"}", "image 'nope' is not there (images: base)"},
    {"{\"container_type\":\"agent_workspace\",\"network\":\"full\"}", "network 'full' is not supported (modes: none)"},
};

Test(workspaces, a_bad_request_is_a_400_that_names_the_field, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        fake_request_t *made = post_and_wait(&f, "me", BAD[i].body);
        cr_expect_eq(made->status, 400, "%s: %d %s", BAD[i].body, made->status, made->body);
        cr_expect_not_null(strstr(made->body, BAD[i].text), "%s: %s", BAD[i].body, made->body);
        fake_request_free(made);
    }
    const char *waits[] = {"-1", "61", "x", "1.5", ""};
    for (size_t i = 0; i < COUNT_OF(waits); i++) {
        fake_request_t *made = post(&f, "me", waits[i], AGENT);
        cr_assert(RUN_UNTIL(&f, made->status != 0));
        cr_expect_eq(made->status, 400, "wait=%s", waits[i]);
        fake_request_free(made);
    }
    cr_assert_eq(f.gvisor.creates, 0);
    cr_assert_eq(workspaces_count(&f.gw, WORKSPACE_CREATING), 0);
    finish(&f);
}

Test(workspaces, the_limit_counts_creates_under_way, .timeout = 60)
{
    fixture_t f;
    start(&f);
    f.gw.daemon.config.max_concurrent = 2;
    connect_provider(&f, &f.gvisor);
    fake_request_t *made[4];
    for (size_t i = 0; i < 3; i++)
        made[i] = post(&f, "me", "10", AGENT); /* at once: nothing has run in between */
    cr_assert_eq(made[2]->status, 429, "%s", made[2]->body);
    cr_assert_str_eq(made[2]->body,
                     "maximum concurrent workspace limit reached (2); wait for one to end or destroy one");
    cr_assert(RUN_UNTIL(&f, made[0]->status == 201 && made[1]->status == 201));
    made[3] = post_and_wait(&f, "me", "{\"container_type\":\"mcp_server\"}");
    cr_assert_eq(made[3]->status, 201, "MCP servers do not count: %s", made[3]->body);
    cr_assert_str_eq(fake_text(made[3], "lifecycle"), "persistent");
    cr_assert_null(json_object_get(made[3]->json, "expires_at"));
    cr_assert_eq(status_of(&f, workspace_delete, "me", fake_text(made[0], "id")), 204);
    fake_request_t *next = post_and_wait(&f, "me", AGENT);
    cr_assert_eq(next->status, 201);
    fake_request_free(next);
    for (size_t i = 0; i < 4; i++)
        fake_request_free(made[i]);
    finish(&f);
}

/* ---- which provider ---- */

Test(workspaces, a_failed_create_falls_back_and_both_attempts_are_recorded, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    connect_provider(&f, &f.firecracker);
    f.firecracker.create_error = "no tap device";
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    cr_assert_str_eq(fake_text(made, "status"), "ready", "%s", made->body);
    cr_assert_str_eq(fake_text(made, "provider"), "gvisor");
    json_t *attempts = json_object_get(json_object_get(made->json, "metadata"), "attempts");
    cr_assert_eq(json_array_size(attempts), 2);
    json_t *first = json_array_get(attempts, 0);
    cr_assert_str_eq(json_string_value(json_object_get(first, "provider")), "firecracker");
    cr_assert_not_null(strstr(json_string_value(json_object_get(first, "error")), "no tap device"));
    cr_assert_null(json_object_get(json_array_get(attempts, 1), "error"));
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, an_explicit_provider_never_falls_back, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made =
        post_and_wait(&f, "me", "{\"container_type\":\"agent_workspace\",\"provider\":\"firecracker\"}");
    cr_assert_eq(made->status, 503);
    cr_assert_str_eq(made->body, "requested provider \"firecracker\" is not registered: no fcmgr daemon is connected");
    fake_request_free(made);
    connect_provider(&f, &f.firecracker);
    f.firecracker.create_error = "no tap device";
    made = post_and_wait(&f, "me", "{\"container_type\":\"agent_workspace\",\"provider\":\"firecracker\"}");
    cr_assert_eq(made->status, 201);
    cr_assert_str_eq(fake_text(made, "status"), "error");
    cr_assert_not_null(strstr(fake_text(made, "failure_reason"), "no tap device"));
    cr_assert_eq(f.gvisor.creates, 0);
    cr_assert_eq(status_of(&f, workspace_delete, "me", fake_text(made, "id")), 204);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, when_all_fail_the_reason_lists_each, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    connect_provider(&f, &f.firecracker);
    f.firecracker.create_error = "no tap device";
    f.gvisor.create_error = "no loop device";
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    cr_assert_eq(made->status, 201);
    cr_assert_str_eq(fake_text(made, "status"), "error");
    const char *reason = fake_text(made, "failure_reason");
    cr_assert(strstr(reason, "firecracker: no tap device") && strstr(reason, "gvisor: no loop device") &&
                  strstr(reason, "e2b: no e2bproxy daemon is connected"),
              "%s", reason);
    cr_assert_eq(workspaces_count(&f.gw, WORKSPACE_ERROR), 1);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, without_any_daemon_a_create_is_a_503_that_lists_each, .timeout = 60)
{
    fixture_t f;
    start(&f);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    cr_assert_eq(made->status, 503);
    cr_assert(strstr(made->body, "no gvisord daemon") && strstr(made->body, "no fcmgr daemon"), "%s", made->body);
    cr_assert_eq(workspaces_count(&f.gw, WORKSPACE_CREATING), 0);
    fake_request_free(made);
    finish(&f);
}

/* ---- lists ---- */

Test(workspaces, lists_ones_own_newest_first_in_pages, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    char ids[5][UUID_TEXT_SIZE];
    for (size_t i = 0; i < 5; i++) {
        fake_request_t *made = post_and_wait(&f, i == 0 ? "other" : "me", AGENT);
        snprintf(ids[i], UUID_TEXT_SIZE, "%s", fake_text(made, "id"));
        fake_request_free(made);
        uint64_t then = clock_realtime_ms();
        cr_assert(RUN_UNTIL(&f, clock_realtime_ms() > then));
    }
    char cursor[128] = "";
    size_t expected = 4;
    for (size_t pages = 0; pages < 2; pages++) {
        fake_request_t *list = fake_request_new(&f.gw, "me");
        list->http.query[0][0] = "limit";
        list->http.query[0][1] = "3";
        list->http.query[1][0] = "cursor";
        list->http.query[1][1] = cursor;
        workspace_list(&list->r);
        cr_assert_eq(list->status, 200, "%s", list->body);
        cr_assert_str_eq(list->http.total, "4");
        size_t i;
        json_t *one;
        json_array_foreach(list->json, i, one)
            cr_assert_str_eq(json_string_value(json_object_get(one, "id")), ids[expected--]);
        snprintf(cursor, sizeof(cursor), "%s", list->http.next_cursor);
        cr_assert_eq(cursor[0] == '\0', pages == 1);
        fake_request_free(list);
    }
    cr_assert_eq(expected, 0);
    finish(&f);
}

static const struct filter_case {
    const char *name, *value;
    int status;
    size_t count;
} FILTERS[] = {
    {"status", "ready", 200, 1},
    {"status", "stopped", 200, 0},
    {"status", "zombie", 400, 0},
    {"container_type", "agent_workspace", 200, 1},
    {"container_type", "mcp_server", 200, 0},
    {"container_type", "vm", 400, 0},
    {"provider", "gvisor", 200, 1},
    {"provider", "e2b", 200, 0},
    {"provider", "docker", 400, 0},
    {"agent_session_id", "aaaaaaaa-0000-4000-8000-000000000001", 200, 0},
    {"agent_session_id", "session", 400, 0},
    {"limit", "0", 400, 0},
    {"limit", "1001", 400, 0},
    {"limit", "x", 400, 0},
    {"cursor", "!!!", 400, 0},
    {"cursor", "AAAA", 400, 0},
    {"cursor", "MS5ub3QtYS11dWlk", 400, 0},
    {"cursor", "LTEuMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAw", 400, 0},
};

Test(workspaces, filters_are_exact_and_unknown_values_are_400, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    for (size_t i = 0; i < COUNT_OF(FILTERS); i++) {
        fake_request_t *list = fake_request_new(&f.gw, "me");
        list->http.query[0][0] = FILTERS[i].name;
        list->http.query[0][1] = FILTERS[i].value;
        workspace_list(&list->r);
        cr_expect_eq(list->status, FILTERS[i].status, "%s=%s: %d", FILTERS[i].name, FILTERS[i].value, list->status);
        if (list->status == 200)
            cr_expect_eq(json_array_size(list->json), FILTERS[i].count, "%s=%s", FILTERS[i].name, FILTERS[i].value);
        fake_request_free(list);
    }
    fake_request_free(made);
    finish(&f);
}
