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
/* TTL, PATCH, the sweep, the idle stop and the wake on use. Covers S-013, S-014, S-015, S-037, G-04. */
#include "tests/unit/workspaces_world.h"

#include "services/gateway/workspaces_internal.h"

#define SESSION "11111111-1111-4111-8111-111111111111"

static fake_request_t *begin(fixture_t *f)
{
    start(f);
    connect_provider(f, &f->gvisor);
    fake_request_t *made = post_and_wait(f, "me", AGENT);
    cr_assert_str_eq(fake_text(made, "status"), "ready", "%s", made->body);
    return made;
}

static void end(fixture_t *f, fake_request_t *made)
{
    fake_request_free(made);
    finish(f);
}

static workspace_t *find(fixture_t *f, const char *id)
{
    uuid16_t uuid;
    cr_assert(uuid16_parse(&uuid, id));
    return workspaces_get(f->gw.workspaces, &uuid);
}

static fake_request_t *patch(fixture_t *f, const char *id, const char *body)
{
    return ask(f, workspace_patch, MSG_workspace_patch, id, body);
}

/* A tool call under way, as the workspace sees it. */
static void ignore_reply(void *arg, const uint8_t *body, size_t len)
{
    (void)arg;
    (void)body;
    (void)len;
}
static void ignore_error(void *arg, const err_t *err)
{
    (void)arg;
    (void)err;
}
static call_t *hold_call(fixture_t *f, workspace_t *ws)
{
    static const call_events_t EVENTS = {.on_reply = ignore_reply, .on_error = ignore_error};
    auto_err err_t *e = NULL;
    call_options_t options = {.sandbox = ws->row.id};
    call_t *call =
        call_start(f->gw.calls, workspaces_peer(&f->gw, &ws->row, &e), VERB_bash, &options, "", 0, &EVENTS, NULL, &e);
    cr_assert_not_null(call);
    return call;
}

/* ---- PATCH ---- */

Test(workspaces, a_patch_sets_the_ttl_and_use_extends_by_it, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    int64_t before = (int64_t)clock_realtime_ms();
    expect_answer(&f, patch(&f, id, "{\"ttl_seconds\":3600}"), 200, "expires_at");
    int64_t expires = find(&f, id)->row.expires_at_ms;
    cr_assert(expires >= before + 3600000 && expires <= (int64_t)clock_realtime_ms() + 3600000);
    close_gateway(&f);
    open_gateway(&f);
    cr_assert_eq(find(&f, id)->row.expires_at_ms, expires);
    workspaces_touch(&f.gw, &find(&f, id)->row);
    cr_assert_eq(find(&f, id)->row.expires_at_ms - find(&f, id)->row.last_used_at_ms, 3600000);
    expect_answer(&f, patch(&f, id, "{\"ttl_seconds\":0}"), 200, "");
    cr_assert_gt(find(&f, id)->row.expires_at_ms, before + 29LL * 86400 * 1000);
    end(&f, made);
}

Test(workspaces, a_patch_merges_metadata_and_keeps_the_suites_own, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    expect_answer(&f, patch(&f, id, "{\"metadata\":{\"a\":1,\"deep\":{\"x\":1,\"y\":2},\"gone\":true}}"), 200,
                  "\"a\":1");
    expect_answer(&f, patch(&f, id, "{\"metadata\":{\"gone\":null,\"deep\":{\"x\":null,\"z\":[3]}}}"), 200,
                  "\"deep\":{\"y\":2,\"z\":[3]}");
    close_gateway(&f);
    open_gateway(&f);
    json_t *metadata = find(&f, id)->row.metadata;
    cr_assert_eq(json_integer_value(json_object_get(metadata, "a")), 1);
    cr_assert_null(json_object_get(metadata, "gone"));
    cr_assert_not_null(json_object_get(metadata, "attempts"));
    end(&f, made);
}

