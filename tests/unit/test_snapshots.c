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
/* Snapshots: taking, listing, deleting, retention, and what crashes and daemons leave of them. Covers S-029, S-032. */
#include "tests/unit/snapshots_world.h"

/* ---- take ---- */

Test(snapshots, a_snapshot_is_answered_when_it_is_ready, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.snapshot_bytes = 4096;
    fake_request_t *made = ended(&f, begin(&f, TAKE(.id = ws, .body = "{\"name\":\"before\",\"ttl_seconds\":3600}")));
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_expect_str_eq(fake_text(made, "workspace_id"), ws);
    cr_expect_str_eq(fake_text(made, "provider"), "gvisor");
    cr_expect_str_eq(fake_text(made, "status"), "ready");
    cr_expect_str_eq(fake_text(made, "name"), "before");
    cr_expect_str_eq(fake_text(made, "image"), "base");
    cr_expect_neq(fake_text(made, "created_at")[0], '\0');
    cr_expect_neq(fake_text(made, "expires_at")[0], '\0');
    cr_expect_eq(json_integer_value(json_object_get(made->json, "size_bytes")), 4096);
    cr_expect(json_is_true(json_object_get(made->json, "has_processes")));
    cr_expect_not_null(strstr(made->body, "copied"));
    cr_expect_eq(f.gvisor.snapshot_count, 1);
    fake_request_t *seen = call_on(&f, workspace_get, "me", ws);
    cr_expect_str_eq(fake_text(seen, "snapshot_id"), fake_text(made, "snapshot_id"));
    fake_request_free(seen);
    restart_gateway(&f); /* acknowledged is durable */
    cr_expect_str_eq(snapshot_now(&f, fake_text(made, "snapshot_id")), "ready");
    seen = call_on(&f, workspace_get, "me", ws);
    cr_expect_str_eq(fake_text(seen, "snapshot_id"), fake_text(made, "snapshot_id"));
    fake_request_free(seen);
    fake_request_free(made);
    finish(&f);
}

Test(snapshots, files_only_is_handed_on, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    take_of(&f, ws, "{\"without_processes\":true}", id);
    cr_assert_not(f.gvisor.snapshots[0].has_processes);
    finish(&f);
}

