// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/fake_call.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define FINISH_MS 60000

static char workspace[256];
void (*fake_pump)(void);

/* ---- what tools call ---- */

void *call_state(agent_call_t *call)
{
    return call->state;
}

void call_set_state(agent_call_t *call, void *state)
{
    call->state = state;
}

uint64_t call_number(const agent_call_t *call)
{
    return (uint64_t)(uintptr_t)call;
}

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fake_call: %s\n", what);
        abort();
    }
}

static void end_call(agent_call_t *call)
{
    must(!call->is_done, "the call was answered twice");
    call->is_done = true;
    call->wants_steps = false;
    call->tool->destroy(call);
    call->is_destroyed = true;
    for (size_t i = 0; i < FAKE_FDS_MAX; i++)
        call->fds[i].events = 0;
}

void call_reply(agent_call_t *call, const void *reply)
{
    err_t *e = NULL;
    const verb_row_t *row = verb_row(call->tool->verb);
    must(!call->is_done, "the call was answered twice");
    buf_init(&call->reply_bytes, CALL_MESSAGE_MAX);
    if (proto_encode(row->reply, reply, &call->reply_bytes, &e) != 0)
        must(false, err_message(e));
    call->reply = mem_alloc(proto_desc(row->reply)->size);
    if (proto_decode(row->reply, call->reply, call->reply_bytes.data, call->reply_bytes.len, &e) != 0)
        must(false, err_message(e));
    end_call(call);
}

void call_fail(agent_call_t *call, err_t **e)
{
    must(!call->is_done, "the call was answered twice");
    must(*e != NULL, "call_fail without an error");
    call->error = STEAL_PTR(*e);
    end_call(call);
}

bool call_head(agent_call_t *call, unsigned msg_id, const void *msg)
{
    err_t *e = NULL;
    must(!call->has_head, "two heads");
    call->has_head = true;
    call->head_id = msg_id;
    must(proto_encode(msg_id, msg, &call->head_bytes, &e) == 0, err_message(e));
    return true;
}

bool call_event(agent_call_t *call, unsigned msg_id, const void *msg)
{
    err_t *e = NULL;
    buf_t b;
    if (call->event_count == FAKE_EVENTS_MAX ||
        (call->events_refused_after > 0 && call->event_count >= call->events_refused_after))
        return false;
    buf_init(&b, 0);
    must(proto_encode(msg_id, msg, &b, &e) == 0, err_message(e));
    size_t len = b.len;
    call->events[call->event_count++] = (fake_event_t){msg_id, buf_steal(&b), len};
    return true;
}

size_t call_chunk(agent_call_t *call, enum envelope_channel channel, const void *bytes, size_t len, bool is_end)
{
    size_t n = len < call->window ? len : call->window;
    must(!call->is_ended[channel], "chunk after the end of its channel");
    buf_append(&call->chunks[channel], bytes, n);
    call->window -= n;
    if (n == len && is_end)
        call->is_ended[channel] = true;
    return n;
}

void call_consumed(agent_call_t *call, size_t len)
{
    call->consumed += len;
}

void call_want_steps(agent_call_t *call, bool wants)
{
    call->wants_steps = wants;
}

void call_watch_fd(agent_call_t *call, int fd, short events, call_fd_fn fn)
{
    size_t free_slot = FAKE_FDS_MAX;
    for (size_t i = 0; i < FAKE_FDS_MAX; i++) {
        if (call->fds[i].events != 0 && call->fds[i].fd == fd) {
            free_slot = i;
            break;
        }
        if (call->fds[i].events == 0 && free_slot == FAKE_FDS_MAX)
            free_slot = i;
    }
    must(free_slot < FAKE_FDS_MAX, "too many descriptors");
    call->fds[free_slot].fd = fd;
    call->fds[free_slot].events = events;
    call->fds[free_slot].fn = fn;
}

/* ---- what tests call ---- */

void fake_init(fake_t *f, const agent_tool_t *tool)
{
    memset(f, 0, sizeof *f);
    f->tool = tool;
    (void)fake_workspace();
    f->window = SIZE_MAX;
    for (size_t i = 0; i < CHANNEL_COUNT; i++)
        buf_init(&f->chunks[i], (size_t)256 << 20);
}

void fake_start(fake_t *f, const void *request)
{
    f->request = request;
    f->tool->start(f, request);
}

static bool poll_fds(fake_t *f, int timeout_ms)
{
    struct pollfd fds[FAKE_FDS_MAX];
    size_t slots[FAKE_FDS_MAX];
    nfds_t n = 0;
    for (size_t i = 0; i < FAKE_FDS_MAX; i++)
        if (f->fds[i].events != 0) {
            slots[n] = i;
            fds[n++] = (struct pollfd){.fd = f->fds[i].fd, .events = f->fds[i].events};
        }
    if (n == 0 || poll(fds, n, timeout_ms) <= 0)
        return false;
    for (nfds_t i = 0; i < n && !f->is_done; i++)
        if (fds[i].revents != 0)
            f->fds[slots[i]].fn(f, fds[i].fd, fds[i].revents);
    return true;
}

