// SPDX-License-Identifier: Apache-2.0
#include "agent/call.h"
#include "agent/tunnel.h"
#include "common/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG_DEFAULT 64

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Numbers only: names would have to be resolved, and this door leads to the sandbox itself. */
static int address_parse(const char *host, uint32_t port, union address *a, socklen_t *len, err_t **e)
{
    *a = (union address){0};
    if (host == NULL || host[0] == '\0')
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons((uint16_t)port);
        *len = sizeof a->v4;
        return 0;
    }
    if (inet_pton(AF_INET6, host, &a->v6.sin6_addr) == 1) {
        a->v6.sin6_family = AF_INET6;
        a->v6.sin6_port = htons((uint16_t)port);
        *len = sizeof a->v6;
        return 0;
    }
    return err_set(e, ERR_BAD_REQUEST, "host \"%s\" is not an IPv4 or IPv6 address", host);
}

static int connect_error(int errnum, err_t **e)
{
    if (errnum == ECONNREFUSED)
        return err_set(e, ERR_NOT_FOUND, "nothing listens on this port inside the sandbox");
    return err_set_errno(e, ERR_CONFLICT, errnum, "cannot connect to this port inside the sandbox");
}

static void nodelay(int fd)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void carry_destroy(agent_call_t *call)
{
    tunnel_t *t = call_state(call);
    tunnel_destroy(&t);
}

static void carry_chunk(agent_call_t *call, enum envelope_channel channel, const uint8_t *bytes, size_t len,
                        bool is_end)
{
    (void)channel;
    tunnel_on_chunk(call, call_state(call), bytes, len, is_end);
}

static void carry_window(agent_call_t *call)
{
    tunnel_on_window(call, call_state(call));
}

static void carry_begin(agent_call_t *call, tunnel_t *t)
{
    struct empty head = {0};
    call_head(call, MSG_empty, &head);
    tunnel_begin(call, t);
}

/* ---- tunnel_connect ---- */

static void on_connected(agent_call_t *call, int fd, short revents)
{
    int errnum = 0;
    socklen_t len = sizeof errnum;
    err_t *e = NULL;
    (void)revents;
    call_watch_fd(call, fd, 0, NULL);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &len) != 0)
        errnum = errno;
    if (errnum != 0) {
        connect_error(errnum, &e);
        call_fail(call, &e);
        return;
    }
    carry_begin(call, call_state(call));
}

static int connect_open(agent_call_t *call, const struct tunnel_connect_request *request, err_t **e)
{
    union address a;
    socklen_t len = 0;
    if (request->port == 0)
        return err_set(e, ERR_BAD_REQUEST, "port is required");
    if (address_parse(request->host, request->port, &a, &len, e) < 0)
        return -1;
    auto_close int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot make a socket");
    nodelay(fd);
    int rc = connect(fd, &a.any, len);
    if (rc != 0 && errno != EINPROGRESS)
        return connect_error(errno, e);
    tunnel_t *t = tunnel_new(STEAL_FD(fd));
    call_set_state(call, t);
    if (rc == 0)
        carry_begin(call, t);
    else
        call_watch_fd(call, t->fd, POLLOUT, on_connected);
    return 0;
}

static void connect_start(agent_call_t *call, const void *message)
{
    err_t *e = NULL;
    if (connect_open(call, message, &e) < 0)
        call_fail(call, &e);
}

const agent_tool_t tool_tunnel_connect = {
    .verb = VERB_tunnel_connect,
    .start = connect_start,
    .on_chunk = carry_chunk,
    .on_window = carry_window,
    .destroy = carry_destroy,
};

/* ---- tunnel_listen ---- */

struct waiting {
    uint32_t id;
    int fd;
};

struct listener {
    agent_call_t *call;
    int fd;
    uint32_t backlog;
    uint32_t last_id;
    struct waiting *waiting; /* backlog of them; id 0 = free */
    struct listener *next;
};

static struct listener *listeners;

static void listen_event(struct listener *l, const char *type, uint32_t port, uint32_t id)
{
    struct tunnel_listen_event event = {.type = type, .port = port, .connection_id = id};
    (void)call_event(l->call, MSG_tunnel_listen_event, &event);
}

static struct waiting *waiting_find(struct listener *l, uint32_t id)
{
    for (uint32_t i = 0; i < l->backlog; i++)
        if (l->waiting[i].id == id)
            return &l->waiting[i];
    return NULL;
}

static void waiting_end(struct listener *l, struct waiting *w)
{
    call_watch_fd(l->call, w->fd, 0, NULL);
    close(w->fd);
    *w = (struct waiting){0};
}