Test(snapshots, what_cannot_be_taken_is_refused_with_the_reason, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    refuse(&f, TAKE(.id = "nonsense"), 400, "invalid workspace id format");
    refuse(&f, TAKE(.id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"), 404, "not found");
    refuse(&f, TAKE(.id = ws, .owner = "someone-else"), 404, "not found");
    f.gvisor.destroy_error = "busy";
    cr_assert_eq(status_of(&f, workspace_delete, "me", ws), 500);
    refuse(&f, TAKE(.id = ws), 409,
           "workspace must be in ready or stopped state for snapshot; current state: stopping");
    cr_assert_eq(f.gvisor.takes, 0);
    finish(&f);
}

Test(snapshots, one_that_is_being_stopped_or_resumed_is_refused_a_stopped_one_is_not, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    auto_err err_t *e = NULL;
    caller_t me = {.owner = "me"};
    workspace_t *item = workspace_of(workspaces_find(&f.gw, ws, &me, &e));
    workspace_set_intent(item, INTENT_STOP);
    refuse(&f, TAKE(.id = ws), 409, "current state: stopping");
    refuse(&f, FORK(.id = ws), 409, "workspace must be in ready or stopped state for fork; current state: stopping");
    workspace_set_status(item, WORKSPACE_STOPPED);
    workspace_set_intent(item, INTENT_RESUME);
    refuse(&f, TAKE(.id = ws), 409, "workspace must be in ready or stopped state");
    workspace_set_intent(item, INTENT_NONE);
    take_of(&f, ws, NULL, id);
    cr_assert_str_eq(now(&f, ws), "stopped");
    finish(&f);
}

Test(snapshots, a_provider_without_snapshots_says_so, .timeout = 60)
{
    fixture_t f;
    start(&f);
    f.gvisor.has_no_snapshots = true;
    connect_provider(&f, &f.gvisor);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    refuse(&f, TAKE(.id = ws), 400, "provider gvisor does not support snapshots");
    refuse(&f, FORK(.id = ws), 400, "provider gvisor does not support snapshots");
    finish(&f);
}

Test(snapshots, a_failure_leaves_nothing, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.snapshot_error = "the disk is full";
    refuse(&f, TAKE(.id = ws), 507, "failed to create snapshot: the disk is full");
    cr_assert(RUN_UNTIL(&f, f.gw.snapshots->count == 0));
    cr_assert_eq(f.gvisor.snapshot_deletes, 1);
    restart_gateway(&f);
    cr_assert_eq(f.gw.snapshots->count, 0);
    fake_request_t *seen = call_on(&f, workspace_get, "me", ws);
    cr_assert_str_eq(fake_text(seen, "snapshot_id"), "");
    fake_request_free(seen);
    finish(&f);
}

Test(snapshots, a_lying_daemon_is_not_believed, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.lie_id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    refuse(&f, TAKE(.id = ws), 502, "another snapshot");
    f.gvisor.lie_id = "not an id";
    refuse(&f, TAKE(.id = ws), 502, "another snapshot");
    f.gvisor.lie_id = NULL;
    f.gvisor.lie_state = "destroying";
    refuse(&f, TAKE(.id = ws), 502, "is destroying");
    f.gvisor.lie_state = NULL;
    f.gvisor.snapshot_bytes = UINT64_MAX;
    take_of(&f, ws, NULL, id);
    fake_request_t *seen = call_on(&f, snapshot_get, "me", id);
    cr_assert_eq(json_integer_value(json_object_get(seen->json, "size_bytes")), INT64_MAX, "%s", seen->body);
    fake_request_free(seen);
    cr_assert(RUN_UNTIL(&f, f.gw.snapshots->count == 1 && f.gvisor.snapshot_count == 1));
    finish(&f);
}

Test(snapshots, a_client_that_hangs_up_cancels_nothing, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_holding_snapshots = true;
    fake_request_t *made = begin(&f, TAKE(.id = ws));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_snapshots == 1));
    fake_request_free(made);
    fake_provider_release_snapshots(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, snapshots_count(&f.gw, SNAPSHOT_READY) == 1));
    cr_assert_eq(f.gvisor.cancels, 0);
    finish(&f);
}

Test(snapshots, the_same_key_gives_the_same_snapshot, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE], other[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    make_workspace(&f, other);
    f.gvisor.is_holding_snapshots = true;
    fake_request_t *first = begin(&f, TAKE(.id = ws, .key = "k1"));
    fake_request_t *second = begin(&f, TAKE(.id = ws, .key = "k1"));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_snapshots == 1));
    fake_provider_release_snapshots(&f.gvisor);
    ended(&f, first);
    ended(&f, second);
    cr_assert_eq(second->status, 201, "%s", second->body);
    cr_assert_str_eq(first->body, second->body);
    restart_gateway(&f);
    fake_request_t *third = ended(&f, begin(&f, TAKE(.id = ws, .key = "k1"))); /* even with the daemon away */
    cr_assert_str_eq(fake_text(third, "snapshot_id"), fake_text(first, "snapshot_id"));
    connect_provider(&f, &f.gvisor);
    fake_request_t *elsewhere = ended(&f, begin(&f, TAKE(.id = other, .key = "k1")));
    cr_assert_eq(elsewhere->status, 201);
    cr_assert_str_neq(fake_text(elsewhere, "snapshot_id"), fake_text(first, "snapshot_id"));
    cr_assert_eq(f.gvisor.takes, 2);
    fake_request_free(first);
    fake_request_free(second);
    fake_request_free(third);
    fake_request_free(elsewhere);
    finish(&f);
}

