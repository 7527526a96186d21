// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/agent_client.c
/* The agent's stream: RESYNC and ADOPT, replies that are kept, windows, QUIESCE, and frames that no daemon would send.
 */
#include "common/clock.h"
#include "common/mem.h"
#include "tests/unit/agent_client.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(agent, .timeout = 60);

static agent_client_t *start(void)
{
    return agent_client_start(&(agent_client_options_t){0});
}

static const struct bash_request count_runs = {.command = "echo x >> runs; wc -l < runs; sleep 0.2"};

static bool is_stdout(agent_result_t *r, const char *text)
{
    struct bash_reply reply;
    agent_result_reply(r, &reply);
    return reply.stdout.len == strlen(text) && memcmp(reply.stdout.data, text, reply.stdout.len) == 0;
}

static void check_alive(agent_client_t *c)
{
    cr_assert(is_stdout(agent_client_call(c, VERB_bash, &(struct bash_request){.command = "echo alive"}), "alive\n"));
}

Test(agent, adopts_and_tells_what_it_is)
{
    agent_client_t *c = start();
    const char *name;
    bool has_sh = false;
    proto_iter_t it = proto_iter(&c->adopt.programs);
    while (proto_iter_str(&it, &name))
        has_sh = has_sh || strcmp(name, "sh") == 0;
    cr_assert(has_sh);
    cr_assert_eq(c->adopt.version, ENVELOPE_VERSION);
    cr_assert_str_eq(c->adopt.kill_tree, "best_effort");
    uint64_t epoch = c->adopt.boot_epoch;
    agent_client_resync(c);
    cr_assert_eq(c->adopt.boot_epoch, epoch);
    agent_client_stop(&c);
}

Test(agent, says_nothing_and_does_nothing_before_resync)
{
    agent_client_t *c = agent_client_start(&(agent_client_options_t){.is_silent = true});
    agent_result_t *r = agent_client_send(c, 0, VERB_bash, &count_runs);
    agent_client_idle(c, 300);
    cr_assert_eq(r->frame_count, 0);
    agent_client_resync(c);
    cr_assert(is_stdout(agent_client_call(c, VERB_bash, &count_runs), "1\n"));
    agent_client_stop(&c);
}

/* ---- a call id runs once ---- */

Test(agent, answers_a_repeated_id_from_its_store)
{
    agent_client_t *c = start();
    c->flags = ENVELOPE_KEEP;
    agent_result_t *first = agent_client_call(c, VERB_bash, &count_runs);
    cr_assert(is_stdout(first, "1\n"));
    agent_result_t *again = agent_client_send(c, first->call_id, VERB_bash, &count_runs);
    agent_client_wait(c, again);
    cr_assert(is_stdout(again, "1\n"));
    agent_client_simple(c, ENVELOPE_KIND_ACK, first->call_id); /* KEEP outlives ACK */
    again = agent_client_send(c, first->call_id, VERB_bash, &count_runs);
    agent_client_wait(c, again);
    cr_assert(is_stdout(again, "1\n"));
    agent_client_stop(&c);
}

Test(agent, attaches_a_repeated_id_to_the_running_call)
{
    agent_client_t *c = start();
    agent_result_t *first = agent_client_send(c, 0, VERB_bash, &count_runs);
    agent_client_resync(c);
    cr_assert_str_eq(agent_client_adopted_state(c, first->call_id), "running");
    agent_result_t *again = agent_client_send(c, first->call_id, VERB_bash, &count_runs);
    agent_client_wait(c, again);
    cr_assert(is_stdout(again, "1\n"));
    cr_assert(!first->is_done);
    agent_client_stop(&c);
}

Test(agent, keeps_a_reply_that_nobody_could_take)
{
    agent_client_t *c = start();
    agent_result_t *first = agent_client_send(c, 0, VERB_bash, &count_runs);
    agent_client_resync(c);
    agent_client_idle(c, 600);
    cr_assert(!first->is_done, "sent to someone who never asked");
    agent_client_resync(c);
    cr_assert_str_eq(agent_client_adopted_state(c, first->call_id), "finished");
    agent_result_t *again = agent_client_send(c, first->call_id, VERB_bash, &count_runs);
    agent_client_wait(c, again);
    cr_assert(is_stdout(again, "1\n"));
    agent_client_stop(&c);
}

