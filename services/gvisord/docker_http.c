/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/docker_http.h"

#include "common/buf.h"
#include "common/mem.h"
#include "common/text.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <sys/queue.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MS 5000
#define CONNECTIONS_MAX 64 /* more requests wait */
#define MESSAGE_MAX 500

struct docker_request {
    docker_http_t *http;
    CURL *easy;
    struct curl_slist *headers;
    docker_reply_fn done;
    void *arg;
    void (*on_line)(void *arg, const char *line);
    buf_t body; /* or the line that is coming */
    char *sent;
    size_t header_bytes;
    bool has_head; /* the empty line after it has come */
    uint32_t timeout_ms;
    const char *broken; /* why it was ended by us */
    int fd_upload;
    struct event *upload; /* it was empty */
    char error[CURL_ERROR_SIZE];
    TAILQ_ENTRY(docker_request) entry;
};

struct docker_http {
    struct event_base *base;
    const docker_host_t *host;
    CURLM *multi;
    struct event *timer;
    TAILQ_HEAD(docker_request_list, docker_request) requests;
};

static void request_free(docker_request_t *r)
{
    docker_http_t *h = r->http;
    TAILQ_REMOVE(&h->requests, r, entry);
    curl_multi_remove_handle(h->multi, r->easy);
    curl_easy_cleanup(r->easy);
    curl_slist_free_all(r->headers);
    if (r->upload)
        event_free(r->upload);
    buf_free(&r->body);
    free(r->sent);
    free(r);
}

/* ---- the end of a request ---- */

static void tell_error(docker_request_t *r, CURLcode code)
{
    auto_err err_t *e = NULL;
    const char *where = r->http->host->text;
    if (r->broken)
        err_set(&e, ERR_PROTOCOL, "the Docker daemon at %s broke off or misbehaved: %s", where, r->broken);
    else if (code == CURLE_OPERATION_TIMEDOUT)
        err_set(&e, ERR_PROVIDER_UNAVAILABLE, "the Docker daemon at %s did not answer within %u ms", where,
                r->timeout_ms);
    else if (code == CURLE_COULDNT_CONNECT)
        err_set(&e, ERR_PROVIDER_UNAVAILABLE, "the Docker daemon at %s does not answer; is it running?", where);
    else
        err_set(&e, ERR_PROVIDER_UNAVAILABLE, "the Docker daemon at %s: %.300s", where,
                r->error[0] ? r->error : curl_easy_strerror(code));
    docker_reply_fn done = r->done;
    void *arg = r->arg;
    request_free(r);
    done(arg, NULL, e);
}

static void tell_reply(docker_request_t *r)
{
    long status = 0;
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    if (r->on_line && r->body.len > 0)
        r->on_line(r->arg, buf_cstr(&r->body));
    const char *text = r->on_line ? "" : buf_cstr(&r->body);
    /* JSON_DECODE_ANY is not used: an answer that is no object or array is none. */
    json_t *json = *text ? json_loadb(text, r->body.len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    docker_reply_t reply = {.status = (int)status, .json = json, .text = text};
    docker_reply_fn done = r->done;
    void *arg = r->arg;
    buf_t body = r->body; /* the answer outlives the request: `done` may start or cancel others */
    r->body = (buf_t){0};
    request_free(r);
    done(arg, &reply, NULL);
    json_decref(json);
    buf_free(&body);
}

static void finish_some(docker_http_t *h)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(h->multi, &left));) {
        docker_request_t *r = NULL;
        CURLcode code = m->data.result;
        if (m->msg != CURLMSG_DONE || curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &r) != CURLE_OK || !r)
            continue;
        /* curl takes a connection that ends within the head for an empty answer. */
        if (code == CURLE_OK && !r->has_head)
            r->broken = "its answer was cut off";
        if (code != CURLE_OK || r->broken)
            tell_error(r, code);
        else
            tell_reply(r);
    }
}

