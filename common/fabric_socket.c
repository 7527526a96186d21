// SPDX-License-Identifier: Apache-2.0
/* ZeroMQ: the process's one context, socket options, endpoints, the monitor. */
#include "common/clock.h"
#include "common/fabric_private.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define RECONNECT_MS 100
#define TCP_RECONNECT_MAX_MS 2000
#define IPC_SCHEME "ipc://"
#define TCP_SCHEME "tcp://"
#define ENDPOINTS_MAX 4096
#define MONITOR_EVENTS (ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)

static void *shared_context;
static unsigned shared_context_users;

void *fabric_context_take(err_t **e)
{
    if (shared_context == NULL) {
        shared_context = zmq_ctx_new();
        if (shared_context == NULL) {
            err_set(e, ERR_INTERNAL, "cannot make a ZeroMQ context: %s", zmq_strerror(errno));
            return NULL;
        }
        zmq_ctx_set(shared_context, ZMQ_IO_THREADS, 1);
    }
    shared_context_users++;
    return shared_context;
}

void fabric_context_drop(void)
{
    if (--shared_context_users > 0)
        return;
    while (zmq_ctx_term(shared_context) < 0 && errno == EINTR)
        continue;
    shared_context = NULL;
}

static int set_int(void *socket, int option, int value, err_t **e)
{
    if (zmq_setsockopt(socket, option, &value, sizeof value) == 0)
        return 0;
    return err_set(e, ERR_INTERNAL, "cannot set ZeroMQ option %d to %d: %s", option, value, zmq_strerror(errno));
}

static int set_options(fabric_t *f, err_t **e)
{
    int64_t body_max = FABRIC_BODY_MAX;
    const struct {
        int option, value;
        bool is_hub, is_link;
    } rows[] = {
        {ZMQ_SNDHWM, FABRIC_HWM, true, true},
        {ZMQ_RCVHWM, FABRIC_HWM, true, true},
        {ZMQ_LINGER, FABRIC_LINGER_MS, true, true},
        {ZMQ_IPV6, 1, true, true},
        {ZMQ_TCP_KEEPALIVE, 1, true, true},
        {ZMQ_ROUTER_MANDATORY, 1, true, false},
        {ZMQ_ROUTER_HANDOVER, 1, true, false},
        /* Nothing may queue for a hub that is not there: it would be stale when it is. */
        {ZMQ_IMMEDIATE, 1, false, true},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS, false, true},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool is_wanted = f->is_hub ? rows[i].is_hub : rows[i].is_link;
        if (is_wanted && set_int(f->socket, rows[i].option, rows[i].value, e) < 0)
            return -1;
    }
    if (zmq_setsockopt(f->socket, ZMQ_MAXMSGSIZE, &body_max, sizeof body_max) < 0)
        return err_set(e, ERR_INTERNAL, "cannot limit ZeroMQ messages: %s", zmq_strerror(errno));
    if (f->is_hub)
        return 0;
    uint8_t random[FABRIC_IDENTITY_SIZE / 2];
    char identity[FABRIC_IDENTITY_SIZE + 1];
    random_bytes(random, sizeof random);
    hex_encode(identity, random, sizeof random);
    if (zmq_setsockopt(f->socket, ZMQ_ROUTING_ID, identity, FABRIC_IDENTITY_SIZE) < 0)
        return err_set(e, ERR_INTERNAL, "cannot set the fabric identity: %s", zmq_strerror(errno));
    return 0;
}

static int open_monitor(fabric_t *f, void *context, err_t **e)
{
    static atomic_uint counter;
    auto_free char *name = mem_printf("inproc://fabric-monitor-%u", atomic_fetch_add(&counter, 1));
    if (zmq_socket_monitor(f->socket, name, MONITOR_EVENTS) < 0)
        return err_set(e, ERR_INTERNAL, "cannot monitor the fabric socket: %s", zmq_strerror(errno));
    f->monitor = zmq_socket(context, ZMQ_PAIR);
    if (f->monitor == NULL || zmq_connect(f->monitor, name) < 0)
        return err_set(e, ERR_INTERNAL, "cannot open the fabric's monitor: %s", zmq_strerror(errno));
    return set_int(f->monitor, ZMQ_LINGER, 0, e);
}

int fabric_socket_open(fabric_t *f, void *context, err_t **e)
{
    f->socket = zmq_socket(context, f->is_hub ? ZMQ_ROUTER : ZMQ_DEALER);
    if (f->socket == NULL)
        return err_set(e, ERR_INTERNAL, "cannot open a fabric socket: %s", zmq_strerror(errno));
    return set_options(f, e) < 0 ? -1 : open_monitor(f, context, e);
}

