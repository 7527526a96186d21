// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/agent_client.c
/* Checkpoints as the agent sees them: QUIESCE, silence, RESYNC by the same daemon, by another one, for another sandbox.
 * The daemon's end is the client of the tests or the real common/stream.c. */
#include "common/clock.h"
#include "common/mem.h"
#include "common/stream.h"
#include "tests/unit/agent_client.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

TestSuite(agent_quiesce, .timeout = 90);

#define SOURCE ((uuid16_t){{1}})
#define FORK ((uuid16_t){{2}})

static agent_client_t *start(void)
{
    agent_client_t *c = agent_client_start(&(agent_client_options_t){.is_silent = true});
    c->sandbox = SOURCE;
    agent_client_resync(c);
    return c;
}

static bool is_quiesced(agent_client_t *c, void *arg)
{
    return c->quiesced_count > *(const size_t *)arg;
}

static void quiesce(agent_client_t *c)
{
    size_t before = c->quiesced_count;
    agent_client_simple(c, ENVELOPE_KIND_QUIESCE, 0);
    agent_client_until(c, is_quiesced, &before, "no QUIESCED");
}

static void check_silent(agent_client_t *c, int ms)
{
    struct pollfd p = {.fd = c->fd_up, .events = POLLIN};
    cr_assert_eq(c->in.len, 0, "something followed QUIESCED");
    cr_assert_eq(poll(&p, 1, ms), 0, "something followed QUIESCED");
}

static bool has_stdout(agent_client_t *c, void *arg)
{
    (void)c;
    return ((agent_result_t *)arg)->chunks[CHANNEL_STDOUT].len > 0;
}

static void check_stdout(agent_result_t *r, const char *text)
{
    struct bash_reply reply;
    agent_result_reply(r, &reply);
    cr_assert_eq(reply.stdout.len, strlen(text), "%.*s", (int)reply.stdout.len, (const char *)reply.stdout.data);
    cr_assert_eq(memcmp(reply.stdout.data, text, reply.stdout.len), 0);
}

static void check_bash(agent_client_t *c, const char *command, const char *expected)
{
    check_stdout(agent_client_call(c, VERB_bash, &(struct bash_request){.command = command}), expected);
}

Test(agent_quiesce, is_silent_however_much_is_written_inside)
{
    agent_client_t *c = start();
    agent_result_t *r = agent_client_send(
        c, 0, VERB_bash,
        &(struct bash_request){.command = "head -c 3000000 /dev/zero; sleep 0.1; echo", .stream = true});
    struct bash_request noise = {.command = "while :; do echo noise; done", .run_in_background = true};
    agent_client_call(c, VERB_bash, &noise);
    agent_client_until(c, has_stdout, r, "no output");
    quiesce(c);
    check_silent(c, 700);
    c->is_continued = true;
    agent_client_resync(c);
    agent_client_wait(c, r);
    cr_assert(!r->has_gap);
    cr_assert_eq(r->next_offset[CHANNEL_STDOUT], 3000001);
    agent_client_stop(&c);
}

Test(agent_quiesce, a_daemon_that_did_not_read_quiesced_finds_calls_detached)
{
    agent_client_t *c = start();
    c->flags = ENVELOPE_KEEP;
    struct bash_request request = {.command = "echo x >> runs; sleep 0.3; wc -l < runs"};
    agent_result_t *r = agent_client_send(c, 0, VERB_bash, &request);
    quiesce(c);
    agent_client_resync(c); /* as the next daemon would */
    cr_assert_str_eq(agent_client_adopted_state(c, r->call_id), "running");
    agent_client_idle(c, 700);
    cr_assert(!r->is_done, "sent to who did not ask");
    agent_result_t *again = agent_client_send(c, r->call_id, VERB_bash, &request);
    agent_client_wait(c, again);
    check_stdout(again, "1\n");
    agent_client_stop(&c);
}

Test(agent_quiesce, keeps_requests_replies_and_uploads_whole_over_the_silence)
{
    agent_client_t *c = start();
    static char text[300000];
    memset(text, 'a', sizeof text - 1);
    /* Half of a request before, half after. */
    auto_buf buf_t body = {0};
    struct write_request request = {.file_path = "big", .content = {(const uint8_t *)text, 5000}};
    cr_assert_eq(proto_encode(MSG_write_request, &request, &body, NULL), 0);
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = VERB_write, .call_id = 77, .flags = ENVELOPE_MORE};
    agent_client_frame(c, &env, body.data, 3000);
    struct file_put_request put = {.path = "put"};
    agent_result_t *upload = agent_client_send(c, 0, VERB_file_put, &put);
    agent_client_chunk(c, upload, text, 100000, false);
    quiesce(c);
    check_silent(c, 100);
    c->is_continued = true;
    agent_client_resync(c);
    env.flags = 0;
    agent_client_frame(c, &env, body.data + 3000, body.len - 3000);
    agent_client_chunk(c, upload, text + 100000, 200000, true);
    agent_client_wait(c, upload);
    cr_assert(!upload->is_error, "%s", upload->message);
    check_bash(c, "wc -c < big; wc -c < put", "5000\n300000\n");
    agent_client_stop(&c);
}

