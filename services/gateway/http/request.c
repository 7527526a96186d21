/* SPDX-License-Identifier: Apache-2.0
 *
 * One request head: found, parsed by http-parser, judged again by stricter rules, and kept as NUL-terminated text in
 * one buffer. Stricter than the parser because what two programs read differently can be used to smuggle a request past
 * one of them (RFC 9112 §11.2).
 */
#include "services/gateway/http/internal.h"

#include "common/clock.h"
#include "common/mem.h"

#include <string.h>
#include <strings.h>
#include <sys/socket.h>

http_request_t *http_request_new(http_server_t *s, http_connection_t *c)
{
    http_request_t *r = s->spare;
    if (r) {
        s->spare = r->next;
        s->spare_count--;
        buf_t store = r->store, extra = r->extra;
        http_tables_t *tables = r->tables;
        memset(r, 0, sizeof *r);
        r->store = store;
        r->extra = extra;
        r->tables = tables;
    } else {
        r = mem_alloc(sizeof *r);
        r->tables = mem_alloc(sizeof *r->tables);
        buf_init(&r->store, HTTP_HEAD_MAX + 2 * HTTP_URL_MAX);
        buf_init(&r->extra, HTTP_HEAD_MAX);
    }
    r->server = s;
    r->connection = c;
    r->content_length = -1;
    return r;
}

void http_request_free(http_request_t *r)
{
    http_server_t *s = r->server;
    if (r->tables && s->spare_count < HTTP_SPARE_MAX && r->store.cap <= HTTP_STORE_KEEP &&
        r->extra.cap <= HTTP_STORE_KEEP) {
        buf_reset(&r->store);
        buf_reset(&r->extra);
        r->next = s->spare;
        s->spare = r;
        s->spare_count++;
        return;
    }
    http_release_head(r);
    free(r);
}

void http_release_head(http_request_t *r)
{
    buf_free(&r->store);
    buf_free(&r->extra);
    free(r->tables);
    r->tables = NULL;
    r->header_count = r->query_count = 0;
}

long http_head_length(const char *bytes, size_t len, size_t *scanned)
{
    size_t at = *scanned;
    while (at < len) {
        const char *lf = memchr(bytes + at, '\n', len - at);
        if (!lf) {
            break;
        }
        size_t i = (size_t)(lf - bytes);
        if (i == 0 || bytes[i - 1] != '\r') {
            return -1;
        }
        if (i >= 3 && bytes[i - 2] == '\n') {
            return (long)(i + 1);
        }
        if (i + 1 == len) { /* what follows decides whether the line is folded */
            *scanned = i;
            return 0;
        }
        if (bytes[i + 1] == ' ' || bytes[i + 1] == '\t') {
            return -1;
        }
        at = i + 1;
    }
    *scanned = len;
    return 0;
}

static size_t store_offset(const http_request_t *r, const char *at)
{
    return (size_t)((const uint8_t *)at - r->store.data);
}

static int on_url(http_parser *p, const char *at, size_t len)
{
    http_request_t *r = p->data;
    if (len > HTTP_URL_MAX) {
        r->is_malformed = true;
        return 0;
    }
    r->url_at = (uint16_t)store_offset(r, at);
    r->url_length = (uint16_t)len;
    return 0;
}

static int on_header_field(http_parser *p, const char *at, size_t len)
{
    http_request_t *r = p->data;
    if (r->header_count >= HTTP_HEADERS_MAX) {
        return 1;
    }
    http_span_t *h = &r->tables->headers[r->header_count++];
    h->name = (uint32_t)store_offset(r, at);
    h->value = h->name + (uint32_t)len;
    r->store.data[h->value] = 0; /* over the ':', which the parser has read already; an empty value ends here too */
    return 0;
}

static int on_header_value(http_parser *p, const char *at, size_t len)
{
    http_request_t *r = p->data;
    if (r->header_count == 0) {
        return 1;
    }
    while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '\t')) {
        len--;
    }
    if (len > 0) { /* the byte behind it, a CR or blank, was read already */
        http_span_t *h = &r->tables->headers[r->header_count - 1];
        h->value = (uint32_t)store_offset(r, at);
        r->store.data[h->value + len] = 0;
    }
    return 0;
}