Test(snapshots, a_row_that_cannot_be_written_is_no_snapshot, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    fake_request_free(ended(&f, begin(&f, TAKE(.id = ws, .key = "k"))));
    snapshots_remove(f.gw.snapshots->newest); /* the database still has this id and refuses it */
    refuse(&f, TAKE(.id = ws, .key = "k"), 500, "Database operation failed");
    cr_assert_eq(f.gw.snapshots->count, 0);
    cr_assert_eq(f.gvisor.takes, 1);
    finish(&f);
}

/* ---- daemons that go away, gateways that crash ---- */

Test(snapshots, a_daemon_that_is_away_is_503_and_nothing_is_written, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    lose_daemon(&f);
    refuse(&f, TAKE(.id = ws), 503, "not connected");
    cr_assert_eq(f.gw.snapshots->count, 0);
    finish(&f);
}

Test(snapshots, a_daemon_that_restarts_under_a_take_is_asked_again, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_holding_snapshots = true;
    fake_request_t *made = begin(&f, TAKE(.id = ws));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_snapshots == 1));
    lose_daemon(&f);
    f.gvisor.is_holding_snapshots = false;
    f.gvisor.snapshot_count = 0; /* it undoes what was half made */
    connect_provider(&f, &f.gvisor);
    ended(&f, made);
    cr_assert_eq(made->status, 201, "%s", made->body);
    cr_assert_eq(f.gvisor.takes, 2);
    cr_assert_eq(f.gvisor.snapshot_count, 1);
    fake_request_free(made);
    finish(&f);
}

Test(snapshots, a_take_whose_reply_a_crash_lost_is_adopted, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_silent_snapshot = true;
    fake_request_t *made = begin(&f, TAKE(.id = ws, .key = "k"));
    cr_assert(RUN_UNTIL(&f, f.gvisor.takes == 1));
    restart_gateway(&f);
    cr_assert_eq(snapshots_count(&f.gw, SNAPSHOT_CREATING), 1);
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, snapshots_count(&f.gw, SNAPSHOT_READY) == 1));
    fake_request_t *again = ended(&f, begin(&f, TAKE(.id = ws, .key = "k")));
    cr_assert_eq(again->status, 201);
    cr_assert_eq(f.gvisor.takes, 1);
    fake_request_free(again);
    fake_request_free(made);
    finish(&f);
}

Test(snapshots, a_take_that_a_crash_interrupted_goes_on_when_it_is_repeated, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_silent_snapshot = true;
    fake_request_t *made = begin(&f, TAKE(.id = ws, .key = "k"));
    cr_assert(RUN_UNTIL(&f, f.gvisor.takes == 1));
    restart_gateway(&f);
    f.gvisor.is_silent_snapshot = false;
    f.gvisor.snapshot_count = 0;
    connect_provider(&f, &f.gvisor);
    fake_request_t *again = ended(&f, begin(&f, TAKE(.id = ws, .key = "k")));
    cr_assert_eq(again->status, 201, "%s", again->body);
    cr_assert_str_eq(snapshot_now(&f, fake_text(again, "snapshot_id")), "ready");
    fake_request_free(again);
    fake_request_free(made);
    finish(&f);
}

Test(snapshots, one_that_nobody_repeats_ends_after_the_grace, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    f.gvisor.is_silent_snapshot = true;
    fake_request_t *made = begin(&f, TAKE(.id = ws));
    cr_assert(RUN_UNTIL(&f, f.gvisor.takes == 1));
    restart_gateway(&f);
    f.gvisor.snapshot_count = 0;
    connect_provider(&f, &f.gvisor);
    snapshots_sweep(f.gw.snapshots);
    cr_assert_eq(snapshots_count(&f.gw, SNAPSHOT_CREATING), 1);
    f.gw.snapshots->newest->settled_ms -= SNAPSHOT_GRACE_MS + 1;
    snapshots_sweep(f.gw.snapshots);
    cr_assert(RUN_UNTIL(&f, f.gw.snapshots->count == 0));
    fake_request_free(made);
    finish(&f);
}

