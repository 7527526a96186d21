/* SPDX-License-Identifier: Apache-2.0
 *
 * What ends by itself, and what a daemon finds that was killed at some step.
 */
// LINK: tests/unit/kit_world.c tests/unit/fake_vtable.c
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "tests/unit/kit_world.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

static const struct empty NOTHING;
static const struct sandbox_stop_request STOP;

/* Dead for sure, not yet reaped. */
static void kill_and_wait(pid_t pid)
{
    siginfo_t info;
    kill(pid, SIGKILL);
    cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

Test(provider_restart, one_that_ends_by_itself_comes_back_with_its_files, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t call;
    struct bash_request slow = {.command = "sleep 5"}, quick = {.command = "true"};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_bash(&w, &id, "echo kept > note");
    kit_world_start_call(&w, VERB_bash, &id, 0, MSG_bash_request, &slow, &call);
    kit_world_run(&w, 100);
    w.fake.modes[FAKE_RESUME] = FAKE_WAIT_BEFORE;
    kit_world_kill_agent(&w, &id);
    kit_world_until(&w, &call.is_done);
    cr_expect_eq(call.code, ERR_SANDBOX_FAILED);
    cr_expect_str_eq(kit_world_state(&w, &id), "resuming");
    kit_world_call(&w, VERB_bash, &id, MSG_bash_request, &quick, &call);
    cr_expect_eq(call.code, ERR_PROVIDER_UNAVAILABLE);
    cr_expect_not_null(strstr(call.message, "being restarted after"), "%s", call.message);
    cr_expect_eq(w.restarted_events, 0);
    w.fake.modes[FAKE_RESUME] = FAKE_RUN;
    kit_world_until_count(&w, &w.restarted_events, 1);
    cr_expect_str_neq(w.reason, "");
    cr_expect_eq(w.dead_events, 0);
    cr_expect_str_eq(kit_world_bash(&w, &id, "cat note"), "kept\n");
    kit_world_close(&w);
}

Test(provider_restart, the_third_death_in_ten_minutes_is_the_last, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct bash_request quick = {.command = "true"};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    for (unsigned i = 1; i <= 2; i++) {
        kit_world_kill_agent(&w, &id);
        kit_world_until_count(&w, &w.restarted_events, i);
        kit_world_crash(&w); /* the history is on disk */
        kit_world_start(&w);
    }
    kit_world_kill_agent(&w, &id);
    kit_world_until_count(&w, &w.dead_events, 1);
    cr_expect_str_eq(kit_world_state(&w, &id), "dead");
    kit_world_refused(&w, VERB_bash, &id, MSG_bash_request, &quick, ERR_SANDBOX_FAILED);
    kit_world_resume(&w, &id); /* on request it is tried again */
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo here"), "here\n");
    kit_world_close(&w);
}

Test(provider_restart, a_dead_one_can_be_stopped, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_bash(&w, &id, "echo kept > note");
    w.fake.modes[FAKE_RESUME] = FAKE_FAIL;
    kit_world_kill_agent(&w, &id);
    kit_world_until_count(&w, &w.dead_events, 1);
    cr_expect_not_null(strstr(w.reason, "could not be started again"), "%s", w.reason);
    kit_world_stop(&w, &id, false);
    cr_expect_not(w.fake.was_kept);
    cr_expect_str_eq(kit_world_state(&w, &id), "stopped");
    w.fake.modes[FAKE_RESUME] = FAKE_RUN;
    kit_world_resume(&w, &id);
    cr_expect_str_eq(kit_world_bash(&w, &id, "cat note"), "kept\n");
    kit_world_close(&w);
}

Test(provider_restart, without_resume_it_is_dead_as_ever, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_world_open(&w, &fake_ops_small);
    kit_world_create(&w, &id);
    kit_world_kill_agent(&w, &id);
    kit_world_until_count(&w, &w.dead_events, 1);
    cr_expect_str_eq(kit_world_state(&w, &id), "dead");
    kit_world_close(&w);
}

Test(provider_restart, one_that_is_being_restarted_can_be_destroyed, .timeout = 60)
{
    for (int is_unhealthy = 0; is_unhealthy <= 1; is_unhealthy++) {
        kit_world_t w;
        uuid16_t id;
        kit_reply_t gone;
        struct sandbox_destroy_request destroy = {0};
        kit_world_open(&w, &fake_ops);
        kit_world_create(&w, &id);
        w.fake.is_unhealthy = is_unhealthy; /* it waits for the provider to be well */
        w.fake.modes[FAKE_RESUME] = FAKE_WAIT_BEFORE;
        kit_world_kill_agent(&w, &id);
        kit_world_until_state(&w, &id, "resuming");
        cr_expect_eq(w.fake.calls[FAKE_RESUME], !is_unhealthy);
        kit_world_start_call(&w, VERB_sandbox_destroy, &id, 0, MSG_sandbox_destroy_request, &destroy, &gone);
        kit_world_run(&w, 50);
        cr_expect_eq(gone.is_done, is_unhealthy);
        w.fake.modes[FAKE_RESUME] = FAKE_RUN;
        kit_world_until(&w, &gone.is_done);
        cr_expect_eq(gone.code, ERR_NONE);
        buf_free(&gone.body);
        kit_world_close(&w);
    }
}

Test(provider_restart, after_a_reboot_all_come_back_a_few_at_a_time, .timeout = 120)
{
    enum { MANY = 7 };
    kit_world_t w;
    uuid16_t ids[MANY];
    kit_world_open(&w, &fake_ops);
    for (size_t i = 0; i < MANY; i++)
        kit_world_create(&w, &ids[i]);
    pid_t pids[MANY];
    for (size_t i = 0; i < MANY; i++)
        pids[i] = (pid_t)json_integer_value(json_object_get(kit_world_sandbox(&w, &ids[i])->private_, "pid"));
    kit_world_crash(&w);
    for (size_t i = 0; i < MANY; i++)
        kill_and_wait(pids[i]);
    w.fake.modes[FAKE_RESUME] = FAKE_WAIT_BEFORE;
    kit_world_start(&w);
    kit_world_run(&w, 100);
    cr_expect_eq(w.fake.calls[FAKE_RESUME], 4);
    w.fake.modes[FAKE_RESUME] = FAKE_RUN;
    kit_world_until_count(&w, &w.restarted_events, MANY);
    for (size_t i = 0; i < MANY; i++)
        cr_expect_str_eq(kit_world_bash(&w, &ids[i], "echo on"), "on\n");
    kit_world_close(&w);
}

/* ---- killed at a step ---- */

static void request(kit_world_t *w, enum verb verb, const uuid16_t *id, kit_reply_t *r)
{
    bool is_stop = verb == VERB_sandbox_stop;
    kit_world_start_call(w, verb, id, 0, is_stop ? MSG_sandbox_stop_request : MSG_empty,
                         is_stop ? (const void *)&STOP : (const void *)&NOTHING, r);
}

typedef struct killed_row {
    const char *name;
    enum verb verb;
    enum fake_op op;
    enum fake_mode mode;
    bool is_stopped_first;
    bool is_killed; /* the agent as well, as when the host is rebooted */
    const char *state;
    bool has_processes;
} killed_row_t;

static const killed_row_t KILLED[] = {
    {"stop not begun", VERB_sandbox_stop, FAKE_STOP, FAKE_WAIT_BEFORE, false, false, "ready", true},
    {"stop done, not written down", VERB_sandbox_stop, FAKE_STOP, FAKE_WAIT_AFTER, false, false, "stopped", true},
    {"stop not begun, reboot", VERB_sandbox_stop, FAKE_STOP, FAKE_WAIT_BEFORE, false, true, "stopped", false},
    {"stop done, reboot", VERB_sandbox_stop, FAKE_STOP, FAKE_WAIT_AFTER, false, true, "stopped", false},
    {"resume not begun", VERB_sandbox_resume, FAKE_RESUME, FAKE_WAIT_BEFORE, true, false, "stopped", true},
    {"resume done, not written down", VERB_sandbox_resume, FAKE_RESUME, FAKE_WAIT_AFTER, true, false, "ready", true},
    {"resume done, reboot", VERB_sandbox_resume, FAKE_RESUME, FAKE_WAIT_AFTER, true, true, "stopped", false},
};

static void killed_once(const killed_row_t *row)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_bash(&w, &id, "echo kept > note");
    if (row->is_stopped_first)
        kit_world_stop(&w, &id, false);
    unsigned calls = w.fake.calls[row->op];
    w.fake.modes[row->op] = row->mode;
    request(&w, row->verb, &id, &r);
    kit_world_until_count(&w, &w.fake.calls[row->op], calls + 1);
    kit_world_run(&w, 50);
    pid_t pid = (pid_t)json_integer_value(json_object_get(kit_world_sandbox(&w, &id)->private_, "pid"));
    kit_world_crash(&w);
    cr_expect(r.is_done);
    if (row->is_killed)
        kill_and_wait(pid);
    w.fake.modes[row->op] = FAKE_RUN;
    kit_world_start(&w);
    kit_world_until_state(&w, &id, row->state);
    bool is_stopped = strcmp(row->state, "stopped") == 0;
    if (is_stopped)
        cr_expect_eq(kit_world_sandbox(&w, &id)->has_processes, row->has_processes, "%s", row->name);
    if (is_stopped)
        kit_world_resume(&w, &id);
    cr_expect_eq(kit_world_sandbox(&w, &id)->data != NULL, true);
    pid_t now = (pid_t)json_integer_value(json_object_get(kit_world_sandbox(&w, &id)->private_, "pid"));
    cr_expect_eq(now == pid, row->has_processes, "%s", row->name);
    cr_expect_str_eq(kit_world_bash(&w, &id, "cat note"), "kept\n", "%s", row->name);
    kit_world_close(&w);
}

