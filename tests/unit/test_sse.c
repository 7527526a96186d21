// SPDX-License-Identifier: Apache-2.0
// LINK: cli/sse.c
#include "cli/sse.h"

#include "common/mem.h"

#include <criterion/criterion.h>

TestSuite(sse, .timeout = 10);

/* Events as text: "<event>|<id>|<data>;" each. */
static bool record(void *arg, const char *event, const char *id, const char *data, size_t len)
{
    buf_t *out = arg;
    buf_printf(out, "%s|%s|", event, id);
    buf_append(out, data, len);
    buf_append_byte(out, ';');
    return strcmp(event, "stop") != 0;
}

static bool parse(const char *stream, size_t len, size_t piece, buf_t *out)
{
    sse_t parser;
    bool goes_on = true;
    sse_init(&parser, record, out);
    for (size_t at = 0; at < len && goes_on; at += piece) {
        goes_on = sse_feed(&parser, stream + at, len - at < piece ? len - at : piece);
    }
    sse_free(&parser);
    return goes_on;
}

Test(sse, an_event_is_told_at_its_empty_line)
{
    auto_buf buf_t out;
    buf_init(&out, 0);
    cr_assert(parse("event: stdout\nid: 7\ndata: {\"a\":1}\n\ndata: unfinished", 52, 1000, &out));
    cr_assert_str_eq(buf_cstr(&out), "stdout|7|{\"a\":1};");
}

Test(sse, every_form_gives_the_same_in_pieces_of_any_size)
{
    static const struct {
        const char *stream;
        const char *events;
    } rows[] = {
        {"data: x\n\n", "message||x;"},
        {"data:x\n\n", "message||x;"},
        {"data:  x\n\n", "message|| x;"},
        {"data: a\ndata: b\n\n", "message||a\nb;"},
        {"data\n\n", "message||;"},
        {"data: a\r\ndata: b\r\n\r\n", "message||a\nb;"},
        {"data: a\r\rdata: b\r\r", "message||a;message||b;"},
        {": comment\n\n", ""},
        {"event: x\n\ndata: y\n\n", "message||y;"},
        {"id: 1\ndata: a\n\ndata: b\n\n", "message|1|a;message|1|b;"},
        {"id\ndata: a\n\n", "message||a;"},
        {"\xef\xbb\xbf"
         "data: a\n\n",
         "message||a;"},
        {"nonsense: x\nretry: 5\ndata: a\n\n", "message||a;"},
        {"event: stop\ndata: a\n\ndata: never\n\n", "stop||a;"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (size_t piece = 1; piece <= strlen(rows[i].stream); piece++) {
            auto_buf buf_t out;
            buf_init(&out, 0);
            bool goes_on = parse(rows[i].stream, strlen(rows[i].stream), piece, &out);
            cr_assert_eq(goes_on, strstr(rows[i].stream, "stop") == NULL);
            cr_assert_str_eq(buf_cstr(&out), rows[i].events, "row %zu in pieces of %zu", i, piece);
        }
    }
}

Test(sse, an_event_over_the_limit_ends_the_parsing)
{
    sse_t parser;
    auto_buf buf_t out;
    buf_init(&out, 0);
    auto_free char *chunk = mem_alloc((size_t)1 << 20);
    memset(chunk, 'x', (size_t)1 << 20);
    sse_init(&parser, record, &out);
    bool goes_on = sse_feed(&parser, "data: ", 6);
    size_t fed = 0;
    while (goes_on && fed <= SSE_EVENT_MAX) {
        goes_on = sse_feed(&parser, chunk, (size_t)1 << 20);
        fed += (size_t)1 << 20;
    }
    cr_assert_not(goes_on);
    cr_assert_leq(parser.line.cap, 2 * SSE_EVENT_MAX);
    sse_free(&parser);
}
