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
/* How workspaces end, what restarts leave of them, and what rests on disk. */
#include "services/gateway/workspaces_internal.h"
#include "tests/unit/workspaces_world.h"

/* ---- destroy ---- */

Test(workspaces, a_delete_leaves_nothing_and_unknown_ids_are_404, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    const char *id = fake_text(made, "id");
    cr_assert_eq(f.gvisor.sandbox_count, 1);
    cr_assert_eq(status_of(&f, workspace_delete, "someone-else", id), 404);
    cr_assert_eq(status_of(&f, workspace_get, "someone-else", id), 404);
    cr_assert_eq(status_of(&f, workspace_delete, "me", "nonsense"), 400);
    cr_assert_eq(status_of(&f, workspace_delete, "me", id), 204);
    cr_assert_eq(f.gvisor.sandbox_count, 0);
    fake_request_t *gone = call_on(&f, workspace_delete, "me", id);
    cr_assert_eq(gone->status, 404);
    auto_free char *expected = mem_printf("workspace '%s' not found", id);
    cr_assert_str_eq(gone->body, expected);
    fake_request_free(gone);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, a_delete_during_the_create_ends_both, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    f.gvisor.is_holding = true;
    fake_request_t *made = post(&f, "me", "30", AGENT);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    char id[UUID_TEXT_SIZE];
    uuid16_format(&f.gvisor.sandboxes[0].id, id);
    cr_assert_eq(status_of(&f, workspace_delete, "me", id), 204);
    cr_assert_eq(made->status, 409, "%s", made->body);
    cr_assert_eq(f.gvisor.cancels, 1);
    cr_assert_eq(f.gvisor.sandbox_count, 0);
    cr_assert_str_eq(now(&f, id), "");
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, two_deletes_at_once_both_get_204, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    fake_request_t *deletes[2];
    for (size_t i = 0; i < 2; i++) {
        deletes[i] = fake_request_new(&f.gw, "me");
        deletes[i]->r.params[0] = fake_text(made, "id");
        workspace_delete(&deletes[i]->r);
    }
    cr_assert(RUN_UNTIL(&f, deletes[0]->status != 0 && deletes[1]->status != 0));
    cr_assert_eq(deletes[0]->status, 204);
    cr_assert_eq(deletes[1]->status, 204);
    cr_assert_eq(f.gvisor.destroys, 1);
    fake_request_free(deletes[0]);
    fake_request_free(deletes[1]);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, a_failed_destroy_is_told_and_tried_again, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    f.gvisor.destroy_error = "a mount is busy";
    fake_request_t *failed = call_on(&f, workspace_delete, "me", fake_text(made, "id"));
    cr_assert_eq(failed->status, 500);
    cr_assert_not_null(strstr(failed->body, "a mount is busy"));
    cr_assert_str_eq(now(&f, fake_text(made, "id")), "stopping");
    f.gvisor.destroy_error = NULL;
    cr_assert(RUN_UNTIL(&f, now(&f, fake_text(made, "id"))[0] == '\0'));
    fake_request_free(failed);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, a_delete_while_the_daemon_is_away_happens_when_it_is_back, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    fake_provider_disconnect(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, is_known(&f, "gvisor", false)));
    fake_request_t *refused = call_on(&f, workspace_delete, "me", fake_text(made, "id"));
    cr_assert_eq(refused->status, 503, "%s", refused->body);
    cr_assert_str_eq(now(&f, fake_text(made, "id")), "stopping");
    close_gateway(&f); /* the intent survives this too */
    open_gateway(&f);
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, now(&f, fake_text(made, "id"))[0] == '\0'));
    cr_assert_eq(f.gvisor.sandbox_count, 0);
    fake_request_free(refused);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, a_forced_delete_does_not_wait_for_a_daemon_that_is_gone, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    const char *id = fake_text(made, "id");
    fake_provider_disconnect(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, is_known(&f, "gvisor", false)));
    fake_request_t *refused = call_on(&f, workspace_delete, "me", id);
    cr_assert_eq(refused->status, 503, "%s", refused->body);
    cr_assert_not_null(strstr(refused->body, "force=true"), "%s", refused->body);
    fake_request_t *forced = fake_request_new(&f.gw, "me");
    forced->r.params[0] = id;
    forced->http.query[0][0] = "force";
    forced->http.query[0][1] = "true";
    workspace_delete(&forced->r);
    cr_assert(RUN_UNTIL(&f, forced->status != 0));
    cr_assert_eq(forced->status, 204, "%s", forced->body);
    cr_assert_str_eq(now(&f, id), "");
    connect_provider(&f, &f.gvisor); /* it comes back after all */
    cr_assert(RUN_UNTIL(&f, f.gvisor.sandbox_count == 0), "what no row wants goes");
    fake_request_free(forced);
    fake_request_free(refused);
    fake_request_free(made);
    finish(&f);
}