Test(agent, forgets_on_ack_what_need_not_be_kept)
{
    agent_client_t *c = start();
    agent_result_t *r = agent_client_call(c, VERB_bash, &count_runs);
    agent_client_simple(c, ENVELOPE_KIND_ACK, r->call_id);
    agent_client_resync(c);
    cr_assert_null(agent_client_adopted_state(c, r->call_id));
    agent_client_stop(&c);
}

Test(agent, refuses_an_id_that_was_another_verbs)
{
    agent_client_t *c = start();
    agent_result_t *first = agent_client_call(c, VERB_bash, &count_runs);
    agent_result_t *again = agent_client_send(c, first->call_id, VERB_agent_stats, &(struct agent_stats_request){0});
    agent_client_wait(c, again);
    cr_assert_str_eq(again->code, "conflict");
    agent_client_stop(&c);
}

Test(agent, drops_the_oldest_replies_for_room_but_does_not_run_them_again)
{
    agent_client_t *c = start();
    struct bash_request big = {.command = "echo x >> runs; head -c 51200 /dev/zero"};
    c->flags = ENVELOPE_KEEP;
    agent_result_t *first = agent_client_call(c, VERB_bash, &big);
    c->flags = 0;
    agent_result_t *cheap = agent_client_call(c, VERB_bash, &big);
    for (int i = 0; i < 20; i++)
        agent_client_call(c, VERB_bash, &big);
    agent_client_resync(c);
    cr_assert_str_eq(agent_client_adopted_state(c, cheap->call_id), "lost");
    cr_assert_str_eq(agent_client_adopted_state(c, first->call_id), "finished", "KEEP goes last");
    agent_result_t *again = agent_client_send(c, cheap->call_id, VERB_bash, &big);
    agent_client_wait(c, again);
    cr_assert_str_eq(again->code, "conflict");
    c->flags = ENVELOPE_KEEP;
    for (int i = 0; i < 25; i++)
        agent_client_call(c, VERB_bash, &big);
    agent_client_resync(c);
    cr_assert_str_eq(agent_client_adopted_state(c, first->call_id), "lost");
    cr_assert(is_stdout(agent_client_call(c, VERB_bash, &(struct bash_request){.command = "wc -l < runs"}), "47\n"));
    agent_client_stop(&c);
}

/* ---- RESYNC in the middle ---- */

Test(agent, finishes_the_frame_it_is_writing_before_marker)
{
    agent_client_t *c = start();
    /* Fill the pipe: the agent is then in the middle of a frame. */
    agent_result_t *r = agent_client_send(
        c, 0, VERB_bash, &(struct bash_request){.command = "head -c 5000000 /dev/zero", .stream = true});
    usleep(300000);
    agent_client_resync(c); /* discards up to the marker; a torn frame would abort the client */
    cr_assert_str_eq(agent_client_adopted_state(c, r->call_id), "running");
    check_alive(c);
    agent_result_t *again =
        agent_client_send(c, r->call_id, VERB_bash, &(struct bash_request){.command = "-", .stream = true});
    agent_client_wait(c, again);
    struct bash_reply reply;
    agent_result_reply(again, &reply);
    cr_assert_eq(reply.stdout_total_bytes, 5000000);
    cr_assert_eq(again->next_offset[CHANNEL_STDOUT], 5000000);
    cr_assert(!again->has_gap);
    agent_client_stop(&c);
}

Test(agent, reads_frames_right_behind_a_torn_one)
{
    agent_client_t *c = start();
    for (int i = 0; i < 20; i++) {
        agent_client_send(c, 0, VERB_bash,
                          &(struct bash_request){.command = "head -c 400000 /dev/zero", .stream = true});
        usleep(20000);
        agent_client_resync(c);
        check_alive(c);
    }
    agent_client_stop(&c);
}

Test(agent, forgets_half_a_request_at_resync)
{
    agent_client_t *c = start();
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = VERB_bash, .call_id = 77, .flags = ENVELOPE_MORE};
    agent_client_frame(c, &env, "\x9d", 1);
    agent_client_resync(c);
    cr_assert_null(agent_client_adopted_state(c, 77));
    agent_result_t *r = agent_client_send(c, 77, VERB_bash, &count_runs);
    agent_client_wait(c, r);
    cr_assert(is_stdout(r, "1\n"));
    agent_client_stop(&c);
}

static bool is_quiesced(agent_client_t *c, void *arg)
{
    (void)arg;
    return c->quiesced_count > 0;
}

