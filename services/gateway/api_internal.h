/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by api.c (the gate), api_reply.c (replies, events) and routes.c (the table).
 */
#ifndef EW_GATEWAY_API_INTERNAL_H
#define EW_GATEWAY_API_INTERNAL_H

#include "services/gateway/gateway.h"
#include "services/gateway/metrics.h"

#define API_SPARE_MAX 64            /* request objects kept for reuse */
#define API_BUFFER_KEEP (64 * 1024) /* larger buffers are not kept with them */
#define API_SSE_HEARTBEAT_S 15
#define API_BODY_MS 300000                 /* a JSON body must be there by then */
#define API_BODIES_MAX ((size_t)256 << 20) /* JSON bodies being collected, of all requests */
#define API_BODY_SHARE ((size_t)64 << 10)  /* so much of one is taken all the same */

struct api {
    gateway_t *gw;
    api_request_t *spare;
    size_t spare_count;
    api_request_t *streams; /* open event streams */
    size_t stream_count;
    size_t body_bytes, body_bytes_max; /* JSON bodies held now */
    struct event *heartbeat;
    buf_t event;   /* the one being written */
    buf_t openapi; /* made once */
};

/* Finds the row for path and method. Fills params (pointing into storage). NULL: *allow is "" for an unknown path, else
 * the methods that the path takes ("GET, HEAD, POST"). */
const route_t *route_match(const char *method, const char *path, const char *params[2], char *storage,
                           size_t storage_size, char *allow, size_t allow_size);
size_t route_index(const route_t *route);
size_t route_count(void);

/* openapi.c: the whole document. */
void openapi_write(buf_t *out);

#endif
