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
/* Stop and resume. Covers S-011, S-012, G-02. */
#include "tests/unit/workspaces_world.h"

#include "services/gateway/workspaces_internal.h"

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

static json_t *seen(fixture_t *f, const char *id)
{
    fake_request_t *request = call_on(f, workspace_get, "me", id);
    json_t *json = json_incref(request->json);
    fake_request_free(request);
    return json;
}

Test(workspaces, a_stopped_one_resumes_where_it_stood, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    expect_answer(&f, STOP(&f, id), 200, "\"status\":\"stopped\"");
    cr_assert_str_eq(f.gvisor.sandboxes[0].state, "stopped");
    json_t *ws = seen(&f, id), *metadata = json_object_get(ws, "metadata");
    cr_assert_str_eq(json_string_value(json_object_get(metadata, "processes")), "kept");
    json_t *stop = json_object_get(metadata, "stop");
    cr_assert_eq(json_integer_value(json_object_get(stop, "total_ms")), 7);
    cr_assert_eq(json_integer_value(json_object_get(stop, "kept_bytes")), 4096);
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(stop, "phases"), "checkpoint_ms")), 5);
    cr_assert_str_gt(json_string_value(json_object_get(ws, "last_used_at")), fake_text(made, "last_used_at"));
    json_decref(ws);
    cr_assert_eq(workspaces_count(&f.gw, WORKSPACE_STOPPED), 1);
    cr_assert_eq(f.gw.workspaces->active, 0);
    expect_answer(&f, STOP(&f, id), 200, "\"status\":\"stopped\"");
    cr_assert_eq(f.gvisor.stops, 1, "a stopped one is not stopped again");
    expect_answer(&f, RESUME(&f, id), 200, "\"status\":\"ready\"");
    expect_answer(&f, RESUME(&f, id), 200, "\"restore_ms\":6");
    cr_assert_eq(f.gvisor.resumes, 1);
    cr_assert_eq(f.gw.workspaces->active, 1);
    end(&f, made);
}

Test(workspaces, processes_that_could_not_be_kept_are_told, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    f.gvisor.loses_processes = true;
    expect_answer(&f, STOP(&f, fake_text(made, "id")), 200, "its processes were ended");
    expect_answer(&f, RESUME(&f, fake_text(made, "id")), 200, "\"processes\":\"ended\"");
    expect_answer(&f, RESUME(&f, fake_text(made, "id")), 200, "it was started anew from its files");
    end(&f, made);
}

Test(workspaces, without_processes_is_handed_on_and_mcp_servers_are_always_ended, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    fake_request_t *mcp = post_and_wait(&f, "me", "{\"container_type\":\"mcp_server\"}");
    expect_answer(&f, STOP(&f, fake_text(made, "id")), 200, "");
    cr_assert(!f.gvisor.without_processes);
    expect_answer(&f, RESUME(&f, fake_text(made, "id")), 200, "");
    expect_answer(&f,
                  ask(&f, workspace_stop, MSG_workspace_stop, fake_text(made, "id"), "{\"without_processes\":true}"),
                  200, "\"processes\":\"ended\"");
    cr_assert(f.gvisor.without_processes);
    f.gvisor.without_processes = false;
    expect_answer(&f, STOP(&f, fake_text(mcp, "id")), 200, "\"status\":\"stopped\"");
    cr_assert(f.gvisor.without_processes);
    fake_request_free(mcp);
    end(&f, made);
}

Test(workspaces, two_stops_at_once_are_one_and_what_does_not_fit_is_a_409, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.is_holding_moves = true;
    fake_request_t *first = STOP(&f, id), *second = STOP(&f, id);
    expect_answer(&f, RESUME(&f, id), 409, "workspace is in stopping state"); /* before it is on disk even */
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    cr_assert_str_eq(now(&f, id), "stopping");
    fake_request_t *third = STOP(&f, id);
    expect_answer(&f, RESUME(&f, id), 409, "resume it when it is stopped");
    cr_assert(first->status == 0 && second->status == 0 && third->status == 0, "answered before it is done");
    fake_provider_release_moves(&f.gvisor);
    expect_answer(&f, first, 200, "\"status\":\"stopped\"");
    expect_answer(&f, second, 200, "\"status\":\"stopped\"");
    expect_answer(&f, third, 200, "\"status\":\"stopped\"");
    cr_assert_eq(f.gvisor.stops, 1);
    f.gvisor.is_holding_moves = true;
    first = RESUME(&f, id);
    second = RESUME(&f, id);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    cr_assert_str_eq(now(&f, id), "stopped");
    expect_answer(&f, STOP(&f, id), 409, "being resumed");
    fake_provider_release_moves(&f.gvisor);
    expect_answer(&f, first, 200, "\"status\":\"ready\"");
    expect_answer(&f, second, 200, "\"status\":\"ready\"");
    cr_assert_eq(f.gvisor.resumes, 1);
    end(&f, made);
}

