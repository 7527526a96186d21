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
/* Who holds a workspace, and who held it. Covers S-038, G-03. */
#include "tests/unit/workspaces_world.h"

#include "services/gateway/workspaces_internal.h"

#define ONE "11111111-1111-4111-8111-111111111111"
#define TWO "22222222-2222-4222-8222-222222222222"
#define CONTENDERS 100

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

static fake_request_t *attach(fixture_t *f, const char *id, const char *session)
{
    auto_free char *body = mem_printf("{\"agent_session_id\":\"%s\",\"reason\":\"work\"}", session);
    return ask(f, workspace_attach, MSG_workspace_attach, id, body);
}

static fake_request_t *detach(fixture_t *f, const char *id, const char *body)
{
    return ask(f, workspace_detach, MSG_workspace_detach, id, body);
}

static json_t *history(fixture_t *f, const char *id)
{
    fake_request_t *request = call_on(f, workspace_assignments, "me", id);
    cr_assert_eq(request->status, 200, "%s", request->body);
    json_t *json = json_incref(request->json);
    fake_request_free(request);
    return json;
}

static const char *text_of(const json_t *entries, size_t i, const char *field)
{
    const char *text = json_string_value(json_object_get(json_array_get(entries, i), field));
    return text == NULL ? "" : text;
}

static const char *holder(fixture_t *f, const char *id)
{
    uuid16_t uuid;
    cr_assert(uuid16_parse(&uuid, id));
    const char *session = workspaces_get(f->gw.workspaces, &uuid)->row.agent_session_id;
    return session == NULL ? "" : session;
}

Test(workspaces, a_session_attaches_and_detaches_and_the_history_tells, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    expect_answer(&f, attach(&f, id, ONE), 200, "\"agent_session_id\":\"" ONE "\"");
    expect_answer(&f, attach(&f, id, ONE), 200, ONE);
    expect_answer(&f, attach(&f, id, TWO), 409,
                  "workspace is currently in use by session " ONE "; detach first or wait for session to end");
    expect_answer(&f, detach(&f, id, "{\"agent_session_id\":\"" TWO "\"}"), 409, ONE);
    expect_answer(&f, detach(&f, id, "{\"agent_session_id\":\"" ONE "\",\"reason\":\"done\"}"), 200, "\"ready\"");
    expect_answer(&f, detach(&f, id, "{}"), 200, "\"ready\"");
    cr_assert_str_eq(holder(&f, id), "");
    expect_answer(&f, attach(&f, id, TWO), 200, TWO);
    json_t *entries = history(&f, id);
    cr_assert_eq(json_array_size(entries), 2, "attaching again opens no second entry");
    cr_assert_str_eq(text_of(entries, 0, "agent_session_id"), TWO);
    cr_assert_str_eq(text_of(entries, 0, "detached_at"), "");
    cr_assert_str_eq(text_of(entries, 1, "agent_session_id"), ONE);
    cr_assert_str_eq(text_of(entries, 1, "reason"), "work");
    cr_assert_str_eq(text_of(entries, 1, "detach_reason"), "done");
    cr_assert_str_neq(text_of(entries, 1, "detached_at"), "");
    json_decref(entries);
    uuid16_t uuid;
    cr_assert(uuid16_parse(&uuid, id));
    cr_assert_str_eq(workspaces_get(f.gw.workspaces, &uuid)->previous_session, ONE);
    close_gateway(&f);
    open_gateway(&f);
    cr_assert_str_eq(holder(&f, id), TWO);
    end(&f, made);
}

Test(workspaces, a_bad_session_is_a_400_and_unknown_workspaces_are_404, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    expect_answer(&f, ask(&f, workspace_attach, MSG_workspace_attach, id, "{}"), 400, "agent_session_id is required");
    expect_answer(&f, attach(&f, id, ""), 400, "agent_session_id is required");
    expect_answer(&f, attach(&f, id, "me"), 400, "agent_session_id must be a UUID");
    expect_answer(&f, detach(&f, id, "{\"agent_session_id\":\"me\"}"), 400, "agent_session_id must be a UUID");
    expect_answer(&f, attach(&f, ONE, ONE), 404, "not found");
    expect_answer(&f, detach(&f, ONE, "{}"), 404, "not found");
    cr_assert_eq(status_of(&f, workspace_assignments, "me", ONE), 404);
    cr_assert_eq(status_of(&f, workspace_assignments, "somebody else", id), 404);
    end(&f, made);
}

