/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"

#include "cli/progress.h"
#include "common/mem.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_S 10L
#define POLL_MS 250
#define HEADER_VALUE_MAX 255

struct client {
    CURL *easy;
    CURLM *multi;
    char *url;
    char *auth; /* header line */
    bool is_unreachable;
    char request_id[HEADER_VALUE_MAX + 1];
    char unknown_fields[HEADER_VALUE_MAX + 1];
    char next_cursor[HEADER_VALUE_MAX + 1];
};

/* One request on its way. */
typedef struct transfer {
    client_t *client;
    const client_request_t *request;
    client_reply_t *reply;
    buf_t error_body;
    progress_t progress;
    int upload_errno;
    bool is_stopped; /* on_bytes said so */
    bool is_too_large;
} transfer_t;

static volatile sig_atomic_t interrupted;
static int wake_pipe[2] = {-1, -1};

static void on_signal(int number)
{
    (void)number;
    if (interrupted) {
        _exit(130);
    }
    interrupted = 1;
    int saved = errno;
    ssize_t n = write(wake_pipe[1], "", 1); /* full pipe: already awake */
    (void)n;
    errno = saved;
}

void client_catch_signals(void)
{
    if (pipe2(wake_pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
        return; /* the poll's timeout still notices the flag */
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool client_is_interrupted(void)
{
    return interrupted != 0;
}

void client_escape(buf_t *out, const char *text)
{
    static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text != '\0'; text++) {
        if (strchr(unreserved, *text) != NULL) {
            buf_append_byte(out, (uint8_t)*text);
        } else {
            buf_printf(out, "%%%02X", (unsigned)(unsigned char)*text);
        }
    }
}

client_t *client_new(const char *url, const char *api_key, err_t **e)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        err_set(e, ERR_INTERNAL, "libcurl could not be initialised");
        return NULL;
    }
    client_t *c = mem_alloc(sizeof(*c));
    c->easy = curl_easy_init();
    c->multi = curl_multi_init();
    size_t len = strlen(url);
    while (len > 0 && url[len - 1] == '/') {
        len--;
    }
    c->url = mem_strndup(url, len);
    c->auth = api_key != NULL ? mem_printf("Authorization: Bearer %s", api_key) : NULL;
    if (c->easy == NULL || c->multi == NULL) {
        client_destroy(&c);
        err_set(e, ERR_INTERNAL, "libcurl could not be initialised");
    }
    return c;
}

void client_destroy(client_t **c)
{
    client_t *it = STEAL_PTR(*c);
    if (it == NULL) {
        return;
    }
    curl_multi_cleanup(it->multi);
    curl_easy_cleanup(it->easy);
    if (it->auth != NULL) {
        mem_wipe(it->auth, strlen(it->auth));
    }
    free(it->auth);
    free(it->url);
    free(it);
    curl_global_cleanup();
}

bool client_is_unreachable(const client_t *c)
{
    return c->is_unreachable;
}

const char *client_request_id(const client_t *c)
{
    return c->request_id;
}

const char *client_next_cursor(const client_t *c)
{
    return c->next_cursor;
}

const char *client_unknown_fields(const client_t *c)
{
    return c->unknown_fields;
}

/* ---- libcurl's callbacks ---- */

static long status_of(const client_t *c)
{
    long status = 0;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    transfer_t *t = arg;
    size_t len = size * count;
    if (status_of(t->client) >= 400) {
        buf_append(&t->error_body, bytes, len);
        return buf_failed(&t->error_body) ? 0 : len;
    }
    progress_add(&t->progress, len);
    if (t->request->on_bytes != NULL) {
        t->is_stopped = !t->request->on_bytes(t->request->arg, bytes, len);
        return t->is_stopped ? 0 : len;
    }
    buf_append(&t->reply->body, bytes, len);
    t->is_too_large = buf_failed(&t->reply->body);
    return t->is_too_large ? 0 : len;
}

static void take_header(char out[HEADER_VALUE_MAX + 1], const char *line, size_t len, const char *name)
{
    size_t name_len = strlen(name);
    if (len <= name_len || strncasecmp(line, name, name_len) != 0) {
        return;
    }
    line += name_len;
    len -= name_len;
    size_t n = 0;
    for (size_t i = 0; i < len && n < HEADER_VALUE_MAX; i++) {
        if (line[i] > ' ' && line[i] < 0x7f) {
            out[n++] = line[i];
        }
    }
    out[n] = '\0';
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    transfer_t *t = arg;
    take_header(t->client->request_id, line, size * count, "X-Request-Id:");
    take_header(t->client->unknown_fields, line, size * count, "X-Unknown-Fields:");
    take_header(t->client->next_cursor, line, size * count, "X-Next-Cursor:");
    return size * count;
}

static size_t on_upload(char *out, size_t size, size_t count, void *arg)
{
    transfer_t *t = arg;
    ssize_t n;
    do {
        n = read(t->request->fd_upload, out, size * count);
    } while (n < 0 && errno == EINTR && !interrupted);
    if (n < 0) {
        t->upload_errno = errno;
        return CURL_READFUNC_ABORT;
    }
    progress_add(&t->progress, (uint64_t)n);
    return (size_t)n;
}

/* ---- one request ---- */

