// SPDX-License-Identifier: Apache-2.0
// LINK: agent/lines.c common/mem.c common/buf.c
/* A window of lines: first, count, max and cut from the first bytes, the rest is text. In one piece and in two it is
 * the same. */
#include "agent/lines.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(lines_t *l, buf_t *out, const uint8_t *how, const uint8_t *text, size_t len, size_t cut)
{
    buf_init(out, 0);
    lines_init(l, how[0], how[1] ? how[1] : UINT64_MAX, (size_t)how[2] + 1, out);
    l->is_exact = how[3] & 1;
    l->is_numbered = !l->is_exact && (how[3] & 2);
    lines_feed(l, text, cut);
    lines_feed(l, text + cut, len - cut);
    lines_end(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lines_t a, b;
    buf_t out_a, out_b;
    if (size < 5)
        return 0;
    run(&a, &out_a, data, data + 5, size - 5, 0);
    run(&b, &out_b, data, data + 5, size - 5, data[4] % (size - 4));
    if (a.total != b.total || a.next_line != b.next_line || a.is_truncated != b.is_truncated ||
        out_a.len != out_b.len || out_a.len > (size_t)data[2] + 1 ||
        (out_a.len > 0 && memcmp(out_a.data, out_b.data, out_a.len) != 0))
        abort();
    buf_free(&out_a);
    buf_free(&out_b);
    return 0;
}