Test(workspaces, a_stop_during_the_create_is_a_409, .timeout = 60)
{
    fixture_t f;
    start(&f);
    connect_provider(&f, &f.gvisor);
    f.gvisor.is_holding = true;
    fake_request_t *made = post(&f, "me", NULL, AGENT);
    cr_assert(RUN_UNTIL(&f, made->status != 0));
    expect_answer(&f, STOP(&f, fake_text(made, "id")), 409, "workspace is in creating state");
    expect_answer(&f, RESUME(&f, fake_text(made, "id")), 409, "workspace is in creating state");
    fake_provider_release(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, fake_text(made, "id")), "ready") == 0));
    cr_assert_eq(f.gvisor.stops, 0);
    end(&f, made);
}

Test(workspaces, a_failing_stop_leaves_it_ready_and_a_failing_resume_stopped, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.stop_error = "the disk of the host is full";
    f.gvisor.error_code = "no_space";
    expect_answer(&f, STOP(&f, id), 507, "could not be stopped: the disk of the host is full");
    cr_assert_str_eq(now(&f, id), "ready");
    f.gvisor.stop_error = NULL;
    expect_answer(&f, STOP(&f, id), 200, "\"status\":\"stopped\"");
    f.gvisor.resume_error = "no memory for it";
    f.gvisor.error_code = "limit_reached";
    expect_answer(&f, RESUME(&f, id), 429, "could not be resumed: no memory for it");
    cr_assert_str_eq(now(&f, id), "stopped");
    cr_assert_eq(f.gw.workspaces->active, 0);
    f.gvisor.resume_error = NULL;
    expect_answer(&f, RESUME(&f, id), 200, "\"status\":\"ready\"");
    json_t *ws = seen(&f, id);
    cr_assert_null(json_object_get(ws, "failure_reason"));
    json_decref(ws);
    end(&f, made);
}

Test(workspaces, a_resume_counts_against_the_limit_from_its_beginning, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gw.daemon.config.max_concurrent = 1;
    expect_answer(&f, STOP(&f, id), 200, "");
    fake_request_t *other = post_and_wait(&f, "me", AGENT);
    cr_assert_eq(other->status, 201, "%s", other->body);
    expect_answer(&f, RESUME(&f, id), 429, "limit reached (1)");
    cr_assert_str_eq(now(&f, id), "stopped");
    cr_assert_eq(status_of(&f, workspace_delete, "me", fake_text(other, "id")), 204);
    f.gvisor.is_holding_moves = true;
    fake_request_t *resumed = RESUME(&f, id);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    fake_request_t *refused = post_and_wait(&f, "me", AGENT);
    cr_assert_eq(refused->status, 429, "%s", refused->body);
    fake_provider_release_moves(&f.gvisor);
    expect_answer(&f, resumed, 200, "");
    fake_request_free(refused);
    fake_request_free(other);
    end(&f, made);
}

Test(workspaces, clients_that_hang_up_cancel_neither_stop_nor_resume, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.is_holding_moves = true;
    fake_request_t *stop = STOP(&f, id);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    fake_request_free(stop);
    fake_provider_release_moves(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "stopped") == 0));
    fake_request_free(RESUME(&f, id)); /* gone before anything was written */
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "ready") == 0));
    cr_assert_eq(f.gvisor.cancels, 0);
    end(&f, made);
}