static void on_listen(agent_call_t *call, int fd, short revents);

/* Only the other side's going away is of interest while nobody has taken it: its bytes wait in the socket. One that has
 * sent something and closed its half still wants to be served. */
static void on_waiting(agent_call_t *call, int fd, short revents)
{
    struct listener *l = call_state(call);
    int there = 0;
    if (!(revents & (POLLERR | POLLHUP)) && ioctl(fd, FIONREAD, &there) == 0 && there > 0) {
        call_watch_fd(call, fd, POLLERR | POLLHUP, on_waiting);
        return;
    }
    for (uint32_t i = 0; i < l->backlog; i++) {
        if (l->waiting[i].id == 0 || l->waiting[i].fd != fd)
            continue;
        uint32_t id = l->waiting[i].id;
        waiting_end(l, &l->waiting[i]);
        listen_event(l, "gone", 0, id);
        call_watch_fd(call, l->fd, POLLIN, on_listen);
        return;
    }
}

static void on_listen(agent_call_t *call, int fd, short revents)
{
    struct listener *l = call_state(call);
    struct waiting *free_slot = waiting_find(l, 0);
    (void)revents;
    if (free_slot == NULL) { /* the kernel's backlog holds the rest */
        call_watch_fd(call, fd, 0, NULL);
        return;
    }
    int taken = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (taken < 0)
        return;
    nodelay(taken);
    *free_slot = (struct waiting){++l->last_id, taken};
    call_watch_fd(call, taken, POLLRDHUP | POLLERR | POLLHUP, on_waiting);
    listen_event(l, "connection", 0, free_slot->id);
}

static int listen_open(struct listener *l, uint32_t port, uint32_t *port_r, err_t **e)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t len = sizeof a;
    int on = 1;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot make a socket");
    (void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(l->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(l->fd, (int)l->backlog) != 0)
        return err_set_errno(e, errno == EADDRINUSE ? ERR_CONFLICT : ERR_NONE, errno, "cannot listen on port %u",
                             (unsigned)port);
    if (getsockname(l->fd, (struct sockaddr *)&a, &len) != 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot learn the port");
    *port_r = ntohs(a.sin_port);
    return 0;
}

static void listen_start(agent_call_t *call, const void *message)
{
    const struct tunnel_listen_request *request = message;
    struct listener *l = mem_alloc(sizeof *l);
    uint32_t port = 0;
    err_t *e = NULL;
    l->call = call;
    l->backlog = request->backlog > 0 ? request->backlog : BACKLOG_DEFAULT;
    l->waiting = mem_alloc_array(l->backlog, sizeof *l->waiting);
    l->next = listeners;
    listeners = l;
    call_set_state(call, l);
    if (listen_open(l, request->port, &port, &e) < 0) {
        call_fail(call, &e);
        return;
    }
    call_watch_fd(call, l->fd, POLLIN, on_listen);
    listen_event(l, "listening", port, 0);
}

static void listen_destroy(agent_call_t *call)
{
    struct listener *l = call_state(call);
    struct listener **at = &listeners;
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    for (uint32_t i = 0; i < l->backlog; i++)
        if (l->waiting[i].id != 0)
            close(l->waiting[i].fd);
    fd_close_p(&l->fd);
    free(l->waiting);
    free(l);
}

const agent_tool_t tool_tunnel_listen = {
    .verb = VERB_tunnel_listen,
    .start = listen_start,
    .destroy = listen_destroy,
};

/* ---- tunnel_accept ---- */

static void accept_start(agent_call_t *call, const void *message)
{
    const struct tunnel_accept_request *request = message;
    struct listener *l = listeners;
    struct waiting *w = NULL;
    err_t *e = NULL;
    while (l != NULL && call_number(l->call) != request->listen_call_id)
        l = l->next;
    if (l != NULL && request->connection_id != 0)
        w = waiting_find(l, request->connection_id);
    if (w == NULL) {
        err_set(&e, ERR_NOT_FOUND, "connection %u is gone, taken, or was never there",
                (unsigned)request->connection_id);
        call_fail(call, &e);
        return;
    }
    call_watch_fd(l->call, w->fd, 0, NULL);
    tunnel_t *t = tunnel_new(w->fd);
    *w = (struct waiting){0};
    call_watch_fd(l->call, l->fd, POLLIN, on_listen);
    call_set_state(call, t);
    carry_begin(call, t);
}

const agent_tool_t tool_tunnel_accept = {
    .verb = VERB_tunnel_accept,
    .start = accept_start,
    .on_chunk = carry_chunk,
    .on_window = carry_window,
    .destroy = carry_destroy,
};
