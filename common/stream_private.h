/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of common/stream.c (life, RESYNC, sending) and common/stream_in.c (what comes up: hunting the MARKER, ADOPT,
 * frames).
 */
#ifndef EW_COMMON_STREAM_PRIVATE_H
#define EW_COMMON_STREAM_PRIVATE_H

#include "common/buf.h"
#include "common/stream.h"

#define STREAM_NONCE_SIZE 16
#define STREAM_ENTROPY_SIZE 32
#define STREAM_MARKER_SIZE (STREAM_LENGTH_SIZE + ENVELOPE_SIZE + STREAM_NONCE_SIZE)
#define STREAM_ADOPT_MAX (256 * 1024) /* 4096 calls with room to spare */
#define STREAM_READ_SIZE (64 * 1024)  /* one read() */
#define STREAM_REST_MAX (STREAM_READ_SIZE + STREAM_FRAME_UP_MAX)
#define STREAM_CONTROL_RESERVE (256 * 1024) /* CREDIT, CANCEL and ACK pass a full queue: they make it shorter */
#define STREAM_PIPE_SIZE (1024 * 1024)

/* READY → QUIESCING → QUIESCED → HUNTING → … */
enum stream_state {
    STREAM_HUNTING,
    STREAM_ADOPTING,
    STREAM_READY,
    STREAM_QUIESCING,
    STREAM_QUIESCED,
    STREAM_BROKEN,
};

struct stream {
    int fd_in, fd_out;
    enum stream_state state;
    bool is_paused;
    size_t extra;      /* QUIESCING: bytes handed on while paused */
    bool is_full;      /* a send was refused: on_writable is owed */
    bool is_destroyed; /* by a handler; freed when the outermost one returns */
    unsigned depth;    /* handlers running */
    uuid16_t sandbox;
    uint8_t nonce[STREAM_NONCE_SIZE];
    struct event *readable, *writable, *timeout;
    buf_t rest;          /* input after the last whole frame; empty most of the time */
    buf_t adopt;         /* parts of ADOPT */
    buf_t queue;         /* whole frames that the agent could not take yet */
    size_t queue_start;  /* bytes of `queue` already written */
    size_t frame_left;   /* a socket took part of the frame at the front: what remains of it, else 0 */
    uint32_t timeout_ms; /* of what is waited for */
    stream_events_t events;
    void *arg;
};

/* stream.c */
void stream_break(stream_t *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void stream_enter(stream_t *s);
bool stream_leave(stream_t *s); /* false: it is gone, do not touch it */
void stream_tell_writable(stream_t *s);
void stream_became_ready(stream_t *s);
void stream_became_quiesced(stream_t *s);

/* stream_in.c */
/* Whether input may be taken now. */
bool stream_may_read(const stream_t *s);
/* Watches the descriptor, or not, after a change of state or pause. */
void stream_watch(stream_t *s);
void stream_on_readable(evutil_socket_t fd, short what, void *arg);
/* Takes what it can from the bytes; returns how many were used. The stream may be broken or destroyed afterwards
 * (call within stream_enter and stream_leave). */
size_t stream_take(stream_t *s, const uint8_t *bytes, size_t len);

#endif
