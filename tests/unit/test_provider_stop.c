/* SPDX-License-Identifier: Apache-2.0 */
// LINK: tests/unit/kit_world.c tests/unit/fake_vtable.c
#include "common/clock.h"
#include "common/mem.h"
#include "common/provider/kit.h"
#include "tests/unit/kit_world.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>

static const struct empty NOTHING;
static const struct sandbox_stop_request STOP;
static const struct bash_request TRUE_COMMAND = {.command = "true"};

Test(provider_stop, a_stopped_one_goes_on_where_it_was, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r;
    struct sandbox_stop_reply stopped;
    struct sandbox_resume_reply resumed;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_bash(&w, &id, "echo kept > note");
    kit_world_call(&w, VERB_sandbox_stop, &id, MSG_sandbox_stop_request, &STOP, &r);
    kit_world_decode(&r, MSG_sandbox_stop_reply, &stopped);
    cr_expect(stopped.has_processes);
    cr_expect_eq(stopped.kept_bytes, 12345);
    cr_expect_not_null(strstr(stopped.phases, "freeze_ms"));
    cr_expect_eq(stopped.warnings.count, 0);
    buf_free(&r.body);
    cr_expect_str_eq(kit_world_state(&w, &id), "stopped");
    kit_world_refused(&w, VERB_bash, &id, MSG_bash_request, &TRUE_COMMAND, ERR_CONFLICT);
    unsigned ready = w.ready_events;
    kit_world_call(&w, VERB_sandbox_resume, &id, MSG_empty, &NOTHING, &r);
    kit_world_decode(&r, MSG_sandbox_resume_reply, &resumed);
    cr_expect(resumed.has_processes);
    cr_expect_not_null(strstr(resumed.phases, "thaw_ms"));
    cr_expect_not_null(strstr(resumed.phases, "agent_ms"));
    cr_expect_gt(resumed.programs.count, 0);
    buf_free(&r.body);
    kit_world_until_count(&w, &w.ready_events, ready + 1);
    cr_expect_str_eq(kit_world_bash(&w, &id, "cat note"), "kept\n");
    kit_world_close(&w);
}

Test(provider_stop, a_call_in_flight_is_told_and_has_its_result_after_resume, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t call;
    struct bash_request slow = {.command = "echo once >> count; sleep 1; cat count"};
    struct bash_reply reply;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_start_call(&w, VERB_bash, &id, 4711, MSG_bash_request, &slow, &call);
    kit_world_run(&w, 200);
    cr_assert_not(call.is_done);
    kit_world_stop(&w, &id, false);
    cr_expect_eq(call.code, ERR_CONFLICT);
    cr_expect_not_null(strstr(call.message, "Idempotency-Key"), "%s", call.message);
    kit_world_resume(&w, &id);
    kit_world_start_call(&w, VERB_bash, &id, 4711, MSG_bash_request, &slow, &call);
    kit_world_until(&w, &call.is_done);
    kit_world_decode(&call, MSG_bash_reply, &reply);
    cr_expect_eq(reply.stdout.len, 5, "it ran twice");
    buf_free(&call.body);
    kit_world_close(&w);
}