static bool has_notice(agent_client_t *c, void *arg)
{
    (void)arg;
    return c->notice_count > 0;
}

Test(agent_quiesce, what_happened_in_the_silence_is_told_after_it)
{
    agent_client_t *c = start();
    agent_client_call(c, VERB_bash, &(struct bash_request){.command = "sleep 0.3", .run_in_background = true});
    quiesce(c);
    check_silent(c, 800);
    agent_client_resync(c);
    agent_client_until(c, has_notice, NULL, "no process_end");
    struct notice notice;
    cr_assert_eq(proto_decode(MSG_notice, &notice, c->notices[0].data, c->notices[0].len, NULL), 0);
    cr_assert_str_eq(notice.type, "process_end");
    agent_client_stop(&c);
}

Test(agent_quiesce, no_timeout_passes_in_the_silence)
{
    agent_client_t *c = start();
    agent_result_t *r =
        agent_client_send(c, 0, VERB_bash, &(struct bash_request){.command = "sleep 1.2; echo ok", .timeout_ms = 1000});
    agent_result_t *late =
        agent_client_send(c, 0, VERB_bash, &(struct bash_request){.command = "sleep 30", .timeout_ms = 1500});
    agent_client_idle(c, 300);
    quiesce(c);
    check_silent(c, 1500);
    c->is_continued = true;
    agent_client_resync(c);
    struct bash_reply reply;
    agent_client_wait(c, r);
    check_stdout(r, "ok\n");
    agent_result_reply(r, &reply);
    cr_assert(!reply.timed_out);
    cr_assert_lt(reply.duration_ms, 1000, "the silence was counted");
    cr_assert(!late->is_done);
    agent_client_wait(c, late);
    agent_result_reply(late, &reply);
    cr_assert(reply.timed_out, "but it goes on counting afterwards");
    agent_client_stop(&c);
}

/* ---- after a stop: nobody waits any more ---- */

static bool is_call_finished(agent_client_t *c, uint64_t id)
{
    agent_client_resync(c);
    const char *state = agent_client_adopted_state(c, id);
    return state != NULL && strcmp(state, "finished") == 0;
}

Test(agent_quiesce, a_kept_streaming_command_ends_without_a_reader)
{
    agent_client_t *c = start();
    struct bash_request request = {.command = "head -c 3000000 /dev/zero; sleep 0.5; echo done >&2", .stream = true};
    c->flags = ENVELOPE_KEEP;
    agent_result_t *r = agent_client_send(c, 0, VERB_bash, &request);
    agent_client_until(c, has_stdout, r, "no output");
    quiesce(c);
    uint64_t end = clock_monotonic_ms() + 25000;
    while (!is_call_finished(c, r->call_id) && clock_monotonic_ms() < end)
        usleep(500000);
    agent_result_t *again = agent_client_send(c, r->call_id, VERB_bash, &request);
    agent_client_wait(c, again);
    struct bash_reply reply;
    agent_result_reply(again, &reply);
    cr_assert_eq(reply.stdout_total_bytes, 3000000);
    cr_assert_eq(reply.exit_code, 0);
    cr_assert_eq(reply.stderr.len, 5);
    agent_client_stop(&c);
}

Test(agent_quiesce, a_streaming_command_in_time_is_not_late_because_its_reader_is_gone)
{
    agent_client_t *c = start();
    struct bash_request request = {.command = "head -c 200000 /dev/zero", .stream = true};
    c->flags = ENVELOPE_KEEP;
    c->deadline_ms = 2000;
    c->has_auto_credit = false;
    c->credit = 1000;
    agent_result_t *r = agent_client_send(c, 0, VERB_bash, &request);
    agent_client_until(c, has_stdout, r, "no output");
    agent_client_resync(c);
    usleep(2500000);
    cr_assert(is_call_finished(c, r->call_id));
    c->has_auto_credit = true;
    agent_result_t *again = agent_client_send(c, r->call_id, VERB_bash, &request);
    agent_client_wait(c, again);
    cr_assert(!again->is_error, "%s", again->message);
    agent_client_stop(&c);
}

/* ---- another sandbox ---- */

/* A call of each kind that the source leaves in its memory. */
struct left {
    agent_result_t *running, *streaming, *watching, *done;
    uint64_t boot_epoch;
};