int docker_reply_error(const docker_reply_t *reply, const char *what, err_t **e)
{
    const char *message = json_string_value(json_object_get(reply->json, "message"));
    if (!message)
        message = reply->text && *reply->text ? reply->text : "it gave no reason";
    char line[MESSAGE_MAX];
    snprintf(line, sizeof line, "%s", message);
    line[utf8_valid_prefix(line, strlen(line))] = '\0';
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
    return err_set(e, reply->status == 404 ? ERR_NOT_FOUND : ERR_SANDBOX_FAILED,
                   "%s: the Docker daemon answered %d: %s", what, reply->status, line);
}

/* ---- bytes ---- */

static size_t on_header(char *bytes, size_t size, size_t count, void *arg)
{
    docker_request_t *r = arg;
    r->header_bytes += size * count;
    r->has_head |= bytes[0] == '\r' || bytes[0] == '\n';
    if (r->header_bytes <= DOCKER_HEADER_MAX)
        return size * count;
    r->broken = "the header of its answer is too long";
    return 0;
}

static bool take_lines(docker_request_t *r, const char *bytes, size_t len)
{
    while (len > 0) {
        const char *end = memchr(bytes, '\n', len);
        size_t part = end ? (size_t)(end - bytes) : len;
        buf_append(&r->body, bytes, part);
        if (buf_failed(&r->body))
            return false;
        if (end && r->body.len > 0)
            r->on_line(r->arg, buf_cstr(&r->body));
        if (end)
            buf_reset(&r->body);
        bytes += end ? part + 1 : part;
        len -= end ? part + 1 : part;
    }
    return true;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    docker_request_t *r = arg;
    size_t len = size * count;
    bool is_taken;
    if (r->on_line) {
        is_taken = take_lines(r, bytes, len);
    } else {
        buf_append(&r->body, bytes, len);
        is_taken = !buf_failed(&r->body);
    }
    if (is_taken)
        return len;
    r->broken = "its answer is too long";
    return 0;
}

static void on_upload_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    docker_request_t *r = arg;
    curl_easy_pause(r->easy, CURLPAUSE_CONT);
}

static size_t on_upload(char *bytes, size_t size, size_t count, void *arg)
{
    docker_request_t *r = arg;
    ssize_t n;
    do
        n = read(r->fd_upload, bytes, size * count);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return (size_t)n;
    if (errno != EAGAIN) {
        r->broken = "what was to be sent cannot be read";
        return CURL_READFUNC_ABORT;
    }
    event_add(r->upload, NULL);
    return CURL_READFUNC_PAUSE;
}

/* ---- curl in the loop ---- */

static void on_socket_event(evutil_socket_t fd, short what, void *arg)
{
    docker_http_t *h = arg;
    int running, action = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
    curl_multi_socket_action(h->multi, fd, action, &running);
    finish_some(h);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    docker_http_t *h = arg;
    int running;
    curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    finish_some(h);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
    (void)multi;
    docker_http_t *h = arg;
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    if (ms < 0)
        evtimer_del(h->timer);
    else
        evtimer_add(h->timer, &tv);
    return 0;
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *own)
{
    (void)easy;
    docker_http_t *h = arg;
    struct event *event = own;
    if (event)
        event_free(event);
    event = NULL;
    if (what != CURL_POLL_REMOVE) {
        short kind = EV_PERSIST;
        kind |= what & CURL_POLL_IN ? EV_READ : 0;
        kind |= what & CURL_POLL_OUT ? EV_WRITE : 0;
        event = event_new(h->base, fd, kind, on_socket_event, h);
        if (event)
            event_add(event, NULL);
    }
    curl_multi_assign(h->multi, fd, event);
    return 0;
}

