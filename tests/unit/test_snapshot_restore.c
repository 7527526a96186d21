// SPDX-License-Identifier: Apache-2.0
// LINK: services/gateway/idempotency.c services/gateway/workspace_quota.c services/gateway/workspace_states.c
// LINK: services/gateway/workspace_stop.c services/gateway/workspace_sessions.c services/gateway/workspace_patch.c
// LINK: services/gateway/workspace_sweep.c
// LINK: services/gateway/workspaces.c services/gateway/workspace_rows.c services/gateway/workspace_commit.c
// LINK: services/gateway/workspace_request.c services/gateway/workspace_create.c services/gateway/workspace_destroy.c
// LINK: services/gateway/workspace_reconcile.c services/gateway/workspace_events.c services/gateway/workspace_list.c
// LINK: services/gateway/workspace_handlers.c services/gateway/workspace_time.c services/gateway/orchestrator.c
// LINK: services/gateway/orchestrator_pick.c services/gateway/store.c services/gateway/store_sqlite.c
// LINK: services/gateway/store_migrations.c services/gateway/snapshots.c services/gateway/snapshot_rows.c
// LINK: services/gateway/snapshot_write.c services/gateway/snapshot_take.c services/gateway/snapshot_delete.c
// LINK: services/gateway/snapshot_restore.c services/gateway/snapshot_fork.c services/gateway/snapshot_from.c
// LINK: services/gateway/snapshot_reconcile.c services/gateway/snapshot_sweep.c services/gateway/snapshot_handlers.c
/* Workspaces from snapshots, and forks: all or none, through every refusal and crash. Covers S-030. */
#include "tests/unit/snapshots_world.h"

static fake_request_t *from(fixture_t *f, const char *snapshot, const char *more)
{
    auto_free char *body = mem_printf("{\"snapshot_id\":\"%s\"%s}", snapshot, more);
    return begin(f, FROM(.body = body));
}

static void refuse_from(fixture_t *f, const char *snapshot, const char *more, int status, const char *text)
{
    fake_request_t *request = ended(f, from(f, snapshot, more));
    cr_assert_eq(request->status, status, "%s: %d %s", text, request->status, request->body);
    cr_assert_not_null(strstr(request->body, text), "not \"%s\" but: %s", text, request->body);
    fake_request_free(request);
}

static size_t workspaces_of(fixture_t *f, const char *owner)
{
    fake_request_t *request = fake_request_new(&f->gw, owner);
    workspace_list(&request->r);
    size_t count = json_array_size(request->json);
    fake_request_free(request);
    return count;
}

static bool is_away(fixture_t *f, const char *workspace)
{
    auto_err err_t *e = NULL;
    caller_t me = {.owner = "me"};
    return workspaces_peer(&f->gw, workspaces_find(&f->gw, workspace, &me, &e), &e) == NULL;
}

static void lose_daemon_of(fixture_t *f, fake_provider_t *p, const char *workspace)
{
    fake_provider_disconnect(p);
    cr_assert(RUN_UNTIL(f, is_away(f, workspace)));
}

/* ---- from-snapshot ---- */