Test(provider_restart, killed_while_stopping_or_resuming, .timeout = 120)
{
    for (size_t i = 0; i < COUNT_OF(KILLED); i++)
        killed_once(&KILLED[i]);
}

Test(provider_restart, killed_while_nothing_is_under_way, .timeout = 60)
{
    kit_world_t w;
    uuid16_t ready, stopped, dead;
    kit_reply_t r;
    struct sandbox_stop_reply reply;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &ready);
    kit_world_create(&w, &stopped);
    kit_world_create(&w, &dead);
    kit_world_stop(&w, &stopped, false);
    w.fake.modes[FAKE_RESUME] = FAKE_FAIL;
    kit_world_kill_agent(&w, &dead);
    kit_world_until_count(&w, &w.dead_events, 1);
    w.fake.modes[FAKE_RESUME] = FAKE_RUN;
    kit_world_crash(&w);
    kit_world_start(&w);
    cr_expect_str_eq(kit_world_state(&w, &ready), "ready");
    cr_expect_str_eq(kit_world_state(&w, &stopped), "stopped");
    cr_expect_str_eq(kit_world_state(&w, &dead), "dead");
    kit_world_call(&w, VERB_sandbox_stop, &stopped, MSG_sandbox_stop_request, &STOP, &r);
    kit_world_decode(&r, MSG_sandbox_stop_reply, &reply);
    cr_expect(reply.has_processes, "a repeated stop answers the same after a restart");
    cr_expect_eq(reply.kept_bytes, 12345);
    buf_free(&r.body);
    kit_world_resume(&w, &stopped);
    cr_expect_str_eq(kit_world_bash(&w, &ready, "echo on"), "on\n");
    kit_world_close(&w);
}