bool fake_turn(fake_t *f, int timeout_ms)
{
    if (f->is_done)
        return false;
    if (fake_pump != NULL) {
        fake_pump();
        return true;
    }
    if (f->wants_steps) {
        f->steps++;
        f->tool->step(f);
        timeout_ms = 0;
        if (f->is_done)
            return true;
        (void)poll_fds(f, 0);
        return true;
    }
    return poll_fds(f, timeout_ms);
}

void fake_finish(fake_t *f)
{
    uint64_t until = clock_monotonic_ms() + FINISH_MS;
    while (!f->is_done && clock_monotonic_ms() < until)
        if (!fake_turn(f, 1000) && !f->is_done && !f->wants_steps && f->window == 0)
            break;
    must(f->is_done, "the call did not end");
}

void fake_run(fake_t *f, const agent_tool_t *tool, const void *request)
{
    fake_init(f, tool);
    fake_start(f, request);
    fake_finish(f);
}

void fake_chunk(fake_t *f, const void *bytes, size_t len, bool is_end)
{
    if (!f->is_done)
        f->tool->on_chunk(f, CHANNEL_DATA, bytes, len, is_end);
}

void fake_grant(fake_t *f, size_t len)
{
    f->window += len;
    if (!f->is_done && f->tool->on_window != NULL)
        f->tool->on_window(f);
}

void fake_cancel(fake_t *f, bool is_deadline)
{
    err_t *e = NULL;
    if (f->is_done)
        return;
    if (f->tool->on_cancel != NULL) {
        f->tool->on_cancel(f, is_deadline);
        return;
    }
    err_set(&e, is_deadline ? ERR_DEADLINE_EXCEEDED : ERR_CANCELLED, "ended from outside");
    call_fail(f, &e);
}

void fake_free(fake_t *f)
{
    if (!f->is_done)
        fake_cancel(f, false);
    err_free(&f->error);
    buf_free(&f->reply_bytes);
    buf_free(&f->head_bytes);
    free(f->reply);
    f->reply = NULL;
    for (size_t i = 0; i < CHANNEL_COUNT; i++)
        buf_free(&f->chunks[i]);
    for (size_t i = 0; i < f->event_count; i++)
        free(f->events[i].bytes);
    f->event_count = 0;
}

enum err_code fake_code(const fake_t *f)
{
    return err_code(f->error);
}

const char *fake_workspace(void)
{
    if (workspace[0] == '\0') {
        snprintf(workspace, sizeof workspace, "/tmp/ew-tool-%d-XXXXXX", (int)getpid());
        must(mkdtemp(workspace) != NULL, "mkdtemp");
        must(setenv("AGENT_WORKSPACE", workspace, 1) == 0, "setenv");
    }
    return workspace;
}

void fake_workspace_end(void)
{
    err_t *e = NULL;
    if (workspace[0] != '\0' && dir_remove(workspace, &e) != 0)
        fprintf(stderr, "fake_call: %s\n", err_message(e));
    err_free(&e);
    workspace[0] = '\0';
}

const char *fake_path(const char *relative)
{
    static char paths[8][4200];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", fake_workspace(), relative);
    return path;
}

void fake_put(const char *relative, const void *bytes, size_t len)
{
    const char *path = fake_path(relative);
    char parent[4200];
    err_t *e = NULL;
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = '\0';
    must(dir_make(parent, 0755, &e) == 0, "dir_make");
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    must(fd >= 0, path);
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        must(n > 0, "write");
        bytes = (const char *)bytes + n;
        len -= (size_t)n;
    }
    close(fd);
}

void fake_put_str(const char *relative, const char *text)
{
    fake_put(relative, text, strlen(text));
}

char *fake_get(const char *relative, size_t *len)
{
    buf_t b;
    err_t *e = NULL;
    buf_init(&b, (size_t)1 << 30);
    if (file_read(fake_path(relative), (size_t)1 << 30, &b, &e) != 0) {
        err_free(&e);
        buf_free(&b);
        return NULL;
    }
    if (len != NULL)
        *len = b.len;
    return buf_steal(&b);
}

size_t fake_count_entries(const char *relative)
{
    size_t n = 0;
    DIR *d = opendir(fake_path(relative));
    const struct dirent *entry;
    must(d != NULL, "opendir");
    while ((entry = readdir(d)) != NULL)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(d);
    return n;
}