Test(provider_stop, repeated_requests_join_and_are_answered_again, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r[3];
    struct sandbox_stop_reply reply;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    w.fake.modes[FAKE_STOP] = FAKE_WAIT_BEFORE;
    kit_world_start_call(&w, VERB_sandbox_stop, &id, 0, MSG_sandbox_stop_request, &STOP, &r[0]);
    kit_world_start_call(&w, VERB_sandbox_stop, &id, 0, MSG_sandbox_stop_request, &STOP, &r[1]);
    kit_world_run(&w, 200);
    cr_expect_not(r[0].is_done || r[1].is_done);
    cr_expect_str_eq(kit_world_state(&w, &id), "stopping");
    kit_world_refused(&w, VERB_bash, &id, MSG_bash_request, &TRUE_COMMAND, ERR_CONFLICT);
    kit_world_refused(&w, VERB_sandbox_resume, &id, MSG_empty, &NOTHING, ERR_CONFLICT);
    w.fake.modes[FAKE_STOP] = FAKE_RUN;
    kit_world_until(&w, &r[0].is_done);
    kit_world_until(&w, &r[1].is_done);
    kit_world_call(&w, VERB_sandbox_stop, &id, MSG_sandbox_stop_request, &STOP, &r[2]);
    for (size_t i = 0; i < COUNT_OF(r); i++) {
        kit_world_decode(&r[i], MSG_sandbox_stop_reply, &reply);
        cr_expect(reply.has_processes);
        cr_expect_eq(reply.kept_bytes, 12345);
        buf_free(&r[i].body);
    }
    cr_expect_eq(w.fake.calls[FAKE_STOP], 1);
    w.fake.modes[FAKE_RESUME] = FAKE_WAIT_BEFORE;
    kit_world_start_call(&w, VERB_sandbox_resume, &id, 0, MSG_empty, &NOTHING, &r[0]);
    kit_world_start_call(&w, VERB_sandbox_resume, &id, 0, MSG_empty, &NOTHING, &r[1]);
    kit_world_run(&w, 50);
    cr_expect_str_eq(kit_world_state(&w, &id), "resuming");
    kit_world_refused(&w, VERB_bash, &id, MSG_bash_request, &TRUE_COMMAND, ERR_PROVIDER_UNAVAILABLE);
    kit_world_refused(&w, VERB_sandbox_stop, &id, MSG_sandbox_stop_request, &STOP, ERR_CONFLICT);
    w.fake.modes[FAKE_RESUME] = FAKE_RUN;
    kit_world_until(&w, &r[0].is_done);
    kit_world_until(&w, &r[1].is_done);
    kit_world_resume(&w, &id);
    cr_expect_eq(w.fake.calls[FAKE_RESUME], 1);
    buf_free(&r[0].body);
    buf_free(&r[1].body);
    kit_world_close(&w);
}

Test(provider_stop, without_processes_only_files_are_left, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_bash(&w, &id, "echo file > note; sleep 5 > /dev/null 2>&1 &");
    kit_world_stop(&w, &id, true);
    cr_expect_not(w.fake.was_kept);
    cr_expect_not(kit_world_sandbox(&w, &id)->has_processes);
    kit_world_resume(&w, &id);
    cr_expect_not(kit_world_sandbox(&w, &id)->has_processes);
    cr_expect_str_eq(kit_world_bash(&w, &id, "cat note"), "file\n");
    kit_world_close(&w);
}

Test(provider_stop, a_stop_that_fails_leaves_it_running, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    w.fake.modes[FAKE_STOP] = FAKE_FAIL;
    kit_world_refused(&w, VERB_sandbox_stop, &id, MSG_sandbox_stop_request, &STOP, ERR_NO_SPACE);
    cr_expect_str_eq(kit_world_state(&w, &id), "ready");
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo there"), "there\n");
    kit_world_close(&w);
}

Test(provider_stop, one_that_ends_while_it_is_stopped_keeps_its_files, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r;
    struct sandbox_stop_reply reply;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    w.fake.modes[FAKE_STOP] = FAKE_WAIT_BEFORE;
    kit_world_start_call(&w, VERB_sandbox_stop, &id, 0, MSG_sandbox_stop_request, &STOP, &r);
    kit_world_until_count(&w, &w.fake.calls[FAKE_STOP], 1);
    w.fake.modes[FAKE_STOP] = FAKE_FAIL_DEAD;
    kit_world_until_count(&w, &w.fake.calls[FAKE_STOP], 2);
    w.fake.modes[FAKE_STOP] = FAKE_RUN;
    kit_world_until(&w, &r.is_done);
    kit_world_decode(&r, MSG_sandbox_stop_reply, &reply);
    cr_expect_not(reply.has_processes);
    cr_expect_eq(reply.warnings.count, 1);
    cr_expect_str_eq(kit_world_state(&w, &id), "stopped");
    buf_free(&r.body);
    kit_world_close(&w);
}

