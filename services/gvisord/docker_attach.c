/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/docker_attach.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/cobs.h"
#include "common/mem.h"
#include "services/gvisord/docker_demux.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdio.h>

#define READ_MAX ((size_t)64 * 1024) /* bytes of one turn */
#define ATTACH_LOW (ATTACH_HIGH / 2)
#define STATUS_MIN 12 /* "HTTP/1.1 101" */

struct docker_attach {
    struct bufferevent *docker, *stream;
    docker_demux_t demux;
    uint8_t tag[COBS_TAG_SIZE];
    bool is_attached, has_ended;
    void (*ended)(void *arg, const char *why);
    void *arg;
};

static void shut(docker_attach_t *a)
{
    a->has_ended = true;
    bufferevent_disable(a->docker, EV_READ | EV_WRITE);
    bufferevent_disable(a->stream, EV_READ | EV_WRITE);
}

static void end(docker_attach_t *a, const char *why)
{
    if (a->has_ended)
        return;
    shut(a);
    a->ended(a->arg, why);
}

/* ---- downwards ---- */

static void send_block(docker_attach_t *a, const void *payload, size_t len)
{
    auto_buf buf_t block = {0};
    cobs_append(&block, a->tag, payload, len);
    bufferevent_write(a->docker, block.data, block.len);
}

static void pump_down(struct bufferevent *bev, void *arg)
{
    docker_attach_t *a = arg;
    uint8_t payload[COBS_PAYLOAD_MAX];
    (void)bev;
    while (evbuffer_get_length(bufferevent_get_output(a->docker)) < ATTACH_HIGH) {
        int n = evbuffer_remove(bufferevent_get_input(a->stream), payload, sizeof payload);
        if (n <= 0)
            return;
        send_block(a, payload, (size_t)n);
    }
    bufferevent_disable(a->stream, EV_READ); /* until Docker has taken some of it */
}

static void on_docker_drained(struct bufferevent *bev, void *arg)
{
    docker_attach_t *a = arg;
    if (!a->is_attached || a->has_ended)
        return;
    bufferevent_enable(a->stream, EV_READ);
    pump_down(bev, a);
}

/* ---- upwards ---- */

static void on_output(void *arg, const uint8_t *bytes, size_t len)
{
    docker_attach_t *a = arg;
    bufferevent_write(a->stream, bytes, len);
}

/* False: not all of it is there, or the attach is refused. */
static bool take_head(docker_attach_t *a, struct evbuffer *input)
{
    struct evbuffer_ptr at = evbuffer_search(input, "\r\n\r\n", 4, NULL);
    char line[200];
    if (at.pos < 0) {
        if (evbuffer_get_length(input) > ATTACH_HEAD_MAX)
            end(a, "the Docker daemon's answer to attach is too long");
        return false;
    }
    size_t n = (size_t)evbuffer_copyout(input, line, sizeof line - 1);
    line[n] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    if (strlen(line) < STATUS_MIN || strncmp(line, "HTTP/1.", 7) != 0 ||
        (strncmp(line + 9, "101", 3) != 0 && strncmp(line + 9, "200", 3) != 0)) {
        end(a, "the Docker daemon refused to attach to the container");
        return false;
    }
    evbuffer_drain(input, (size_t)at.pos + 4);
    a->is_attached = true;
    bufferevent_set_timeouts(a->docker, NULL, NULL);
    send_block(a, COBS_HELLO, COBS_HELLO_SIZE);
    bufferevent_enable(a->stream, EV_READ | EV_WRITE);
    return true;
}

static void pump_up(struct bufferevent *bev, void *arg)
{
    docker_attach_t *a = arg;
    struct evbuffer *input = bufferevent_get_input(a->docker);
    (void)bev;
    if (!a->is_attached && !take_head(a, input))
        return;
    while (!a->has_ended && evbuffer_get_length(input) > 0) {
        if (evbuffer_get_length(bufferevent_get_output(a->stream)) >= ATTACH_HIGH) {
            bufferevent_disable(a->docker, EV_READ); /* until the stream has taken some of it */
            return;
        }
        struct evbuffer_iovec part;
        evbuffer_peek(input, -1, NULL, &part, 1);
        size_t len = part.iov_len < READ_MAX ? part.iov_len : READ_MAX;
        if (docker_demux_take(&a->demux, part.iov_base, len, on_output, a) < 0)
            end(a, "the Docker daemon sent what is no attach stream");
        evbuffer_drain(input, len);
    }
}

