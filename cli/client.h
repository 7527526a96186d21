/* SPDX-License-Identifier: Apache-2.0
 *
 * One HTTP client over libcurl: JSON calls, streamed downloads and uploads, server-sent events. A signal (SIGINT,
 * SIGTERM) during a request closes the connection, which makes the gateway cancel the call, and ends it with
 * ERR_CANCELLED.
 *
 * An answer of 400 and more becomes an error with the code and message of its body; one that cannot be had at all (no
 * connection, broken off) is provider_unavailable and client_is_unreachable() says so.
 */
#ifndef EW_CLI_CLIENT_H
#define EW_CLI_CLIENT_H

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_REPLY_MAX ((size_t)256 << 20) /* a reply that is kept in memory */
#define CLIENT_ERROR_MAX ((size_t)1 << 20)

typedef struct client client_t;

typedef struct client_request {
    const char *method;
    const char *path; /* with query, escaped */
    const void *body; /* NULL = none */
    size_t body_len;
    const char *content_type;  /* of the body; NULL = application/json */
    const char *accept;        /* NULL = application/json */
    const char *last_event_id; /* NULL = none */
    int fd_upload;             /* the body comes from here when is_upload */
    bool is_upload;
    int64_t upload_size; /* -1 = unknown: sent in chunks */
    /* Gets the body of a good answer as it comes; false ends the transfer. NULL = it is collected in reply->body. */
    bool (*on_bytes)(void *arg, const void *bytes, size_t len);
    void *arg;
    const char *label; /* progress on stderr under this name, on a terminal, after a second; NULL = none */
} client_request_t;

typedef struct client_reply {
    int status;
    buf_t body;
} client_reply_t;

client_t *client_new(const char *url, const char *api_key, err_t **e);
void client_destroy(client_t **c);
/* reply->body is the caller's to free, after a failure too. */
int client_perform(client_t *c, const client_request_t *request, client_reply_t *reply, err_t **e);
bool client_is_unreachable(const client_t *c);        /* of the last request */
const char *client_request_id(const client_t *c);     /* X-Request-Id of the last answer, "" if none */
const char *client_next_cursor(const client_t *c);    /* X-Next-Cursor of the last answer, "" if none */
const char *client_unknown_fields(const client_t *c); /* X-Unknown-Fields, "" if none */

void client_escape(buf_t *out, const char *text); /* percent-encodes all but unreserved characters */

/* Catches SIGINT and SIGTERM: the first ends the running request, the second the process. */
void client_catch_signals(void);
bool client_is_interrupted(void);

#endif
