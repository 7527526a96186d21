/* SPDX-License-Identifier: Apache-2.0
 *
 * The framing of a chunked body, held against RFC 9112 §7.1 beside http-parser, which takes any byte for the LF after a
 * CR and a bare LF inside an extension. A proxy in front of us that reads such bytes differently would see another end
 * of the request.
 */
#include "services/gateway/http/internal.h"

#include <string.h>

enum state { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, LINE_START, LINE, LINE_LF, LAST_LF, DONE };

static int digit(uint8_t b)
{
    return b >= '0' && b <= '9' ? b - '0' : (b | 0x20) >= 'a' && (b | 0x20) <= 'f' ? (b | 0x20) - 'a' + 10 : -1;
}

static bool step_size(http_chunked_t *c, uint8_t b)
{
    int value = digit(b);
    if (value >= 0 && c->left <= UINT64_MAX >> 4) {
        c->left = c->left << 4 | (unsigned)value;
        c->has_digit = true;
        return true;
    }
    c->state = b == '\r' ? SIZE_LF : EXTENSION;
    return c->has_digit && (b == '\r' || b == ';');
}

/* A byte that must be this one. */
static bool step_fixed(http_chunked_t *c, uint8_t b, char wanted, enum state next)
{
    c->state = (uint8_t)next;
    return b == (uint8_t)wanted;
}

static bool step_line(http_chunked_t *c, uint8_t b, enum state end)
{
    c->state = (uint8_t)(b == '\r' ? end : c->state == LINE_START ? LINE : c->state);
    return b != '\n';
}

static bool step(http_chunked_t *c, uint8_t b)
{
    switch ((enum state)c->state) {
    case SIZE:
        return step_size(c, b);
    case EXTENSION:
        return step_line(c, b, SIZE_LF);
    case SIZE_LF:
        c->has_digit = false;
        return step_fixed(c, b, '\n', c->left > 0 ? DATA : LINE_START);
    case DATA_CR:
        return step_fixed(c, b, '\r', DATA_LF);
    case DATA_LF:
        return step_fixed(c, b, '\n', SIZE);
    case LINE_START:
        return step_line(c, b, LAST_LF);
    case LINE:
        return step_line(c, b, LINE_LF);
    case LINE_LF:
        return step_fixed(c, b, '\n', LINE_START);
    case LAST_LF:
        return step_fixed(c, b, '\n', DONE);
    case DATA:
    case DONE:
        break;
    }
    return false; /* DATA is skipped by the caller; nothing follows DONE */
}

bool http_chunked_check(http_chunked_t *c, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len;) {
        if (c->state != DATA) {
            if (!step(c, bytes[i++])) {
                return false;
            }
            continue;
        }
        size_t take = len - i < c->left ? len - i : (size_t)c->left;
        i += take;
        c->left -= take;
        c->state = c->left > 0 ? DATA : DATA_CR;
    }
    return true;
}