Test(provider_restart, killed_while_creating_or_destroying_leaves_nothing, .timeout = 60)
{
    static const enum fake_mode modes[] = {FAKE_WAIT_BEFORE, FAKE_WAIT_AFTER};
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        kit_world_t w;
        uuid16_t made, gone;
        kit_reply_t create, destroy;
        struct sandbox_create_request request;
        struct sandbox_destroy_request now = {.grace_ms = 0, .has.grace_ms = true};
        kit_world_open(&w, &fake_ops);
        kit_world_create(&w, &gone);
        kit_world_create_request(&request);
        random_bytes(&made, sizeof made);
        w.fake.modes[FAKE_CREATE] = w.fake.modes[FAKE_DESTROY] = modes[i];
        kit_world_start_call(&w, VERB_sandbox_create, &made, 0, MSG_sandbox_create_request, &request, &create);
        kit_world_start_call(&w, VERB_sandbox_destroy, &gone, 0, MSG_sandbox_destroy_request, &now, &destroy);
        kit_world_run(&w, 100);
        kit_world_crash(&w);
        w.fake.modes[FAKE_CREATE] = w.fake.modes[FAKE_DESTROY] = FAKE_RUN;
        kit_world_start(&w);
        kit_world_until_state(&w, &made, "");
        kit_world_until_state(&w, &gone, "");
        kit_world_close(&w);
    }
}

