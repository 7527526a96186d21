// SPDX-License-Identifier: Apache-2.0
#include "agent/loop.h"

#include "common/clock.h"
#include "common/mem.h"

#include <errno.h>
#include <poll.h>

#define TIMERS_GROW 32

/* `loop_fd_fn`s beside the array that poll() takes: same index. */
struct watch {
    loop_fd_fn fn;
    void *arg;
};

struct timer {
    uint64_t id;
    uint64_t due_us;
    loop_timer_fn fn;
    void *arg;
};

static struct {
    struct pollfd *polls;
    struct watch *watches;
    size_t count;
    size_t cap;
    bool has_holes; /* removed entries have fd -1 until the turn ends, so that indexes stay true while handlers run */
    int *index_of;  /* by descriptor; -1 = not watched */
    size_t index_cap;
    struct timer *timers; /* binary heap by due_us */
    size_t timer_count;
    size_t timer_cap;
    uint64_t next_timer;
    bool (*idle)(void);
    bool is_stopped;
    bool is_frozen;
    uint64_t frozen_us; /* the agent's clock while it stands still */
    uint64_t behind_us; /* CLOCK_MONOTONIC minus the agent's clock */
} loop;

static int index_get(int fd)
{
    return fd >= 0 && (size_t)fd < loop.index_cap ? loop.index_of[fd] : -1;
}

static void index_set(int fd, int index)
{
    if ((size_t)fd >= loop.index_cap) {
        size_t cap = (size_t)fd + 64;
        loop.index_of = mem_realloc(loop.index_of, cap * sizeof *loop.index_of);
        for (size_t i = loop.index_cap; i < cap; i++)
            loop.index_of[i] = -1;
        loop.index_cap = cap;
    }
    loop.index_of[fd] = index;
}

static void watch_remove(int fd)
{
    int index = index_get(fd);
    if (index < 0)
        return;
    loop.polls[index] = (struct pollfd){.fd = -1};
    loop.index_of[fd] = -1;
    loop.has_holes = true;
}

bool loop_watch(int fd, short events, loop_fd_fn fn, void *arg)
{
    if (events == 0) {
        watch_remove(fd);
        return true;
    }
    int index = index_get(fd);
    if (index >= 0 && loop.watches[index].fn == fn && loop.watches[index].arg == arg) {
        loop.polls[index].events = events;
        return true;
    }
    /* A new owner must not see what was polled for the old one: always a fresh entry. */
    watch_remove(fd);
    if (loop.count == LOOP_FDS_MAX)
        return false;
    if (loop.count == loop.cap) {
        loop.cap = loop.cap ? loop.cap * 2 : 16;
        loop.polls = mem_realloc(loop.polls, loop.cap * sizeof *loop.polls);
        loop.watches = mem_realloc(loop.watches, loop.cap * sizeof *loop.watches);
    }
    loop.polls[loop.count] = (struct pollfd){.fd = fd, .events = events};
    loop.watches[loop.count] = (struct watch){.fn = fn, .arg = arg};
    index_set(fd, (int)loop.count++);
    return true;
}

static void holes_close(void)
{
    size_t to = 0;
    for (size_t from = 0; from < loop.count; from++) {
        if (loop.polls[from].fd < 0)
            continue;
        loop.polls[to] = loop.polls[from];
        loop.watches[to] = loop.watches[from];
        loop.index_of[loop.polls[to].fd] = (int)to;
        to++;
    }
    loop.count = to;
    loop.has_holes = false;
}

static void timer_swap(size_t a, size_t b)
{
    struct timer t = loop.timers[a];
    loop.timers[a] = loop.timers[b];
    loop.timers[b] = t;
}

static void timer_up(size_t i)
{
    while (i > 0 && loop.timers[i].due_us < loop.timers[(i - 1) / 2].due_us) {
        timer_swap(i, (i - 1) / 2);
        i = (i - 1) / 2;
    }
}

static void timer_down(size_t i)
{
    for (;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < loop.timer_count; child++)
            if (loop.timers[child].due_us < loop.timers[least].due_us)
                least = child;
        if (least == i)
            return;
        timer_swap(i, least);
        i = least;
    }
}

static void timer_remove(size_t i)
{
    loop.timers[i] = loop.timers[--loop.timer_count];
    if (i < loop.timer_count) {
        timer_up(i);
        timer_down(i);
    }
}

uint64_t loop_clock_us(void)
{
    return loop.is_frozen ? loop.frozen_us : clock_monotonic_us() - loop.behind_us;
}

uint64_t loop_clock_ms(void)
{
    return loop_clock_us() / 1000;
}

void loop_freeze(void)
{
    loop.frozen_us = loop_clock_us();
    loop.is_frozen = true;
}

void loop_thaw(void)
{
    if (loop.is_frozen)
        loop.behind_us = clock_monotonic_us() - loop.frozen_us;
    loop.is_frozen = false;
}

uint64_t loop_after(uint32_t ms, loop_timer_fn fn, void *arg)
{
    if (loop.timer_count == loop.timer_cap) {
        loop.timer_cap += TIMERS_GROW;
        loop.timers = mem_realloc(loop.timers, loop.timer_cap * sizeof *loop.timers);
    }
    uint64_t due = loop_clock_us() + (uint64_t)ms * 1000;
    loop.timers[loop.timer_count] = (struct timer){.id = ++loop.next_timer, .due_us = due, .fn = fn, .arg = arg};
    timer_up(loop.timer_count++);
    return loop.next_timer;
}

void loop_cancel(uint64_t timer)
{
    for (size_t i = 0; timer != 0 && i < loop.timer_count; i++) {
        if (loop.timers[i].id == timer) {
            timer_remove(i);
            return;
        }
    }
}

static void timers_run(void)
{
    uint64_t now = loop_clock_us();
    while (loop.timer_count > 0 && loop.timers[0].due_us <= now && !loop.is_stopped) {
        struct timer due = loop.timers[0];
        timer_remove(0);
        due.fn(due.arg);
    }
}

static int poll_timeout(bool is_busy)
{
    if (is_busy)
        return 0;
    if (loop.timer_count == 0)
        return -1;
    uint64_t now = loop_clock_us();
    uint64_t due = loop.timers[0].due_us;
    if (due > now && loop.is_frozen)
        return -1;
    return due <= now ? 0 : (int)((due - now + 999) / 1000);
}

void loop_set_idle(bool (*fn)(void))
{
    loop.idle = fn;
}

static void watches_run(void)
{
    size_t count = loop.count; /* what handlers add was not polled */
    for (size_t i = 0; i < count && !loop.is_stopped; i++) {
        short revents = loop.polls[i].revents;
        if (loop.polls[i].fd < 0 || revents == 0)
            continue;
        loop.polls[i].revents = 0;
        loop.watches[i].fn(loop.watches[i].arg, loop.polls[i].fd, revents);
    }
}

void loop_run(void)
{
    loop.is_stopped = false;
    while (!loop.is_stopped) {
        timers_run();
        bool is_busy = loop.idle != NULL && loop.idle();
        if (loop.is_stopped)
            break;
        if (loop.has_holes)
            holes_close();
        int ready = poll(loop.polls, loop.count, poll_timeout(is_busy));
        if (ready > 0)
            watches_run();
        else if (ready < 0 && errno != EINTR && errno != EAGAIN && errno != ENOMEM)
            abort();
    }
}

void loop_stop(void)
{
    loop.is_stopped = true;
}