static const struct bash_request done_request = {.command = "echo x >> runs; wc -l < runs"};

static struct left leave(agent_client_t *c)
{
    struct left left = {.boot_epoch = c->adopt.boot_epoch};
    c->flags = ENVELOPE_KEEP;
    left.done = agent_client_call(c, VERB_bash, &done_request);
    check_stdout(left.done, "1\n");
    left.running =
        agent_client_send(c, 0, VERB_bash, &(struct bash_request){.command = "sleep 77.7; echo late > late"});
    c->flags = 0;
    left.streaming = agent_client_send(
        c, 0, VERB_bash,
        &(struct bash_request){.command = "while sleep 0.05; do echo tick; done; sleep 77.8", .stream = true});
    left.watching = agent_client_send(c, 0, VERB_file_watch, &(struct file_watch_request){.path = "."});
    agent_client_call(c, VERB_bash, &(struct bash_request){.command = "sleep 66.6", .run_in_background = true});
    agent_client_until(c, has_stdout, left.streaming, "no output");
    return left;
}

static void check_forgotten(agent_client_t *c, struct left left, size_t frames_before)
{
    agent_client_idle(c, 400);
    cr_assert_eq(left.running->frame_count + left.streaming->frame_count + left.watching->frame_count, frames_before,
                 "the source's calls still talk");
    cr_assert_null(agent_client_adopted_state(c, left.running->call_id));
    cr_assert_neq(c->adopt.boot_epoch, left.boot_epoch);
    /* The same id is a new call here. */
    agent_result_t *again = agent_client_send(c, left.done->call_id, VERB_bash, &done_request);
    agent_client_wait(c, again);
    check_stdout(again, "2\n");
    check_bash(c,
               "for i in 1 2 3 4 5 6 7 8 9 10; do pgrep -f 'sleep 7[7].7' >/dev/null || break; sleep 0.1; done;"
               "pgrep -f 'sleep 7[7].7'; pgrep -fc 'sleep 6[6].6'",
               "1\n");
}

static size_t frames_of(struct left left)
{
    return left.running->frame_count + left.streaming->frame_count + left.watching->frame_count;
}

Test(agent_quiesce, resync_for_another_sandbox_forgets_all_calls_and_ends_their_commands)
{
    agent_client_t *c = start();
    struct left left = leave(c);
    quiesce(c);
    size_t frames = frames_of(left);
    c->sandbox = FORK;
    c->is_continued = true; /* even then */
    agent_client_resync(c);
    cr_assert_eq(c->adopt.calls.count, 0);
    check_forgotten(c, left, frames);
    agent_client_stop(&c);
}

Test(agent_quiesce, configure_is_new_forgets_all_calls_but_itself)
{
    agent_client_t *c = start();
    struct left left = leave(c);
    struct agent_configure_request request = {.is_new = true};
    auto_buf buf_t body = {0};
    cr_assert_eq(proto_encode(MSG_agent_configure_request, &request, &body, NULL), 0);
    /* As the kit would: the claimed sandbox has another id. */
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = VERB_agent_configure, .call_id = 5, .sandbox = FORK};
    size_t strays = c->stray_count;
    agent_client_frame(c, &env, body.data, body.len);
    while (c->stray_count == strays)
        agent_client_idle(c, 20);
    size_t frames = frames_of(left);
    agent_client_idle(c, 200);
    c->sandbox = FORK;
    agent_client_resync(c);
    cr_assert_eq(c->adopt.calls.count, 1, "the answer to configure is the new sandbox's: its RESYNC keeps it");
    cr_assert_str_eq(agent_client_adopted_state(c, 5), "finished");
    check_forgotten(c, left, frames);
    agent_client_stop(&c);
}

Test(agent_quiesce, configure_without_is_new_forgets_nothing)
{
    agent_client_t *c = start();
    c->flags = ENVELOPE_KEEP;
    agent_result_t *r = agent_client_call(c, VERB_bash, &done_request);
    uint64_t epoch = c->adopt.boot_epoch;
    agent_client_call(c, VERB_agent_configure, &(struct agent_configure_request){0});
    agent_result_t *again = agent_client_send(c, r->call_id, VERB_bash, &done_request);
    agent_client_wait(c, again);
    check_stdout(again, "1\n");
    agent_client_resync(c);
    cr_assert_eq(c->adopt.boot_epoch, epoch);
    agent_client_stop(&c);
}

/* ---- the real other end ---- */

typedef struct daemon_end {
    struct event_base *base;
    stream_t *stream;
    agent_client_t *agent;
    stream_identity_t identity;
    uint64_t next[CHANNEL_COUNT], received, sum;
    unsigned readies, quiesces, rounds, replies;
    bool is_pausing;
    buf_t reply;
} daemon_end_t;

