// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/agent_client.c
/* The process verbs and the tunnels of the real agent. */
#include "common/mem.h"
#include "tests/unit/agent_client.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(agent_process, .timeout = 60);
TestSuite(agent_tunnel, .timeout = 60);

static agent_client_t *start(void)
{
    return agent_client_start(&(agent_client_options_t){0});
}

static bool is_text(proto_bytes_t bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

/* Starts `sh -c command`. */
static uint32_t spawn_sh(agent_client_t *c, const char *command, struct process_start_request *request)
{
    auto_buf buf_t argv = {0};
    struct process_start_reply reply;
    proto_list_add_str(&argv, "sh");
    proto_list_add_str(&argv, "-c");
    proto_list_add_str(&argv, command);
    request->argv = proto_list_of(3, &argv);
    agent_result_reply(agent_client_call(c, VERB_process_start, request), &reply);
    cr_assert_gt(reply.pid, 1);
    return reply.process_id;
}

static struct process_output_reply output(agent_client_t *c, const struct process_output_request *request)
{
    struct process_output_reply reply;
    agent_result_reply(agent_client_call(c, VERB_process_output, request), &reply);
    return reply;
}

static struct process_output_reply wait_end(agent_client_t *c, uint32_t id)
{
    struct process_output_reply reply;
    agent_result_reply(agent_client_call(c, VERB_process_wait, &(struct process_wait_request){.process_id = id}),
                       &reply);
    return reply;
}

static agent_result_t *signal_send(agent_client_t *c, uint32_t id, const char *name, bool tree)
{
    return agent_client_call(c, VERB_process_signal,
                             &(struct process_signal_request){.process_id = id, .signal = name, .tree = tree});
}

Test(agent_process, starts_lists_and_waits)
{
    agent_client_t *c = start();
    uint32_t id = spawn_sh(c, "echo hi; sleep 0.3; exit 5", &(struct process_start_request){.tag = "web"});
    struct process_list_reply list;
    struct process row;
    proto_nested_t nested;
    err_t *e = NULL;
    agent_result_reply(agent_client_call(c, VERB_process_list, &(struct empty){0}), &list);
    cr_assert_eq(list.processes.count, 1);
    proto_iter_t it = proto_iter(&list.processes);
    cr_assert(proto_iter_msg(&it, &nested));
    cr_assert_eq(proto_decode(MSG_process, &row, nested.bytes, nested.len, &e), 0);
    cr_assert_eq(row.process_id, id);
    cr_assert_str_eq(row.state, "running");
    cr_assert_str_eq(row.tag, "web");
    cr_assert_str_eq(row.command, "sh -c echo hi; sleep 0.3; exit 5");
    cr_assert_geq(row.process_count, 1);
    struct process_output_reply end = wait_end(c, id);
    cr_assert(!end.running && end.exit_code == 5 && end.duration_ms >= 300);
    cr_assert(is_text(output(c, &(struct process_output_request){.process_id = id}).stdout, "hi\n"));
    agent_client_stop(&c);
}

Test(agent_process, argv_is_never_a_shell_word)
{
    agent_client_t *c = start();
    auto_buf buf_t argv = {0};
    struct process_start_reply reply;
    proto_list_add_str(&argv, "printf");
    proto_list_add_str(&argv, "[%s]");
    proto_list_add_str(&argv, "$(id) `id` ; \"x\" 'y' \n");
    agent_result_reply(
        agent_client_call(c, VERB_process_start, &(struct process_start_request){.argv = proto_list_of(3, &argv)}),
        &reply);
    wait_end(c, reply.process_id);
    cr_assert(is_text(output(c, &(struct process_output_request){.process_id = reply.process_id}).stdout,
                      "[$(id) `id` ; \"x\" 'y' \n]"));
    agent_client_stop(&c);
}

Test(agent_process, names_a_program_that_is_not_there)
{
    static const struct {
        const char *program;
        const char *code;
    } rows[] = {{"no-such-program", "tool_unavailable"},
                {"/no/such/program", "tool_unavailable"},
                {"/etc/passwd", "bad_request"},
                {"/usr", "bad_request"}};
    agent_client_t *c = start();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        auto_buf buf_t argv = {0};
        proto_list_add_str(&argv, rows[i].program);
        agent_result_t *r =
            agent_client_call(c, VERB_process_start, &(struct process_start_request){.argv = proto_list_of(1, &argv)});
        cr_assert_str_eq(r->code, rows[i].code, "%s: %s", rows[i].program, r->code);
        cr_assert(strstr(r->message, rows[i].program) != NULL, "%s", r->message);
    }
    agent_client_stop(&c);
}

