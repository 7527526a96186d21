/* SPDX-License-Identifier: Apache-2.0
 *
 * Parser of a text/event-stream (WHATWG HTML, 9.2.6): bytes in any pieces go in, events come out. Lines may end in LF,
 * CR or CRLF; a leading byte order mark is skipped; comments are dropped. Limit: one event of at most SSE_EVENT_MAX
 * bytes, else sse_feed fails.
 */
#ifndef EW_CLI_SSE_H
#define EW_CLI_SSE_H

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>

#define SSE_EVENT_MAX ((size_t)48 << 20)

/* event is "message" when the stream names none; id is the last one seen, "" at first. False ends the parsing. */
typedef bool (*sse_event_fn)(void *arg, const char *event, const char *id, const char *data, size_t len);

typedef struct sse {
    buf_t line;
    buf_t data;
    buf_t event;
    buf_t id;
    bool has_data;
    bool is_after_cr;
    bool is_started;
    sse_event_fn on_event;
    void *arg;
} sse_t;

void sse_init(sse_t *s, sse_event_fn on_event, void *arg);
void sse_free(sse_t *s);
/* False: on_event said stop, or the event is too large. */
bool sse_feed(sse_t *s, const void *bytes, size_t len);

#endif