static const http_parser_settings head_settings = {
    .on_url = on_url, .on_header_field = on_header_field, .on_header_value = on_header_value};

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Appends the decoded text and a NUL; false for broken escapes, for an encoded NUL and, in a path, an encoded slash. */
static bool decode_append(buf_t *out, const char *text, size_t len, bool is_query)
{
    uint8_t *to = buf_reserve(out, len + 1);
    if (!to) {
        return false;
    }
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = len - i > 2 ? hex_digit(text[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
            if (low < 0 || (high == 0 && low == 0)) {
                return false;
            }
            c = (char)(high * 16 + low);
            if (c == '/' && !is_query) { /* would be a boundary here and none for whoever guards us */
                return false;
            }
            i += 2;
        } else if (c == '+' && is_query) {
            c = ' ';
        }
        to[n++] = (uint8_t)c;
    }
    to[n++] = 0;
    buf_commit(out, n);
    return true;
}

static bool parse_query(http_request_t *r, const char *query, size_t len)
{
    for (size_t at = 0; at < len;) {
        const char *amp = memchr(query + at, '&', len - at);
        size_t end = amp ? (size_t)(amp - query) : len;
        const char *eq = memchr(query + at, '=', end - at);
        size_t name_end = eq ? (size_t)(eq - query) : end;
        size_t value_at = eq ? name_end + 1 : end;
        if (name_end > at) {
            if (r->query_count >= HTTP_QUERY_MAX) {
                return false;
            }
            http_span_t *q = &r->tables->query[r->query_count++];
            q->name = (uint32_t)r->store.len;
            if (!decode_append(&r->store, query + at, name_end - at, true)) {
                return false;
            }
            q->value = (uint32_t)r->store.len;
            if (!decode_append(&r->store, query + value_at, end - value_at, true)) {
                return false;
            }
        }
        at = end + 1;
    }
    return true;
}

/* Path and query out of "/path?query", "*" or "http://host/path?query". The text is copied first: the store may move as
 * it grows. */
static bool parse_url(http_request_t *r)
{
    char url[HTTP_URL_MAX];
    size_t len = r->url_length;
    memcpy(url, r->store.data + r->url_at, len);
    const char *at = url, *end = url + len;
    if (len == 0 || memchr(url, '#', len)) {
        return false;
    }
    if (*at != '/' && !(len == 1 && *at == '*')) {
        struct http_parser_url parts;
        http_parser_url_init(&parts);
        if (http_parser_parse_url(url, len, r->method == HTTP_CONNECT, &parts)) {
            return false;
        }
        at = parts.field_set & (1 << UF_PATH) ? url + parts.field_data[UF_PATH].off : end;
    }
    const char *query = memchr(at, '?', (size_t)(end - at));
    const char *path_end = query ? query : end;
    while (path_end > at + 1 && path_end[-1] == '/') {
        path_end--;
    }
    r->path = (uint32_t)r->store.len;
    if (!decode_append(&r->store, path_end > at ? at : "/", path_end > at ? (size_t)(path_end - at) : 1, false)) {
        return false;
    }
    return !query || parse_query(r, query + 1, (size_t)(end - query - 1));
}

/* Headers that decide where the message ends, and whose it is. */
static int judge_framing(http_request_t *r, const http_parser *parser, const char **why)
{
    unsigned hosts = 0, lengths = 0, encodings = 0;
    for (uint32_t i = 0; i < r->header_count; i++) {
        const char *name = (const char *)r->store.data + r->tables->headers[i].name;
        const char *value = (const char *)r->store.data + r->tables->headers[i].value;
        if (strpbrk(name, " \t")) { /* the parser lets "Name :" pass; RFC 9112 §5.1 wants it refused */
            *why = "a header name has white space in it";
            return 400;
        }
        if (strcasecmp(name, "host") == 0) {
            hosts++;
        } else if (strcasecmp(name, "content-length") == 0) {
            lengths++;
        } else if (strcasecmp(name, "transfer-encoding") == 0) {
            encodings++;
            if (strcasecmp(value, "chunked") != 0) {
                *why = "the only transfer encoding served is chunked";
                return 400;
            }
        }
    }
    if (lengths > 1 || encodings > 1 || (lengths && encodings) || (encodings && r->is_http10)) {
        *why = "the length of the body is ambiguous: send one Content-Length or one Transfer-Encoding";
        return 400;
    }
    if (hosts > 1 || (hosts == 0 && !r->is_http10)) {
        *why = "exactly one Host header is required";
        return 400;
    }
    r->is_chunked = encodings == 1;
    if (lengths) {
        if (parser->content_length > INT64_MAX) {
            *why = "Content-Length is impossible";
            return 400;
        }
        r->content_length = (int64_t)parser->content_length;
    }
    return 0;
}

