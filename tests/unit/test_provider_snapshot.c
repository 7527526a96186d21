/* SPDX-License-Identifier: Apache-2.0 */
// LINK: tests/unit/kit_world.c tests/unit/fake_vtable.c
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "tests/unit/kit_world.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const char SNAP[] = "0a1b2c3d-0000-4000-8000-0000000000a1";
static const char OTHER[] = "0a1b2c3d-0000-4000-8000-0000000000a2";
static const struct empty NOTHING;
static const struct sandbox_stop_request STOP;

static void take(kit_world_t *w, const uuid16_t *id, const char *snapshot_id, bool without_processes)
{
    struct snapshot_create_request request = {.snapshot_id = snapshot_id, .without_processes = without_processes};
    kit_world_refused(w, VERB_snapshot_create, id, MSG_snapshot_create_request, &request, ERR_NONE);
}

static void drop(kit_world_t *w, const char *snapshot_id)
{
    struct snapshot_ref request = {.snapshot_id = snapshot_id};
    kit_world_refused(w, VERB_snapshot_delete, NULL, MSG_snapshot_ref, &request, ERR_NONE);
}

static unsigned count_snapshots(kit_world_t *w)
{
    struct snapshot_list_reply list;
    kit_reply_t r;
    kit_world_call(w, VERB_snapshot_list, NULL, MSG_empty, &NOTHING, &r);
    kit_world_decode(&r, MSG_snapshot_list_reply, &list);
    buf_free(&r.body);
    return list.snapshots.count;
}

static char *path_of(const kit_world_t *w, const char *prefix, const char *snapshot_id)
{
    return mem_printf("%s/fake/snapshots/%s%s", w->dir, prefix, snapshot_id);
}

static void create_from(kit_world_t *w, uuid16_t *id, struct sandbox_create_request *request, enum err_code code)
{
    random_bytes(id, sizeof *id);
    kit_world_refused(w, VERB_sandbox_create, id, MSG_sandbox_create_request, request, code);
}

Test(provider_snapshot, a_copy_stands_on_its_own, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id, copy;
    kit_reply_t r;
    struct snapshot_info info;
    struct snapshot_create_request request = {.snapshot_id = SNAP};
    auto_buf buf_t labels = {0}, env = {0};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_bash(&w, &id, "echo original > note");
    proto_list_add_str(&labels, "name");
    proto_list_add_str(&labels, "first");
    request.labels = proto_list_of(1, &labels);
    kit_world_call(&w, VERB_snapshot_create, &id, MSG_snapshot_create_request, &request, &r);
    kit_world_decode(&r, MSG_snapshot_info, &info);
    cr_expect_str_eq(info.snapshot_id, SNAP);
    cr_expect_str_eq(info.state, "ready");
    cr_expect(info.has_processes);
    cr_expect_eq(info.size_bytes, 777);
    cr_expect_eq(info.cpu_milli, 1000);
    cr_expect_str_eq(info.network, "none");
    cr_expect_eq(info.labels.count, 1);
    cr_expect_eq(info.warnings.count, 1);
    cr_expect_geq(info.total_ms, info.stall_ms);
    buf_free(&r.body);
    kit_world_destroy(&w, &id);
    struct sandbox_create_request create;
    kit_world_create_request(&create);
    proto_list_add_str(&env, "WHO");
    proto_list_add_str(&env, "the copy");
    create.image = "";
    create.env = proto_list_of(1, &env);
    create.snapshot_id = SNAP;
    create_from(&w, &copy, &create, ERR_NONE);
    cr_expect_str_eq(kit_world_bash(&w, &copy, "cat note; echo $WHO"), "original\nthe copy\n");
    cr_expect(kit_world_sandbox(&w, &copy)->has_processes);
    cr_expect_str_eq(kit_world_sandbox(&w, &copy)->spec.image, "base");
    drop(&w, SNAP);
    cr_expect_eq(count_snapshots(&w), 0);
    cr_expect_str_eq(kit_world_bash(&w, &copy, "cat note"), "original\n");
    kit_world_close(&w);
}

