/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests to a Docker Engine, by libcurl in the daemon's loop. Nothing that it answers is believed in size: header
 * DOCKER_HEADER_MAX, body DOCKER_BODY_MAX (lines of a progress stream DOCKER_LINE_MAX each), every request has a
 * deadline.
 */
#ifndef EW_SERVICES_GVISORD_DOCKER_HTTP_H
#define EW_SERVICES_GVISORD_DOCKER_HTTP_H

#include "common/err.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define DOCKER_HEADER_MAX ((size_t)64 * 1024)
#define DOCKER_BODY_MAX ((size_t)8 << 20)
#define DOCKER_LINE_MAX ((size_t)64 * 1024)

/* Where it listens. */
typedef struct docker_host {
    char text[200]; /* for messages */
    char *path;     /* NULL: TCP */
    char *authority;
    struct sockaddr_storage address;
    socklen_t address_len;
} docker_host_t;

/* unix://PATH or tcp://HOST:PORT; resolves names, so it may block. */
int docker_host_parse(docker_host_t *host, const char *text, err_t **e);
void docker_host_free(docker_host_t *host);

typedef struct docker_http docker_http_t;
typedef struct docker_request docker_request_t;

typedef struct docker_call {
    const char *method;
    char *path;        /* taken; with the query */
    json_t *json;      /* taken; or */
    const void *bytes; /* borrowed until the end; or */
    size_t len;
    int fd_upload;                                /* borrowed; 0 = none; read to its end, chunked */
    void (*on_line)(void *arg, const char *line); /* the answer's lines as they come; the body stays empty */
    uint32_t timeout_ms;
} docker_call_t;

typedef struct docker_reply {
    int status;
    json_t *json; /* borrowed; NULL: the body is none */
    const char *text;
} docker_reply_t;

/* Exactly one is given: an answer of any status, or an error. Never called from docker_http_start. */
typedef void (*docker_reply_fn)(void *arg, const docker_reply_t *reply, const err_t *err);

docker_http_t *docker_http_new(struct event_base *base, const docker_host_t *host, err_t **e);
void docker_http_free(docker_http_t **h); /* of no request hears anybody again */
docker_request_t *docker_http_start(docker_http_t *h, docker_call_t *call, docker_reply_fn done, void *arg);
/* `done` is not called; what the daemon has got of it may happen. */
void docker_http_cancel(docker_request_t **r);
/* The daemon's own words about a status >= 400; always -1. */
int docker_reply_error(const docker_reply_t *reply, const char *what, err_t **e);

#endif