Test(agent_process, reads_output_from_any_offset)
{
    agent_client_t *c = start();
    uint32_t id = spawn_sh(c, "seq 1 300000", &(struct process_start_request){0});
    wait_end(c, id);
    /* 1988895 bytes were written; the last 1 MiB is there. */
    struct process_output_reply o = output(c, &(struct process_output_request){.process_id = id, .limit = 10});
    cr_assert_eq(o.stdout_offset, 1988895 - 1048576);
    cr_assert_eq(o.stdout.len, 10);
    cr_assert_eq(o.stdout_next, o.stdout_offset + 10);
    o = output(c, &(struct process_output_request){.process_id = id, .stdout_offset = 1988895 - 7});
    cr_assert(is_text(o.stdout, "300000\n"));
    o = output(c, &(struct process_output_request){.process_id = id, .stdout_offset = 99999999});
    cr_assert_eq(o.stdout.len, 0);
    cr_assert_eq(o.stdout_next, 1988895);
    o = output(c, &(struct process_output_request){.process_id = id, .stdout_offset = 0, .limit = 1048576});
    cr_assert_eq(o.stdout.len, 1048576);
    agent_client_stop(&c);
}

Test(agent_process, waits_for_news_no_longer_than_asked)
{
    agent_client_t *c = start();
    uint32_t id = spawn_sh(c, "sleep 0.3; echo news; sleep 5", &(struct process_start_request){0});
    struct process_output_reply o = output(c, &(struct process_output_request){.process_id = id, .wait_ms = 50});
    cr_assert_eq(o.stdout.len, 0);
    o = output(c, &(struct process_output_request){.process_id = id, .wait_ms = 5000});
    cr_assert(is_text(o.stdout, "news\n"));
    agent_client_stop(&c);
}

Test(agent_process, follows_from_an_offset_to_the_end)
{
    agent_client_t *c = start();
    uint32_t id = spawn_sh(c, "printf 0123456789; sleep 0.2; printf ab; sleep 0.2; printf cd; printf E >&2",
                           &(struct process_start_request){0});
    agent_client_idle(c, 100);
    agent_result_t *r = agent_client_call(
        c, VERB_process_output, &(struct process_output_request){.process_id = id, .stdout_offset = 4, .stream = true});
    cr_assert_eq(r->first_offset[CHANNEL_STDOUT], 4);
    cr_assert_str_eq(buf_cstr(&r->chunks[CHANNEL_STDOUT]), "456789abcd");
    cr_assert_str_eq(buf_cstr(&r->chunks[CHANNEL_STDERR]), "E");
    cr_assert(r->has_ended[CHANNEL_STDOUT] && !r->has_gap);
    agent_client_stop(&c);
}

