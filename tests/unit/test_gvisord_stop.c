/* SPDX-License-Identifier: Apache-2.0
 *
 * Stop and resume of real sandboxes: what goes on, what is freed, what happens when it cannot be done.
 */
// LINK: tests/unit/gvisord_hub.c tests/unit/gvisord_life.c
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "tests/unit/gvisord_life.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

Test(gvisord_stop, processes_and_files_go_on_after_a_stop, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t stopped, resumed;
    char before[128], after[128];
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    cr_assert_eq(hub_bash(&h, &id, "cat counter.pid", before, sizeof before), 0);
    life_stop(&h, &id, false, &stopped);
    cr_assert(stopped.has_processes, "%s", stopped.warnings);
    cr_assert_str_eq(stopped.warnings, "");
    cr_assert_gt(stopped.bytes, 0);
    life_assert_freed(&h);
    life_resume(&h, &id, &resumed);
    cr_assert(resumed.has_processes, "%s", resumed.warnings);
    cr_assert_str_eq(resumed.warnings, "");
    cr_assert_eq(hub_bash(&h, &id, "cat counter.pid; kill -0 $(cat counter.pid)", after, sizeof after), 0);
    cr_assert_str_eq(after, before);
    life_assert_counting(&h, &id);
    fprintf(stderr, "stop: %u ms %s; resume: %u ms %s\n", stopped.total_ms, stopped.phases, resumed.total_ms,
            resumed.phases);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_stop, it_can_be_stopped_again_and_again, .timeout = 180)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    for (int i = 0; i < 3; i++) {
        life_stop(&h, &id, false, &l);
        cr_assert(l.has_processes, "round %d: %s", i, l.warnings);
        life_resume(&h, &id, &l);
        cr_assert(l.has_processes, "round %d: %s", i, l.warnings);
        life_assert_counting(&h, &id);
    }
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_stop, what_keeps_memory_for_no_one_else_is_private, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    life_open(&h);
    life_create(&h, &id, "none");
    life_stop(&h, &id, false, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    cr_assert_eq(life_count_readable(&h), 0);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_stop, another_runsc_starts_from_the_files_and_says_why, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    char out[64];
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    cr_assert_eq(hub_bash(&h, &id, "echo kept > note", NULL, 0), 0);
    life_stop(&h, &id, false, &l);
    cr_assert(l.has_processes);
    life_edit_key(&h, &id, "runsc version 0.0~20990101.0");
    life_resume(&h, &id, &l);
    cr_assert_not(l.has_processes);
    cr_assert_not_null(strstr(l.warnings, "20990101"), "%s", l.warnings);
    cr_assert_not_null(strstr(l.warnings, "started anew"), "%s", l.warnings);
    cr_assert_eq(hub_bash(&h, &id, "cat note; pgrep -f '[c]ounter.sh' || echo none", out, sizeof out), 0);
    cr_assert_str_eq(out, "kept\nnone\n");
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_stop, a_damaged_memory_image_starts_from_the_files, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    char out[64];
    life_open(&h);
    life_create(&h, &id, "none");
    cr_assert_eq(hub_bash(&h, &id, "echo kept > note", NULL, 0), 0);
    life_stop(&h, &id, false, &l);
    life_damage_image(&h, &id);
    life_resume(&h, &id, &l);
    cr_assert_not(l.has_processes);
    cr_assert_str_neq(l.warnings, "");
    cr_assert_eq(hub_bash(&h, &id, "cat note", out, sizeof out), 0);
    cr_assert_str_eq(out, "kept\n");
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_stop, without_processes_only_files_are_kept, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    char out[64];
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    cr_assert_eq(hub_bash(&h, &id, "echo kept > note", NULL, 0), 0);
    life_stop(&h, &id, true, &l);
    cr_assert_not(l.has_processes);
    cr_assert_eq(l.bytes, 0);
    life_resume(&h, &id, &l);
    cr_assert_not(l.has_processes);
    cr_assert_str_eq(l.warnings, "");
    cr_assert_eq(hub_bash(&h, &id, "cat note; pgrep -f '[c]ounter.sh' || echo none", out, sizeof out), 0);
    cr_assert_str_eq(out, "kept\nnone\n");
    hub_destroy(&h, &id);
    hub_close(&h);
}