Test(workspaces, a_delete_during_stop_or_resume_wins, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f), *other = post_and_wait(&f, "me", AGENT);
    const char *id = fake_text(made, "id");
    f.gvisor.is_holding_moves = true;
    fake_request_t *stop = STOP(&f, id);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    cr_assert_eq(status_of(&f, workspace_delete, "me", id), 204);
    expect_answer(&f, stop, 409, "destroyed");
    f.gvisor.is_holding_moves = false;
    f.gvisor.held_move_count = 0;
    id = fake_text(other, "id");
    expect_answer(&f, STOP(&f, id), 200, "");
    f.gvisor.is_holding_moves = true;
    fake_request_t *resume = RESUME(&f, id); /* and before the intent is on disk */
    fake_request_t *gone = ask(&f, workspace_delete, 0, id, "{}");
    expect_answer(&f, resume, 409, "destroyed");
    expect_answer(&f, gone, 204, "");
    cr_assert_eq(f.gvisor.sandbox_count, 0);
    cr_assert_eq(f.gw.workspaces->active, 0);
    fake_request_free(other);
    end(&f, made);
}

Test(workspaces, an_error_with_a_sandbox_can_be_resumed_from_its_files, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    fake_provider_tell_event(&f.gvisor, &f.gvisor.sandboxes[0].id, "dead", "runsc was killed");
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "error") == 0));
    expect_answer(&f, STOP(&f, id), 409, "workspace is in error state");
    f.gvisor.loses_processes = true;
    expect_answer(&f, RESUME(&f, id), 200, "\"status\":\"ready\"");
    f.gvisor.create_error = "nothing works";
    fake_request_t *failed = post_and_wait(&f, "me", AGENT);
    cr_assert_str_eq(fake_text(failed, "status"), "error");
    expect_answer(&f, RESUME(&f, fake_text(failed, "id")), 409, "it never had a sandbox");
    fake_request_free(failed);
    end(&f, made);
}

/* ---- restarts ---- */

Test(workspaces, a_stop_that_the_gateway_did_not_survive_is_finished, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.is_holding_moves = true;
    fake_request_t *stop = ask(&f, workspace_stop, MSG_workspace_stop, id, "{\"without_processes\":true}");
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    close_gateway(&f);
    fake_request_free(stop);
    fake_provider_disconnect(&f.gvisor);
    f.gvisor.is_holding_moves = false;
    f.gvisor.without_processes = false;
    open_gateway(&f);
    cr_assert_str_eq(now(&f, id), "stopping");
    expect_answer(&f, STOP(&f, id), 503, "not connected"); /* joins, and cannot wait for a daemon that is away */
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "stopped") == 0));
    cr_assert_eq(f.gvisor.stops, 2);
    cr_assert(f.gvisor.without_processes, "it is asked for as it was");
    cr_assert_eq(f.gvisor.destroys, 0);
    end(&f, made);
}

Test(workspaces, a_resume_that_the_gateway_did_not_survive_is_finished, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    expect_answer(&f, STOP(&f, id), 200, "");
    f.gvisor.is_holding_moves = true;
    fake_request_t *resume = RESUME(&f, id);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    close_gateway(&f);
    fake_request_free(resume);
    fake_provider_disconnect(&f.gvisor);
    f.gvisor.is_holding_moves = false;
    open_gateway(&f);
    cr_assert_str_eq(now(&f, id), "stopped");
    cr_assert_eq(f.gw.workspaces->active, 1, "what is being resumed counts");
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "ready") == 0));
    cr_assert_eq(f.gvisor.resumes, 2);
    cr_assert_eq(f.gw.workspaces->active, 1);
    end(&f, made);
}

Test(workspaces, a_daemon_that_dies_under_a_stop_is_asked_again, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.is_holding_moves = true;
    fake_request_t *stop = STOP(&f, id);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    fake_provider_disconnect(&f.gvisor);
    expect_answer(&f, stop, 503, "goes on as soon as its daemon answers");
    cr_assert_str_eq(now(&f, id), "stopping");
    f.gvisor.is_holding_moves = false;
    connect_provider(&f, &f.gvisor);
    expect_answer(&f, STOP(&f, id), 200, "\"status\":\"stopped\"");
    end(&f, made);
}

Test(workspaces, a_daemon_that_still_adopts_is_asked_again_without_a_reconnect, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.stop_error = "still being adopted";
    f.gvisor.error_code = "provider_unavailable";
    expect_answer(&f, STOP(&f, id), 503, "still being adopted");
    f.gvisor.stop_error = NULL;
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "stopped") == 0));
    end(&f, made);
}

Test(workspaces, a_sandbox_that_a_daemon_lost_meanwhile_makes_an_error_of_its_stop, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.sandbox_count = 0;
    expect_answer(&f, STOP(&f, id), 500, "unknown sandbox");
    cr_assert_str_eq(now(&f, id), "error");
    end(&f, made);
}