Test(provider_stop, an_agent_that_does_not_answer_costs_the_processes_only, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r;
    struct sandbox_stop_reply reply;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kill((pid_t)json_integer_value(json_object_get(kit_world_sandbox(&w, &id)->private_, "pid")), SIGSTOP);
    kit_world_call(&w, VERB_sandbox_stop, &id, MSG_sandbox_stop_request, &STOP, &r);
    kit_world_decode(&r, MSG_sandbox_stop_reply, &reply);
    cr_expect_not(reply.has_processes);
    cr_expect_eq(reply.warnings.count, 1);
    buf_free(&r.body);
    kit_world_close(&w);
}

Test(provider_stop, a_resume_that_fails_goes_back_to_stopped, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_bash(&w, &id, "echo kept > note");
    kit_world_stop(&w, &id, false);
    w.fake.modes[FAKE_RESUME] = FAKE_FAIL;
    kit_world_refused(&w, VERB_sandbox_resume, &id, MSG_empty, &NOTHING, ERR_NO_SPACE);
    cr_expect_str_eq(kit_world_state(&w, &id), "stopped");
    cr_expect(kit_world_sandbox(&w, &id)->has_processes, "what was kept must not be lost by a failed resume");
    w.fake.modes[FAKE_RESUME] = FAKE_RUN;
    kit_world_resume(&w, &id);
    cr_expect(kit_world_sandbox(&w, &id)->has_processes);
    cr_expect_str_eq(kit_world_bash(&w, &id, "cat note"), "kept\n");
    kit_world_close(&w);
}

Test(provider_stop, a_full_or_unhealthy_daemon_resumes_nothing, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id, other;
    kit_world_open(&w, &fake_ops);
    w.daemon.config.max_sandboxes = 1;
    kit_world_create(&w, &id);
    kit_world_stop(&w, &id, false);
    kit_world_create(&w, &other); /* a stopped one does not count */
    kit_world_refused(&w, VERB_sandbox_resume, &id, MSG_empty, &NOTHING, ERR_LIMIT_REACHED);
    kit_world_destroy(&w, &other);
    w.fake.is_unhealthy = true;
    kit_world_refused(&w, VERB_sandbox_resume, &id, MSG_empty, &NOTHING, ERR_PROVIDER_UNAVAILABLE);
    cr_expect_str_eq(kit_world_state(&w, &id), "stopped");
    w.fake.is_unhealthy = false;
    kit_world_resume(&w, &id);
    kit_world_close(&w);
}

Test(provider_stop, a_provider_that_cannot_says_so, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct snapshot_create_request snapshot = {.snapshot_id = "0a1b2c3d-0000-4000-8000-00000000000f"};
    kit_world_open(&w, &fake_ops_small);
    kit_world_create(&w, &id);
    kit_world_refused(&w, VERB_sandbox_stop, &id, MSG_sandbox_stop_request, &STOP, ERR_VALIDATION);
    kit_world_refused(&w, VERB_snapshot_create, &id, MSG_snapshot_create_request, &snapshot, ERR_VALIDATION);
    uuid16_t unknown = {.bytes = {9}};
    kit_world_refused(&w, VERB_sandbox_resume, &unknown, MSG_empty, &NOTHING, ERR_NOT_FOUND);
    kit_world_close(&w);
}