Test(workspaces, nonsense_in_a_patch_is_refused_and_changes_nothing, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f), *mcp = post_and_wait(&f, "me", "{\"container_type\":\"mcp_server\"}");
    const char *id = fake_text(made, "id");
    int64_t expires = find(&f, id)->row.expires_at_ms;
    static const struct {
        const char *body;
        int status;
        const char *text;
    } rows[] = {
        {"{}", 400, "ttl_seconds or metadata is required"},
        {"{\"ttl_seconds\":-1}", 400, "ttl_seconds"},
        {"{\"ttl_seconds\":\"1h\"}", 400, "ttl_seconds"},
        {"{\"ttl_seconds\":99999999999}", 400, "ttl_seconds"},
        {"{\"metadata\":[1]}", 400, "metadata must be an object"},
        {"{\"metadata\":{\"attempts\":[]},\"ttl_seconds\":5}", 400, "metadata.attempts is reserved"},
        {"{\"metadata\":{\"stop\":null}}", 400, "metadata.stop is reserved"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        expect_answer(&f, patch(&f, id, rows[i].body), rows[i].status, rows[i].text);
    cr_assert_eq(find(&f, id)->row.expires_at_ms, expires);
    expect_answer(&f, patch(&f, fake_text(mcp, "id"), "{\"ttl_seconds\":60}"), 422, "never expires");
    expect_answer(&f, patch(&f, fake_text(mcp, "id"), "{\"metadata\":{\"a\":1}}"), 200, "\"a\":1");
    char big[9000];
    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = '\0';
    for (unsigned i = 0; i < 4; i++) {
        auto_free char *body = mem_printf("{\"metadata\":{\"big%u\":\"%s\"}}", i, big);
        expect_answer(&f, patch(&f, id, body), i < 3 ? 200 : 422, i < 3 ? "" : "larger than");
    }
    fake_request_free(mcp);
    end(&f, made);
}

/* ---- the sweep ---- */

Test(workspaces, the_sweep_destroys_what_expired_in_any_state_and_nothing_else, .timeout = 60)
{
    fixture_t f;
    fake_request_t *ready = begin(&f), *stopped = post_and_wait(&f, "me", AGENT);
    fake_request_t *failed = post_and_wait(&f, "me", AGENT), *kept = post_and_wait(&f, "me", AGENT);
    fake_request_t *busy = post_and_wait(&f, "me", AGENT);
    fake_request_t *mcp = post_and_wait(&f, "me", "{\"container_type\":\"mcp_server\"}");
    expect_answer(&f, STOP(&f, fake_text(stopped, "id")), 200, "");
    fake_provider_tell_event(&f.gvisor, &find(&f, fake_text(failed, "id"))->row.id, "dead", "killed");
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, fake_text(failed, "id")), "error") == 0));
    fake_request_t *const OLD[] = {ready, stopped, failed, busy};
    for (size_t i = 0; i < COUNT_OF(OLD); i++)
        find(&f, fake_text(OLD[i], "id"))->row.expires_at_ms = 1;
    find(&f, fake_text(mcp, "id"))->row.expires_at_ms = 1; /* even if something set it */
    call_t *call = hold_call(&f, find(&f, fake_text(busy, "id")));
    workspaces_sweep(f.gw.workspaces);
    cr_assert(RUN_UNTIL(&f, f.gvisor.sandbox_count == 3 && now(&f, fake_text(ready, "id"))[0] == '\0' &&
                                now(&f, fake_text(stopped, "id"))[0] == '\0' &&
                                now(&f, fake_text(failed, "id"))[0] == '\0'));
    cr_assert_str_eq(now(&f, fake_text(kept, "id")), "ready");
    cr_assert_str_eq(now(&f, fake_text(mcp, "id")), "ready");
    cr_assert_str_eq(now(&f, fake_text(busy, "id")), "ready");
    cr_assert_gt(find(&f, fake_text(busy, "id"))->row.expires_at_ms, (int64_t)clock_realtime_ms(), "a call is use");
    find(&f, fake_text(busy, "id"))->row.expires_at_ms = 1;
    call_cancel(call);
    workspaces_sweep(f.gw.workspaces);
    cr_assert(RUN_UNTIL(&f, now(&f, fake_text(busy, "id"))[0] == '\0'));
    fake_request_t *const ALL[] = {stopped, failed, kept, busy, mcp};
    for (size_t i = 0; i < COUNT_OF(ALL); i++)
        fake_request_free(ALL[i]);
    end(&f, ready);
}

