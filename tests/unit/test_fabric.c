// SPDX-License-Identifier: Apache-2.0
// LINK: tests/unit/fabric_world.c
#include "tests/unit/fabric_world.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(fabric, .timeout = 30);

Test(fabric, carries_requests_and_replies_between_hub_and_link)
{
    world_t w;
    make_world(&w);
    start_hub(&w, "hub-1");
    start_link(&w, "link-1");
    cr_assert(reaches(&w, &w.hub.ups, 1, 2000) && reaches(&w, &w.link.ups, 1, 2000));
    cr_assert_str_eq(w.hub.instance, "link-1");
    cr_assert_str_eq(w.link.instance, "hub-1");
    cr_assert_str_eq(fabric_peer_hello(w.hub.peer)->role, "gvisord");
    w.link.echoes = true;
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = 2, .call_id = 77};
    cr_assert_eq(fabric_send(w.hub.peer, &env, "ping", 4), FABRIC_SENT);
    cr_assert(reaches(&w, &w.hub.frames, 1, 1000));
    cr_assert_eq(w.hub.env.call_id, 77);
    cr_assert_str_eq(buf_cstr(&w.hub.body), "ping");
    cr_assert_eq(fabric_peer_next(w.hub.fabric, NULL), w.hub.peer);
    cr_assert_null(fabric_peer_next(w.hub.fabric, w.hub.peer));
    end_world(&w);
}

Test(fabric, link_comes_up_whenever_the_hub_does)
{
    world_t w;
    make_world(&w);
    start_link(&w, "link-1");
    run_ms(&w, 1500);
    cr_assert_eq(w.link.ups, 0);
    start_hub(&w, "hub-1");
    cr_assert(reaches(&w, &w.link.ups, 1, 1500));
    cr_assert_eq(w.hub.ups, 1);
    end_world(&w);
}

Test(fabric, hub_that_leaves_is_noticed_and_a_new_one_is_found)
{
    world_t w;
    make_world(&w);
    start_hub(&w, "hub-1");
    start_link(&w, "link-1");
    cr_assert(reaches(&w, &w.link.ups, 1, 2000));
    for (unsigned i = 1; i <= 3; i++) {
        fabric_destroy(&w.hub.fabric);
        cr_assert(reaches(&w, &w.link.downs, i, 1000));
        /* libzmq drops an unread BYE when its own write finds the connection closed first. */
        cr_assert(strcmp(w.link.reason, "it left on purpose") == 0 ||
                  strcmp(w.link.reason, "the connection was lost") == 0);
        start_hub(&w, "hub-next");
        cr_assert(reaches(&w, &w.link.ups, i + 1, 1500));
        cr_assert_str_eq(w.link.instance, "hub-next");
    }
    end_world(&w);
}

Test(fabric, provider_status_travels_with_heartbeats)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t status = {0};
    struct provider_status told = {.name = "gvisor", .healthy = true};
    world_t w;
    make_world(&w);
    start_hub(&w, "hub-1");
    start_link(&w, "link-1");
    cr_assert_eq(proto_encode(MSG_provider_status, &told, &status, &e), 0);
    cr_assert(reaches(&w, &w.hub.ups, 1, 2000));
    cr_assert_null(fabric_peer_hello(w.hub.peer)->provider.bytes);
    fabric_set_status(w.link.fabric, status.data, status.len);
    cr_assert(reaches(&w, &w.hub.statuses, 2, 3500));
    cr_assert_str_eq(w.hub.status_name, "gvisor");
    end_world(&w);
}