Test(provider_snapshot, calls_in_flight_notice_nothing_but_a_stall, .timeout = 60)
{
    for (int runs_on = 0; runs_on <= 1; runs_on++) {
        kit_world_t w;
        uuid16_t id;
        kit_reply_t before, during, snap, refused;
        struct bash_request slow = {.command = "i=0; while [ $i -lt 30 ]; do echo line $i; sleep 0.03; i=$((i+1)); "
                                               "done | tee all | md5sum; md5sum < all"};
        struct bash_request quick = {.command = "echo quick"};
        struct snapshot_create_request request = {.snapshot_id = SNAP};
        struct bash_reply reply;
        kit_world_open(&w, &fake_ops);
        kit_world_create(&w, &id);
        w.fake.runs_on = runs_on;
        w.fake.modes[FAKE_SNAPSHOT] = runs_on ? FAKE_WAIT_AFTER : FAKE_WAIT_BEFORE;
        kit_world_start_call(&w, VERB_bash, &id, 0, MSG_bash_request, &slow, &before);
        kit_world_run(&w, 100);
        kit_world_start_call(&w, VERB_snapshot_create, &id, 0, MSG_snapshot_create_request, &request, &snap);
        kit_world_until_count(&w, &w.fake.calls[FAKE_SNAPSHOT], 1);
        kit_world_start_call(&w, VERB_bash, &id, 0, MSG_bash_request, &quick, &during);
        kit_world_start_call(&w, VERB_sandbox_stop, &id, 0, MSG_sandbox_stop_request, &STOP, &refused);
        kit_world_run(&w, 1500);
        cr_expect_eq(during.is_done, runs_on, "it waits unless the provider said that the sandbox runs on");
        cr_expect_eq(before.is_done, runs_on);
        cr_expect_eq(refused.code, ERR_CONFLICT);
        cr_expect_not(snap.is_done);
        cr_expect_str_eq(kit_world_state(&w, &id), "ready");
        w.fake.modes[FAKE_SNAPSHOT] = FAKE_RUN;
        kit_world_until(&w, &during.is_done);
        kit_world_until(&w, &before.is_done);
        kit_world_until(&w, &snap.is_done);
        cr_expect_eq(snap.code, ERR_NONE, "%s", snap.message);
        kit_world_decode(&during, MSG_bash_reply, &reply);
        kit_world_decode(&before, MSG_bash_reply, &reply);
        cr_expect_eq(reply.stdout.len, 72);
        cr_expect_eq(memcmp(reply.stdout.data, (const char *)reply.stdout.data + 36, 36), 0);
        buf_free(&before.body);
        buf_free(&during.body);
        buf_free(&snap.body);
        drop(&w, SNAP);
        kit_world_close(&w);
    }
}

Test(provider_snapshot, a_stopped_one_is_copied_as_it_is, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    kit_world_stop(&w, &id, false);
    take(&w, &id, SNAP, true);
    cr_expect_str_eq(kit_world_state(&w, &id), "stopped");
    const snapshot_t *snap = provider_snapshot_next(w.provider, NULL);
    cr_assert_not_null(snap);
    cr_expect_not(snap->has_processes);
    cr_expect_null(provider_snapshot_next(w.provider, snap));
    kit_world_resume(&w, &id);
    drop(&w, SNAP);
    drop(&w, SNAP); /* unknown succeeds */
    kit_world_close(&w);
}