Test(snapshot_restore, a_workspace_from_a_snapshot_is_answered_ready, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    fake_request_t *made = ended(&f, from(&f, t.snapshot,
                                          ",\"env\":{\"A\":\"1\"},\"metadata\":{\"mine\":2},"
                                          "\"resource_limits\":{\"disk\":\"20G\"}"));
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_expect_str_eq(fake_text(made, "status"), "ready");
    cr_expect_str_neq(fake_text(made, "id"), t.workspace);
    cr_expect_str_eq(fake_text(made, "snapshot_id"), t.snapshot);
    cr_expect_str_eq(fake_text(made, "container_type"), "agent_workspace");
    cr_expect_str_eq(fake_text(made, "lifecycle"), "ephemeral");
    cr_expect_neq(fake_text(made, "expires_at")[0], '\0');
    const json_t *metadata = json_object_get(made->json, "metadata");
    cr_expect_str_eq(json_string_value(json_object_get(metadata, "created_from_snapshot")), t.snapshot);
    cr_expect_eq(json_integer_value(json_object_get(metadata, "mine")), 2);
    cr_expect_str_eq(f.gvisor.from_snapshot, t.snapshot);
    cr_expect_str_eq(f.gvisor.env, "A=1;");
    cr_expect_eq(f.gvisor.disk_bytes, 20ULL << 30);
    cr_expect_eq(f.gvisor.memory_bytes, 4ULL << 30);
    cr_expect_eq(f.gvisor.sandbox_count, 2);
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, a_session_that_comes_with_it_holds_it, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    fake_request_t *made =
        ended(&f, from(&f, t.snapshot, ",\"agent_session_id\":\"6ba7b810-9dad-41d1-80b4-00c04fd430c8\""));
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_assert_str_eq(fake_text(made, "agent_session_id"), "6ba7b810-9dad-41d1-80b4-00c04fd430c8");
    restart_gateway(&f);
    fake_request_t *seen = call_on(&f, workspace_get, "me", fake_text(made, "id"));
    cr_assert_str_eq(fake_text(seen, "agent_session_id"), "6ba7b810-9dad-41d1-80b4-00c04fd430c8");
    fake_request_free(seen);
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, what_makes_no_sense_is_refused, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    connect_provider(&f, &f.firecracker);
    char ws[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE];
    fake_request_t *made = post_and_wait(&f, "me", "{\"container_type\":\"agent_workspace\",\"provider\":\"gvisor\"}");
    snprintf(ws, sizeof(ws), "%s", fake_text(made, "id"));
    fake_request_free(made);
    take_of(&f, ws, NULL, id);
    size_t creates = f.gvisor.creates;
    refuse(&f, FROM(.body = "{}"), 400, "snapshot_id is required");
    refuse_from(&f, "../../etc", "", 400, "invalid snapshot id format");
    refuse_from(&f, "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "", 404, "not found");
    auto_free char *body = mem_printf("{\"snapshot_id\":\"%s\"}", id);
    refuse(&f, FROM(.body = body, .owner = "someone-else"), 404, "not found");
    refuse(&f, FROM(.body = body, .wait = "0"), 400, "wait must be");
    refuse_from(&f, id, ",\"provider\":\"firecracker\"", 400, "is of provider gvisor");
    refuse_from(&f, id, ",\"provider\":\"nonsense\"", 400, "provider must be one of");
    refuse_from(&f, id, ",\"resource_limits\":{\"disk\":\"1G\"}", 422, "can grow, not shrink");
    refuse_from(&f, id, ",\"resource_limits\":{\"cpu\":\"x\"}", 400, "resource_limits.cpu");
    refuse_from(&f, id, ",\"metadata\":{\"created_from_snapshot\":\"x\"}", 400, "reserved");
    refuse_from(&f, id, ",\"metadata\":{\"forked_from\":\"x\"}", 400, "reserved");
    f.gw.daemon.config.max_concurrent = 1;
    refuse_from(&f, id, "", 429, "maximum concurrent workspace limit");
    f.gw.daemon.config.max_concurrent = 10;
    lose_daemon(&f);
    refuse_from(&f, id, "", 503, "which has the snapshot, is not connected");
    cr_assert_eq(f.gvisor.creates, creates);
    cr_assert_eq(f.firecracker.creates, 0);
    cr_assert_eq(workspaces_of(&f, "me"), 1);
    finish(&f);
}

Test(snapshot_restore, a_failed_one_leaves_nothing, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    f.gvisor.create_error = "the image is of another runsc";
    refuse_from(&f, t.snapshot, "", 500,
                "failed to create workspace from snapshot: the workspace could not be created");
    cr_assert(RUN_UNTIL(&f, workspaces_of(&f, "me") == 1));
    cr_assert_str_eq(snapshot_now(&f, t.snapshot), "ready");
    cr_assert_eq(f.gvisor.sandbox_count, 1);
    finish(&f);
}

Test(snapshot_restore, rows_that_cannot_be_written_leave_nothing, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    asked_t fork = FORK(.id = t.workspace, .body = "{\"count\":3}", .key = "k");
    fake_request_free(ended(&f, begin(&f, fork)));
    cr_assert(RUN_UNTIL(&f, f.gw.snapshots->count == 1));
    workspaces_remove(f.gw.workspaces, f.gw.workspaces->newest); /* the database still has two of these ids */
    workspaces_remove(f.gw.workspaces, f.gw.workspaces->newest);
    cr_assert_eq(status_of(&f, workspace_delete, "me", f.gw.workspaces->newest->row.id_text), 204);
    f.gvisor.sandbox_count = 1;
    size_t creates = f.gvisor.creates;
    fake_request_t *refused = ended(&f, begin(&f, fork));
    cr_assert_eq(refused->status, 500, "%s", refused->body);
    cr_assert_str_eq(refused->body, "Database operation failed");
    cr_assert(
        RUN_UNTIL(&f, workspaces_of(&f, "me") == 1 && f.gw.workspaces->active == 1 && f.gw.snapshots->count == 1));
    cr_assert_eq(f.gvisor.creates, creates);
    fake_request_free(refused);
    finish(&f);
}

Test(snapshot_restore, a_wait_that_ends_early_shows_it_creating, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    f.gvisor.is_holding = true;
    auto_free char *body = mem_printf("{\"snapshot_id\":\"%s\"}", t.snapshot);
    fake_request_t *made = ended(&f, begin(&f, FROM(.body = body, .wait = "1")));
    cr_assert_eq(made->status, 201);
    cr_assert_str_eq(fake_text(made, "status"), "creating");
    fake_provider_release(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, fake_text(made, "id")), "ready") == 0));
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, a_client_that_hangs_up_changes_nothing, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    f.gvisor.is_holding = true;
    fake_request_t *made = from(&f, t.snapshot, "");
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    fake_request_free(made);
    fake_provider_release(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, workspaces_count(&f.gw, WORKSPACE_READY) == 2));
    finish(&f);
}