Test(agent_process, takes_input_in_parts_and_its_end)
{
    agent_client_t *c = start();
    uint32_t id =
        spawn_sh(c, "while read x; do echo got $x; done; echo end", &(struct process_start_request){.stdin = true});
    struct process_input_reply reply;
    agent_result_reply(agent_client_call(c, VERB_process_input,
                                         &(struct process_input_request){.process_id = id, .data = {"one\n", 4}}),
                       &reply);
    cr_assert_eq(reply.bytes_written, 4);
    cr_assert(
        is_text(output(c, &(struct process_output_request){.process_id = id, .wait_ms = 2000}).stdout, "got one\n"));
    agent_result_reply(
        agent_client_call(c, VERB_process_input,
                          &(struct process_input_request){.process_id = id, .data = {"two\n", 4}, .eof = true}),
        &reply);
    wait_end(c, id);
    cr_assert(is_text(output(c, &(struct process_output_request){.process_id = id}).stdout, "got one\ngot two\nend\n"));
    agent_result_t *r =
        agent_client_call(c, VERB_process_input, &(struct process_input_request){.process_id = id, .data = {"x", 1}});
    cr_assert_str_eq(r->code, "conflict");
    agent_client_stop(&c);
}

Test(agent_process, input_waits_until_the_process_reads)
{
    agent_client_t *c = start();
    uint32_t id = spawn_sh(c, "sleep 0.4; wc -c", &(struct process_start_request){.stdin = true});
    size_t len = 1000000;
    auto_free char *bytes = mem_alloc(len);
    agent_result_t *r = agent_client_send(
        c, 0, VERB_process_input, &(struct process_input_request){.process_id = id, .data = {bytes, len}, .eof = true});
    agent_client_idle(c, 150);
    cr_assert(!r->is_done);
    agent_client_wait(c, r);
    cr_assert(!r->is_error, "%s", r->message);
    wait_end(c, id);
    cr_assert(is_text(output(c, &(struct process_output_request){.process_id = id}).stdout, "1000000\n"));
    agent_client_stop(&c);
}

Test(agent_process, input_that_is_never_read_fails_when_the_process_ends)
{
    agent_client_t *c = start();
    uint32_t id = spawn_sh(c, "sleep 0.3", &(struct process_start_request){.stdin = true});
    auto_free char *bytes = mem_alloc(1000000);
    agent_result_t *r = agent_client_call(c, VERB_process_input,
                                          &(struct process_input_request){.process_id = id, .data = {bytes, 1000000}});
    cr_assert_str_eq(r->code, "conflict");
    agent_client_stop(&c);
}

Test(agent_process, signals_one_or_all)
{
    static const char *const names[] = {"SIGTERM", "TERM", "term", "15"};
    agent_client_t *c = start();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        uint32_t id = spawn_sh(c, "exec sleep 100", &(struct process_start_request){0});
        cr_assert(!signal_send(c, id, names[i], false)->is_error);
        struct process_output_reply end = wait_end(c, id);
        cr_assert_eq(end.exit_code, 143);
        cr_assert_str_eq(end.signal, "SIGTERM");
    }
    uint32_t id = spawn_sh(c, "sleep 100 & setsid sleep 100 & wait", &(struct process_start_request){0});
    agent_client_idle(c, 200);
    cr_assert(!signal_send(c, id, "KILL", true)->is_error);
    cr_assert(!wait_end(c, id).running);
    cr_assert_str_eq(signal_send(c, id, "KILL", true)->code, "conflict");
    cr_assert_str_eq(signal_send(c, id, "SIGNOPE", true)->code, "bad_request");
    cr_assert_str_eq(signal_send(c, 4242, "KILL", true)->code, "not_found");
    agent_client_stop(&c);
}

Test(agent_process, unknown_ids_are_not_found)
{
    agent_client_t *c = start();
    cr_assert_str_eq(agent_client_call(c, VERB_process_output, &(struct process_output_request){.process_id = 9})->code,
                     "not_found");
    cr_assert_str_eq(agent_client_call(c, VERB_process_wait, &(struct process_wait_request){.process_id = 9})->code,
                     "not_found");
    cr_assert_str_eq(agent_client_call(c, VERB_process_input, &(struct process_input_request){.process_id = 9})->code,
                     "not_found");
    agent_client_stop(&c);
}