Test(provider_snapshot, a_known_id_answers_and_one_in_creation_joins, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r[3];
    struct snapshot_create_request request = {.snapshot_id = SNAP}, other = {.snapshot_id = OTHER};
    struct snapshot_ref ref = {.snapshot_id = SNAP};
    struct snapshot_info info;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_WAIT_BEFORE;
    kit_world_start_call(&w, VERB_snapshot_create, &id, 0, MSG_snapshot_create_request, &request, &r[0]);
    kit_world_start_call(&w, VERB_snapshot_create, &id, 0, MSG_snapshot_create_request, &request, &r[1]);
    kit_world_refused(&w, VERB_snapshot_create, &id, MSG_snapshot_create_request, &other, ERR_CONFLICT);
    kit_world_refused(&w, VERB_snapshot_delete, NULL, MSG_snapshot_ref, &ref, ERR_CONFLICT);
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_RUN;
    kit_world_until(&w, &r[0].is_done);
    kit_world_until(&w, &r[1].is_done);
    kit_world_call(&w, VERB_snapshot_create, &id, MSG_snapshot_create_request, &request, &r[2]);
    for (size_t i = 0; i < COUNT_OF(r); i++) {
        kit_world_decode(&r[i], MSG_snapshot_info, &info);
        cr_expect_str_eq(info.state, "ready");
        buf_free(&r[i].body);
    }
    cr_expect_eq(w.fake.calls[FAKE_SNAPSHOT], 1);
    struct snapshot_create_request bad = {.snapshot_id = "../../etc"};
    kit_world_refused(&w, VERB_snapshot_create, &id, MSG_snapshot_create_request, &bad, ERR_VALIDATION);
    drop(&w, SNAP);
    kit_world_close(&w);
}

Test(provider_snapshot, a_failed_one_leaves_nothing_and_the_sandbox_runs_on, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    struct snapshot_create_request request = {.snapshot_id = SNAP};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_FAIL;
    kit_world_refused(&w, VERB_snapshot_create, &id, MSG_snapshot_create_request, &request, ERR_NO_SPACE);
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo there"), "there\n");
    cr_expect_null(provider_snapshot_next(w.provider, NULL));
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_RUN;
    take(&w, &id, SNAP, false); /* the same id works now */
    drop(&w, SNAP);
    kit_world_close(&w);
}

Test(provider_snapshot, one_that_ends_meanwhile_comes_back, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t snap;
    struct snapshot_create_request request = {.snapshot_id = SNAP};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_WAIT_BEFORE;
    kit_world_start_call(&w, VERB_snapshot_create, &id, 0, MSG_snapshot_create_request, &request, &snap);
    kit_world_until_count(&w, &w.fake.calls[FAKE_SNAPSHOT], 1);
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_FAIL_DEAD;
    kit_world_until(&w, &snap.is_done);
    cr_expect_eq(snap.code, ERR_NO_SPACE);
    kit_world_until_count(&w, &w.restarted_events, 1);
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo back"), "back\n");
    kit_world_close(&w);
}

Test(provider_snapshot, a_silent_agent_costs_the_processes_and_its_calls_are_told, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t call, snap;
    struct bash_request slow = {.command = "sleep 1; echo done"};
    struct snapshot_create_request request = {.snapshot_id = SNAP};
    struct snapshot_info info;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    pid_t pid = (pid_t)json_integer_value(json_object_get(kit_world_sandbox(&w, &id)->private_, "pid"));
    kit_world_start_call(&w, VERB_bash, &id, 42, MSG_bash_request, &slow, &call);
    kit_world_run(&w, 200);
    kill(pid, SIGSTOP);
    kit_world_start_call(&w, VERB_snapshot_create, &id, 0, MSG_snapshot_create_request, &request, &snap);
    kit_world_until(&w, &call.is_done);
    cr_expect_eq(call.code, ERR_PROVIDER_UNAVAILABLE);
    kill(pid, SIGCONT);
    kit_world_until(&w, &snap.is_done);
    kit_world_decode(&snap, MSG_snapshot_info, &info);
    cr_expect_not(info.has_processes);
    cr_expect_eq(info.warnings.count, 2);
    buf_free(&snap.body);
    kit_world_start_call(&w, VERB_bash, &id, 42, MSG_bash_request, &slow, &call);
    kit_world_until(&w, &call.is_done);
    cr_expect_eq(call.code, ERR_NONE, "%s", call.message);
    buf_free(&call.body);
    drop(&w, SNAP);
    kit_world_close(&w);
}