Test(agent, is_silent_after_quiesce_and_goes_on_after_resync)
{
    agent_client_t *c = start();
    agent_result_t *r = agent_client_send(c, 0, VERB_bash, &count_runs);
    agent_client_simple(c, ENVELOPE_KIND_QUIESCE, 0);
    agent_client_until(c, is_quiesced, NULL, "no QUIESCED");
    size_t before = r->frame_count;
    agent_client_idle(c, 600);
    cr_assert_eq(r->frame_count, before, "something followed QUIESCED");
    c->is_continued = true;
    agent_client_resync(c);
    agent_client_wait(c, r); /* nothing was lost, so the call is still its caller's */
    cr_assert(is_stdout(r, "1\n"));
    agent_client_stop(&c);
}

/* ---- windows ---- */

struct reply_bytes {
    agent_result_t *result;
    size_t want;
};

static bool has_reply_bytes(agent_client_t *c, void *arg)
{
    const struct reply_bytes *wanted = arg;
    (void)c;
    return wanted->result->reply.len >= wanted->want;
}

Test(agent, keeps_to_the_window_of_a_reply)
{
    agent_client_t *c = start();
    c->has_auto_credit = false;
    c->credit = 1000;
    agent_result_t *r = agent_client_send(c, 0, VERB_bash, &(struct bash_request){.command = "head -c 5000 /dev/zero"});
    size_t want = 1000;
    agent_client_until(c, has_reply_bytes, &(struct reply_bytes){r, want}, "no reply");
    agent_client_idle(c, 100);
    cr_assert_eq(r->reply.len, want);
    agent_client_credit(c, r->call_id, 1);
    agent_client_until(c, has_reply_bytes, &(struct reply_bytes){r, want + 1}, "no byte for a byte");
    agent_client_idle(c, 100);
    cr_assert_eq(r->reply.len, want + 1);
    agent_client_credit(c, r->call_id, 100000);
    agent_client_wait(c, r);
    struct bash_reply reply;
    agent_result_reply(r, &reply);
    cr_assert_eq(reply.stdout.len, 5000);
    agent_client_stop(&c);
}

Test(agent, takes_a_large_request_as_fast_as_it_grants)
{
    agent_client_t *c = start();
    size_t len = 3 * 1024 * 1024;
    auto_free char *bytes = mem_alloc(len);
    struct bash_request request = {.command = "wc -c", .stdin = {bytes, len}, .has.stdin = true};
    cr_assert(is_stdout(agent_client_call(c, VERB_bash, &request), "3145728\n"));
    agent_client_stop(&c);
}

Test(agent, fails_a_caller_that_ignores_its_window)
{
    agent_client_t *c = start();
    uint8_t body[STREAM_BODY_DOWN_MAX] = {0};
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = VERB_bash, .call_id = 99, .flags = ENVELOPE_MORE};
    agent_result_t *r = agent_client_send(c, 0, VERB_process_start, &(struct process_start_request){.stdin = false});
    agent_client_wait(c, r);
    cr_assert_str_eq(r->code, "bad_request");
    r = agent_client_send(c, 99, VERB_agent_stats, &(struct agent_stats_request){0});
    agent_client_wait(c, r);
    env.call_id = 100;
    size_t strays = c->stray_count;
    for (size_t sent = 0; sent < 3 * (size_t)CALL_WINDOW; sent += sizeof body)
        agent_client_frame(c, &env, body, sizeof body);
    agent_client_idle(c, 200);
    cr_assert_gt(c->stray_count, strays);
    check_alive(c);
    agent_client_stop(&c);
}

/* ---- hostile frames ---- */

