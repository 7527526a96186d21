/* SPDX-License-Identifier: Apache-2.0
 *
 * The envelope: 64 bytes, little endian, in front of every message on the fabric (first ZeroMQ frame) and on every
 * sandbox's byte stream (after a u32 with the frame's whole length). A provider daemon relays it and does not decode
 * the body.
 *
 *   offset size field
 *        0    1 version     ENVELOPE_VERSION
 *        1    1 kind        enum envelope_kind
 *        2    1 flags       ENVELOPE_MORE, _END, _KEEP
 *        3    1 channel     CHUNK: which stream of the call (enum envelope_channel)
 *        4    2 verb        REQUEST: which verb (proto/verbs.h); else 0
 *        6    2 reserved    0, anything else is refused
 *        8    8 call_id     names the call on both sides; random, unique per sandbox; 0 = not about a call
 *       16   16 sandbox     the sandbox's UUID; zero = the daemon itself
 *       32   16 trace       for logs only
 *       48    4 deadline_ms REQUEST: time left, 0 = none
 *       52    4 credit      CREDIT: bytes granted; REQUEST: bytes of reply the caller takes before its first CREDIT
 *       56    8 offset      CHUNK: position of the first byte in the channel
 *
 * Flow: a call is one REQUEST (its body may be several frames, all but the last with MORE), then CHUNKs either way,
 * then one REPLY or ERROR from the callee, which ends it. A sender may be CALL_WINDOW body bytes ahead of the CREDIT it
 * got, per call and direction (REQUEST, REPLY, HEAD, EVENT, ERROR and CHUNK bodies all count). CANCEL asks the callee
 * to stop: it still answers with ERROR `cancelled`. KEEP on a REQUEST asks the agent to keep the reply: a REQUEST with
 * a known call_id is answered from that store and never run twice. ACK lets it forget.
 */
#ifndef EW_PROTO_ENVELOPE_H
#define EW_PROTO_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENVELOPE_VERSION 1
#define ENVELOPE_SIZE 64
/* Stream frames: u32 length (counts itself) + envelope + body. */
#define STREAM_LENGTH_SIZE 4
#define STREAM_FRAME_DOWN_MAX 4096 /* PIPE_BUF: towards the agent, written by one write() */
#define STREAM_BODY_DOWN_MAX (STREAM_FRAME_DOWN_MAX - STREAM_LENGTH_SIZE - ENVELOPE_SIZE)
#define STREAM_BODY_UP_MAX (32 * 1024) /* from the agent */
#define STREAM_FRAME_UP_MAX (STREAM_LENGTH_SIZE + ENVELOPE_SIZE + STREAM_BODY_UP_MAX)
#define FABRIC_BODY_MAX (64 * 1024)         /* one ZeroMQ body frame */
#define CALL_WINDOW (256 * 1024)            /* bytes a sender may be ahead */
#define CALL_MESSAGE_MAX (33 * 1024 * 1024) /* one assembled REQUEST or REPLY body */

/* X(NAME, number, "name", "who sends it and what it means") */
#define ENVELOPE_KINDS(X)                                                                          \
    X(HELLO, 1, "hello", "first message each way on a fabric link; body hello")                    \
    X(HEARTBEAT, 2, "heartbeat", "every second each way on a fabric link; body empty or capacity") \
    X(BYE, 3, "bye", "the sender leaves on purpose")                                               \
    X(REQUEST, 4, "request", "starts a call")                                                      \
    X(REPLY, 5, "reply", "ends a call with its result")                                            \
    X(ERROR, 6, "error", "ends a call with body error")                                            \
    X(HEAD, 7, "head", "what is known before the bytes of a download; body is the verb's head")    \
    X(EVENT, 8, "event", "one message of a running call (watch, listen, output position)")         \
    X(CHUNK, 9, "chunk", "raw bytes of a channel; END closes the channel")                         \
    X(CREDIT, 10, "credit", "the receiver grants more bytes")                                      \
    X(CANCEL, 11, "cancel", "the caller wants the call to end")                                    \
    X(ACK, 12, "ack", "the caller has the reply; the agent may forget it")                         \
    X(RESYNC, 13, "resync", "daemon to agent when a stream is opened; body resync")                \
    X(MARKER, 14, "marker", "agent to daemon, answers RESYNC; body the 16 bytes of the nonce")     \
    X(ADOPT, 15, "adopt", "agent to daemon after MARKER; body adopt, lists calls")                 \
    X(QUIESCE, 16, "quiesce", "daemon to agent before a checkpoint: send nothing more")            \
    X(QUIESCED, 17, "quiesced", "agent to daemon: nothing follows until RESYNC")                   \
    X(PRESSURE, 18, "pressure", "daemon to agent: memory is short; body pressure")                 \
    X(NOTICE, 19, "notice", "agent to daemon, not about a call: oom kill, background end")

enum envelope_kind {
#define X(name, number, text, doc) ENVELOPE_KIND_##name = (number),
    ENVELOPE_KINDS(X)
#undef X
        ENVELOPE_KIND_COUNT
};

enum envelope_flag { ENVELOPE_MORE = 1, ENVELOPE_END = 2, ENVELOPE_KEEP = 4 };
#define ENVELOPE_FLAGS_ALL 7

enum envelope_channel { CHANNEL_DATA = 0, CHANNEL_STDOUT = 1, CHANNEL_STDERR = 2, CHANNEL_STDIN = 3 };
#define CHANNEL_COUNT 4

typedef struct uuid16 {
    uint8_t bytes[16];
} uuid16_t;

typedef struct envelope {
    uint8_t kind;
    uint8_t flags;
    uint8_t channel;
    uint16_t verb;
    uint64_t call_id;
    uuid16_t sandbox;
    uuid16_t trace;
    uint32_t deadline_ms;
    uint32_t credit;
    uint64_t offset;
} envelope_t;

void envelope_encode(const envelope_t *env, uint8_t out[ENVELOPE_SIZE]);
/* False for a wrong version, unknown kind, unknown flag or channel, or non-zero reserved bytes. */
bool envelope_decode(envelope_t *env, const uint8_t *bytes, size_t len);
const char *envelope_kind_name(unsigned kind); /* "?" for unknown */

/* Reads the length prefix of a stream frame. 0 = need more bytes, -1 = the length is impossible (below a bare envelope
 * or above frame_max), else the whole frame's length. */
long stream_frame_length(const uint8_t *bytes, size_t len, size_t frame_max);
/* Encodes a whole stream frame at `out`, which has room; returns its length. */
size_t stream_frame_encode(const envelope_t *env, const void *body, size_t body_len, uint8_t *out);

#define UUID_TEXT_SIZE 37
/* Canonical 8-4-4-4-12 hexadecimal only, any case; false for anything else. */
bool uuid16_parse(uuid16_t *uuid, const char *text);
void uuid16_format(const uuid16_t *uuid, char out[UUID_TEXT_SIZE]); /* lower case */
bool uuid16_is_zero(const uuid16_t *uuid);

#endif