int http_request_parse(http_request_t *r, http_parser *parser, const char *head, size_t len, const char **why)
{
    buf_append(&r->store, head, len);
    if (buf_failed(&r->store)) {
        *why = "the request head is too large";
        return 431;
    }
    http_parser_init(parser, HTTP_REQUEST);
    parser->data = r;
    size_t parsed = http_parser_execute(parser, &head_settings, (const char *)r->store.data, len);
    enum http_errno code = HTTP_PARSER_ERRNO(parser);
    if (r->is_malformed || r->header_count >= HTTP_HEADERS_MAX) {
        *why = r->is_malformed ? "the URL is longer than 8 KiB" : "too many header fields";
        return 431;
    }
    if (code != HPE_OK || (parsed != len && !parser->upgrade)) {
        *why = code == HPE_OK ? "malformed request head" : http_errno_description(code);
        return 400;
    }
    r->method = (uint8_t)parser->method;
    r->is_head = r->method == HTTP_HEAD;
    if (parser->http_major != 1 || parser->http_minor > 1) {
        *why = "only versions 1.0 and 1.1 of HTTP are served";
        return 505;
    }
    r->is_http10 = parser->http_minor == 0;
    int status = judge_framing(r, parser, why);
    if (status) {
        return status;
    }
    if (!parse_url(r)) {
        *why = "malformed URL";
        return 400;
    }
    r->is_keep_alive = http_should_keep_alive(parser) && !parser->upgrade;
    r->is_body_done = !r->is_chunked && r->content_length <= 0;
    const char *expect = http_header(r, "expect");
    if (expect && strcasecmp(expect, "100-continue") != 0) {
        *why = "the only expectation served is 100-continue";
        return 417;
    }
    r->expects_continue = expect && !r->is_body_done && !r->is_http10;
    return 0;
}

const char *http_method(const http_request_t *r)
{
    return http_method_str((enum http_method)r->method);
}

const char *http_path(const http_request_t *r)
{
    return r->tables ? (const char *)r->store.data + r->path : "";
}

const char *http_query(const http_request_t *r, const char *name)
{
    for (uint32_t i = 0; i < r->query_count; i++) {
        if (strcmp((const char *)r->store.data + r->tables->query[i].name, name) == 0) {
            return (const char *)r->store.data + r->tables->query[i].value;
        }
    }
    return NULL;
}

bool http_query_at(const http_request_t *r, size_t i, const char **name, const char **value)
{
    if (i >= r->query_count) {
        return false;
    }
    *name = (const char *)r->store.data + r->tables->query[i].name;
    *value = (const char *)r->store.data + r->tables->query[i].value;
    return true;
}

const char *http_header(const http_request_t *r, const char *name)
{
    for (uint32_t i = 0; i < r->header_count; i++) {
        if (strcasecmp((const char *)r->store.data + r->tables->headers[i].name, name) == 0) {
            return (const char *)r->store.data + r->tables->headers[i].value;
        }
    }
    return NULL;
}

const char *http_peer_address(const http_request_t *r)
{
    http_request_t *mutable_r = (http_request_t *)(uintptr_t)r;
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof address;
    if (!r->peer[0] && r->connection && getpeername(r->connection->fd, (struct sockaddr *)&address, &len) == 0) {
        const void *bytes = address.ss_family == AF_INET6 ? (const void *)&((struct sockaddr_in6 *)&address)->sin6_addr
                                                          : (const void *)&((struct sockaddr_in *)&address)->sin_addr;
        if (address.ss_family == AF_INET || address.ss_family == AF_INET6) {
            inet_ntop(address.ss_family, bytes, mutable_r->peer, sizeof mutable_r->peer);
        }
    }
    return r->peer[0] ? r->peer : "-";
}

int64_t http_content_length(const http_request_t *r)
{
    return r->is_chunked ? -1 : r->content_length;
}

bool http_has_body(const http_request_t *r)
{
    return r->is_chunked || r->content_length > 0;
}

void http_set_body_max(http_request_t *r, uint64_t max)
{
    r->body_max = max;
}

void http_set_body_time(http_request_t *r, uint32_t ms)
{
    r->body_deadline_ms = clock_monotonic_ms() + ms;
}

void http_set_data(http_request_t *r, void *data)
{
    r->data = data;
}

void *http_data(const http_request_t *r)
{
    return r->data;
}