/* Whoever can reach the socket file can speak for a daemon, so its directory is ours alone. */
static int check_ipc_directory(const char *endpoint, bool is_hub, err_t **e)
{
    const char *path = endpoint + strlen(IPC_SCHEME);
    const char *slash = strrchr(path, '/');
    struct stat st;
    if (path[0] != '/' || slash == path)
        return err_set(e, ERR_BAD_REQUEST, "fabric endpoint %s must be an absolute path inside a directory of its own",
                       endpoint);
    auto_free char *dir = mem_strndup(path, (size_t)(slash - path));
    if (is_hub && mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_set_errno(e, ERR_NONE, errno, "cannot make the fabric directory %s", dir);
    if (stat(dir, &st) < 0) {
        if (!is_hub && errno == ENOENT)
            return 0; /* the hub will make it */
        return err_set_errno(e, ERR_NONE, errno, "cannot look at the fabric directory %s", dir);
    }
    if (!S_ISDIR(st.st_mode) || (st.st_mode & 0077) != 0 || st.st_uid != geteuid())
        return err_set(
            e, ERR_BAD_REQUEST,
            "the fabric directory %s must belong to this user and have mode 0700 (it has owner %u, mode %04o): "
            "use chmod 700 or another directory",
            dir, st.st_uid, st.st_mode & 07777);
    return 0;
}

static int check_endpoint(const fabric_t *f, const char *endpoint, bool has_curve, err_t **e)
{
    if (strncmp(endpoint, IPC_SCHEME, strlen(IPC_SCHEME)) == 0)
        return check_ipc_directory(endpoint, f->is_hub, e);
    if (strncmp(endpoint, TCP_SCHEME, strlen(TCP_SCHEME)) != 0)
        return err_set(e, ERR_BAD_REQUEST, "fabric endpoint \"%s\" must begin with ipc:// or tcp://", endpoint);
    if (!has_curve)
        return err_set(e, ERR_BAD_REQUEST,
                       "fabric endpoint %s needs CURVE keys: give the certificate files, or use ipc:// on one host",
                       endpoint);
    return 0;
}

int fabric_socket_bind(fabric_t *f, const char *endpoints, bool has_curve, err_t **e)
{
    auto_free char *copy = mem_strndup(endpoints, strnlen(endpoints, ENDPOINTS_MAX));
    size_t bound = 0;
    char *rest = copy;
    for (char *one = strsep(&rest, ","); one != NULL; one = strsep(&rest, ",")) {
        one += strspn(one, " \t");
        one[strcspn(one, " \t")] = '\0';
        if (one[0] == '\0')
            continue;
        if (check_endpoint(f, one, has_curve, e) < 0)
            return -1;
        if (zmq_bind(f->socket, one) < 0)
            return err_set(e, ERR_INTERNAL, "cannot bind the fabric to %s: %s", one, zmq_strerror(errno));
        bound++;
    }
    return bound > 0 ? 0 : err_set(e, ERR_BAD_REQUEST, "no fabric endpoint is given");
}

int fabric_socket_connect(fabric_t *f, const char *endpoint, bool has_curve, err_t **e)
{
    bool is_tcp = strncmp(endpoint, TCP_SCHEME, strlen(TCP_SCHEME)) == 0;
    if (check_endpoint(f, endpoint, has_curve, e) < 0 ||
        (is_tcp && set_int(f->socket, ZMQ_RECONNECT_IVL_MAX, TCP_RECONNECT_MAX_MS, e) < 0))
        return -1;
    if (zmq_connect(f->socket, endpoint) < 0)
        return err_set(e, ERR_BAD_REQUEST, "cannot connect the fabric to %s: %s", endpoint, zmq_strerror(errno));
    f->endpoint = mem_strdup(endpoint);
    return 0;
}

/* A silent hub may be a dead TCP connection or a name that means another address now: both need a new connection. */
void fabric_socket_reconnect(fabric_t *f)
{
    if (zmq_disconnect(f->socket, f->endpoint) < 0) {
        if (fabric_may_log(f))
            log_warn("cannot close the silent connection to %s: %s", f->endpoint, zmq_strerror(errno));
        return;
    }
    if (zmq_connect(f->socket, f->endpoint) < 0)
        log_error("cannot connect the fabric to %s again: %s", f->endpoint, zmq_strerror(errno));
}

int fabric_socket_events(const fabric_t *f)
{
    int events = 0;
    size_t size = sizeof events;
    while (zmq_getsockopt(f->socket, ZMQ_EVENTS, &events, &size) < 0 && errno == EINTR)
        continue;
    return events;
}

int fabric_socket_fd(void *socket)
{
    int fd = -1;
    size_t size = sizeof fd;
    return zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0 ? fd : -1;
}

int fabric_monitor_next(fabric_t *f)
{
    uint16_t event = 0;
    int more = 1;
    size_t size = sizeof more;
    uint8_t frame[8]; /* u16 event, u32 value, in host order: zmq_socket_monitor(3) */
    int len = zmq_recv(f->monitor, frame, sizeof frame, ZMQ_DONTWAIT);
    if (len < (int)sizeof event)
        return 0;
    memcpy(&event, frame, sizeof event);
    while (zmq_getsockopt(f->monitor, ZMQ_RCVMORE, &more, &size) == 0 && more) {
        if (zmq_recv(f->monitor, frame, sizeof frame, ZMQ_DONTWAIT) < 0)
            break;
    }
    return event;
}

static int send_part(void *socket, const void *bytes, size_t len, int flags)
{
    int rc;
    do
        rc = zmq_send(socket, bytes, len, flags | ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    return rc;
}

enum fabric_result fabric_socket_send(fabric_t *f, const uint8_t *identity, size_t identity_len, const envelope_t *env,
                                      const void *body, size_t len)
{
    uint8_t head[ENVELOPE_SIZE];
    envelope_encode(env, head);
    fabric_check_soon(f); /* sending may swallow the edge of ZMQ_FD */
    if (identity_len > 0 && send_part(f->socket, identity, identity_len, ZMQ_SNDMORE) < 0)
        return errno == EAGAIN ? FABRIC_FULL : FABRIC_GONE;
    /* Only the first part can find the queue full; a later part fails when the pipe goes away under it. */
    if (send_part(f->socket, head, sizeof head, ZMQ_SNDMORE) < 0)
        return errno == EAGAIN && identity_len == 0 ? FABRIC_FULL : FABRIC_GONE;
    return send_part(f->socket, body, len, 0) < 0 ? FABRIC_GONE : FABRIC_SENT;
}
