// SPDX-License-Identifier: Apache-2.0
/* Bytes of a hostile agent: hunting the MARKER, ADOPT, frames, QUIESCED. Byte 0: where to begin (0 hunting, 1 after
 * MARKER, 2 ready, 3 quiescing), +8: paused. */
// LINK: common/stream.c common/stream_in.c common/log.c common/json_writer.c common/mem.c common/err.c common/buf.c
// LINK: common/text.c common/clock.c proto/envelope.c proto/pack.c proto/proto.c proto/verbs.c
#include "common/mem.h"
#include "common/stream_private.h"

#include <fcntl.h>
#include <unistd.h>

static void on_ready(void *arg, const struct adopt *adopt)
{
    (void)arg;
    (void)adopt;
}
static void on_frame(void *arg, const envelope_t *env, const uint8_t *body, size_t len)
{
    *(uint8_t *)arg ^= (uint8_t)(env->kind + (len > 0 ? body[len - 1] : 0));
}
static void on_broken(void *arg, const char *reason)
{
    *(uint8_t *)arg ^= (uint8_t)reason[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const stream_events_t events = {.on_ready = on_ready, .on_frame = on_frame, .on_broken = on_broken};
    static const stream_identity_t identity = {.sandbox = {{1}}};
    static struct event_base *base;
    static int idle[2]; /* nothing ever comes from there */
    auto_err err_t *e = NULL;
    uint8_t sink = 0;
    if (base == NULL && ((base = event_base_new()) == NULL || pipe2(idle, O_CLOEXEC) < 0))
        return 0;
    int fd_in = dup(idle[0]), fd_out = open("/dev/null", O_WRONLY);
    stream_t *s = stream_open(base, fd_in, fd_out, &identity, 0, &events, &sink, &e);
    s->state = size > 0 ? (enum stream_state)(data[0] % 4) : STREAM_HUNTING;
    memcpy(s->nonce, "0123456789abcdef", STREAM_NONCE_SIZE);
    s->is_paused = size > 0 && data[0] & 8;
    size_t used = size > 1 ? stream_take(s, data + 1, size - 1) : 0;
    if (stream_is_quiesced(s) && stream_resync(s, &identity, 0, &e) == 0)
        stream_take(s, data + 1 + used, size - 1 - used);
    stream_destroy(&s);
    return 0;
}