Test(snapshots, after_a_restart_rows_and_the_daemon_agree_again, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t kept = make_both(&f);
    char lost[UUID_TEXT_SIZE];
    take_of(&f, kept.workspace, NULL, lost);
    restart_gateway(&f);
    fake_snapshot_remove(&f.gvisor, lost);
    /* One of ours that no row knows, and one of somebody else's. */
    fake_snapshot_t *stray = &f.gvisor.snapshots[f.gvisor.snapshot_count++];
    *stray = f.gvisor.snapshots[0];
    stray->id.bytes[0] ^= 0xff;
    fake_snapshot_t *foreign = &f.gvisor.snapshots[f.gvisor.snapshot_count++];
    *foreign = f.gvisor.snapshots[0];
    foreign->id.bytes[1] ^= 0xff;
    snprintf(foreign->suite, sizeof(foreign->suite), "another suite");
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, f.gvisor.snapshot_count == 2 && strcmp(snapshot_now(&f, lost), "error") == 0));
    cr_assert_str_eq(snapshot_now(&f, kept.snapshot), "ready");
    cr_assert_eq(f.gvisor.snapshot_deletes, 1);
    fake_request_t *seen = call_on(&f, snapshot_get, "me", lost);
    cr_assert_not_null(strstr(fake_text(seen, "failure_reason"), "does not have it any more"), "%s", seen->body);
    fake_request_free(seen);
    auto_free char *body = mem_printf("{\"snapshot_id\":\"%s\"}", lost);
    refuse(&f, FROM(.body = body), 409, "current state: error");
    finish(&f);
}

Test(snapshots, one_that_is_lost_is_not_told_as_made_when_the_request_is_repeated, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    char ws[UUID_TEXT_SIZE];
    make_workspace(&f, ws);
    fake_request_free(ended(&f, begin(&f, TAKE(.id = ws, .key = "k"))));
    lose_daemon(&f);
    f.gvisor.snapshot_count = 0;
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, snapshots_count(&f.gw, SNAPSHOT_ERROR) == 1));
    refuse(&f, TAKE(.id = ws, .key = "k"), 409, "is lost: the gvisor daemon on node n1 does not have it any more");
    finish(&f);
}

/* ---- delete ---- */

Test(snapshots, a_delete_leaves_nothing_and_unknown_ids_are_404, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    cr_assert_eq(status_of(&f, snapshot_delete, "someone-else", t.snapshot), 404);
    cr_assert_eq(status_of(&f, snapshot_get, "someone-else", t.snapshot), 404);
    cr_assert_eq(status_of(&f, snapshot_delete, "me", "nonsense"), 400);
    cr_assert_eq(status_of(&f, snapshot_delete, "me", t.snapshot), 204);
    cr_assert_eq(f.gvisor.snapshot_count, 0);
    fake_request_t *gone = call_on(&f, snapshot_delete, "me", t.snapshot);
    cr_assert_eq(gone->status, 404);
    auto_free char *expected = mem_printf("snapshot '%s' not found", t.snapshot);
    cr_assert_str_eq(gone->body, expected);
    fake_request_free(gone);
    restart_gateway(&f);
    cr_assert_eq(f.gw.snapshots->count, 0);
    finish(&f);
}

Test(snapshots, deleting_the_workspace_does_not_touch_them, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    cr_assert_eq(status_of(&f, workspace_delete, "me", t.workspace), 204);
    cr_assert_str_eq(snapshot_now(&f, t.snapshot), "ready");
    cr_assert_eq(f.gvisor.snapshot_count, 1);
    auto_free char *body = mem_printf("{\"snapshot_id\":\"%s\"}", t.snapshot);
    fake_request_t *made = ended(&f, begin(&f, FROM(.body = body)));
    cr_assert_eq(made->status, 201, "%s", made->body);
    fake_request_free(made);
    finish(&f);
}

