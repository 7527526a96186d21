/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of the HTTP layer and by its tests: server (listen, accept, sweep), connection (bytes in, life
 * cycle), request (one head, judged), reply (bytes out). Nobody else includes it.
 */
#ifndef EW_GATEWAY_HTTP_INTERNAL_H
#define EW_GATEWAY_HTTP_INTERNAL_H

#include "common/buf.h"
#include "services/gateway/http/http.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event_struct.h>
#include <event2/listener.h>
#include <http_parser.h>
#include <sys/queue.h>

#define HTTP_HEADERS_MAX 100
#define HTTP_QUERY_MAX 64
#define HTTP_URL_MAX (8 * 1024)
#define HTTP_INPUT_MAX (64 * 1024)      /* so many unread bytes stop reading; at most twice as many are there */
#define HTTP_SKIP_MAX (64 * 1024)       /* rest of a refused body that is read away to keep the connection */
#define HTTP_LINGER_BYTES (1024 * 1024) /* read away before a close, so that the reply is not lost to a reset */
#define HTTP_LINGER_MS 2000
#define HTTP_STALL_MS 300000 /* a client that takes no byte of its reply for this long is closed */
#define HTTP_PARK_AT 1024
#define HTTP_SPARE_MAX 64             /* request objects kept for reuse */
#define HTTP_OUTPUT_SHARE (64 * 1024) /* may wait for one client even when HTTP_OUTPUT_TOTAL_MAX is reached */
#define HTTP_STORE_KEEP 8192          /* a larger head buffer is not kept with a spare request */
/* http_reply_force beyond it breaks the connection. A call window of control characters is six times as long in JSON.
 */
#define HTTP_FORCED_MAX (8 * HTTP_OUTPUT_MAX)

typedef struct http_span {
    uint32_t name; /* offsets into the store */
    uint32_t value;
} http_span_t;

typedef struct http_chunked {
    uint64_t left;
    uint8_t state;
    bool has_digit;
} http_chunked_t;

typedef struct http_tables {
    http_span_t headers[HTTP_HEADERS_MAX];
    http_span_t query[HTTP_QUERY_MAX];
} http_tables_t;

typedef struct http_connection http_connection_t;

struct http_request {
    http_connection_t *connection;
    http_server_t *server;
    void *data;
    uint64_t body_max;
    uint64_t body_seen;
    http_chunked_t chunked;
    uint64_t body_deadline_ms; /* 0 = none */
    int64_t content_length;    /* of the request; -1 none or chunked */
    int64_t reply_left;        /* bytes of a fixed-length reply still due, -1 = chunked or until close */
    http_tables_t *tables;     /* guarded by their counts; NULL after http_release_head */
    http_request_t *next;      /* spare list */
    buf_t store;               /* the head, names and values NUL-terminated in place, then the decoded path and query */
    buf_t extra;               /* header lines of the reply */
    uint32_t path;
    uint32_t header_count, query_count;
    uint16_t url_at;
    uint16_t url_length;
    uint8_t method;
    bool is_http10, is_head, is_chunked, is_keep_alive, expects_continue;
    bool is_body_done; /* the parser saw the end of the message */
    bool is_end_told;  /* on_end was called */
    bool is_paused;    /* the handler wants no body now */
    bool has_started, is_replied, is_reply_chunked, is_aborted, wants_writable, is_discarding;
    bool is_malformed; /* set while parsing */
    bool is_known;     /* on_headers was called, so on_close is due */
    char peer[INET6_ADDRSTRLEN];
};

/* What a connection waits for; decides which time limit counts. */
enum http_phase { PHASE_IDLE, PHASE_HEAD, PHASE_BODY, PHASE_WORK, PHASE_LINGER };

struct http_connection {
    http_server_t *server;
    struct bufferevent *bev; /* NULL while parked: nothing to read or write, `watch` waits for the client */
    struct event watch;
    struct event *closed;    /* made when reading stops for the first time */
    http_request_t *request; /* NULL between requests */
    http_parser parser;
    uint64_t deadline_ms;       /* for phase */
    uint64_t write_deadline_ms; /* 0 = nothing waits */
    size_t scanned;             /* bytes of the head already searched for its end */
    size_t lingered;
    size_t queued_seen; /* when write_deadline_ms was set: less now is progress */
    size_t counted;     /* of the output, in the server's output_bytes */
    int fd;
    uint8_t phase;
    bool is_parsing; /* bytes are being fed: destroy later */
    bool is_dead;    /* destroy as soon as nothing uses it */
    bool is_closing; /* close when the output is flushed */
    bool is_due;     /* in the server's list of finished ones */
    bool has_eof;    /* the client sends nothing more */
    bool needs_linger;
    bool is_read_off; /* enough unread bytes are there */
    bool is_quiet;    /* nothing happened since the last sweep */
    TAILQ_ENTRY(http_connection) link;
    TAILQ_ENTRY(http_connection) due_link;
};

TAILQ_HEAD(http_connections, http_connection);

struct http_server {
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *sweep, *due_event;
    http_handlers_t handlers;
    void *arg;
    struct http_connections connections, due;
    size_t connection_count, connection_max;
    size_t park_at;                  /* with more connections than this one that falls quiet is parked at once */
    size_t output_bytes, output_max; /* what waits for all clients */
    http_request_t *spare;
    size_t spare_count;
    uint64_t now_ms; /* of the last turn that asked */
    uint32_t idle_ms, head_ms, stall_ms;
    bool is_draining, is_accept_paused;
    uint16_t port;
};

/* server.c */
/* Takes over a connected stream socket; NULL when the limit of connections is reached (fd is closed). */
http_connection_t *http_server_adopt(http_server_t *s, int fd);
/* Shorter limits, for tests. */
void http_server_set_limits(http_server_t *s, uint32_t idle_ms, uint32_t head_ms, uint32_t stall_ms,
                            size_t connections);
void http_server_forget(http_server_t *s, http_connection_t *c); /* a connection is gone */
void http_server_due(http_server_t *s,
                     http_connection_t *c); /* http_connection_run() is called before the loop sleeps */

/* connection.c */
http_connection_t *http_connection_new(http_server_t *s, int fd);
void http_connection_destroy(http_connection_t *c);
/* Goes on with everything that can go on: bytes to parse, requests to finish; may destroy c. */
void http_connection_run(http_connection_t *c);
void http_connection_expire(http_connection_t *c, uint64_t now_ms);
void http_connection_close_soon(http_connection_t *c);
/* Writes now what the socket takes and queues the rest. */
void http_connection_write(http_connection_t *c, const struct evbuffer_iovec *parts, int count);
size_t http_connection_queued(const http_connection_t *c);

/* request.c */
http_request_t *http_request_new(http_server_t *s, http_connection_t *c);
void http_request_free(http_request_t *r);
/* Length of the head at the start of bytes, 0 = not complete yet, -1 = broken line ends or folded lines. *scanned
 * carries the search on. */
long http_head_length(const char *bytes, size_t len, size_t *scanned);
/* Parses the head into r and sets c->parser up for the body. 0, or the HTTP status of the refusal with *why. */
int http_request_parse(http_request_t *r, http_parser *parser, const char *head, size_t len, const char **why);

/* chunked.c: whether these next bytes of a chunked body keep to its framing */
bool http_chunked_check(http_chunked_t *c, const uint8_t *bytes, size_t len);

/* reply.c */
/* The server's own answer to a request that no handler saw. Ends the connection. */
void http_reply_refusal(http_request_t *r, int status, const char *code, const char *message);
void http_reply_continue(http_request_t *r);

#endif