Test(workspaces, attach_and_resume_extend_the_life, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    find(&f, id)->row.expires_at_ms = 1;
    expect_answer(&f, ask(&f, workspace_attach, MSG_workspace_attach, id, "{\"agent_session_id\":\"" SESSION "\"}"),
                  200, "");
    cr_assert_gt(find(&f, id)->row.expires_at_ms, (int64_t)clock_realtime_ms());
    expect_answer(&f, STOP(&f, id), 200, "");
    find(&f, id)->row.expires_at_ms = 1;
    expect_answer(&f, RESUME(&f, id), 200, "");
    cr_assert_gt(find(&f, id)->row.expires_at_ms, (int64_t)clock_realtime_ms());
    end(&f, made);
}

/* ---- the idle stop ---- */

static unsigned woken;
static void run_tool(api_request_t *r)
{
    auto_err err_t *e = NULL;
    workspace_row_t *row = workspaces_find(r->gw, r->params[0], &r->caller, &e);
    cr_assert_eq(workspaces_admit(row, &e), WORKSPACE_RUNS, "a tool ran on one that is not ready");
    woken++;
    api_reply_empty(r, 204);
}

/* As the gate does it. */
static void tool(api_request_t *r)
{
    auto_err err_t *e = NULL;
    workspace_row_t *row = workspaces_find(r->gw, r->params[0], &r->caller, &e);
    enum workspace_admission admission = row == NULL ? WORKSPACE_REFUSED : workspaces_admit(row, &e);
    if (admission == WORKSPACE_REFUSED)
        api_reply_error(r, e);
    else if (admission == WORKSPACE_WAKES)
        workspaces_wake(row, r, run_tool);
    else
        run_tool(r);
}

static void make_idle(fixture_t *f, const char *id)
{
    f->gw.workspaces->idle_stop_ms = 60000;
    find(f, id)->row.last_used_at_ms -= 60000;
    find(f, id)->settled_ms = 0;
    workspaces_stop_idle(f->gw.workspaces);
}

Test(workspaces, what_nobody_uses_is_stopped_and_comes_back_with_the_next_calls, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f), *used = post_and_wait(&f, "me", AGENT);
    fake_request_t *mcp = post_and_wait(&f, "me", "{\"container_type\":\"mcp_server\"}"), *calls[3];
    const char *id = fake_text(made, "id");
    find(&f, fake_text(mcp, "id"))->row.last_used_at_ms -= 60000;
    find(&f, fake_text(mcp, "id"))->settled_ms = 0;
    make_idle(&f, id);
    cr_expect_str_eq(noted, "idle_stop");
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "stopped") == 0));
    cr_assert_str_eq(now(&f, fake_text(used, "id")), "ready");
    cr_assert_str_eq(now(&f, fake_text(mcp, "id")), "ready");
    cr_assert_eq(f.gvisor.stops, 1);
    f.gvisor.is_holding_moves = true;
    woken = 0;
    for (size_t i = 0; i < COUNT_OF(calls); i++)
        calls[i] = ask(&f, tool, 0, id, "{}");
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    cr_assert_eq(woken, 0);
    fake_request_free(calls[0]); /* one of them hangs up */
    fake_provider_release_moves(&f.gvisor);
    expect_answer(&f, calls[1], 204, "");
    expect_answer(&f, calls[2], 204, "");
    cr_assert_eq(woken, 2);
    cr_assert_eq(f.gvisor.resumes, 1);
    cr_assert_null(find(&f, id)->row.stop_reason);
    expect_answer(&f, STOP(&f, id), 200, "");
    expect_answer(&f, ask(&f, tool, 0, id, "{}"), 400, "workspace is not ready (current status: stopped)");
    fake_request_free(used);
    fake_request_free(mcp);
    end(&f, made);
}