Test(workspaces, what_the_daemon_says_of_its_sandboxes_counts, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f), *other = post_and_wait(&f, "me", AGENT);
    const char *stopped = fake_text(made, "id"), *running = fake_text(other, "id");
    uuid16_t id;
    expect_answer(&f, STOP(&f, running), 200, "");
    fake_provider_disconnect(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, is_known(&f, "gvisor", false)));
    cr_assert(uuid16_parse(&id, stopped));
    snprintf(fake_sandbox_find(&f.gvisor, &id)->state, 16, "stopped"); /* drained with its host */
    cr_assert(uuid16_parse(&id, running));
    snprintf(fake_sandbox_find(&f.gvisor, &id)->state, 16, "ready"); /* a resume that nobody waited for */
    connect_provider(&f, &f.gvisor);
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, stopped), "stopped") == 0 && f.gvisor.stops == 2));
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, running), "stopped") == 0));
    json_t *ws = seen(&f, stopped);
    cr_assert_str_eq(json_string_value(json_array_get(json_object_get(ws, "warnings"), 1)),
                     "the workspace was stopped by its provider; the next use resumes it");
    json_decref(ws);
    cr_assert(uuid16_parse(&id, stopped));
    cr_assert_str_eq(workspaces_get(f.gw.workspaces, &id)->row.stop_reason, "daemon");
    fake_request_free(other);
    end(&f, made);
}

Test(workspaces, a_sandbox_between_two_states_is_looked_at_again, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    fake_provider_disconnect(&f.gvisor);
    cr_assert(RUN_UNTIL(&f, is_known(&f, "gvisor", false)));
    snprintf(f.gvisor.sandboxes[0].state, 16, "resuming");
    connect_provider(&f, &f.gvisor);
    cr_assert_str_eq(now(&f, fake_text(made, "id")), "ready");
    snprintf(f.gvisor.sandboxes[0].state, 16, "dead");
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, fake_text(made, "id")), "error") == 0));
    end(&f, made);
}

/* ---- events ---- */

Test(workspaces, a_sandbox_that_was_started_anew_keeps_its_workspace_ready, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    fake_request_t *listener = ask(&f, workspace_events, 0, id, "{}");
    fake_provider_tell_event(&f.gvisor, &f.gvisor.sandboxes[0].id, "restarted", "out of memory");
    fake_provider_tell_event(&f.gvisor, &f.gvisor.sandboxes[0].id, "restarted", "out of memory");
    cr_assert(RUN_UNTIL(&f, ({
        json_t *ws = seen(&f, id);
        json_int_t restarts = json_integer_value(json_object_get(json_object_get(ws, "metadata"), "restarts"));
        json_decref(ws);
        restarts == 2;
    })));
    cr_expect_str_eq(noted, "restart");
    cr_assert_not_null(strstr(buf_cstr(&listener->events), "\"type\":\"restarted\",\"reason\":\"out of memory\""), "%s",
                       buf_cstr(&listener->events));
    fake_request_free(listener);
    close_gateway(&f);
    open_gateway(&f);
    json_t *ws = seen(&f, id);
    cr_assert_str_eq(json_string_value(json_object_get(ws, "status")), "ready");
    cr_assert_str_eq(json_string_value(json_array_get(json_object_get(ws, "warnings"), 1)),
                     "the sandbox died (out of memory) and was started anew from its files");
    json_decref(ws);
    end(&f, made);
}

Test(workspaces, a_sandbox_that_dies_under_a_failing_stop_is_an_error, .timeout = 60)
{
    fixture_t f;
    fake_request_t *made = begin(&f);
    const char *id = fake_text(made, "id");
    f.gvisor.is_holding_moves = true;
    f.gvisor.stop_error = "it has ended";
    fake_request_t *stop = STOP(&f, id);
    cr_assert(RUN_UNTIL(&f, f.gvisor.held_move_count == 1));
    fake_provider_tell_event(&f.gvisor, &f.gvisor.sandboxes[0].id, "dead", "runsc was killed");
    fake_provider_release_moves(&f.gvisor);
    expect_answer(&f, stop, 500, "it has ended");
    cr_assert(RUN_UNTIL(&f, strcmp(now(&f, id), "error") == 0));
    end(&f, made);
}