Test(provider_restart, an_agent_that_does_not_wake_up_is_started_from_its_files, .timeout = 120)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r;
    struct sandbox_resume_reply reply;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_bash(&w, &id, "echo kept > note");
    kit_world_stop(&w, &id, false);
    w.fake.modes[FAKE_RESUME] = FAKE_MUTE;
    request(&w, VERB_sandbox_resume, &id, &r);
    kit_world_until_count(&w, &w.fake.calls[FAKE_RESUME], 1);
    kit_world_run(&w, 50);
    w.fake.modes[FAKE_RESUME] = FAKE_RUN;
    kit_world_kill_agent(&w, &id);
    kit_world_until(&w, &r.is_done);
    kit_world_decode(&r, MSG_sandbox_resume_reply, &reply);
    cr_expect_not(reply.has_processes);
    cr_expect_eq(reply.warnings.count, 1);
    buf_free(&r.body);
    cr_expect_str_eq(kit_world_bash(&w, &id, "cat note"), "kept\n");
    kit_world_close(&w);
}

Test(provider_restart, a_stop_that_cannot_be_finished_leaves_it_dead_and_destroyable, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    w.fake.modes[FAKE_STOP] = FAKE_WAIT_AFTER;
    request(&w, VERB_sandbox_stop, &id, &r);
    kit_world_until_count(&w, &w.fake.calls[FAKE_STOP], 1);
    kit_world_run(&w, 50);
    kit_world_crash(&w);
    w.fake.modes[FAKE_STOP] = FAKE_FAIL;
    kit_world_start(&w);
    kit_world_until_state(&w, &id, "dead");
    w.fake.modes[FAKE_STOP] = FAKE_RUN;
    kit_world_stop(&w, &id, false);
    kit_world_resume(&w, &id);
    kit_world_close(&w);
}

Test(provider_restart, killed_while_a_restart_is_under_way, .timeout = 60)
{
    static const enum fake_mode modes[] = {FAKE_WAIT_BEFORE, FAKE_WAIT_AFTER};
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        kit_world_t w;
        uuid16_t id;
        kit_world_open(&w, &fake_ops);
        kit_world_create(&w, &id);
        kit_world_bash(&w, &id, "echo kept > note");
        w.fake.modes[FAKE_RESUME] = modes[i];
        kit_world_kill_agent(&w, &id);
        kit_world_until_count(&w, &w.fake.calls[FAKE_RESUME], 1);
        kit_world_run(&w, 50);
        kit_world_crash(&w);
        w.fake.modes[FAKE_RESUME] = FAKE_RUN;
        kit_world_start(&w);
        kit_world_until_state(&w, &id, "ready");
        kit_world_resume(&w, &id);
        cr_expect_str_eq(kit_world_bash(&w, &id, "cat note"), "kept\n");
        kit_world_close(&w);
    }
}

Test(provider_restart, a_restart_that_fails_is_tried_again, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    w.fake.modes[FAKE_RESUME] = FAKE_FAIL_DEAD;
    kit_world_kill_agent(&w, &id);
    kit_world_until_count(&w, &w.fake.calls[FAKE_RESUME], 2);
    w.fake.modes[FAKE_RESUME] = FAKE_RUN;
    kit_world_until_count(&w, &w.restarted_events, 1);
    cr_expect_eq(w.dead_events, 0);
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo here"), "here\n");
    kit_world_close(&w);
}

Test(provider_restart, a_resume_asked_for_again_after_a_restart_is_done, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t first, again;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_stop(&w, &id, false);
    w.fake.modes[FAKE_RESUME] = FAKE_WAIT_BEFORE;
    request(&w, VERB_sandbox_resume, &id, &first);
    kit_world_until_count(&w, &w.fake.calls[FAKE_RESUME], 1);
    kit_world_crash(&w);
    w.fake.modes[FAKE_RESUME] = FAKE_RUN;
    w.fake.modes[FAKE_STOP] = FAKE_WAIT_BEFORE; /* it is being taken back */
    kit_world_start(&w);
    request(&w, VERB_sandbox_resume, &id, &again);
    kit_world_run(&w, 50);
    cr_expect_not(again.is_done);
    w.fake.modes[FAKE_STOP] = FAKE_RUN;
    kit_world_until(&w, &again.is_done);
    cr_expect_eq(again.code, ERR_NONE, "%s", again.message);
    cr_expect(kit_world_sandbox(&w, &id)->has_processes);
    buf_free(&again.body);
    kit_world_close(&w);
}