Test(snapshot_restore, one_destroyed_in_the_making_is_told, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    f.gvisor.is_holding = true;
    fake_request_t *made = from(&f, t.snapshot, "");
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    char id[UUID_TEXT_SIZE];
    uuid16_format(&f.gvisor.sandboxes[1].id, id);
    cr_assert_eq(status_of(&f, workspace_delete, "me", id), 204);
    ended(&f, made);
    cr_assert_eq(made->status, 409, "%s", made->body);
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, a_crash_during_it_goes_on_from_the_snapshot, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    f.gvisor.is_holding = true;
    auto_free char *body = mem_printf("{\"snapshot_id\":\"%s\"}", t.snapshot);
    fake_request_t *made = begin(&f, FROM(.body = body, .key = "k"));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    restart_gateway(&f);
    f.gvisor.is_holding = false;
    fake_sandbox_remove(&f.gvisor, &f.gvisor.sandboxes[1].id);
    f.gvisor.from_snapshot[0] = '\0';
    /* Another daemon comes first: it has no such snapshot and must not be asked. */
    connect_provider(&f, &f.firecracker);
    fake_request_t *again = begin(&f, FROM(.body = body, .key = "k"));
    connect_provider(&f, &f.gvisor);
    ended(&f, again);
    cr_assert_eq(again->status, 201, "%s", again->body);
    cr_assert_str_eq(fake_text(again, "status"), "ready");
    cr_assert_str_eq(f.gvisor.from_snapshot, t.snapshot);
    cr_assert_eq(f.firecracker.creates, 0);
    cr_assert_eq(workspaces_of(&f, "me"), 2);
    fake_request_free(again);
    again = ended(&f, begin(&f, FROM(.body = body, .key = "k")));
    cr_assert_eq(again->status, 201);
    cr_assert_eq(workspaces_of(&f, "me"), 2);
    fake_request_free(again);
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, a_daemon_that_restarts_under_it_is_asked_again, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    f.gvisor.is_holding = true;
    fake_request_t *made = from(&f, t.snapshot, "");
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    lose_daemon(&f);
    f.gvisor.is_holding = false;
    f.gvisor.sandbox_count = 1;
    connect_provider(&f, &f.gvisor);
    ended(&f, made);
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_assert_str_eq(f.gvisor.from_snapshot, t.snapshot);
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, only_the_node_that_has_the_snapshot_is_asked, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    f.firecracker =
        (fake_provider_t){.base = f.gw.daemon.base, .role = "gvisord", .name = "gvisor", .node = "n2", .healthy = true};
    connect_provider(&f, &f.firecracker);
    fake_request_t *forked = ended(&f, begin(&f, FORK(.id = t.workspace, .body = "{\"count\":5}")));
    cr_assert_eq(forked->status, 201, "%s", forked->body);
    fake_request_t *made = ended(&f, from(&f, t.snapshot, ""));
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_assert_eq(f.gvisor.creates, 7);
    cr_assert_eq(f.firecracker.creates, 0);
    lose_daemon_of(&f, &f.gvisor, t.workspace);
    refuse_from(&f, t.snapshot, "", 503, "which has the snapshot, is not connected");
    cr_assert_eq(f.firecracker.creates, 0);
    fake_request_free(made);
    fake_request_free(forked);
    finish(&f);
}