Test(provider_snapshot, what_does_not_fit_a_snapshot_is_refused, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id, copy;
    struct sandbox_create_request base, request;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    take(&w, &id, SNAP, false);
    take(&w, &id, OTHER, true);
    kit_world_create_request(&base);
    base.snapshot_id = SNAP;
    request = base;
    request.snapshot_id = "0a1b2c3d-0000-4000-8000-0000000000ff";
    create_from(&w, &copy, &request, ERR_NOT_FOUND);
    request.snapshot_id = "none";
    create_from(&w, &copy, &request, ERR_NOT_FOUND);
    request = base;
    request.image = "another";
    create_from(&w, &copy, &request, ERR_VALIDATION);
    request = base;
    request.disk_bytes /= 2;
    create_from(&w, &copy, &request, ERR_VALIDATION);
    request = base;
    request.network = "full";
    create_from(&w, &copy, &request, ERR_VALIDATION);
    request.snapshot_id = OTHER; /* no processes that could notice */
    create_from(&w, &copy, &request, ERR_NONE);
    drop(&w, SNAP);
    drop(&w, OTHER);
    kit_world_close(&w);
}

Test(provider_snapshot, one_in_use_is_not_deleted, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id, copy;
    kit_reply_t r;
    struct sandbox_create_request request;
    struct snapshot_ref ref = {.snapshot_id = SNAP};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    take(&w, &id, SNAP, false);
    kit_world_create_request(&request);
    request.snapshot_id = SNAP;
    w.fake.modes[FAKE_CREATE_FROM] = FAKE_WAIT_BEFORE;
    random_bytes(&copy, sizeof copy);
    kit_world_start_call(&w, VERB_sandbox_create, &copy, 0, MSG_sandbox_create_request, &request, &r);
    kit_world_refused(&w, VERB_snapshot_delete, NULL, MSG_snapshot_ref, &ref, ERR_CONFLICT);
    w.fake.modes[FAKE_CREATE_FROM] = FAKE_RUN;
    kit_world_until(&w, &r.is_done);
    cr_expect_eq(r.code, ERR_NONE, "%s", r.message);
    buf_free(&r.body);
    drop(&w, SNAP);
    w.fake.modes[FAKE_CREATE_FROM] = FAKE_FAIL;
    take(&w, &id, OTHER, false);
    request.snapshot_id = OTHER;
    create_from(&w, &copy, &request, ERR_NO_SPACE);
    drop(&w, OTHER);
    kit_world_close(&w);
}

Test(provider_snapshot, destroying_the_source_lets_the_copy_end_first, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t snap, gone;
    struct snapshot_create_request request = {.snapshot_id = SNAP};
    struct sandbox_destroy_request destroy = {0};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_WAIT_BEFORE;
    kit_world_start_call(&w, VERB_snapshot_create, &id, 0, MSG_snapshot_create_request, &request, &snap);
    kit_world_until_count(&w, &w.fake.calls[FAKE_SNAPSHOT], 1);
    kit_world_start_call(&w, VERB_sandbox_destroy, &id, 0, MSG_sandbox_destroy_request, &destroy, &gone);
    kit_world_run(&w, 100);
    cr_expect_not(gone.is_done);
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_RUN;
    kit_world_until(&w, &gone.is_done);
    kit_world_until(&w, &snap.is_done);
    cr_expect_eq(snap.code, ERR_NONE, "%s", snap.message);
    cr_expect_eq(gone.code, ERR_NONE, "%s", gone.message);
    buf_free(&snap.body);
    buf_free(&gone.body);
    drop(&w, SNAP);
    kit_world_close(&w);
}

