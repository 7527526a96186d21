/* SPDX-License-Identifier: Apache-2.0
 *
 * What the gateway's HTTP layer costs: requests per second and latency of its /health beside a bare hello server on the
 * same libraries (libevent bufferevents and http-parser, no checks, one fixed reply), in one run, by the same client.
 *
 *   bench_http <port of a running gateway> [connections, default 32] [seconds, default 3]
 */
#include "common/clock.h"
#include "common/mem.h"
#include "common/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <http_parser.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024
#define SAMPLES_MAX 2000000

/* ---- the bare server ---- */

static int on_complete(http_parser *parser)
{
    static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
    bufferevent_write(parser->data, reply, sizeof reply - 1);
    return 0;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    static const http_parser_settings settings = {.on_message_complete = on_complete};
    struct evbuffer *input = bufferevent_get_input(bev);
    size_t len = evbuffer_get_length(input);
    http_parser_execute(arg, &settings, (const char *)evbuffer_pullup(input, -1), len);
    evbuffer_drain(input, len);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    (void)what;
    bufferevent_free(bev);
    free(arg);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int len, void *arg)
{
    (void)listener;
    (void)address;
    (void)len;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct bufferevent *bev = bufferevent_socket_new(arg, fd, BEV_OPT_CLOSE_ON_FREE);
    http_parser *parser = mem_alloc(sizeof *parser);
    http_parser_init(parser, HTTP_REQUEST);
    parser->data = bev;
    bufferevent_setcb(bev, on_read, NULL, on_event, parser);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
}

/* Listens in the parent, serves in a child; returns the child. */
static pid_t start_bare(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) || listen(fd, 512) ||
        getsockname(fd, (struct sockaddr *)&address, &len)) {
        return -1;
    }
    *port = ntohs(address.sin_port);
    pid_t pid = fork();
    if (pid == 0) {
        struct event_base *base = event_base_new();
        evconnlistener_new(base, on_accept, base, LEV_OPT_CLOSE_ON_FREE, 0, fd);
        event_base_dispatch(base);
        _exit(0);
    }
    close(fd);
    return pid;
}

/* ---- the client ---- */

typedef struct result {
    double per_second;
    uint32_t p50_us, p99_us;
} result_t;

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int dial(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        return fd;
    }
    fprintf(stderr, "bench_http: cannot connect to port %u: %s\n", port, strerrordesc_np(errno));
    exit(1);
}

/* One request in flight per connection; both replies are small and come in one piece. */
static result_t measure(uint16_t port, unsigned connections, unsigned seconds)
{
    static const char request[] = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    static uint64_t sent_us[CONNECTIONS_MAX];
    static int fds[CONNECTIONS_MAX];
    static uint32_t samples[SAMPLES_MAX];
    size_t count = 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < connections; i++) {
        fds[i] = dial(port);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event);
        sent_us[i] = clock_monotonic_us();
        send(fds[i], request, sizeof request - 1, MSG_NOSIGNAL);
    }
    uint64_t start = clock_monotonic_us(), now = start;
    while (now - start < seconds * 1000000ULL && count < SAMPLES_MAX - CONNECTIONS_MAX) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, COUNT_OF(events), 1000);
        for (int i = 0; i < n; i++) {
            char reply[8192];
            unsigned at = events[i].data.u32;
            if (recv(fds[at], reply, sizeof reply, 0) <= 0) {
                fprintf(stderr, "bench_http: port %u closed a connection\n", port);
                exit(1);
            }
            now = clock_monotonic_us();
            samples[count++] = (uint32_t)(now - sent_us[at]);
            sent_us[at] = now;
            send(fds[at], request, sizeof request - 1, MSG_NOSIGNAL);
        }
        now = clock_monotonic_us();
    }
    for (unsigned i = 0; i < connections; i++) {
        close(fds[i]);
    }
    close(epoll);
    qsort(samples, count, sizeof *samples, compare);
    return (result_t){.per_second = (double)count * 1e6 / (double)(now - start),
                      .p50_us = count ? samples[count / 2] : 0,
                      .p99_us = count ? samples[count * 99 / 100] : 0};
}

static void print(const char *name, const result_t *r)
{
    printf("%-16s %9.0f requests/s   p50 %5u us   p99 %6u us\n", name, r->per_second, r->p50_us, r->p99_us);
}

int main(int argc, char **argv)
{
    uint64_t port = 0, connections = 32, seconds = 3;
    uint16_t bare_port = 0;
    if (argc < 2 || argc > 4 || !text_to_u64(argv[1], &port) || port == 0 || port > 65535 ||
        (argc > 2 && !text_to_u64(argv[2], &connections)) || (argc > 3 && !text_to_u64(argv[3], &seconds)) ||
        connections == 0 || connections > CONNECTIONS_MAX || seconds == 0 || seconds > 3600) {
        fprintf(stderr, "usage: bench_http <port of a running gateway> [connections] [seconds]\n");
        return 2;
    }
    pid_t bare = start_bare(&bare_port);
    if (bare < 0) {
        fprintf(stderr, "bench_http: cannot start the bare server: %s\n", strerrordesc_np(errno));
        return 1;
    }
    result_t hello = measure(bare_port, (unsigned)connections, (unsigned)seconds);
    result_t health = measure((uint16_t)port, (unsigned)connections, (unsigned)seconds);
    kill(bare, SIGKILL);
    waitpid(bare, NULL, 0);
    print("bare hello", &hello);
    print("gateway /health", &health);
    printf("the gateway needs %.2f x the time of the bare server per request (target: at most 2)\n",
           hello.per_second / health.per_second);
    return 0;
}