static const struct frame_row {
    const char *what;
    envelope_t env;
    const char *body;
    size_t len;
    const char *code; /* of the ERROR, NULL = no answer */
} frames[] = {
    {"verb 0", {.kind = ENVELOPE_KIND_REQUEST, .call_id = 1}, "", 0, "bad_request"},
    {"verb of providers",
     {.kind = ENVELOPE_KIND_REQUEST, .call_id = 1, .verb = VERB_sandbox_create},
     "",
     0,
     "bad_request"},
    {"verb 65535", {.kind = ENVELOPE_KIND_REQUEST, .call_id = 1, .verb = 65535}, "", 0, "bad_request"},
    {"call id 0", {.kind = ENVELOPE_KIND_REQUEST, .verb = VERB_bash}, "", 0, NULL},
    {"empty body", {.kind = ENVELOPE_KIND_REQUEST, .call_id = 1, .verb = VERB_bash}, "", 0, "bad_request"},
    {"no msgpack", {.kind = ENVELOPE_KIND_REQUEST, .call_id = 1, .verb = VERB_bash}, "\xc1\xc1", 2, "bad_request"},
    {"huge array",
     {.kind = ENVELOPE_KIND_REQUEST, .call_id = 1, .verb = VERB_bash},
     "\xdd\xff\xff\xff\xff",
     5,
     "bad_request"},
    {"huge string",
     {.kind = ENVELOPE_KIND_REQUEST, .call_id = 1, .verb = VERB_bash},
     "\x91\xc6\xff\xff\xff\xff",
     6,
     "bad_request"},
    {"bytes for bash", {.kind = ENVELOPE_KIND_CHUNK, .call_id = 1}, "x", 1, NULL},
    {"reply", {.kind = ENVELOPE_KIND_REPLY, .call_id = 1}, "x", 1, NULL},
    {"hello", {.kind = ENVELOPE_KIND_HELLO}, "x", 1, NULL},
    {"marker", {.kind = ENVELOPE_KIND_MARKER}, "0123456789abcdef", 16, NULL},
    {"cancel of nothing", {.kind = ENVELOPE_KIND_CANCEL, .call_id = 1}, "", 0, NULL},
    {"ack of nothing", {.kind = ENVELOPE_KIND_ACK, .call_id = 1}, "", 0, NULL},
    {"credit of nothing", {.kind = ENVELOPE_KIND_CREDIT, .call_id = 1, .credit = UINT32_MAX}, "", 0, NULL},
    {"resync without nonce", {.kind = ENVELOPE_KIND_RESYNC}, "\x90", 1, NULL},
    {"resync with short nonce", {.kind = ENVELOPE_KIND_RESYNC}, "\x94\x01\x01\x01\x01xx", 7, NULL},
    {"pressure", {.kind = ENVELOPE_KIND_PRESSURE}, "\xff", 1, NULL},
};

Test(agent, lives_through_frames_that_no_daemon_sends)
{
    agent_client_t *c = start();
    for (size_t i = 0; i < COUNT_OF(frames); i++) {
        envelope_t env = frames[i].env;
        if (env.call_id != 0)
            env.call_id = 1000 + i;
        if (frames[i].code != NULL) {
            agent_result_t *r =
                agent_client_send_body(c, env.call_id, (enum verb)env.verb, frames[i].body, frames[i].len);
            agent_client_wait(c, r);
            cr_assert_str_eq(r->code, frames[i].code, "%s: %s", frames[i].what, r->code);
        } else {
            agent_client_frame(c, &env, frames[i].body, frames[i].len);
        }
        check_alive(c);
    }
    agent_client_stop(&c);
}

static const struct envelope_row {
    const char *what;
    size_t at;
    uint8_t value;
} envelopes[] = {
    {"version", 0, 2},  {"kind 0", 1, 0},  {"kind 255", 1, 255},
    {"flags", 2, 0x80}, {"channel", 3, 9}, {"reserved", 6, 1},
};

Test(agent, skips_one_frame_with_a_wrong_envelope)
{
    agent_client_t *c = start();
    for (size_t i = 0; i < COUNT_OF(envelopes); i++) {
        uint8_t frame[STREAM_FRAME_DOWN_MAX];
        envelope_t env = {.kind = ENVELOPE_KIND_CANCEL, .call_id = 5};
        size_t len = stream_frame_encode(&env, "abc", 3, frame);
        frame[STREAM_LENGTH_SIZE + envelopes[i].at] = envelopes[i].value;
        agent_client_raw(c, frame, len);
        check_alive(c);
    }
    agent_client_stop(&c);
}

Test(agent, finds_the_next_resync_after_an_impossible_length)
{
    static const char *const garbage[] = {"\x01\x00\x00\x00", "\xff\xff\xff\xff", "GET / HTTP/1.1\r\n\r\n",
                                          "\x43\x00\x00\x00"};
    agent_client_t *c = start();
    for (size_t i = 0; i < COUNT_OF(garbage); i++) {
        agent_client_raw(c, garbage[i], i == 2 ? strlen(garbage[i]) : 4);
        agent_client_resync(c);
        check_alive(c);
    }
    agent_client_stop(&c);
}

