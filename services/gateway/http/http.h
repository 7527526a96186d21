/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP/1.1 server: libevent bufferevents and the http-parser library. Streams both ways: the body comes in chunks
 * after the head was judged, replies can be written in chunks with back pressure, a client that hangs up is noticed
 * while a handler works.
 *
 * Life of a request: on_headers (decide; may reply at once) → on_body per chunk → on_end; the handler replies at any
 * time after on_headers, within or after these callbacks: http_reply(), or http_reply_start + http_reply_chunk… +
 * http_reply_end. on_close is called exactly once, last, whether the reply went out or the client hung up; after it the
 * request is gone.
 *
 * Limits: head 32 KiB (431), header fields 100, URL 8 KiB, idle connection HTTP_IDLE_MS, head must come within
 * HTTP_HEAD_MS, body as the handler allows (413 before the first byte when Content-Length tells). Output waiting for a
 * slow client is at most HTTP_OUTPUT_MAX: beyond it http_reply_chunk takes nothing and on_writable follows. All clients
 * together: HTTP_OUTPUT_TOTAL_MAX; beyond it one to whom more than a small share is owed loses its connection.
 */
#ifndef EW_GATEWAY_HTTP_H
#define EW_GATEWAY_HTTP_H

#include "common/err.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_HEAD_MAX (32 * 1024)
#define HTTP_OUTPUT_MAX (512 * 1024)
#define HTTP_OUTPUT_TOTAL_MAX ((size_t)256 << 20)
#define HTTP_IDLE_MS 75000
#define HTTP_HEAD_MS 15000
#define HTTP_CONNECTIONS_MAX 20000

typedef struct http_server http_server_t;
typedef struct http_request http_request_t;

typedef struct http_handlers {
    /* The head is complete. Must set limits (http_set_body_max) and may reply. */
    void (*on_headers)(void *server_arg, http_request_t *r);
    void (*on_body)(http_request_t *r, const uint8_t *bytes, size_t len);
    void (*on_end)(http_request_t *r);
    void (*on_writable)(http_request_t *r);
    void (*on_close)(http_request_t *r, bool is_hangup);
} http_handlers_t;

/* port 0 = any free one. */
http_server_t *http_server_new(struct event_base *base, const char *address, uint16_t port,
                               const http_handlers_t *handlers, void *arg, err_t **e);
uint16_t http_server_port(const http_server_t *s);
size_t http_server_connections(const http_server_t *s);
/* Stops accepting; idle connections are closed, busy ones after their reply. */
void http_server_drain(http_server_t *s);
void http_server_destroy(http_server_t **s);

const char *http_method(const http_request_t *r);
const char *http_path(const http_request_t *r); /* percent-decoded path without query; a trailing '/' is stripped */
const char *http_query(const http_request_t *r, const char *name); /* decoded value or NULL; first one wins */
bool http_query_at(const http_request_t *r, size_t i, const char **name,
                   const char **value);                             /* false past the last one */
const char *http_header(const http_request_t *r, const char *name); /* any case; NULL if absent */
const char *http_peer_address(const http_request_t *r);
/* For a reply that has begun and will last: drops path, query and headers, which then read as absent. */
void http_release_head(http_request_t *r);
int64_t http_content_length(const http_request_t *r); /* -1 = chunked or none */
bool http_has_body(const http_request_t *r);

void http_set_body_max(http_request_t *r, uint64_t max); /* default 0: any body is 413 */
void http_set_body_time(http_request_t *r, uint32_t ms); /* all of the body within it, else 408; default: no end */
void http_pause_body(http_request_t *r, bool is_paused); /* back pressure towards the client */
void http_set_data(http_request_t *r, void *data);
void *http_data(const http_request_t *r);

/* Headers to add to the reply; before it starts. Values with CR or LF are refused (ignored with a log line). */
void http_add_header(http_request_t *r, const char *name, const char *value);
/* Whole reply. body may be NULL with len 0. */
void http_reply(http_request_t *r, int status, const char *content_type, const void *body, size_t len);
/* content_length -1 = chunked transfer. */
void http_reply_start(http_request_t *r, int status, const char *content_type, int64_t content_length);
size_t http_reply_chunk(http_request_t *r, const void *bytes, size_t len); /* bytes taken: all or 0 */
/* Takes the bytes in any case; false: the client is too slow now, send no more until on_writable (for bytes whose
 * amount is bounded by other means, such as a call's window). A client with more than 8 × HTTP_OUTPUT_MAX waiting is
 * dropped. */
bool http_reply_force(http_request_t *r, const void *bytes, size_t len);
void http_reply_end(http_request_t *r);
bool http_has_started(const http_request_t *r);
/* Closes the connection without finishing: the client sees a broken transfer. */
void http_abort(http_request_t *r);

#endif
