// SPDX-License-Identifier: Apache-2.0
/* The floor that the gateway is compared with: the same HTTP parser and event library, one ZeroMQ hop, one FIFO pair
 * into a sandbox, and no logic at all: no routing, no authentication, no JSON, no log. bare_chain http PORT [ENDPOINT]
 * answers every request; with ENDPOINT each goes through the relay first bare_chain relay ENDPOINT IN OUT    ZeroMQ
 * message → FIFO OUT; what FIFO IN gives back → ZeroMQ The other end of the FIFOs is bare_echo, PID 1 of a sandbox. One
 * request is in flight at a time. */
#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <http_parser.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#define MESSAGE_MAX 65536

typedef struct conn {
    http_parser parser;
    struct bufferevent *bev;
} conn_t;

static struct event_base *base;
static void *hop; /* the ZeroMQ socket, NULL without */
static struct event *hop_event;
static conn_t *waiting; /* whose reply comes next */
static int fifo_in = -1, fifo_out = -1;
static char message[MESSAGE_MAX];

static void answer(conn_t *c, const void *body, size_t len)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    evbuffer_add_printf(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", len);
    evbuffer_add(out, body, len);
}

/* ZMQ_FD is edge-triggered: drain, and look again after every send. */
static void hop_drain(void)
{
    int n;
    while ((n = zmq_recv(hop, message, sizeof message, ZMQ_DONTWAIT)) >= 0) {
        if (waiting != NULL) {
            conn_t *c = waiting;
            waiting = NULL;
            answer(c, message, (size_t)n);
        }
    }
}

static void on_hop(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    hop_drain();
}

static int on_message_complete(http_parser *parser)
{
    conn_t *c = parser->data;
    if (hop == NULL) {
        answer(c, "{\"status\":\"ok\"}", 15);
        return 0;
    }
    waiting = c;
    zmq_send(hop, "read", 4, 0);
    hop_drain();
    return 0;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    static const http_parser_settings settings = {.on_message_complete = on_message_complete};
    conn_t *c = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    size_t len = evbuffer_get_length(in);
    http_parser_execute(&c->parser, &settings, (const char *)evbuffer_pullup(in, -1), len);
    evbuffer_drain(in, len);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    (void)what;
    if (waiting == arg)
        waiting = NULL;
    bufferevent_free(bev);
    free(arg);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int len, void *arg)
{
    (void)l, (void)a, (void)len, (void)arg;
    int one = 1;
    conn_t *c = calloc(1, sizeof *c);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    http_parser_init(&c->parser, HTTP_REQUEST);
    c->parser.data = c;
    c->bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

static int watch_hop(void *socket)
{
    int fd;
    size_t size = sizeof fd;
    hop = socket;
    if (zmq_getsockopt(socket, ZMQ_FD, &fd, &size) != 0)
        return -1;
    hop_event = event_new(base, fd, EV_READ | EV_PERSIST, on_hop, NULL);
    return event_add(hop_event, NULL);
}

static int run_http(uint16_t port, const char *endpoint)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    base = event_base_new();
    if (endpoint != NULL) {
        void *socket = zmq_socket(zmq_ctx_new(), ZMQ_PAIR);
        if (zmq_bind(socket, endpoint) != 0 || watch_hop(socket) != 0)
            return 1;
    }
    if (evconnlistener_new_bind(base, on_accept, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, -1,
                                (struct sockaddr *)&address, sizeof address) == NULL)
        return 1;
    return event_base_dispatch(base);
}

static void on_relay_hop(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    int n;
    while ((n = zmq_recv(hop, message, 4096, ZMQ_DONTWAIT)) >= 0)
        if (write(fifo_out, message, (size_t)n) != n)
            exit(1);
}

static void on_fifo(evutil_socket_t fd, short what, void *arg)
{
    (void)what, (void)arg;
    ssize_t n = read((int)fd, message, sizeof message);
    if (n > 0)
        zmq_send(hop, message, (size_t)n, 0);
    on_relay_hop(-1, 0, NULL);
}

static int run_relay(const char *endpoint, const char *in, const char *out)
{
    int fd;
    size_t size = sizeof fd;
    base = event_base_new();
    hop = zmq_socket(zmq_ctx_new(), ZMQ_PAIR);
    fifo_in = open(in, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    fifo_out = open(out, O_RDWR | O_CLOEXEC);
    if (fifo_in < 0 || fifo_out < 0 || zmq_connect(hop, endpoint) != 0 || zmq_getsockopt(hop, ZMQ_FD, &fd, &size) != 0)
        return 1;
    event_add(event_new(base, fd, EV_READ | EV_PERSIST, on_relay_hop, NULL), NULL);
    event_add(event_new(base, fifo_in, EV_READ | EV_PERSIST, on_fifo, NULL), NULL);
    return event_base_dispatch(base);
}

int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], "http") == 0)
        return run_http((uint16_t)strtoul(argv[2], NULL, 10), argc > 3 ? argv[3] : NULL);
    if (argc == 5 && strcmp(argv[1], "relay") == 0)
        return run_relay(argv[2], argv[3], argv[4]);
    fprintf(stderr, "usage: bare_chain http PORT [ENDPOINT] | relay ENDPOINT IN OUT\n");
    return 2;
}
