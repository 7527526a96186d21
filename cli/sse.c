/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/sse.h"

#include "common/mem.h"

void sse_init(sse_t *s, sse_event_fn on_event, void *arg)
{
    *s = (sse_t){.on_event = on_event, .arg = arg};
    buf_init(&s->line, SSE_EVENT_MAX);
    buf_init(&s->data, SSE_EVENT_MAX);
    buf_init(&s->event, 0);
    buf_init(&s->id, 0);
}

void sse_free(sse_t *s)
{
    buf_free(&s->line);
    buf_free(&s->data);
    buf_free(&s->event);
    buf_free(&s->id);
}

static bool dispatch(sse_t *s)
{
    bool goes_on = true;
    if (s->has_data) {
        const char *event = s->event.len > 0 ? buf_cstr(&s->event) : "message";
        goes_on = s->on_event(s->arg, event, buf_cstr(&s->id), buf_cstr(&s->data), s->data.len);
    }
    buf_reset(&s->data);
    buf_reset(&s->event);
    s->has_data = false;
    return goes_on;
}

static bool take_field(sse_t *s, const char *name, size_t name_len, const char *value, size_t value_len)
{
    if (name_len == 4 && memcmp(name, "data", 4) == 0) {
        if (s->has_data) {
            buf_append_byte(&s->data, '\n');
        }
        buf_append(&s->data, value, value_len);
        s->has_data = true;
    } else if (name_len == 5 && memcmp(name, "event", 5) == 0) {
        buf_reset(&s->event);
        buf_append(&s->event, value, value_len);
    } else if (name_len == 2 && memcmp(name, "id", 2) == 0 && memchr(value, 0, value_len) == NULL) {
        buf_reset(&s->id);
        buf_append(&s->id, value, value_len);
    }
    return !buf_failed(&s->data) && !buf_failed(&s->event) && !buf_failed(&s->id);
}

static bool take_line(sse_t *s)
{
    const char *line = buf_cstr(&s->line);
    size_t len = s->line.len;
    if (!s->is_started) {
        s->is_started = true;
        if (len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
            line += 3;
            len -= 3;
        }
    }
    bool goes_on = true;
    if (len == 0) {
        goes_on = dispatch(s);
    } else if (line[0] != ':') {
        const char *colon = memchr(line, ':', len);
        size_t name_len = colon != NULL ? (size_t)(colon - line) : len;
        const char *value = colon != NULL ? colon + 1 : line + len;
        size_t value_len = colon != NULL ? len - name_len - 1 : 0;
        if (value_len > 0 && value[0] == ' ') {
            value++;
            value_len--;
        }
        goes_on = take_field(s, line, name_len, value, value_len);
    }
    buf_reset(&s->line);
    return goes_on;
}

bool sse_feed(sse_t *s, const void *bytes, size_t len)
{
    const char *at = bytes;
    const char *end = at + len;
    while (at < end) {
        if (s->is_after_cr && *at == '\n') {
            s->is_after_cr = false;
            at++;
            continue;
        }
        s->is_after_cr = false;
        const char *stop = at;
        while (stop < end && *stop != '\n' && *stop != '\r') {
            stop++;
        }
        buf_append(&s->line, at, (size_t)(stop - at));
        if (buf_failed(&s->line)) {
            return false;
        }
        if (stop == end) {
            return true;
        }
        s->is_after_cr = *stop == '\r';
        at = stop + 1;
        if (!take_line(s)) {
            return false;
        }
    }
    return true;
}