static void on_stream_drained(struct bufferevent *bev, void *arg)
{
    docker_attach_t *a = arg;
    if (!a->is_attached || a->has_ended)
        return;
    bufferevent_enable(a->docker, EV_READ);
    pump_up(bev, a);
}

/* ---- ends ---- */

static void on_docker_event(struct bufferevent *bev, short what, void *arg)
{
    docker_attach_t *a = arg;
    char why[200];
    if (what & BEV_EVENT_CONNECTED || a->has_ended)
        return;
    if (what & BEV_EVENT_TIMEOUT)
        snprintf(why, sizeof why, "the Docker daemon did not attach to the container in time");
    else if (what & BEV_EVENT_ERROR)
        snprintf(why, sizeof why, "the connection to the Docker daemon failed: %s", strerror(EVUTIL_SOCKET_ERROR()));
    else
        snprintf(why, sizeof why, "its output has ended");
    if (a->is_attached)
        pump_up(bev, a); /* its last words */
    end(a, why);
}

static void on_stream_event(struct bufferevent *bev, short what, void *arg)
{
    docker_attach_t *a = arg;
    (void)bev;
    (void)what;
    if (!a->has_ended)
        shut(a); /* it was closed by the kit: nobody waits for an end */
}

static int ask(docker_attach_t *a, const docker_host_t *host, const char *container, err_t **e)
{
    struct timeval limit = {.tv_sec = ATTACH_CONNECT_MS / 1000};
    bufferevent_setcb(a->docker, pump_up, on_docker_drained, on_docker_event, a);
    bufferevent_setcb(a->stream, pump_down, on_stream_drained, on_stream_event, a);
    bufferevent_setwatermark(a->docker, EV_READ, 0, ATTACH_HIGH);
    bufferevent_setwatermark(a->stream, EV_READ, 0, ATTACH_HIGH);
    bufferevent_setwatermark(a->docker, EV_WRITE, ATTACH_LOW, 0);
    bufferevent_setwatermark(a->stream, EV_WRITE, ATTACH_LOW, 0);
    bufferevent_set_timeouts(a->docker, &limit, &limit);
    bufferevent_disable(a->stream, EV_READ);
    evbuffer_add_printf(bufferevent_get_output(a->docker),
                        "POST /containers/%s/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: %s\r\n"
                        "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n",
                        container, host->authority);
    if (bufferevent_socket_connect(a->docker, (const struct sockaddr *)&host->address, (int)host->address_len) < 0)
        return err_set_errno(e, ERR_PROVIDER_UNAVAILABLE, errno, "cannot connect to the Docker daemon at %s",
                             host->text);
    bufferevent_enable(a->docker, EV_READ | EV_WRITE);
    return 0;
}

docker_attach_t *docker_attach_open(struct event_base *base, const docker_host_t *host, const char *container,
                                    int *fd_stream, void (*ended)(void *arg, const char *why), void *arg, err_t **e)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        err_set_errno(e, ERR_INTERNAL, errno, "cannot make a socket pair");
        return NULL;
    }
    docker_attach_t *a = mem_alloc(sizeof *a);
    a->ended = ended;
    a->arg = arg;
    random_bytes(a->tag, sizeof a->tag);
    a->stream = bufferevent_socket_new(base, pair[1], BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    a->docker = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    if (!a->stream || !a->docker)
        abort(); /* out of memory */
    if (ask(a, host, container, e) < 0) {
        docker_attach_close(&a);
        fd_close_p(&pair[0]);
        return NULL;
    }
    *fd_stream = pair[0];
    return a;
}

void docker_attach_close(docker_attach_t **a)
{
    docker_attach_t *own = *a;
    *a = NULL;
    if (!own)
        return;
    bufferevent_free(own->docker);
    bufferevent_free(own->stream);
    free(own);
}