static struct curl_slist *make_headers(const client_t *c, const client_request_t *r)
{
    struct curl_slist *list = NULL;
    auto_free char *type =
        mem_printf("Content-Type: %s", r->content_type != NULL ? r->content_type : "application/json");
    auto_free char *accept = mem_printf("Accept: %s", r->accept != NULL ? r->accept : "application/json");
    list = curl_slist_append(list, type);
    list = curl_slist_append(list, accept);
    if (c->auth != NULL) {
        list = curl_slist_append(list, c->auth);
    }
    if (r->last_event_id != NULL) {
        auto_free char *id = mem_printf("Last-Event-ID: %s", r->last_event_id);
        list = curl_slist_append(list, id);
    }
    return list;
}

static void set_options(transfer_t *t, const char *url, struct curl_slist *headers, char error_text[CURL_ERROR_SIZE])
{
    CURL *easy = t->client->easy;
    const client_request_t *r = t->request;
    curl_easy_reset(easy);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, r->method);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "emergent");
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_text);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    if (r->is_upload) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_upload);
        curl_easy_setopt(easy, CURLOPT_READDATA, t);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->upload_size);
    } else if (r->body != NULL) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, r->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
    }
}

/* The multi interface only because a signal must end the wait at once. */
static CURLcode run_transfer(transfer_t *t)
{
    client_t *c = t->client;
    CURLcode result = CURLE_OK;
    int running = 1;
    curl_multi_add_handle(c->multi, c->easy);
    while (running > 0) {
        if (interrupted) {
            result = CURLE_ABORTED_BY_CALLBACK;
            break;
        }
        if (curl_multi_perform(c->multi, &running) != CURLM_OK) {
            result = CURLE_FAILED_INIT;
            break;
        }
        progress_tick(&t->progress);
        struct curl_waitfd wake = {.fd = wake_pipe[0], .events = CURL_WAIT_POLLIN};
        if (running > 0) {
            curl_multi_poll(c->multi, &wake, wake_pipe[0] >= 0 ? 1 : 0, POLL_MS, NULL);
        }
    }
    int left;
    CURLMsg *message;
    while ((message = curl_multi_info_read(c->multi, &left)) != NULL) {
        if (message->msg == CURLMSG_DONE) {
            result = message->data.result;
        }
    }
    curl_multi_remove_handle(c->multi, c->easy);
    return result;
}

static int error_of_body(const client_t *c, int status, buf_t *body, err_t **e)
{
    json_t *json = json_loadb(buf_cstr(body), body->len, 0, NULL);
    json_t *error = json_object_get(json, "error");
    const char *code = json_string_value(json_object_get(error, "code"));
    const char *message = json_string_value(json_object_get(error, "message"));
    if (code != NULL && message != NULL) {
        err_set(e, err_code_from_name(code), "%s", message);
        json_t *details = json_object_get(error, "details");
        auto_free char *text = json_is_object(details) ? json_dumps(details, JSON_COMPACT) : NULL;
        if (text != NULL) {
            err_set_details(*e, text);
        }
    } else {
        err_set(e, ERR_PROTOCOL, "%s answered HTTP status %d without an error body: is this the gateway of a suite?",
                c->url, status);
    }
    json_decref(json);
    return -1;
}

static int judge(transfer_t *t, CURLcode result, const char *error_text, err_t **e)
{
    client_t *c = t->client;
    t->reply->status = (int)status_of(c);
    if (interrupted) {
        return err_set(e, ERR_CANCELLED, "interrupted");
    }
    if (t->upload_errno != 0) {
        return err_set_errno(e, ERR_NONE, t->upload_errno, "the data to send could not be read");
    }
    if (t->reply->status >= 400) { /* even when the connection was then closed under an upload */
        return error_of_body(c, t->reply->status, &t->error_body, e);
    }
    if (t->is_stopped) {
        return 0;
    }
    if (t->is_too_large) {
        return err_set(e, ERR_PAYLOAD_TOO_LARGE, "the answer is larger than %zu bytes; copy the file instead",
                       CLIENT_REPLY_MAX);
    }
    if (result != CURLE_OK) {
        c->is_unreachable = true;
        const char *why = error_text[0] != '\0' ? error_text : curl_easy_strerror(result);
        return err_set(e, ERR_PROVIDER_UNAVAILABLE, "the gateway at %s could not be reached: %s", c->url, why);
    }
    return 0;
}

int client_perform(client_t *c, const client_request_t *request, client_reply_t *reply, err_t **e)
{
    transfer_t t = {.client = c, .request = request, .reply = reply};
    char error_text[CURL_ERROR_SIZE] = "";
    c->is_unreachable = false;
    c->request_id[0] = '\0';
    c->unknown_fields[0] = '\0';
    c->next_cursor[0] = '\0';
    reply->status = 0;
    buf_init(&reply->body, CLIENT_REPLY_MAX);
    buf_init(&t.error_body, CLIENT_ERROR_MAX);
    progress_init(&t.progress, request->label, request->is_upload ? request->upload_size : -1);
    auto_free char *url = mem_printf("%s%s", c->url, request->path);
    struct curl_slist *headers = make_headers(c, request);
    set_options(&t, url, headers, error_text);
    CURLcode result = run_transfer(&t);
    progress_end(&t.progress);
    int done = judge(&t, result, error_text, e);
    curl_slist_free_all(headers);
    buf_free(&t.error_body);
    return done;
}
