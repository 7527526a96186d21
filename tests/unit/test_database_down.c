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
// LINK: services/gateway/audit.c services/gateway/audit_keep.c services/gateway/audit_list.c
// LINK: services/gateway/warm_pools.c services/gateway/warm_pools_api.c
/* A database that is away or broken: lifecycle calls get a clear 503 or a 500 without its words, and nothing is left.
 */
#define WORLD_HAS_AUDIT
#include "services/gateway/audit.h"
#include "services/gateway/warm_pools_internal.h"
#include "tests/unit/flaky_store.h"
#include "tests/unit/snapshots_world.h"

#define SESSION "{\"agent_session_id\":\"11111111-1111-4111-8111-111111111111\"}"

typedef struct world {
    fixture_t f;
    taken_t t;
    char stopped[UUID_TEXT_SIZE], from[100];
} world_t;

static void begin_world(world_t *w)
{
    atomic_store(&flaky_state, FLAKY_WELL);
    start_with_daemon(&w->f);
    w->t = make_both(&w->f);
    make_workspace(&w->f, w->stopped);
    expect_answer(&w->f, STOP(&w->f, w->stopped), 200, "stopped");
    snprintf(w->from, sizeof(w->from), "{\"snapshot_id\":\"%s\"}", w->t.snapshot);
}

static void call(world_t *w, handler_fn handler, unsigned message, const char *id, const char *body, int status)
{
    expect_answer(&w->f, ask(&w->f, handler, message, id, body), status, "atabase");
}

static void call_all(world_t *w, int status)
{
    fixture_t *f = &w->f;
    const char *id = w->t.workspace;
    fake_request_t *made = post(f, "me", NULL, AGENT);
    expect_answer(f, made, status, "atabase");
    call(w, workspace_attach, MSG_workspace_attach, id, SESSION, status);
    call(w, workspace_patch, MSG_workspace_patch, id, "{\"ttl_seconds\":5}", status);
    refuse(f, TAKE(.id = id), status, "atabase");
    refuse(f, FORK(.id = id, .body = "{\"count\":2}"), status, "atabase");
    refuse(f, FROM(.body = w->from), status, "atabase");
}

static void expect_as_before(world_t *w)
{
    fixture_t *f = &w->f;
    cr_assert_eq(f->gw.workspaces->count, 2);
    cr_assert_eq(f->gw.workspaces->active, 1);
    cr_assert_eq(f->gw.snapshots->count, 1);
    cr_assert_null(f->gw.snapshots->restores);
    cr_assert_str_eq(now(f, w->t.workspace), "ready");
    cr_assert_str_eq(now(f, w->stopped), "stopped");
    cr_assert_str_eq(snapshot_now(f, w->t.snapshot), "ready");
    cr_assert_eq(f->gvisor.sandbox_count, 2);
    cr_assert_eq(f->gvisor.snapshot_count, 1);
}

Test(database_down, lifecycle_calls_are_a_503_and_leave_nothing, .timeout = 60)
{
    world_t w;
    begin_world(&w);
    atomic_store(&flaky_state, FLAKY_AWAY);
    call_all(&w, 503); /* the first of them notices, the others are refused before anything is begun */
    call(&w, workspace_stop, MSG_workspace_stop, w.t.workspace, "{}", 503);
    call(&w, workspace_resume, 0, w.stopped, "{}", 503);
    call(&w, workspace_delete, 0, w.t.workspace, "{}", 503);
    call(&w, snapshot_delete, 0, w.t.snapshot, "{}", 503);
    expect_as_before(&w);
    atomic_store(&flaky_state, FLAKY_WELL);
    expect_answer(&w.f, ask(&w.f, workspace_patch, MSG_workspace_patch, w.t.workspace, "{\"ttl_seconds\":5000}"), 200,
                  "");
    cr_assert_eq(status_of(&w.f, snapshot_delete, "me", w.t.snapshot), 204);
    finish(&w.f);
}

/* The first to come does not know yet that it is away. */
Test(database_down, what_is_made_while_it_goes_away_is_a_503_too, .timeout = 60)
{
    static const struct {
        handler_fn handler;
        unsigned message;
    } rows[] = {{snapshot_take, MSG_workspace_snapshot},
                {workspace_fork, MSG_workspace_fork},
                {workspace_from_snapshot, MSG_workspace_from_snapshot}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        world_t w;
        begin_world(&w);
        atomic_store(&flaky_state, FLAKY_AWAY);
        bool is_from = rows[i].handler == workspace_from_snapshot;
        refuse(&w.f,
               (asked_t){.handler = rows[i].handler,
                         .msg_id = rows[i].message,
                         .id = w.t.workspace,
                         .body = is_from ? w.from : "{}"},
               503, "atabase");
        atomic_store(&flaky_state, FLAKY_WELL);
        expect_as_before(&w);
        finish(&w.f);
    }
}