/* ---- restarts ---- */

Test(workspaces, after_a_restart_rows_and_sandboxes_agree_again, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *kept = post_and_wait(&f, "me", AGENT);
    fake_request_t *lost = post_and_wait(&f, "me", AGENT);
    fake_request_t *died = post_and_wait(&f, "me", AGENT);
    uuid16_t id;
    cr_assert(uuid16_parse(&id, fake_text(lost, "id")));
    close_gateway(&f);
    fake_provider_disconnect(&f.gvisor);
    fake_sandbox_remove(&f.gvisor, &id);
    cr_assert(uuid16_parse(&id, fake_text(died, "id")));
    snprintf(fake_sandbox_find(&f.gvisor, &id)->state, 16, "dead");
    /* One of ours that no row knows, and one of somebody else's. */
    fake_sandbox_t *stray = &f.gvisor.sandboxes[f.gvisor.sandbox_count++];
    *stray = f.gvisor.sandboxes[0];
    stray->id.bytes[0] ^= 0xff;
    fake_sandbox_t *foreign = &f.gvisor.sandboxes[f.gvisor.sandbox_count++];
    *foreign = f.gvisor.sandboxes[0];
    foreign->id.bytes[1] ^= 0xff;
    snprintf(foreign->suite, sizeof(foreign->suite), "another suite");
    open_gateway(&f);
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, f.gvisor.sandbox_count == 3 && strcmp(now(&f, fake_text(lost, "id")), "error") == 0 &&
                                strcmp(now(&f, fake_text(died, "id")), "error") == 0));
    cr_assert_str_eq(now(&f, fake_text(kept, "id")), "ready");
    fake_request_t *seen = call_on(&f, workspace_get, "me", fake_text(lost, "id"));
    cr_assert_not_null(strstr(fake_text(seen, "failure_reason"), "the sandbox is gone"), "%s", seen->body);
    fake_request_free(seen);
    cr_assert_eq(f.gvisor.destroys, 1);
    fake_request_free(kept);
    fake_request_free(lost);
    fake_request_free(died);
    finish(&f);
}

/* As when a second gateway serves the same database by mistake: nobody's files may go for that. */
Test(workspaces, a_sandbox_whose_row_only_the_database_knows_is_left_alone, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_free(post_and_wait(&f, "me", AGENT));
    workspaces_remove(f.gw.workspaces, f.gw.workspaces->newest);
    fake_provider_disconnect(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, is_known(&f, "gvisor", false)));
    connect_provider(&f, &f.gvisor);
    size_t lists = f.gvisor.lists;
    fake_request_free(post_and_wait(&f, "me", AGENT)); /* a way through the store, behind the question */
    cr_assert_eq(f.gvisor.lists, lists);
    cr_assert_eq(f.gvisor.destroys, 0);
    cr_assert_eq(f.gvisor.sandbox_count, 2);
    finish(&f);
}

Test(workspaces, a_create_that_a_crash_interrupted_is_adopted, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    f.gvisor.is_holding = true;
    fake_request_t *made = post(&f, "me", NULL, AGENT);
    cr_assert(RUN_UNTIL(&f, made->status != 0 && f.gvisor.held_count == 1));
    close_gateway(&f);
    fake_provider_disconnect(&f.gvisor);
    f.gvisor.is_holding = false;
    snprintf(f.gvisor.sandboxes[0].state, 16, "ready");
    open_gateway(&f);
    cr_assert_str_eq(now(&f, fake_text(made, "id")), "creating");
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, fake_text(made, "id")), "ready") == 0));
    cr_assert_eq(f.gvisor.sandbox_count, 1);
    cr_assert_eq(f.gvisor.destroys, 0);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, a_create_whose_daemon_dies_is_made_when_it_is_back, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    f.gvisor.is_holding = true;
    fake_request_t *made = post(&f, "me", "60", AGENT);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    fake_provider_disconnect(&f.gvisor);
    f.gvisor.is_holding = false;
    f.gvisor.sandbox_count = 0; /* it undoes what was half made */
    cr_assert(RUN_UNTIL(&f, is_known(&f, "gvisor", false)));
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, made->status != 0));
    cr_assert_str_eq(fake_text(made, "status"), "ready", "%s", made->body);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, an_acknowledged_create_is_made_again_when_its_daemon_left_only_remains, .timeout = 60)
{
    static const char *const REMAINS[] = {"destroying", "dead"};
    for (size_t i = 0; i < COUNT_OF(REMAINS); i++) {
        fixture_t f;
        start(&f);
        connect_provider(&f, &f.gvisor);
        f.gvisor.is_holding = true;
        fake_request_t *made = post(&f, "me", NULL, AGENT);
        cr_assert(RUN_UNTIL(&f, made->status != 0 && f.gvisor.held_count == 1));
        fake_provider_disconnect(&f.gvisor);
        cr_assert(RUN_UNTIL(&f, is_known(&f, "gvisor", false)));
        f.gvisor.is_holding = false;
        snprintf(f.gvisor.sandboxes[0].state, 16, "%s", REMAINS[i]);
        f.gvisor.refuses_known = true; /* as long as the remains are there */
        connect_provider(&f, &f.gvisor);
        cr_assert(RUN_UNTIL(&f, strcmp(now(&f, fake_text(made, "id")), "ready") == 0), "%s", REMAINS[i]);
        cr_assert_eq(f.gvisor.sandbox_count, 1);
        cr_assert_geq(f.gvisor.destroys, 1);
        fake_request_free(made);
        finish(&f);
    }
}