Test(workspaces, of_a_hundred_attaches_one_wins, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f), *requests[CONTENDERS];
    const char *id = fake_text(made, "id");
    unsigned winners = 0, losers = 0;
    for (unsigned i = 0; i < CONTENDERS; i++) {
        char session[UUID_TEXT_SIZE];
        snprintf(session, sizeof(session), "00000000-0000-4000-8000-%012u", i);
        requests[i] = attach(&f, id, session);
    }
    for (unsigned i = 0; i < CONTENDERS; i++) {
        cr_assert(RUN_UNTIL(&f, requests[i]->status != 0));
        winners += requests[i]->status == 200;
        losers += requests[i]->status == 409 && strstr(requests[i]->body, holder(&f, id)) != NULL;
        fake_request_free(requests[i]);
    }
    cr_assert_eq(winners, 1);
    cr_assert_eq(losers, CONTENDERS - 1);
    json_t *entries = history(&f, id);
    cr_assert_eq(json_array_size(entries), 1);
    cr_assert_str_eq(text_of(entries, 0, "agent_session_id"), holder(&f, id));
    json_decref(entries);
    end(&f, made);
}

static void must_succeed(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    cr_assert_null(err, "%s", err == NULL ? "" : err_message(err));
    *(bool *)arg = true;
}

Test(workspaces, the_database_is_the_last_judge, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    bool is_done = false;
    auto_err err_t *e = NULL;
    /* Another gateway gave it away, and this one does not know yet. */
    store_value_t values[] = {store_text(ONE), store_text(id), store_text(ONE), store_int(1), store_text("elsewhere")};
    cr_assert_eq(store_exec(f.gw.store, STORE_ASSIGNMENT_OPEN, values, 5, must_succeed, &is_done, &e), 0);
    cr_assert(RUN_UNTIL(&f, is_done));
    expect_answer(&f, attach(&f, id, TWO), 409, "in use by session " ONE);
    cr_assert_str_eq(holder(&f, id), ONE);
    expect_answer(&f, detach(&f, id, "{}"), 200, "");
    expect_answer(&f, attach(&f, id, TWO), 200, TWO);
    end(&f, made);
}

Test(workspaces, a_stopped_one_is_resumed_for_its_session, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    expect_answer(&f, STOP(&f, id), 200, "");
    f.gvisor.is_holding_moves = true;
    fake_request_t *first = attach(&f, id, ONE), *second = attach(&f, id, ONE);
    expect_answer(&f, attach(&f, id, TWO), 409, ONE);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    expect_answer(&f, attach(&f, id, TWO), 409, ONE);
    cr_assert(first->status == 0 && second->status == 0);
    fake_provider_release_moves(&f.gvisor);
    expect_answer(&f, first, 200, "\"status\":\"ready\"");
    expect_answer(&f, second, 200, "\"status\":\"ready\"");
    cr_assert_eq(f.gvisor.resumes, 1);
    end(&f, made);
}

Test(workspaces, an_attach_whose_resume_fails_leaves_nothing_attached, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    expect_answer(&f, STOP(&f, id), 200, "");
    f.gvisor.resume_error = "no memory for it";
    expect_answer(&f, attach(&f, id, ONE), 500, "no memory for it");
    cr_assert_str_eq(holder(&f, id), "");
    json_t *entries = history(&f, id);
    cr_assert_str_eq(text_of(entries, 0, "detach_reason"), "the workspace could not be resumed");
    json_decref(entries);
    f.gvisor.resume_error = NULL;
    expect_answer(&f, attach(&f, id, TWO), 200, TWO);
    end(&f, made);
}

Test(workspaces, the_next_session_takes_over_what_was_stopped_by_its_user_but_not_what_was_idle, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    uuid16_t uuid;
    cr_assert(uuid16_parse(&uuid, id));
    expect_answer(&f, attach(&f, id, ONE), 200, "");
    expect_answer(&f, STOP(&f, id), 200, "");
    workspace_set_stop_reason(workspaces_get(f.gw.workspaces, &uuid), "idle");
    expect_answer(&f, attach(&f, id, TWO), 409, ONE);
    workspace_set_stop_reason(workspaces_get(f.gw.workspaces, &uuid), "user");
    expect_answer(&f, attach(&f, id, TWO), 200, TWO);
    json_t *entries = history(&f, id);
    cr_assert_eq(json_array_size(entries), 2);
    cr_assert_str_eq(text_of(entries, 1, "agent_session_id"), ONE);
    cr_assert_str_eq(text_of(entries, 1, "detach_reason"), "another session took the stopped workspace");
    json_decref(entries);
    end(&f, made);
}