Test(agent_process, wait_gives_up_after_its_timeout)
{
    agent_client_t *c = start();
    uint32_t id = spawn_sh(c, "sleep 100", &(struct process_start_request){0});
    struct process_output_reply reply;
    agent_result_reply(
        agent_client_call(c, VERB_process_wait, &(struct process_wait_request){.process_id = id, .timeout_ms = 100}),
        &reply);
    cr_assert(reply.running);
    agent_client_stop(&c);
}

Test(agent_process, ended_ones_are_forgotten_in_order)
{
    agent_client_t *c = start();
    uint32_t first = spawn_sh(c, ":", &(struct process_start_request){0}), last = first;
    for (int i = 0; i < 300; i++)
        last = spawn_sh(c, ":", &(struct process_start_request){0});
    wait_end(c, last);
    struct process_list_reply list;
    agent_result_reply(agent_client_call(c, VERB_process_list, &(struct empty){0}), &list);
    cr_assert_leq(list.processes.count, 260);
    cr_assert_eq(last, first + 300);
    cr_assert_str_eq(
        agent_client_call(c, VERB_process_output, &(struct process_output_request){.process_id = first})->code,
        "not_found");
    agent_client_stop(&c);
}

/* ---- tunnels ---- */

static int listen_local(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    cr_assert_eq(listen(fd, 8), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static bool has_head(agent_client_t *c, void *arg)
{
    (void)c;
    return ((agent_result_t *)arg)->has_head;
}

static bool has_out_ended(agent_client_t *c, void *arg)
{
    (void)c;
    return ((agent_result_t *)arg)->has_ended[CHANNEL_DATA];
}

Test(agent_tunnel, carries_bytes_both_ways_with_half_closes)
{
    agent_client_t *c = start();
    uint16_t port;
    char text[16] = "";
    auto_close int listener = listen_local(&port);
    agent_result_t *r = agent_client_send(c, 0, VERB_tunnel_connect, &(struct tunnel_connect_request){.port = port});
    agent_client_until(c, has_head, r, "no HEAD");
    auto_close int peer = accept(listener, NULL, NULL);
    agent_client_chunk(c, r, "ping", 4, true);
    cr_assert_eq(recv(peer, text, sizeof text, MSG_WAITALL), 4); /* to the end: the half close came through */
    cr_assert_str_eq(text, "ping");
    cr_assert_eq(send(peer, "pong", 4, 0), 4);
    shutdown(peer, SHUT_WR);
    agent_client_wait(c, r);
    cr_assert(!r->is_error, "%s", r->message);
    cr_assert_str_eq(buf_cstr(&r->chunks[CHANNEL_DATA]), "pong");
    cr_assert(r->has_ended[CHANNEL_DATA]);
    agent_client_stop(&c);
}

Test(agent_tunnel, carries_much_with_windows)
{
    agent_client_t *c = start();
    uint16_t port;
    size_t len = 2 * 1024 * 1024;
    auto_free char *bytes = mem_alloc(len);
    memset(bytes, 'z', len);
    auto_close int listener = listen_local(&port);
    agent_result_t *r = agent_client_send(c, 0, VERB_tunnel_connect, &(struct tunnel_connect_request){.port = port});
    agent_client_until(c, has_head, r, "no HEAD");
    auto_close int peer = accept(listener, NULL, NULL);
    if (fork() == 0) { /* an echo server */
        char part[65536];
        ssize_t n;
        while ((n = recv(peer, part, sizeof part, 0)) > 0)
            for (ssize_t at = 0; at < n;)
                at += send(peer, part + at, (size_t)(n - at), 0);
        _exit(0);
    }
    close(STEAL_FD(peer));
    agent_client_chunk(c, r, bytes, len, true);
    agent_client_wait(c, r);
    cr_assert(!r->is_error, "%s", r->message);
    cr_assert_eq(r->chunks[CHANNEL_DATA].len, len);
    cr_assert_eq(memcmp(r->chunks[CHANNEL_DATA].data, bytes, len), 0);
    cr_assert(!r->has_gap);
    agent_client_stop(&c);
}

Test(agent_tunnel, says_when_nothing_listens_or_the_address_is_none)
{
    agent_client_t *c = start();
    uint16_t port;
    close(listen_local(&port));
    cr_assert_str_eq(agent_client_call(c, VERB_tunnel_connect, &(struct tunnel_connect_request){.port = port})->code,
                     "not_found");
    cr_assert_str_eq(
        agent_client_call(c, VERB_tunnel_connect, &(struct tunnel_connect_request){.port = 1, .host = "localhost"})
            ->code,
        "bad_request");
    cr_assert_str_eq(agent_client_call(c, VERB_tunnel_connect, &(struct tunnel_connect_request){.port = 0})->code,
                     "bad_request");
    agent_client_stop(&c);
}

static bool has_events(agent_client_t *c, void *arg)
{
    agent_result_t *r = arg;
    (void)c;
    return r->event_count >= 2;
}

static bool has_three_events(agent_client_t *c, void *arg)
{
    agent_result_t *r = arg;
    (void)c;
    return r->event_count >= 3;
}

static bool has_event(agent_client_t *c, void *arg)
{
    agent_result_t *r = arg;
    (void)c;
    return r->event_count >= 1;
}

static int connect_local(uint32_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

Test(agent_tunnel, listens_accepts_and_tells_who_went_away)
{
    agent_client_t *c = start();
    struct tunnel_listen_event event;
    char text[16] = "";
    agent_result_t *l =
        agent_client_send(c, 0, VERB_tunnel_listen, &(struct tunnel_listen_request){.port = 0, .has.port = true});
    agent_client_until(c, has_event, l, "not listening");
    agent_result_event(l, 0, MSG_tunnel_listen_event, &event);
    cr_assert_str_eq(event.type, "listening");
    uint32_t port = event.port;
    auto_close int peer = connect_local(port);
    agent_client_until(c, has_events, l, "no connection");
    agent_result_event(l, 1, MSG_tunnel_listen_event, &event);
    cr_assert_str_eq(event.type, "connection");
    struct tunnel_accept_request accept_request = {.listen_call_id = l->call_id, .connection_id = event.connection_id};
    agent_result_t *r = agent_client_send(c, 0, VERB_tunnel_accept, &accept_request);
    agent_client_until(c, has_head, r, "not accepted");
    cr_assert_eq(send(peer, "req", 3, 0), 3);
    shutdown(peer, SHUT_WR);
    agent_client_until(c, has_out_ended, r, "no end");
    cr_assert_str_eq(buf_cstr(&r->chunks[CHANNEL_DATA]), "req");
    agent_client_chunk(c, r, "res", 3, true);
    agent_client_wait(c, r);
    cr_assert_eq(recv(peer, text, sizeof text, MSG_WAITALL), 3);
    cr_assert_str_eq(agent_client_call(c, VERB_tunnel_accept, &accept_request)->code, "not_found");
    close(connect_local(port));
    agent_client_until(c, has_three_events, l, "no second connection");
    agent_client_idle(c, 200);
    cr_assert_eq(l->event_count, 4);
    agent_result_event(l, 3, MSG_tunnel_listen_event, &event);
    cr_assert_str_eq(event.type, "gone");
    agent_client_simple(c, ENVELOPE_KIND_CANCEL, l->call_id);
    agent_client_wait(c, l);
    cr_assert_str_eq(l->code, "cancelled");
    agent_client_stop(&c);
}

Test(agent_tunnel, a_port_in_use_is_a_conflict)
{
    agent_client_t *c = start();
    uint16_t port;
    auto_close int listener = listen_local(&port);
    cr_assert_geq(listener, 0);
    cr_assert_str_eq(agent_client_call(c, VERB_tunnel_listen, &(struct tunnel_listen_request){.port = port})->code,
                     "conflict");
    agent_client_stop(&c);
}