Test(database_down, its_own_words_are_for_the_log, .timeout = 60)
{
    world_t w;
    begin_world(&w);
    atomic_store(&flaky_state, FLAKY_BROKEN);
    call_all(&w, 500);
    expect_as_before(&w);
    atomic_store(&flaky_state, FLAKY_WELL);
    finish(&w.f);
}

Test(database_down, nor_do_the_audit_and_the_warm_pools_tell_them, .timeout = 60)
{
    world_t w;
    begin_world(&w);
    auto_err err_t *e = NULL;
    cr_assert_eq(audit_open(&w.f.gw, &e), 0);
    cr_assert_eq(warm_pools_open(&w.f.gw, &e), 0);
    atomic_store(&flaky_state, FLAKY_BROKEN);
    call(&w, audit_list, 0, NULL, "{}", 500);
    call(&w, audit_list_workspace, 0, w.t.workspace, "{}", 500);
    fake_request_t *set = fake_request_new(&w.f.gw, "standalone");
    warm_pool_reset(&set->r);
    cr_assert(RUN_UNTIL(&w.f, set->status != 0));
    cr_assert_eq(set->status, 500);
    cr_assert_str_eq(set->body, "Database operation failed");
    fake_request_free(set);
    atomic_store(&flaky_state, FLAKY_WELL);
    warm_pools_close(&w.f.gw);
    audit_close(&w.f.gw);
    finish(&w.f);
}

/* ---- a PATCH that could not be written ---- */

static workspace_t *find(fixture_t *f, const char *id)
{
    uuid16_t uuid;
    cr_assert(uuid16_parse(&uuid, id));
    return workspaces_get(f->gw.workspaces, &uuid);
}

Test(database_down, a_patch_that_fails_takes_back_only_its_own, .timeout = 60)
{
    world_t w;
    begin_world(&w);
    workspace_t *ws = find(&w.f, w.t.workspace);
    const char *body = "{\"ttl_seconds\":5,\"metadata\":{\"a\":1}}";
    atomic_store(&flaky_state, FLAKY_BROKEN);
    fake_request_t *asked = ask(&w.f, workspace_patch, MSG_workspace_patch, w.t.workspace, body);
    json_object_set_new(ws->row.metadata, "stop", json_pack("{s:b}", "without_processes", 1));
    ws->row.last_used_at_ms = (int64_t)clock_realtime_ms() + 1000;
    ws->row.expires_at_ms = workspace_expiry(w.f.gw.workspaces, ws, ws->row.last_used_at_ms); /* a use, meanwhile */
    expect_answer(&w.f, asked, 500, "Database operation failed");
    cr_expect_null(json_object_get(ws->row.metadata, "a"));
    cr_expect_not_null(json_object_get(ws->row.metadata, "stop"), "the suite's note of a stop is lost");
    cr_expect_eq(ws->row.ttl_seconds, 0);
    cr_expect_eq(ws->row.expires_at_ms, ws->row.last_used_at_ms + 30LL * 86400 * 1000, "that use is forgotten");
    asked = ask(&w.f, workspace_patch, MSG_workspace_patch, w.t.workspace, body);
    ws->row.ttl_seconds = 77; /* a newer one */
    expect_answer(&w.f, asked, 500, "Database operation failed");
    cr_expect_eq(ws->row.ttl_seconds, 77);
    atomic_store(&flaky_state, FLAKY_WELL);
    finish(&w.f);
}

/* Else the workspace would expire too early after a restart. */
Test(database_down, last_uses_that_could_not_be_written_are_written_again, .timeout = 60)
{
    world_t w;
    begin_world(&w);
    workspace_t *ws = find(&w.f, w.t.workspace);
    cr_assert(RUN_UNTIL(&w.f, w.f.gw.workspaces->touched == NULL));
    workspaces_touch(&w.f.gw, &ws->row);
    ws->row.last_used_at_ms = 4102444800123;
    atomic_store(&flaky_state, FLAKY_BROKEN);
    cr_assert(RUN_UNTIL(&w.f, w.f.gw.workspaces->touched == NULL), "the batch is sent");
    cr_assert(RUN_UNTIL(&w.f, store_queue_length(w.f.gw.store) == 0));
    atomic_store(&flaky_state, FLAKY_WELL);
    cr_assert(RUN_UNTIL(&w.f, w.f.gw.workspaces->touched != NULL), "the failed one is listed again");
    cr_assert(RUN_UNTIL(&w.f, w.f.gw.workspaces->touched == NULL && store_queue_length(w.f.gw.store) == 0));
    restart_gateway(&w.f);
    cr_assert_eq(find(&w.f, w.t.workspace)->row.last_used_at_ms, 4102444800123);
    finish(&w.f);
}
