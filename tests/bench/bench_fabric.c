// SPDX-License-Identifier: Apache-2.0
/* Small calls per second over the fabric: hub with call table → ipc:// → daemon in another process that echoes.
 * Usage: bench_fabric [seconds] [calls in flight] [body bytes]; prints calls/s and the percentiles of one call. */
#include "common/call.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAMPLES_MAX 4000000

typedef struct bench {
    struct event_base *base;
    call_table_t *calls;
    fabric_peer_t *peer;
    uint64_t in_flight, body_bytes, end_us;
    uint64_t running;
    uint8_t *body;
    uint32_t *samples_us;
    size_t count;
} bench_t;

typedef struct one {
    bench_t *bench;
    uint64_t start_us;
} one_t;

static void start_one(one_t *one);

static void on_reply(void *arg, const uint8_t *body, size_t len)
{
    one_t *one = arg;
    bench_t *b = one->bench;
    uint64_t now_us = clock_monotonic_us();
    (void)body;
    (void)len;
    if (b->count < SAMPLES_MAX)
        b->samples_us[b->count++] = (uint32_t)(now_us - one->start_us);
    b->running--;
    if (now_us < b->end_us) {
        start_one(one);
        return;
    }
    free(one);
    if (b->running == 0)
        event_base_loopbreak(b->base);
}

static void on_error(void *arg, const err_t *err)
{
    (void)arg;
    fprintf(stderr, "a call failed: %s\n", err_message(err));
    exit(1);
}

static void start_one(one_t *one)
{
    static const call_events_t events = {.on_reply = on_reply, .on_error = on_error};
    auto_err err_t *e = NULL;
    bench_t *b = one->bench;
    call_options_t options = {.sandbox = {{1}}, .deadline_ms = 30000};
    one->start_us = clock_monotonic_us();
    if (call_start(b->calls, b->peer, VERB_read, &options, b->body, b->body_bytes, &events, one, &e) == NULL) {
        fprintf(stderr, "cannot start a call: %s\n", err_message(e));
        exit(1);
    }
    b->running++;
}

static void on_up(void *arg, fabric_peer_t *peer)
{
    bench_t *b = arg;
    b->peer = peer;
    for (uint64_t i = 0; i < b->in_flight; i++) {
        one_t *one = mem_alloc(sizeof *one);
        one->bench = b;
        start_one(one);
    }
}

static void on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    call_table_on_frame(((bench_t *)arg)->calls, peer, env, body, len);
}

static void echo_up(void *arg, fabric_peer_t *peer)
{
    (void)arg;
    (void)peer;
}

static void echo_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    (void)arg;
    (void)peer;
    (void)reason;
}

static void echo_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    envelope_t reply = {.kind = ENVELOPE_KIND_REPLY, .call_id = env->call_id, .sandbox = env->sandbox};
    (void)arg;
    if (env->kind == ENVELOPE_KIND_REQUEST)
        fabric_send(peer, &reply, body, len);
}

static void run_echo(const char *endpoint)
{
    static const fabric_events_t events = {.on_up = echo_up, .on_down = echo_down, .on_frame = echo_frame};
    auto_err err_t *e = NULL;
    fabric_self_t self = {"gvisord", "bench", "echo"};
    struct event_base *base = event_base_new();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fabric_connect(base, endpoint, &self, NULL, &events, NULL, &e) != NULL)
        event_base_dispatch(base);
    _exit(1);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static const fabric_events_t events = {.on_up = on_up, .on_down = echo_down, .on_frame = on_frame};
    auto_err err_t *e = NULL;
    uint64_t seconds = 3;
    bench_t b = {.in_flight = 32, .body_bytes = 100};
    char dir[] = "/tmp/bench-fabric-XXXXXX";
    fabric_self_t self = {"gateway", "bench", "hub"};
    if ((argc > 1 && !text_to_u64(argv[1], &seconds)) || (argc > 2 && !text_to_u64(argv[2], &b.in_flight)) ||
        (argc > 3 && (!text_to_u64(argv[3], &b.body_bytes) || b.body_bytes > FABRIC_BODY_MAX)) || mkdtemp(dir) == NULL)
        return 2;
    log_open("bench", LOG_LEVEL_WARN);
    auto_free char *endpoint = mem_printf("ipc://%s/hub", dir);
    pid_t pid = fork();
    if (pid == 0)
        run_echo(endpoint);
    b.body = mem_alloc(b.body_bytes);
    b.samples_us = mem_alloc_array(SAMPLES_MAX, sizeof *b.samples_us);
    b.base = event_base_new();
    b.calls = call_table_new(b.base);
    fabric_t *hub = fabric_bind(b.base, endpoint, &self, NULL, &events, &b, &e);
    if (hub == NULL) {
        fprintf(stderr, "%s\n", err_message(e));
        return 1;
    }
    uint64_t start_us = clock_monotonic_us();
    b.end_us = start_us + seconds * 1000000;
    event_base_dispatch(b.base);
    double spent = (double)(clock_monotonic_us() - start_us) / 1e6;
    qsort(b.samples_us, b.count, sizeof *b.samples_us, compare);
    if (b.count > 0)
        printf("fabric: %.0f calls/s, %llu in flight, %llu bytes each way, p50 %u us, p99 %u us\n",
               (double)b.count / spent, (unsigned long long)b.in_flight, (unsigned long long)b.body_bytes,
               b.samples_us[b.count / 2], b.samples_us[b.count * 99 / 100]);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    fabric_destroy(&hub);
    call_table_destroy(&b.calls);
    event_base_free(b.base);
    unlink(endpoint + strlen("ipc://"));
    rmdir(dir);
    free(b.body);
    free(b.samples_us);
    return 0;
}