Test(provider_stop, destroy_waits_for_what_is_under_way, .timeout = 120)
{
    static const struct {
        enum fake_op op;
        enum verb verb;
        bool is_stopped_first;
    } rows[] = {{FAKE_STOP, VERB_sandbox_stop, false}, {FAKE_RESUME, VERB_sandbox_resume, true}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        kit_world_t w;
        uuid16_t id;
        kit_reply_t r, d;
        struct sandbox_destroy_request destroy = {0};
        kit_world_open(&w, &fake_ops);
        kit_world_create(&w, &id);
        if (rows[i].is_stopped_first)
            kit_world_stop(&w, &id, false);
        w.fake.modes[rows[i].op] = FAKE_WAIT_BEFORE;
        kit_world_start_call(&w, rows[i].verb, &id, 0,
                             rows[i].verb == VERB_sandbox_stop ? MSG_sandbox_stop_request : MSG_empty,
                             rows[i].verb == VERB_sandbox_stop ? (const void *)&STOP : (const void *)&NOTHING, &r);
        kit_world_until_count(&w, &w.fake.calls[rows[i].op], 1);
        kit_world_start_call(&w, VERB_sandbox_destroy, &id, 0, MSG_sandbox_destroy_request, &destroy, &d);
        kit_world_run(&w, 100);
        cr_expect_not(d.is_done);
        cr_expect_eq(w.fake.calls[FAKE_DESTROY], 0);
        w.fake.modes[rows[i].op] = FAKE_RUN;
        kit_world_until(&w, &d.is_done);
        cr_expect_eq(d.code, ERR_NONE, "%s", d.message);
        cr_expect(r.is_done);
        cr_expect_neq(r.code, ERR_NONE);
        buf_free(&d.body);
        kit_world_close(&w);
    }
}

Test(provider_stop, a_stopped_one_is_destroyed_at_once, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_stop(&w, &id, false);
    kit_world_destroy(&w, &id);
    cr_expect_str_eq(kit_world_state(&w, &id), "");
    kit_world_close(&w);
}

Test(provider_stop, hubs_cannot_configure_an_agent, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct agent_configure_request request = {.is_new = true};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_refused(&w, VERB_agent_configure, &id, MSG_agent_configure_request, &request, ERR_FORBIDDEN);
    kit_world_close(&w);
}

/* Frames of it that wait for a slow hub must neither hold up the stop nor count afterwards. */
Test(provider_stop, a_slow_hub_does_not_keep_it_from_stopping, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_peer_t *kp = TAILQ_FIRST(&w.provider->peers);
    kit_sandbox_t *ks = (kit_sandbox_t *)kit_world_sandbox(&w, &id);
    envelope_t env = {.kind = ENVELOPE_KIND_CHUNK, .call_id = 99, .sandbox = id};
    kit_world_start_call(&w, VERB_sandbox_stop, &id, 0, MSG_sandbox_stop_request, &STOP, &r);
    kit_frame_t *frame = kit_frame_new(&env, "x", 1, ks);
    STAILQ_INSERT_TAIL(&kp->outbox, frame, entry);
    kp->outbox_bytes += frame->len;
    ks->held = 1;
    stream_pause(ks->pub.stream, true);
    kit_world_until_count(&w, &w.fake.calls[FAKE_STOP], 1);
    kit_world_run(&w, 50);
    cr_expect_eq(ks->held, 0);
    kit_outbox_flush(kp);
    kit_world_until(&w, &r.is_done);
    cr_expect(ks->pub.has_processes);
    buf_free(&r.body);
    kit_world_resume(&w, &id);
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo heard"), "heard\n");
    kit_world_close(&w);
}

Test(provider_stop, its_environment_is_there_after_every_start, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct sandbox_create_request request;
    auto_buf buf_t env = {0};
    kit_world_open(&w, &fake_ops);
    kit_world_create_request(&request);
    proto_list_add_str(&env, "WHO");
    proto_list_add_str(&env, "me");
    request.env = proto_list_of(1, &env);
    random_bytes(&id, sizeof id);
    kit_world_refused(&w, VERB_sandbox_create, &id, MSG_sandbox_create_request, &request, ERR_NONE);
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo $WHO"), "me\n");
    for (int without_processes = 0; without_processes <= 1; without_processes++) {
        kit_world_stop(&w, &id, without_processes);
        kit_world_resume(&w, &id);
        cr_expect_str_eq(kit_world_bash(&w, &id, "echo $WHO"), "me\n");
    }
    kit_world_kill_agent(&w, &id);
    kit_world_until_count(&w, &w.restarted_events, 1);
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo $WHO"), "me\n");
    kit_world_close(&w);
}