/* ---- fork ---- */

static void forget_hidden(fixture_t *f)
{
    cr_assert(RUN_UNTIL(f, f->gw.snapshots->count == 0 && f->gvisor.snapshot_count == 0), "the hidden snapshot stays");
}

Test(snapshot_restore, a_fork_makes_copies_and_leaves_no_snapshot, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    fake_request_t *source = post_and_wait(
        &f, "me",
        "{\"container_type\":\"agent_workspace\",\"env\":{\"A\":\"1\"},\"resource_limits\":{\"memory\":\"1G\"}}");
    const char *ws = fake_text(source, "id");
    fake_request_t *made = ended(&f, begin(&f, FORK(.id = ws, .body = "{\"count\":5,\"env\":{\"B\":\"2\"}}")));
    cr_assert_eq(made->status, 201, "%s", made->body);
    const json_t *list = json_object_get(made->json, "workspaces");
    cr_assert_eq(json_array_size(list), 5);
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        cr_assert_str_eq(json_string_value(json_object_get(one, "status")), "ready");
        cr_assert_str_neq(json_string_value(json_object_get(one, "id")), ws);
        cr_assert_null(json_object_get(one, "snapshot_id"), "it names a snapshot that goes");
        const json_t *metadata = json_object_get(one, "metadata");
        cr_assert_str_eq(json_string_value(json_object_get(metadata, "forked_from")), ws);
    }
    cr_expect_not_null(strstr(f.gvisor.env, "A=1;"));
    cr_expect_not_null(strstr(f.gvisor.env, "B=2;"));
    cr_expect_eq(f.gvisor.memory_bytes, 1ULL << 30);
    cr_assert_eq(f.gvisor.takes, 1);
    forget_hidden(&f);
    restart_gateway(&f);
    connect_provider(&f, &f.gvisor);
    cr_assert_eq(workspaces_of(&f, "me"), 6);
    fake_request_t *seen =
        call_on(&f, workspace_get, "me", json_string_value(json_object_get(json_array_get(list, 0), "id")));
    cr_assert_str_eq(fake_text(seen, "snapshot_id"), "");
    fake_request_free(seen);
    fake_request_free(made);
    fake_request_free(source);
    finish(&f);
}