static void on_ready(void *arg, const struct adopt *adopt)
{
    daemon_end_t *d = arg;
    (void)adopt;
    d->readies++;
}

static void credit(daemon_end_t *d, uint64_t call_id, size_t len)
{
    envelope_t env = {.kind = ENVELOPE_KIND_CREDIT, .call_id = call_id, .credit = (uint32_t)len};
    while (len > 0 && !stream_send(d->stream, &env, NULL, 0))
        event_base_loop(d->base, EVLOOP_ONCE);
}

static void on_frame(void *arg, const envelope_t *env, const uint8_t *body, size_t len)
{
    daemon_end_t *d = arg;
    if (env->kind == ENVELOPE_KIND_CHUNK) {
        cr_assert_eq(env->offset, d->next[env->channel], "lost or doubled in round %u", d->rounds);
        for (size_t i = 0; i < len; i++)
            d->sum = d->sum * 31 + body[i];
        d->next[env->channel] += len;
        d->received += len;
    } else if (env->kind == ENVELOPE_KIND_REPLY) {
        d->replies += !(env->flags & ENVELOPE_MORE);
        buf_append(&d->reply, body, len);
    } else if (env->kind == ENVELOPE_KIND_QUIESCED) {
        d->quiesces++;
    }
}

static void on_broken(void *arg, const char *reason)
{
    (void)arg;
    cr_assert(false, "%s", reason);
}

static void daemon_open(daemon_end_t *d)
{
    static const stream_events_t events = {.on_ready = on_ready, .on_frame = on_frame, .on_broken = on_broken};
    *d = (daemon_end_t){.base = event_base_new(),
                        .agent = agent_client_start(&(agent_client_options_t){.is_silent = true}),
                        .identity = {.sandbox = SOURCE, .epoch = 1}};
    signal(SIGPIPE, SIG_IGN);
    d->stream = stream_open(d->base, dup(d->agent->fd_up), dup(d->agent->fd_down), &d->identity, 0, &events, d, NULL);
    while (d->readies == 0)
        event_base_loop(d->base, EVLOOP_ONCE);
}

static void run_for(daemon_end_t *d, unsigned ms)
{
    struct timeval tv = {.tv_usec = (suseconds_t)ms * 1000};
    event_base_loopexit(d->base, &tv);
    event_base_dispatch(d->base);
}

/* One round: output flows, silence, and on. Every third time with a hub that takes nothing. */
static void one_round(daemon_end_t *d, uint64_t *credited)
{
    unsigned quiesces = d->quiesces, readies = d->readies;
    bool is_slow = d->rounds % 3 == 1;
    credit(d, 9, d->received - *credited);
    *credited = d->received;
    run_for(d, 1 + d->rounds % 7);
    stream_pause(d->stream, is_slow);
    cr_assert(stream_quiesce(d->stream, 0));
    while (d->quiesces == quiesces)
        event_base_loop(d->base, EVLOOP_ONCE);
    uint64_t received = d->received;
    usleep(3000);
    d->identity.epoch++;
    cr_assert_eq(stream_resync(d->stream, &d->identity, 0, NULL), 0);
    while (d->readies == readies)
        event_base_loop(d->base, EVLOOP_ONCE);
    if (is_slow)
        cr_assert_eq(d->received, received);
    stream_pause(d->stream, false);
    d->rounds++;
}

Test(agent_quiesce, nothing_is_lost_or_doubled_over_many_rounds_with_the_real_stream)
{
    daemon_end_t d;
    auto_buf buf_t body = {0};
    uint64_t credited = 0, sum = 0, total = 0;
    daemon_open(&d);
    struct bash_request request = {.command = "seq 1 900000", .stream = true};
    cr_assert_eq(proto_encode(MSG_bash_request, &request, &body, NULL), 0);
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = VERB_bash, .call_id = 9, .credit = CALL_WINDOW};
    cr_assert(stream_send(d.stream, &env, body.data, body.len));
    while (d.replies == 0)
        one_round(&d, &credited);
    for (int i = 1; i <= 900000; i++) {
        char line[16];
        int len = snprintf(line, sizeof line, "%d\n", i);
        for (int at = 0; at < len; at++)
            sum = sum * 31 + (uint8_t)line[at];
        total += (uint64_t)len;
    }
    cr_assert_eq(d.received, total);
    cr_assert_eq(d.sum, sum);
    cr_assert_eq(d.replies, 1);
    cr_assert_gt(d.rounds, 10);
    stream_destroy(&d.stream);
    buf_free(&d.reply);
    event_base_free(d.base);
    agent_client_stop(&d.agent);
}