Test(workspaces, a_sandbox_that_dies_makes_its_workspace_an_error, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    fake_provider_tell_event(&f.gvisor, &f.gvisor.sandboxes[0].id, "oom", "python3 was ended: out of memory");
    cr_assert(RUN_UNTIL(&f, ({
        fake_request_t *seen = call_on(&f, workspace_get, "me", fake_text(made, "id"));
        bool is_warned = strstr(seen->body, "python3 was ended") != NULL;
        fake_request_free(seen);
        is_warned;
    })));
    fake_provider_tell_event(&f.gvisor, &f.gvisor.sandboxes[0].id, "dead", "runsc was killed");
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, fake_text(made, "id")), "error") == 0));
    fake_request_t *seen = call_on(&f, workspace_get, "me", fake_text(made, "id"));
    cr_assert_not_null(strstr(fake_text(seen, "failure_reason"), "runsc was killed"));
    fake_request_free(seen);
    fake_request_free(made);
    finish(&f);
}

/* ---- what rests ---- */

static bool file_has(const char *dir, const char *name, const char *text)
{
    auto_free char *path = mem_printf("%s/%s", dir, name);
    auto_buf buf_t content = {0};
    auto_err err_t *e = NULL;
    return file_read(path, 64 << 20, &content, &e) == 0 &&
           memmem(content.data, content.len, text, strlen(text)) != NULL;
}

Test(workspaces, secrets_rest_sealed_and_are_not_shown, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me",
                                         "{\"container_type\":\"mcp_server\",\"env\":{\"TOKEN\":\"top-secret-1\"},"
                                         "\"mcp_config\":{\"name\":\"m\",\"environment\":{\"KEY\":\"top-secret-2\"}}}");
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_assert_null(strstr(made->body, "top-secret"));
    cr_assert_not_null(strstr(made->body, "\"KEY\":\"***\""));
    close_gateway(&f);
    cr_assert(file_has(f.dir, "gateway.db", fake_text(made, "id")));
    cr_assert(!file_has(f.dir, "gateway.db", "top-secret"));
    cr_assert(!file_has(f.dir, "gateway.db-wal", "top-secret"));
    open_gateway(&f);
    auto_err err_t *e = NULL;
    caller_t me = {.owner = "me"};
    workspace_row_t *row = workspaces_find(&f.gw, fake_text(made, "id"), &me, &e);
    cr_assert_str_eq(json_string_value(json_object_get(row->env, "TOKEN")), "top-secret-1");
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, use_moves_the_end_of_life_and_is_written, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    fake_request_t *made = post_and_wait(&f, "me", AGENT);
    auto_err err_t *e = NULL;
    caller_t me = {.owner = "me"};
    workspace_row_t *row = workspaces_find(&f.gw, fake_text(made, "id"), &me, &e);
    int64_t used = row->last_used_at_ms, expires = row->expires_at_ms;
    cr_assert_eq(expires - used, 30LL * 86400 * 1000);
    uint64_t then = clock_realtime_ms();
    cr_assert(RUN_UNTIL(&f, clock_realtime_ms() > then + 30));
    workspaces_touch(&f.gw, row);
    cr_assert_gt(row->last_used_at_ms, used);
    used = row->last_used_at_ms;
    close_gateway(&f);
    open_gateway(&f);
    row = workspaces_find(&f.gw, fake_text(made, "id"), &me, &e);
    cr_assert_eq(row->last_used_at_ms, used);
    cr_assert_eq(row->expires_at_ms - used, 30LL * 86400 * 1000);
    fake_request_free(made);
    finish(&f);
}

Test(workspaces, a_client_that_hangs_up_changes_nothing, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    f.gvisor.is_holding = true;
    fake_request_t *made = post(&f, "me", "30", AGENT);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    fake_request_free(made);
    fake_provider_release(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, workspaces_count(&f.gw, WORKSPACE_READY) == 1));
    finish(&f);
}