Test(agent, takes_frames_cut_anywhere)
{
    agent_client_t *c = start();
    uint8_t frame[STREAM_FRAME_DOWN_MAX];
    auto_buf buf_t body = {0};
    err_t *e = NULL;
    cr_assert_eq(proto_encode(MSG_agent_stats_request, &(struct agent_stats_request){0}, &body, &e), 0);
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = VERB_agent_stats, .call_id = 4711};
    size_t len = stream_frame_encode(&env, body.data, body.len, frame);
    size_t strays = c->stray_count;
    for (size_t i = 0; i < len; i++) {
        agent_client_raw(c, frame + i, 1);
        usleep(500);
    }
    agent_client_idle(c, 200);
    cr_assert_eq(c->stray_count, strays + 1);
    agent_client_stop(&c);
}

/* ---- housekeeping ---- */

static size_t fd_count(pid_t pid)
{
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *dir = opendir(path);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

Test(agent, leaves_no_descriptor_behind)
{
    agent_client_t *c = start();
    check_alive(c);
    size_t before = fd_count(c->pid);
    for (int i = 0; i < 50; i++)
        agent_client_call(c, VERB_bash, &(struct bash_request){.command = "echo x", .stream = i % 2});
    agent_client_idle(c, 100);
    cr_assert_eq(fd_count(c->pid), before);
    agent_client_stop(&c);
}

Test(agent, sleeps_without_a_timer_when_idle)
{
    agent_client_t *c = start();
    char path[64], text[512] = "";
    check_alive(c);
    snprintf(path, sizeof path, "/proc/%d/syscall", c->pid);
    agent_client_idle(c, 300);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (n <= 0)
        cr_skip_test("no /proc/pid/syscall here");
    unsigned long long nr, a, b, timeout;
    cr_assert_eq(sscanf(text, "%llu 0x%llx 0x%llx 0x%llx", &nr, &a, &b, &timeout), 4);
    cr_assert_eq((int)timeout, -1, "poll with a timeout: %s", text);
    close(fd);
    agent_client_stop(&c);
}

Test(agent, tells_stats)
{
    agent_client_t *c = start();
    struct agent_stats_reply reply;
    agent_result_reply(agent_client_call(c, VERB_agent_stats, &(struct agent_stats_request){.measure_fork = true}),
                       &reply);
    cr_assert_gt(reply.fork_exec_us, 100);
    cr_assert_gt(reply.processes, 1);
    cr_assert_gt(reply.memory_used_bytes, 1024 * 1024);
    cr_assert_gt(reply.disk_total_bytes, reply.disk_free_bytes);
    agent_client_stop(&c);
}

static bool has_notice(agent_client_t *c, void *arg)
{
    (void)arg;
    return c->notice_count > 0;
}

Test(agent, under_pressure_ends_the_largest_process_and_says_so)
{
    agent_client_t *c = agent_client_start(&(agent_client_options_t){.memory_budget_bytes = 100 * 1024 * 1024});
    struct pressure pressure = {.resource = "memory"};
    auto_buf buf_t body = {0};
    err_t *e = NULL;
    agent_result_t *small =
        agent_client_send(c, 0, VERB_bash, &(struct bash_request){.command = "sleep 2; echo small"});
    agent_result_t *large = agent_client_send(
        c, 0, VERB_bash,
        &(struct bash_request){.command =
                                   "python3 -c 'import time; x = bytearray(150000000); time.sleep(30)'; echo $?"});
    agent_client_idle(c, 300);
    cr_assert_eq(proto_encode(MSG_pressure, &pressure, &body, &e), 0);
    envelope_t env = {.kind = ENVELOPE_KIND_PRESSURE};
    agent_client_frame(c, &env, body.data, body.len);
    agent_client_until(c, has_notice, NULL, "no oom_kill");
    struct notice notice;
    cr_assert_eq(proto_decode(MSG_notice, &notice, c->notices[0].data, c->notices[0].len, &e), 0);
    cr_assert_str_eq(notice.type, "oom_kill");
    agent_client_wait(c, large);
    cr_assert(is_stdout(large, "137\n"));
    struct bash_reply reply;
    agent_result_reply(large, &reply);
    cr_assert_eq(reply.warnings.count, 1);
    agent_client_wait(c, small);
    cr_assert(is_stdout(small, "small\n"));
    agent_client_stop(&c);
}