/* runsc 20240729 cannot save such a file. */
Test(gvisord_stop, an_open_file_that_was_removed_costs_the_processes_and_is_told, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    char out[64];
    life_open(&h);
    life_create(&h, &id, "none");
    cr_assert_eq(hub_bash(&h, &id, "echo kept > note; exec 3> gone; rm gone; sleep 1000 > /dev/null 2>&1 &", NULL, 0),
                 0);
    life_stop(&h, &id, false, &l);
    cr_assert_not(l.has_processes);
    cr_assert_not_null(strstr(l.warnings, "a process has a file open that has been removed"), "%s", l.warnings);
    life_resume(&h, &id, &l);
    cr_assert_eq(hub_bash(&h, &id, "cat note", out, sizeof out), 0);
    cr_assert_str_eq(out, "kept\n");
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_stop, a_network_comes_back_with_its_processes, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    char out[256];
    life_open(&h);
    life_create(&h, &id, "full");
    life_start_counter(&h, &id);
    life_stop(&h, &id, false, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    life_assert_freed(&h);
    life_resume(&h, &id, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    life_assert_counting(&h, &id);
    /* Whatever is there, an answer to the attempt shows that packets go in and out: here it is a refusal of the host's
     * firewall or a timeout of what has no route; the stack itself must not fail. */
    (void)hub_bash(&h, &id, "cat /proc/net/dev | grep -c eth0", out, sizeof out);
    cr_assert_str_eq(out, "1\n");
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_stop, destroying_a_stopped_one_leaves_nothing, .timeout = 90)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    life_open(&h);
    life_create(&h, &id, "none");
    life_stop(&h, &id, false, &l);
    hub_destroy(&h, &id);
    hub_close(&h);
}

/* ---- the daemon is killed ---- */

Test(gvisord_stop, a_daemon_killed_during_a_stop_loses_nothing, .timeout = 400)
{
    SKIP_IF_IMPOSSIBLE();
    static const unsigned moments_ms[] = {1, 20, 60, 100, 150, 200, 300};
    for (size_t i = 0; i < COUNT_OF(moments_ms); i++) {
        hub_t h;
        uuid16_t id;
        hub_reply_t r;
        life_t l;
        char out[64];
        struct sandbox_stop_request request = {0};
        life_open(&h);
        life_create(&h, &id, "none");
        life_start_counter(&h, &id);
        cr_assert_eq(hub_bash(&h, &id, "echo kept > note", NULL, 0), 0);
        hub_call_start(&h, VERB_sandbox_stop, &id, MSG_sandbox_stop_request, &request, &r);
        hub_run_for(&h, moments_ms[i]);
        hub_kill_daemon(&h, SIGKILL);
        buf_free(&r.body);
        hub_start_daemon(&h, NULL);
        life_stop(&h, &id, false, &l);
        cr_assert(l.has_processes, "after %u ms: %s", moments_ms[i], l.warnings);
        life_assert_freed(&h);
        life_resume(&h, &id, &l);
        cr_assert(l.has_processes, "after %u ms: %s", moments_ms[i], l.warnings);
        cr_assert_eq(hub_bash(&h, &id, "cat note", out, sizeof out), 0);
        cr_assert_str_eq(out, "kept\n");
        life_assert_counting(&h, &id);
        hub_destroy(&h, &id);
        hub_close(&h);
    }
}

Test(gvisord_stop, a_daemon_killed_during_a_resume_loses_nothing, .timeout = 400)
{
    SKIP_IF_IMPOSSIBLE();
    static const unsigned moments_ms[] = {1, 20, 60, 120, 200, 300, 400};
    for (size_t i = 0; i < COUNT_OF(moments_ms); i++) {
        hub_t h;
        uuid16_t id;
        hub_reply_t r;
        life_t l;
        char out[64];
        struct empty nothing = {0};
        life_open(&h);
        life_create(&h, &id, "none");
        life_start_counter(&h, &id);
        cr_assert_eq(hub_bash(&h, &id, "echo kept > note", NULL, 0), 0);
        life_stop(&h, &id, false, &l);
        cr_assert(l.has_processes);
        hub_call_start(&h, VERB_sandbox_resume, &id, MSG_empty, &nothing, &r);
        hub_run_for(&h, moments_ms[i]);
        hub_kill_daemon(&h, SIGKILL);
        buf_free(&r.body);
        hub_start_daemon(&h, NULL);
        life_resume(&h, &id, &l);
        cr_assert_eq(hub_bash(&h, &id, "cat note", out, sizeof out), 0);
        cr_assert_str_eq(out, "kept\n");
        cr_assert_str_eq(l.warnings, "", "after %u ms: %s", moments_ms[i], l.warnings);
        life_assert_counting(&h, &id);
        hub_destroy(&h, &id);
        hub_close(&h);
    }
}

typedef void (*begin_fn)(hub_t *h, const uuid16_t *id, hub_reply_t *r);

static void begin_stop(hub_t *h, const uuid16_t *id, hub_reply_t *r)
{
    struct sandbox_stop_request request = {0};
    hub_call_start(h, VERB_sandbox_stop, id, MSG_sandbox_stop_request, &request, r);
}

static void begin_resume(hub_t *h, const uuid16_t *id, hub_reply_t *r)
{
    struct empty nothing = {0};
    life_t l;
    life_stop(h, id, false, &l);
    hub_call_start(h, VERB_sandbox_resume, id, MSG_empty, &nothing, r);
}

static void begin_snapshot(hub_t *h, const uuid16_t *id, hub_reply_t *r)
{
    struct snapshot_create_request request = {.snapshot_id = "11111111-2222-4333-8444-555555555555"};
    hub_call_start(h, VERB_snapshot_create, id, MSG_snapshot_create_request, &request, r);
}

/* Then processes may be lost; never files, and nothing may be left. */
Test(gvisord_stop, a_whole_service_killed_in_the_middle_keeps_the_files, .timeout = 500)
{
    SKIP_IF_IMPOSSIBLE();
    static const begin_fn begins[] = {begin_stop, begin_resume, begin_snapshot};
    static const unsigned moments_ms[] = {10, 40, 70, 120};
    for (size_t i = 0; i < COUNT_OF(begins) * COUNT_OF(moments_ms); i++) {
        hub_t h;
        uuid16_t id;
        hub_reply_t r;
        life_t l;
        char out[64];
        life_open(&h);
        life_create(&h, &id, "none");
        life_start_counter(&h, &id);
        cr_assert_eq(hub_bash(&h, &id, "echo kept > note", NULL, 0), 0);
        begins[i % COUNT_OF(begins)](&h, &id, &r);
        hub_run_for(&h, moments_ms[i / COUNT_OF(begins)]);
        life_kill_all(&h);
        buf_free(&r.body);
        hub_start_daemon(&h, NULL);
        hub_run_for(&h, 500); /* what was under way may end it, then it is restarted by itself */
        life_resume_patiently(&h, &id, &l);
        cr_assert_eq(hub_bash(&h, &id, "cat note", out, sizeof out), 0, "case %zu", i);
        cr_assert_str_eq(out, "kept\n");
        fprintf(stderr, "case %zu: %s\n", i,
                hub_bash(&h, &id, "kill -0 $(cat counter.pid)", NULL, 0) == 0 ? "goes on" : "started anew");
        life_stop(&h, &id, false, &l);
        life_assert_freed(&h);
        hub_destroy(&h, &id);
        hub_close(&h);
    }
}

static void kill_kernel(const hub_t *h)
{
    auto_free char *pattern = mem_printf("%s/gvisord/sandboxes/*/pid", h->dir);
    auto_free char *command = mem_printf("kill -9 $(cat %s)", pattern);
    const char *argv[] = {"sh", "-c", command, NULL};
    cr_assert_eq(life_run(argv), 0);
}

/* Without it nothing can be made, stopped or removed, and no child be reaped. */
Test(gvisord_stop, a_daemon_whose_worker_is_killed_ends_and_the_next_one_goes_on, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    int status = 0;
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    life_kill_worker(&h);
    for (uint64_t until = clock_monotonic_ms() + 10000; waitpid(h.daemon, &status, WNOHANG) == 0;) {
        cr_assert_lt(clock_monotonic_ms(), until, "the daemon goes on");
        hub_run_for(&h, 20);
    }
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%d", status);
    h.daemon = 0;
    while (h.peer)
        hub_run_for(&h, 20);
    hub_start_daemon(&h, NULL);
    life_assert_counting(&h, &id);
    life_stop(&h, &id, false, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    hub_destroy(&h, &id);
    hub_close(&h);
}

Test(gvisord_stop, one_whose_kernel_is_killed_is_started_again_from_its_files, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    char out[64];
    life_open(&h);
    life_create(&h, &id, "none");
    cr_assert_eq(hub_bash(&h, &id, "echo kept > note", NULL, 0), 0);
    for (int i = 0; i < 3; i++) {
        kill_kernel(&h);
        hub_run_for(&h, 200);
        life_resume_patiently(&h, &id, &l);
        cr_assert_eq(hub_bash(&h, &id, "cat note", out, sizeof out), 0, "round %d", i);
        cr_assert_str_eq(out, "kept\n");
    }
    hub_destroy(&h, &id);
    hub_close(&h);
}

/* ---- room ---- */

Test(gvisord_stop, without_room_it_runs_on, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    hub_reply_t r;
    life_t l;
    struct sandbox_stop_request request = {0};
    life_open_on(&h, (uint64_t)256 << 20);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    cr_assert_eq(hub_bash(&h, &id,
                          "setsid python3 -c \"import os, time; x = os.urandom(100 << 20); open('ready', 'w'); "
                          "time.sleep(1000)\" > /dev/null 2>&1 < /dev/null & while [ ! -e ready ]; do sleep 0.1; done",
                          NULL, 0),
                 0);
    auto_free char *filler = mem_printf("%s/gvisord/filler", h.dir);
    auto_free char *command = mem_printf("head -c 180M /dev/zero > %s", filler);
    const char *argv[] = {"sh", "-c", command, NULL};
    cr_assert_eq(life_run(argv), 0);
    hub_call(&h, VERB_sandbox_stop, &id, MSG_sandbox_stop_request, &request, &r);
    cr_assert_eq(r.code, ERR_NO_SPACE, "%d %s", r.code, r.message);
    cr_assert_not_null(strstr(r.message, "MiB"), "%s", r.message);
    buf_free(&r.body);
    life_assert_counting(&h, &id);
    struct snapshot_create_request snapshot = {.snapshot_id = "11111111-2222-4333-8444-555555555555"};
    hub_call(&h, VERB_snapshot_create, &id, MSG_snapshot_create_request, &snapshot, &r);
    cr_assert_eq(r.code, ERR_NO_SPACE, "%d %s", r.code, r.message);
    buf_free(&r.body);
    life_assert_counting(&h, &id);
    cr_assert_eq(unlink(filler), 0);
    life_stop(&h, &id, false, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    cr_assert_gt(l.bytes, (uint64_t)100 << 20);
    life_resume(&h, &id, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    life_assert_counting(&h, &id);
    hub_destroy(&h, &id);
    life_close_on(&h);
}

/* The limit holds for what keeps the memory, too. */
Test(gvisord_stop, one_that_uses_most_of_its_memory_is_kept, .timeout = 120)
{
    SKIP_IF_IMPOSSIBLE();
    hub_t h;
    uuid16_t id;
    life_t l;
    life_open(&h);
    life_create(&h, &id, "none");
    life_start_counter(&h, &id);
    cr_assert_eq(hub_bash(&h, &id,
                          "setsid python3 -c \"import os, time; x = [os.urandom(10 << 20) for i in range(40)]; "
                          "open('ready', 'w'); time.sleep(1000)\" > /dev/null 2>&1 < /dev/null & while [ ! -e ready ]; "
                          "do sleep 0.1; done",
                          NULL, 0),
                 0);
    life_stop(&h, &id, false, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    fprintf(stderr, "400 MB: stop %u ms %s", l.total_ms, l.phases);
    life_resume(&h, &id, &l);
    cr_assert(l.has_processes, "%s", l.warnings);
    fprintf(stderr, ", resume %u ms %s\n", l.total_ms, l.phases);
    life_assert_counting(&h, &id);
    hub_destroy(&h, &id);
    hub_close(&h);
}