Test(snapshots, a_delete_while_the_daemon_is_away_happens_when_it_is_back, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    lose_daemon(&f);
    fake_request_t *refused = call_on(&f, snapshot_delete, "me", t.snapshot);
    cr_assert_eq(refused->status, 503, "%s", refused->body);
    cr_assert_not_null(strstr(refused->body, "is deleted as soon as its daemon is back"));
    cr_assert_str_eq(snapshot_now(&f, t.snapshot), "deleting");
    restart_gateway(&f); /* the intent survives this too */
    cr_assert_str_eq(snapshot_now(&f, t.snapshot), "deleting");
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, snapshot_now(&f, t.snapshot)[0] == '\0'));
    cr_assert_eq(f.gvisor.snapshot_count, 0);
    fake_request_free(refused);
    finish(&f);
}

Test(snapshots, a_failed_delete_is_told_and_tried_again, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    f.gvisor.snapshot_delete_error = "a file is busy";
    fake_request_t *failed = call_on(&f, snapshot_delete, "me", t.snapshot);
    cr_assert_eq(failed->status, 503, "it goes on by itself: that is no bug and no end");
    cr_assert_not_null(strstr(failed->body, "a file is busy"));
    f.gvisor.snapshot_delete_error = NULL;
    cr_assert(RUN_UNTIL(&f, snapshot_now(&f, t.snapshot)[0] == '\0'));
    fake_request_free(failed);
    finish(&f);
}

Test(snapshots, one_that_is_being_taken_or_used_is_not_deleted, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    f.gvisor.is_holding_snapshots = true;
    fake_request_t *taking = begin(&f, TAKE(.id = t.workspace));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_snapshots == 1));
    const char *id = f.gw.snapshots->newest->id_text;
    cr_assert_eq(status_of(&f, snapshot_delete, "me", id), 409);
    fake_provider_release_snapshots(&f.gvisor);
    ended(&f, taking);
    f.gvisor.is_holding = true;
    auto_free char *body = mem_printf("{\"snapshot_id\":\"%s\"}", t.snapshot);
    fake_request_t *making = begin(&f, FROM(.body = body));
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_count == 1));
    cr_assert_eq(status_of(&f, snapshot_delete, "me", t.snapshot), 409);
    f.gw.daemon.config.snapshot_max_count = 1; /* retention waits, too */
    snapshots_sweep(f.gw.snapshots);
    cr_assert_str_eq(snapshot_now(&f, t.snapshot), "ready");
    fake_provider_release(&f.gvisor);
    ended(&f, making);
    cr_assert_eq(making->status, 201);
    snapshots_sweep(f.gw.snapshots);
    cr_assert(RUN_UNTIL(&f, snapshot_now(&f, t.snapshot)[0] == '\0'));
    fake_request_free(taking);
    fake_request_free(making);
    finish(&f);
}

/* ---- list ---- */

static size_t listed(fixture_t *f, const char *owner, const char *name, const char *value)
{
    fake_request_t *request = fake_request_new(&f->gw, owner);
    request->http.query[0][0] = name;
    request->http.query[0][1] = value;
    snapshot_list(&request->r);
    cr_assert_eq(request->status, 200, "%s", request->body);
    size_t count = json_array_size(request->json);
    fake_request_free(request);
    return count;
}

