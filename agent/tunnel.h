/* SPDX-License-Identifier: Apache-2.0
 *
 * Carries a connected socket over a call, channel 0 both ways. END of the caller closes our writing half, end of the
 * socket's input ends the channel; when both are over the call ends.
 */
#ifndef EW_AGENT_TUNNEL_H
#define EW_AGENT_TUNNEL_H

#include "agent/call.h"
#include "common/buf.h"

typedef struct tunnel {
    int fd;   /* owned */
    buf_t in; /* from the caller, not yet taken by the socket; at most its window */
    size_t in_at;
    bool is_connected;
    bool has_in_ended;  /* the caller will send nothing more */
    bool is_in_closed;  /* and the socket was told */
    bool has_out_ended; /* the socket will send nothing more */
    bool is_out_blocked;
    uint8_t *held; /* read from the socket, not yet taken by the call */
    size_t held_at;
    size_t held_len;
} tunnel_t;

tunnel_t *tunnel_new(int fd); /* takes fd, non-blocking */
void tunnel_destroy(tunnel_t **t);
/* The socket is connected: bytes flow. */
void tunnel_begin(agent_call_t *call, tunnel_t *t);
void tunnel_on_chunk(agent_call_t *call, tunnel_t *t, const uint8_t *bytes, size_t len, bool is_end);
void tunnel_on_window(agent_call_t *call, tunnel_t *t);

#endif
