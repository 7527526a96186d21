// SPDX-License-Identifier: Apache-2.0
#include "agent/tunnel.h"

#include "common/mem.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define HELD_SIZE ((size_t)32 * 1024)

tunnel_t *tunnel_new(int fd)
{
    tunnel_t *t = mem_alloc(sizeof *t);
    t->fd = fd;
    buf_init(&t->in, 2 * (size_t)CALL_WINDOW);
    return t;
}

void tunnel_destroy(tunnel_t **t)
{
    if (*t == NULL)
        return;
    fd_close_p(&(*t)->fd);
    buf_free(&(*t)->in);
    free((*t)->held);
    free(*t);
    *t = NULL;
}

static void on_socket(agent_call_t *call, int fd, short revents);

static void fail_errno(agent_call_t *call, int errnum)
{
    err_t *e = NULL;
    err_set_errno(&e, ERR_CONFLICT, errnum, "the connection inside the sandbox broke");
    call_fail(call, &e);
}

/* False: the call has ended. */
static bool is_going_on(agent_call_t *call, tunnel_t *t)
{
    struct empty reply = {0};
    if (t->has_out_ended && t->is_in_closed) {
        call_reply(call, &reply);
        return false;
    }
    short events = 0;
    if (!t->has_out_ended && !t->is_out_blocked)
        events |= POLLIN;
    if (t->in.len > t->in_at)
        events |= POLLOUT;
    call_watch_fd(call, t->fd, events, on_socket);
    return true;
}

static int socket_write(agent_call_t *call, tunnel_t *t)
{
    size_t before = t->in_at;
    while (t->in.len > t->in_at) {
        ssize_t n = send(t->fd, t->in.data + t->in_at, t->in.len - t->in_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            return errno;
        t->in_at += (size_t)n;
    }
    size_t taken = t->in_at - before;
    if (t->in_at == t->in.len) {
        buf_reset(&t->in);
        t->in_at = 0;
        if (t->has_in_ended && !t->is_in_closed) {
            (void)shutdown(t->fd, SHUT_WR);
            t->is_in_closed = true;
        }
    } else if (t->in_at > CALL_WINDOW / 2) {
        buf_consume(&t->in, t->in_at);
        t->in_at = 0;
    }
    if (taken > 0)
        call_consumed(call, taken);
    return 0;
}

static bool held_send(agent_call_t *call, tunnel_t *t)
{
    if (t->held_len == t->held_at)
        return true;
    t->held_at += call_chunk(call, CHANNEL_DATA, t->held + t->held_at, t->held_len - t->held_at, false);
    t->is_out_blocked = t->held_at < t->held_len;
    return !t->is_out_blocked;
}

static int socket_read(agent_call_t *call, tunnel_t *t)
{
    if (t->held == NULL)
        t->held = mem_alloc(HELD_SIZE);
    while (!t->has_out_ended && held_send(call, t)) {
        ssize_t n = recv(t->fd, t->held, HELD_SIZE, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : errno;
        t->held_at = 0;
        t->held_len = (size_t)n;
        if (n == 0) {
            t->has_out_ended = true;
            call_chunk(call, CHANNEL_DATA, NULL, 0, true);
        }
    }
    return 0;
}

static void on_socket(agent_call_t *call, int fd, short revents)
{
    tunnel_t *t = call_state(call);
    int errnum = 0;
    (void)fd;
    if (revents & (POLLOUT | POLLERR))
        errnum = socket_write(call, t);
    if (errnum == 0 && revents & (POLLIN | POLLHUP | POLLERR))
        errnum = socket_read(call, t);
    if (errnum != 0)
        fail_errno(call, errnum);
    else
        (void)is_going_on(call, t);
}

void tunnel_begin(agent_call_t *call, tunnel_t *t)
{
    t->is_connected = true;
    int errnum = socket_write(call, t);
    if (errnum != 0)
        fail_errno(call, errnum);
    else
        (void)is_going_on(call, t);
}

void tunnel_on_chunk(agent_call_t *call, tunnel_t *t, const uint8_t *bytes, size_t len, bool is_end)
{
    buf_append(&t->in, bytes, len);
    t->has_in_ended = t->has_in_ended || is_end;
    if (t->is_connected)
        tunnel_begin(call, t);
}

void tunnel_on_window(agent_call_t *call, tunnel_t *t)
{
    if (!t->is_connected)
        return;
    int errnum = socket_read(call, t);
    if (errnum != 0)
        fail_errno(call, errnum);
    else
        (void)is_going_on(call, t);
}