Test(snapshots, lists_are_filtered_paged_and_private, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    char other[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE];
    make_workspace(&f, other);
    take_of(&f, other, NULL, id);
    take_of(&f, other, NULL, id);
    cr_assert_eq(listed(&f, "me", "", NULL), 3);
    cr_assert_eq(listed(&f, "someone-else", "", NULL), 0);
    cr_assert_eq(listed(&f, "me", "workspace_id", t.workspace), 1);
    cr_assert_eq(listed(&f, "me", "status", "ready"), 3);
    cr_assert_eq(listed(&f, "me", "status", "error"), 0);
    cr_assert_eq(listed(&f, "me", "provider", "firecracker"), 0);
    const char *bad[][2] = {{"workspace_id", "x"}, {"status", "x"}, {"provider", "x"}, {"limit", "0"}, {"cursor", "x"}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        fake_request_t *request = fake_request_new(&f.gw, "me");
        request->http.query[0][0] = bad[i][0];
        request->http.query[0][1] = bad[i][1];
        snapshot_list(&request->r);
        cr_assert_eq(request->status, 400, "%s", bad[i][0]);
        fake_request_free(request);
    }
    char cursor[128] = "", seen[3][UUID_TEXT_SIZE];
    for (size_t i = 0; i < 3; i++) {
        fake_request_t *request = fake_request_new(&f.gw, "me");
        request->http.query[0][0] = "limit";
        request->http.query[0][1] = "1";
        request->http.query[1][0] = "cursor";
        request->http.query[1][1] = cursor;
        snapshot_list(&request->r);
        cr_assert_eq(json_array_size(request->json), 1);
        cr_assert_str_eq(request->http.total, "3");
        const json_t *one = json_array_get(request->json, 0);
        snprintf(seen[i], UUID_TEXT_SIZE, "%s", json_string_value(json_object_get(one, "snapshot_id")));
        snprintf(cursor, sizeof(cursor), "%s", request->http.next_cursor);
        cr_assert_eq(cursor[0] == '\0', i == 2);
        fake_request_free(request);
    }
    cr_assert_str_eq(seen[0], id);
    cr_assert_str_eq(seen[2], t.snapshot);
    finish(&f);
}

/* ---- retention ---- */

Test(snapshots, the_oldest_beyond_the_number_go, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    f.gw.daemon.config.snapshot_max_count = 2;
    taken_t t = make_both(&f);
    char second[UUID_TEXT_SIZE], third[UUID_TEXT_SIZE];
    take_of(&f, t.workspace, NULL, second);
    cr_assert_str_eq(snapshot_now(&f, t.snapshot), "ready");
    uint64_t then = clock_realtime_ms();
    cr_assert(RUN_UNTIL(&f, clock_realtime_ms() > then)); /* age is in milliseconds */
    take_of(&f, t.workspace, NULL, third);
    cr_assert(RUN_UNTIL(&f, snapshot_now(&f, t.snapshot)[0] == '\0'));
    cr_assert_str_eq(snapshot_now(&f, second), "ready");
    cr_assert_str_eq(snapshot_now(&f, third), "ready");
    finish(&f);
}

Test(snapshots, the_old_and_the_expired_go, .timeout = 60)
{
    fixture_t f;
    start_with_daemon(&f);
    taken_t t = make_both(&f);
    char mortal[UUID_TEXT_SIZE];
    take_of(&f, t.workspace, "{\"ttl_seconds\":1}", mortal);
    snapshots_sweep(f.gw.snapshots);
    cr_assert_str_eq(snapshot_now(&f, mortal), "ready");
    restart_gateway(&f);
    connect_provider(&f, &f.gvisor);
    uint64_t then = clock_realtime_ms();
    cr_assert(RUN_UNTIL(&f, clock_realtime_ms() > then + 1000));
    snapshots_sweep(f.gw.snapshots);
    cr_assert(RUN_UNTIL(&f, snapshot_now(&f, mortal)[0] == '\0'));
    cr_assert_str_eq(snapshot_now(&f, t.snapshot), "ready");
    f.gw.daemon.config.snapshot_max_age_days = 1;
    f.gw.snapshots->newest->created_at_ms -= 86400LL * 1000;
    snapshots_sweep(f.gw.snapshots);
    cr_assert(RUN_UNTIL(&f, snapshot_now(&f, t.snapshot)[0] == '\0'));
    cr_assert_eq(f.gvisor.snapshot_count, 0);
    finish(&f);
}