docker_http_t *docker_http_new(struct event_base *base, const docker_host_t *host, err_t **e)
{
    docker_http_t *h = mem_alloc(sizeof *h);
    h->base = base;
    h->host = host;
    TAILQ_INIT(&h->requests);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK)
        h->multi = curl_multi_init();
    h->timer = evtimer_new(base, on_timer, h);
    if (!h->multi || !h->timer) {
        err_set(e, ERR_INTERNAL, "libcurl cannot be used");
        docker_http_free(&h);
        return NULL;
    }
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)CONNECTIONS_MAX);
    return h;
}

void docker_http_free(docker_http_t **h)
{
    docker_http_t *own = *h;
    *h = NULL;
    if (!own)
        return;
    for (docker_request_t *r; (r = TAILQ_FIRST(&own->requests));)
        request_free(r);
    if (own->multi)
        curl_multi_cleanup(own->multi);
    if (own->timer)
        event_free(own->timer);
    free(own);
}

void docker_http_cancel(docker_request_t **r)
{
    docker_request_t *own = *r;
    *r = NULL;
    if (own)
        request_free(own);
}

static void set_body(docker_request_t *r, const docker_call_t *call)
{
    const char *bytes = call->bytes;
    size_t len = call->len;
    if (call->json) {
        r->sent = json_dumps(call->json, JSON_COMPACT);
        bytes = r->sent ? r->sent : "{}";
        len = strlen(bytes);
        r->headers = curl_slist_append(r->headers, "Content-Type: application/json");
    } else if (call->bytes || call->fd_upload) {
        r->headers = curl_slist_append(r->headers, "Content-Type: application/x-tar");
    }
    r->headers = curl_slist_append(r->headers, "Expect:");
    if (call->fd_upload) {
        r->fd_upload = call->fd_upload;
        r->upload = event_new(r->http->base, r->fd_upload, EV_READ, on_upload_readable, r);
        r->headers = curl_slist_append(r->headers, "Transfer-Encoding: chunked");
        curl_easy_setopt(r->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(r->easy, CURLOPT_READFUNCTION, on_upload);
        curl_easy_setopt(r->easy, CURLOPT_READDATA, r);
    } else if (strcmp(call->method, "GET") != 0) {
        curl_easy_setopt(r->easy, CURLOPT_POSTFIELDS, len ? bytes : "");
        curl_easy_setopt(r->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
        curl_easy_setopt(r->easy, CURLOPT_CUSTOMREQUEST, call->method);
    }
}

docker_request_t *docker_http_start(docker_http_t *h, docker_call_t *call, docker_reply_fn done, void *arg)
{
    docker_request_t *r = mem_alloc(sizeof *r);
    *r = (docker_request_t){.http = h, .done = done, .arg = arg, .on_line = call->on_line};
    r->timeout_ms = call->timeout_ms;
    buf_init(&r->body, call->on_line ? DOCKER_LINE_MAX : DOCKER_BODY_MAX);
    TAILQ_INSERT_TAIL(&h->requests, r, entry);
    r->easy = curl_easy_init();
    if (!r->easy)
        abort(); /* out of memory */
    auto_free char *url = mem_printf("http://%s%s", h->host->authority, call->path);
    curl_easy_setopt(r->easy, CURLOPT_URL, url);
    if (h->host->path)
        curl_easy_setopt(r->easy, CURLOPT_UNIX_SOCKET_PATH, h->host->path);
    curl_easy_setopt(r->easy, CURLOPT_PRIVATE, r);
    curl_easy_setopt(r->easy, CURLOPT_ERRORBUFFER, r->error);
    curl_easy_setopt(r->easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(r->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(r->easy, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(r->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    curl_easy_setopt(r->easy, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
    curl_easy_setopt(r->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(r->easy, CURLOPT_HEADERDATA, r);
    curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
    set_body(r, call);
    curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
    curl_multi_add_handle(h->multi, r->easy);
    free(call->path);
    json_decref(call->json);
    call->path = NULL;
    call->json = NULL;
    return r;
}
