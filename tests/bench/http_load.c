// SPDX-License-Identifier: Apache-2.0
/* A small HTTP load client for the benches: CONNECTIONS keep-alive connections to 127.0.0.1:PORT, one request in flight
 * on each, REQUESTS in all after a tenth of that for warming up. Prints one line: `p50_us p99_us per_second failed`.
 * usage: http_load PORT CONNECTIONS REQUESTS METHOD PATH [BODY [HEADER]]
 * Bounded by design: it ends after REQUESTS. Only loopback is ever contacted. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 256
#define REPLY_MAX (1 << 20)

typedef struct conn {
    int fd;
    uint64_t sent_at_us;
    size_t have;
    char *reply;
} conn_t;

static char request[1 << 18];
static size_t request_len;
static uint32_t *samples;

static uint64_t now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void send_request(conn_t *c)
{
    size_t sent = 0;
    c->have = 0;
    c->sent_at_us = now_us();
    while (sent < request_len) {
        ssize_t n = write(c->fd, request + sent, request_len - sent);
        if (n <= 0) {
            perror("write");
            exit(1);
        }
        sent += (size_t)n;
    }
}

/* The length of the complete reply at the front, or 0. Needs Content-Length. */
static size_t reply_length(const conn_t *c)
{
    const char *end = memmem(c->reply, c->have, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    const char *field = strcasestr(c->reply, "\r\ncontent-length:");
    size_t body = field && field < end ? strtoul(field + 17, NULL, 10) : 0;
    size_t total = (size_t)(end - c->reply) + 4 + body;
    return c->have >= total ? total : 0;
}

/* 1 = a reply is complete, 0 = more to come. */
static int read_some(conn_t *c)
{
    ssize_t n = read(c->fd, c->reply + c->have, REPLY_MAX - c->have - 1);
    if (n <= 0) {
        fprintf(stderr, "connection closed by the server\n");
        exit(1);
    }
    c->have += (size_t)n;
    c->reply[c->have] = '\0';
    return reply_length(c) > 0;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void run(uint16_t port, size_t connections, size_t total)
{
    static conn_t conns[CONNECTIONS_MAX];
    static struct pollfd fds[CONNECTIONS_MAX];
    size_t warm = total / 10, done = 0, started = 0, failed = 0, count = 0;
    uint64_t begin = 0;
    for (size_t i = 0; i < connections; i++) {
        conns[i] = (conn_t){.fd = connect_to(port), .reply = malloc(REPLY_MAX)};
        fds[i] = (struct pollfd){.fd = conns[i].fd, .events = POLLIN};
        send_request(&conns[i]);
        started++;
    }
    while (done < total + warm && poll(fds, connections, 30000) > 0)
        for (size_t i = 0; i < connections; i++) {
            if (!(fds[i].revents & (POLLIN | POLLHUP)) || read_some(&conns[i]) == 0)
                continue;
            uint64_t now = now_us();
            if (strncmp(conns[i].reply, "HTTP/1.1 2", 10) != 0)
                failed++;
            if (++done == warm)
                begin = now;
            else if (done > warm && count < total)
                samples[count++] = (uint32_t)(now - conns[i].sent_at_us);
            if (started++ < total + warm)
                send_request(&conns[i]);
        }
    uint64_t spent = now_us() - begin;
    qsort(samples, count, sizeof *samples, compare);
    if (count == 0)
        exit(1);
    printf("%u %u %.0f %zu\n", samples[count / 2], samples[count * 99 / 100], (double)count * 1e6 / (double)spent,
           failed);
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: http_load PORT CONNECTIONS REQUESTS METHOD PATH [BODY [HEADER]]\n");
        return 2;
    }
    size_t connections = strtoul(argv[2], NULL, 10), total = strtoul(argv[3], NULL, 10);
    const char *body = argc > 6 ? argv[6] : "";
    const char *header = argc > 7 ? argv[7] : "X-Bench: 1";
    if (connections < 1 || connections > CONNECTIONS_MAX || total < 10 || total > 10000000)
        return 2;
    int n = snprintf(
        request, sizeof request,
        "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        argv[4], argv[5], header, strlen(body), body);
    if (n < 0 || (size_t)n >= sizeof request)
        return 2;
    request_len = (size_t)n;
    samples = calloc(total, sizeof *samples);
    run((uint16_t)strtoul(argv[1], NULL, 10), connections, total);
    return 0;
}