Test(provider_snapshot, a_restarted_daemon_knows_what_is_complete, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_reply_t r;
    auto_err err_t *e = NULL;
    struct snapshot_create_request request = {.snapshot_id = OTHER}, again = {.snapshot_id = SNAP};
    struct snapshot_info info;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    take(&w, &id, SNAP, false);
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_WAIT_AFTER;
    kit_world_start_call(&w, VERB_snapshot_create, &id, 0, MSG_snapshot_create_request, &request, &r);
    kit_world_until_count(&w, &w.fake.calls[FAKE_SNAPSHOT], 2);
    kit_world_run(&w, 50);
    auto_free char *half = path_of(&w, ".new-", OTHER);
    auto_free char *old = path_of(&w, ".old-", "0a1b2c3d-0000-4000-8000-0000000000aa-1");
    auto_free char *odd = path_of(&w, "", "0a1b2c3d-0000-4000-8000-0000000000bb");
    cr_assert_eq(access(half, F_OK), 0);
    cr_assert_eq(dir_make(old, 0700, &e), 0);
    cr_assert_eq(dir_make(odd, 0700, &e), 0);
    kit_world_crash(&w);
    w.fake.modes[FAKE_SNAPSHOT] = FAKE_RUN;
    kit_world_start(&w);
    cr_expect_str_eq(kit_world_bash(&w, &id, "echo not quiet for ever"), "not quiet for ever\n");
    cr_expect_eq(count_snapshots(&w), 1);
    kit_world_call(&w, VERB_snapshot_create, &id, MSG_snapshot_create_request, &again, &r);
    kit_world_decode(&r, MSG_snapshot_info, &info);
    cr_expect_eq(info.size_bytes, 777);
    cr_expect(info.has_processes);
    buf_free(&r.body);
    for (int i = 0; i < 200 && (access(half, F_OK) == 0 || access(old, F_OK) == 0); i++)
        kit_world_run(&w, 10);
    cr_expect_neq(access(half, F_OK), 0, "what was half made stays");
    cr_expect_neq(access(old, F_OK), 0, "what was half deleted stays");
    cr_expect_eq(access(odd, F_OK), 0, "what cannot be read is kept");
    struct sandbox_create_request create;
    uuid16_t copy;
    kit_world_create_request(&create);
    create.snapshot_id = "0a1b2c3d-0000-4000-8000-0000000000bb";
    create_from(&w, &copy, &create, ERR_INTERNAL);
    drop(&w, create.snapshot_id);
    drop(&w, SNAP);
    kit_world_close(&w);
}

Test(provider_snapshot, an_agent_that_refuses_its_identity_is_not_handed_out, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id, copy;
    struct sandbox_create_request request;
    auto_buf buf_t env = {0};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    take(&w, &id, SNAP, false);
    kit_world_create_request(&request);
    request.snapshot_id = SNAP;
    proto_list_add_str(&env, "NO=NAME");
    proto_list_add_str(&env, "x");
    request.env = proto_list_of(1, &env);
    create_from(&w, &copy, &request, ERR_SANDBOX_FAILED);
    kit_world_until_state(&w, &copy, "");
    drop(&w, SNAP);
    kit_world_close(&w);
}

Test(provider_snapshot, a_copy_may_be_destroyed_while_it_is_made, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id, copy;
    kit_reply_t made, gone;
    struct sandbox_create_request request;
    struct sandbox_destroy_request destroy = {0};
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    take(&w, &id, SNAP, false);
    kit_world_create_request(&request);
    request.snapshot_id = SNAP;
    random_bytes(&copy, sizeof copy);
    w.fake.modes[FAKE_CREATE_FROM] = FAKE_WAIT_AFTER;
    kit_world_start_call(&w, VERB_sandbox_create, &copy, 0, MSG_sandbox_create_request, &request, &made);
    kit_world_until_count(&w, &w.fake.calls[FAKE_CREATE_FROM], 1);
    kit_world_start_call(&w, VERB_sandbox_destroy, &copy, 0, MSG_sandbox_destroy_request, &destroy, &gone);
    kit_world_run(&w, 50);
    w.fake.modes[FAKE_CREATE_FROM] = FAKE_RUN;
    kit_world_until(&w, &gone.is_done);
    cr_expect_eq(made.code, ERR_CANCELLED);
    cr_expect_eq(gone.code, ERR_NONE);
    buf_free(&gone.body);
    drop(&w, SNAP); /* nobody uses it any more */
    kit_world_close(&w);
}

/* A daemon that reaps for its sandboxes may take the end of the child that removes, too. */
Test(provider_snapshot, it_is_gone_whoever_reaps_the_child_that_removes_it, .timeout = 60)
{
    kit_world_t w;
    uuid16_t id;
    kit_world_open(&w, &fake_ops);
    kit_world_create(&w, &id);
    take(&w, &id, SNAP, false);
    signal(SIGCHLD, SIG_IGN);
    drop(&w, SNAP);
    signal(SIGCHLD, SIG_DFL);
    cr_expect_eq(count_snapshots(&w), 0);
    kit_world_destroy(&w, &id);
    kit_world_close(&w);
}