static void on_kept(void *arg, const store_result_t *result, const err_t *err)
{
    *(bool *)arg = err == NULL && result->row_count == 1 && store_int_at(result, 0, 3) > 0 &&
                   strcmp(store_text_at(result, 0, 5), "workspace destroyed") == 0;
}

Test(workspaces, a_create_with_a_session_attaches_it_and_a_delete_ends_it, .timeout = 60)
{
    fixture_t f;
    fake_request_t *other = begin(&f);
    fake_request_t *made =
        post_and_wait(&f, "me", "{\"container_type\":\"agent_workspace\",\"agent_session_id\":\"" ONE "\"}");
    const char *id = fake_text(made, "id");
    json_t *entries = history(&f, id);
    cr_assert_eq(json_array_size(entries), 1);
    cr_assert_str_eq(text_of(entries, 0, "agent_session_id"), ONE);
    cr_assert_str_eq(text_of(entries, 0, "reason"), "create");
    json_decref(entries);
    expect_answer(&f, attach(&f, id, TWO), 409, ONE);
    cr_assert_eq(status_of(&f, workspace_delete, "me", id), 204);
    bool is_kept = false;
    store_value_t values[] = {store_text(id), store_int(INT64_MAX), store_text(""), store_int(10)};
    auto_err err_t *e = NULL;
    cr_assert_eq(store_exec_wait(f.gw.store, STORE_ASSIGNMENT_LIST, values, 4, on_kept, &is_kept, &e), 0);
    cr_assert(is_kept);
    fake_request_free(other);
    end(&f, made);
}

Test(workspaces, the_history_comes_in_pages, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    for (unsigned i = 0; i < 5; i++) {
        expect_answer(&f, attach(&f, id, i % 2 == 0 ? ONE : TWO), 200, "");
        expect_answer(&f, detach(&f, id, "{}"), 200, "");
    }
    char cursor[128] = "";
    size_t seen = 0, pages = 0;
    do {
        fake_request_t *page = fake_request_new(&f.gw, "me");
        page->r.params[0] = id;
        page->http.query[0][0] = "limit";
        page->http.query[0][1] = "2";
        page->http.query[1][0] = cursor[0] == '\0' ? NULL : "cursor";
        page->http.query[1][1] = cursor;
        workspace_assignments(&page->r);
        cr_assert(RUN_UNTIL(&f, page->status != 0));
        cr_assert_eq(page->status, 200, "%s", page->body);
        for (size_t i = 0; i < json_array_size(page->json); i++, seen++)
            cr_assert_str_eq(text_of(page->json, i, "agent_session_id"), seen % 2 == 0 ? ONE : TWO);
        snprintf(cursor, sizeof(cursor), "%s", page->http.next_cursor);
        pages++;
        fake_request_free(page);
    } while (cursor[0] != '\0' && pages < 9);
    cr_assert_eq(seen, 5);
    cr_assert_eq(pages, 3);
    static const char *const BAD[][2] = {{"limit", "0"},  {"limit", "x"},    {"limit", "1001"},
                                         {"cursor", "x"}, {"cursor", "1.x"}, {"cursor", "." ONE}};
    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        fake_request_t *page = fake_request_new(&f.gw, "me");
        page->r.params[0] = id;
        page->http.query[0][0] = BAD[i][0];
        page->http.query[0][1] = BAD[i][1];
        workspace_assignments(&page->r);
        cr_assert_eq(page->status, 400, "%s=%s", BAD[i][0], BAD[i][1]);
        fake_request_free(page);
    }
    end(&f, made);
}

Test(workspaces, a_client_that_hangs_up_during_attach_or_detach_is_no_trouble, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    fake_request_free(attach(&f, id, ONE));
    cr_assert(RUN_UNTIL(&f, ({
        json_t *entries = history(&f, id);
        size_t count = json_array_size(entries);
        json_decref(entries);
        count == 1;
    })));
    cr_assert_str_eq(holder(&f, id), ONE);
    fake_request_free(detach(&f, id, "{}"));
    expect_answer(&f, attach(&f, id, TWO), 200, TWO);
    fake_request_t *pending = ask(&f, workspace_assignments, 0, id, "{}");
    fake_request_free(pending);
    json_t *entries = history(&f, id);
    cr_assert_str_neq(text_of(entries, 1, "detached_at"), "");
    json_decref(entries);
    end(&f, made);
}

Test(workspaces, an_attach_of_one_that_is_deleted_is_answered, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    fake_request_t *attached = attach(&f, id, ONE), *gone = ask(&f, workspace_delete, 0, id, "{}");
    expect_answer(&f, attached, 409, "destroyed");
    expect_answer(&f, gone, 204, "");
    end(&f, made);
}