/* A child that does not outlive the test. */
static pid_t fork_bound(void)
{
    pid_t pid = fork();
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

/* A link in a process of its own, which can be killed and stopped. */
static pid_t fork_link(const world_t *w)
{
    pid_t pid = fork_bound();
    if (pid != 0)
        return pid;
    world_t own = *w;
    own.base = event_base_new();
    own.link = (end_t){.echoes = true};
    start_link(&own, "forked");
    event_base_dispatch(own.base);
    _exit(1);
}

/* Same for a hub. */
static pid_t fork_hub(const world_t *w, const char *instance)
{
    pid_t pid = fork_bound();
    if (pid != 0)
        return pid;
    world_t own = *w;
    own.base = event_base_new();
    own.hub = (end_t){0};
    start_hub(&own, instance);
    event_base_dispatch(own.base);
    _exit(1);
}

static void kill_and_reap(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

Test(fabric, killed_link_is_noticed_at_once)
{
    world_t w;
    make_world(&w);
    pid_t pid = fork_link(&w); /* before this process has threads */
    start_hub(&w, "hub-1");
    cr_assert(reaches(&w, &w.hub.ups, 1, 3000));
    kill_and_reap(pid);
    uint64_t start = clock_monotonic_ms();
    cr_assert(reaches(&w, &w.hub.downs, 1, 3500));
    cr_assert_lt(clock_monotonic_ms() - start, 250);
    cr_assert_null(fabric_peer_next(w.hub.fabric, NULL));
    end_world(&w);
}

Test(fabric, stopped_link_is_down_after_three_seconds_and_up_when_it_goes_on)
{
    world_t w;
    make_world(&w);
    pid_t pid = fork_link(&w);
    start_hub(&w, "hub-1");
    cr_assert(reaches(&w, &w.hub.ups, 1, 3000));
    kill(pid, SIGSTOP);
    uint64_t start = clock_monotonic_ms();
    cr_assert(reaches(&w, &w.hub.downs, 1, 6000));
    uint64_t took = clock_monotonic_ms() - start;
    cr_assert(took >= 2000 && took < 4500, "%llu ms", (unsigned long long)took);
    kill(pid, SIGCONT);
    cr_assert(reaches(&w, &w.hub.ups, 2, 3000));
    kill_and_reap(pid);
    end_world(&w);
}

Test(fabric, killed_hub_is_noticed_and_its_successor_gets_hello_promptly)
{
    world_t w;
    make_world(&w);
    pid_t first = fork_hub(&w, "hub-1");
    pid_t second = fork_bound(); /* made now, before threads; starts its hub when told */
    if (second == 0) {
        raise(SIGSTOP);
        world_t own = w;
        own.base = event_base_new();
        start_hub(&own, "hub-2");
        event_base_dispatch(own.base);
        _exit(1);
    }
    start_link(&w, "link-1");
    cr_assert(reaches(&w, &w.link.ups, 1, 3000));
    kill_and_reap(first);
    cr_assert(reaches(&w, &w.link.downs, 1, 1000));
    kill(second, SIGCONT);
    cr_assert(reaches(&w, &w.link.ups, 2, 2000));
    cr_assert_str_eq(w.link.instance, "hub-2");
    kill_and_reap(second);
    end_world(&w);
}

Test(fabric, stopped_hub_comes_back_to_a_clean_session)
{
    world_t w;
    make_world(&w);
    pid_t pid = fork_hub(&w, "hub-1");
    start_link(&w, "link-1");
    cr_assert(reaches(&w, &w.link.ups, 1, 3000));
    kill(pid, SIGSTOP);
    cr_assert(reaches(&w, &w.link.downs, 1, 6000));
    kill(pid, SIGCONT);
    cr_assert(reaches(&w, &w.link.ups, 2, 4000));
    run_ms(&w, 2500);
    cr_assert_eq(w.link.ups, 2);
    cr_assert_eq(w.link.downs, 1);
    kill_and_reap(pid);
    end_world(&w);
}

Test(fabric, full_queue_is_told_and_everything_arrives_in_order)
{
    static uint8_t body[32768];
    world_t w;
    make_world(&w);
    pid_t pid = fork_link(&w);
    start_hub(&w, "hub-1");
    cr_assert(reaches(&w, &w.hub.ups, 1, 3000));
    kill(pid, SIGSTOP); /* a slow reader */
    unsigned sent = 0;
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = 2, .call_id = 1};
    uint64_t start = clock_monotonic_ms();
    while (fabric_send(w.hub.peer, &env, body, sizeof body) == FABRIC_SENT && sent < 100000) {
        sent++;
        env.call_id++;
    }
    cr_assert_lt(sent, 4 * FABRIC_HWM);
    cr_assert_lt(clock_monotonic_ms() - start, 2000);
    kill(pid, SIGCONT);
    cr_assert(reaches(&w, &w.hub.writables, 1, 3000));
    cr_assert(reaches(&w, &w.hub.frames, sent, 5000));
    cr_assert_eq(w.hub.env.call_id, sent);
    cr_assert_eq(w.hub.downs, 0);
    kill_and_reap(pid);
    end_world(&w);
}