Test(snapshot_restore, the_hidden_snapshot_is_nobodys, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_holding = true;
    fake_request_t *made = begin(&f, FORK(.id = ws));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    char id[UUID_TEXT_SIZE];
    snprintf(id, sizeof(id), "%s", f.gw.snapshots->newest->id_text);
    cr_assert_eq(status_of(&f, snapshot_get, "me", id), 404);
    cr_assert_eq(status_of(&f, snapshot_delete, "me", id), 404);
    refuse_from(&f, id, "", 404, "not found");
    snapshots_sweep(f.gw.snapshots); /* in use */
    fake_provider_release(&f.gvisor);
    ended(&f, made);
    cr_assert_eq(made->status, 201, "%s", made->body);
    forget_hidden(&f);
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, a_fork_that_cannot_be_does_nothing, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    refuse(&f, FORK(.id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"), 404, "not found");
    refuse(&f, FORK(.id = ws, .owner = "someone-else"), 404, "not found");
    refuse(&f, FORK(.id = ws, .body = "{\"count\":0}"), 400, "count must be from 1 to 100");
    refuse(&f, FORK(.id = ws, .body = "{\"count\":101}"), 400, "count");
    refuse(&f, FORK(.id = ws, .body = "{\"count\":10}"), 429, "maximum concurrent workspace limit");
    refuse(&f, FORK(.id = ws, .body = "{\"env\":{\"1A\":\"x\"}}"), 400, "env has a bad name");
    cr_assert_eq(f.gvisor.takes, 0);
    cr_assert_eq(f.gvisor.creates, 1);
    cr_assert_eq(f.gw.workspaces->active, 1, "the room of the refused ones is free again");
    f.gvisor.snapshot_error = "the disk is full";
    refuse(&f, FORK(.id = ws, .body = "{\"count\":9}"), 507, "failed to fork the workspace");
    forget_hidden(&f);
    cr_assert_eq(f.gw.workspaces->active, 1);
    cr_assert_eq(f.gvisor.creates, 1);
    lose_daemon(&f);
    refuse(&f, FORK(.id = ws), 503, "not connected");
    finish(&f);
}

Test(snapshot_restore, a_fork_of_five_with_one_failing_leaves_none, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.fail_create_number = 3;
    refuse(&f, FORK(.id = ws, .body = "{\"count\":5}"), 500, "told to fail this one");
    cr_assert(RUN_UNTIL(&f, workspaces_of(&f, "me") == 1 && f.gvisor.sandbox_count == 1));
    forget_hidden(&f);
    cr_assert_eq(f.gvisor.creates, 6);
    cr_assert_str_eq(now(&f, ws), "ready");
    finish(&f);
}

Test(snapshot_restore, a_fork_that_a_crash_interrupts_is_undone, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_holding = true;
    fake_request_t *made = begin(&f, FORK(.id = ws, .body = "{\"count\":3}", .key = "k"));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 3));
    restart_gateway(&f);
    f.gvisor.is_holding = false;
    for (size_t i = 1; i < f.gvisor.sandbox_count; i++)
        snprintf(f.gvisor.sandboxes[i].state, 16, "ready"); /* they came true over there */
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, workspaces_of(&f, "me") == 1 && f.gvisor.sandbox_count == 1));
    forget_hidden(&f);
    fake_request_t *again = ended(&f, begin(&f, FORK(.id = ws, .body = "{\"count\":3}", .key = "k")));
    cr_assert_eq(again->status, 201, "%s", again->body);
    cr_assert_eq(workspaces_of(&f, "me"), 4);
    fake_request_free(again);
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, a_crash_while_the_hidden_snapshot_is_taken_leaves_nothing, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_silent_snapshot = true;
    fake_request_t *made = begin(&f, FORK(.id = ws, .body = "{\"count\":3}"));
    cr_assert(RUN_UNTIL(&f, f.gvisor.takes == 1));
    restart_gateway(&f);
    connect_provider(&f, &f.gvisor);
    forget_hidden(&f);
    cr_assert_eq(workspaces_of(&f, "me"), 1);
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, a_crash_after_the_fork_was_answered_keeps_it, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.snapshot_delete_error = "busy"; /* the hidden one outlives the answer */
    fake_request_t *made = ended(&f, begin(&f, FORK(.id = ws, .body = "{\"count\":2}", .key = "k")));
    cr_assert_eq(made->status, 201, "%s", made->body);
    restart_gateway(&f);
    f.gvisor.snapshot_delete_error = NULL;
    connect_provider(&f, &f.gvisor);
    forget_hidden(&f);
    cr_assert_eq(workspaces_of(&f, "me"), 3);
    cr_assert_eq(workspaces_count(&f.gw, WORKSPACE_READY), 3);
    fake_request_t *again = ended(&f, begin(&f, FORK(.id = ws, .body = "{\"count\":2}", .key = "k")));
    cr_assert_eq(again->status, 201);
    cr_assert_eq(json_array_size(json_object_get(again->json, "workspaces")), 2);
    cr_assert_eq(workspaces_of(&f, "me"), 3);
    cr_assert_eq(f.gvisor.takes, 1);
    fake_request_free(again);
    fake_request_free(made);
    finish(&f);
}

Test(snapshot_restore, two_forks_with_one_key_are_one, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_holding = true;
    fake_request_t *first = begin(&f, FORK(.id = ws, .body = "{\"count\":2}", .key = "k"));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 2));
    fake_request_t *second = begin(&f, FORK(.id = ws, .body = "{\"count\":2}", .key = "k"));
    fake_provider_release(&f.gvisor);
    ended(&f, first);
    ended(&f, second);
    cr_assert_eq(second->status, 201);
    cr_assert_str_eq(first->body, second->body);
    cr_assert_eq(workspaces_of(&f, "me"), 3);
    fake_request_free(first);
    fake_request_free(second);
    finish(&f);
}

Test(snapshot_restore, a_daemon_that_restarts_under_a_fork_is_asked_again, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_holding = true;
    fake_request_t *made = begin(&f, FORK(.id = ws, .body = "{\"count\":2}"));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 2));
    lose_daemon(&f);
    f.gvisor.is_holding = false;
    f.gvisor.sandbox_count = 1;
    connect_provider(&f, &f.gvisor);
    ended(&f, made);
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_assert_eq(workspaces_count(&f.gw, WORKSPACE_READY), 3);
    forget_hidden(&f);
    fake_request_free(made);
    finish(&f);
}