Test(workspaces, a_call_that_comes_during_the_idle_stop_waits_for_both, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.is_holding_moves = true;
    make_idle(&f, id);
    woken = 0;
    fake_request_t *early = ask(&f, tool, 0, id, "{}"); /* the intent is not even on disk */
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    fake_request_t *late = ask(&f, tool, 0, id, "{}");
    fake_request_t *attached =
        ask(&f, workspace_attach, MSG_workspace_attach, id, "{\"agent_session_id\":\"" SESSION "\"}");
    fake_provider_release_moves(&f.gvisor);
    expect_answer(&f, early, 204, "");
    expect_answer(&f, late, 204, "");
    expect_answer(&f, attached, 200, "\"status\":\"ready\"");
    cr_assert_eq(f.gvisor.stops, 1);
    cr_assert_eq(f.gvisor.resumes, 1);
    end(&f, made);
}

/* Who stops it by hand is told `stopped`: a call from before must not start it again behind that. */
Test(workspaces, a_stop_by_hand_during_the_idle_stop_is_one, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.is_holding_moves = true;
    make_idle(&f, id);
    fake_request_t *call = ask(&f, tool, 0, id, "{}");
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    fake_request_t *stop = STOP(&f, id);
    fake_provider_release_moves(&f.gvisor);
    expect_answer(&f, stop, 200, "\"status\":\"stopped\"");
    expect_answer(&f, call, 400, "workspace is not ready (current status: stopped)");
    cr_assert_eq(f.gvisor.resumes, 0);
    cr_assert_eq(find(&f, id)->row.intent, INTENT_NONE);
    end(&f, made);
}

Test(workspaces, an_idle_stop_that_fails_lets_waiting_calls_run, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.stop_error = "the disk is full";
    f.gvisor.is_holding_moves = true;
    make_idle(&f, id);
    fake_request_t *call = ask(&f, tool, 0, id, "{}");
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    fake_provider_release_moves(&f.gvisor);
    expect_answer(&f, call, 204, "");
    find(&f, id)->row.last_used_at_ms -= 60000;
    workspaces_stop_idle(f.gw.workspaces);
    cr_assert_eq(find(&f, id)->row.intent, INTENT_NONE, "it is tried again only after the same time");
    end(&f, made);
}

Test(workspaces, calls_that_wait_are_bounded_and_told_when_the_resume_fails, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f), *calls[WORKSPACE_WAKING_MAX];
    const char *id = fake_text(made, "id");
    make_idle(&f, id);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "stopped") == 0));
    f.gvisor.is_holding_moves = true;
    f.gvisor.resume_error = "no memory for it";
    for (size_t i = 0; i < COUNT_OF(calls); i++)
        calls[i] = ask(&f, tool, 0, id, "{}");
    expect_answer(&f, ask(&f, tool, 0, id, "{}"), 503, "too many calls wait");
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    fake_provider_release_moves(&f.gvisor);
    for (size_t i = 0; i < COUNT_OF(calls); i++)
        expect_answer(&f, calls[i], 500, "no memory for it");
    f.gvisor.resume_error = NULL;
    expect_answer(&f, ask(&f, tool, 0, id, "{}"), 204, "");
    cr_assert_eq(f.gw.workspaces->waking_bytes, 0);
    end(&f, made);
}

Test(workspaces, a_call_under_way_is_use_and_so_is_its_end, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    call_t *call = hold_call(&f, find(&f, id));
    make_idle(&f, id);
    cr_assert_eq(find(&f, id)->row.intent, INTENT_NONE);
    call_cancel(call);
    workspaces_stop_idle(f.gw.workspaces);
    cr_assert_eq(find(&f, id)->row.intent, INTENT_NONE, "its time begins with the end of the call");
    make_idle(&f, id);
    cr_assert_eq(find(&f, id)->row.intent, INTENT_STOP);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "stopped") == 0));
    end(&f, made);
}

Test(workspaces, an_idle_stop_survives_the_gateway_and_still_wakes, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    make_idle(&f, id);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "stopped") == 0));
    close_gateway(&f);
    fake_provider_disconnect(&f.gvisor);
    open_gateway(&f);
    expect_answer(&f, ask(&f, tool, 0, id, "{}"), 503, "not connected");
    connect_provider(&f, &f.gvisor);
    expect_answer(&f, ask(&f, tool, 0, id, "{}"), 204, "");
    end(&f, made);
}
