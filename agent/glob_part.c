// SPDX-License-Identifier: Apache-2.0
#include "agent/glob_part.h"

#include "common/mem.h"
#include "common/text.h"

#include <ctype.h>
#include <stdint.h>

#define NAME_MAX_CLASS 16

glob_part_t glob_part_of(const char *text, size_t len)
{
    glob_part_t part = {.text = text, .len = len, .kind = GLOB_PART_LITERAL};
    size_t special = 0;
    for (size_t i = 0; i < len; i++)
        special += strchr("*?[\\", text[i]) != NULL;
    if (len == 2 && text[0] == '*' && text[1] == '*')
        part.kind = GLOB_PART_DEEP;
    else if (special == 1 && text[0] == '*')
        part.kind = GLOB_PART_SUFFIX;
    else if (special > 0)
        part.kind = GLOB_PART_WILD;
    return part;
}

/* The character at `at`: its code point, or the byte itself plus an offset beyond Unicode where it is not UTF-8. */
static uint32_t take(const char *text, size_t len, size_t *at)
{
    const uint8_t *p = (const uint8_t *)text + *at;
    size_t left = len - *at;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (n == 1 || n > left || utf8_valid_prefix(p, n) != n) {
        *at += 1;
        return p[0] < 0x80 ? p[0] : 0x110000U + p[0];
    }
    uint32_t c = p[0] & (0xffU >> (n + 1));
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (p[i] & 0x3fU);
    *at += n;
    return c;
}

/* ---- classes ---- */

static size_t posix_length(const char *text, size_t len)
{
    if (len < 4 || text[0] != '[' || text[1] != ':')
        return 0;
    for (size_t i = 2; i + 1 < len; i++)
        if (text[i] == ':' && text[i + 1] == ']')
            return i + 2;
    return 0;
}

size_t glob_class_length(const char *text, size_t len)
{
    size_t at = 1;
    if (at < len && (text[at] == '!' || text[at] == '^'))
        at++;
    size_t first = at;
    while (at < len) {
        if (text[at] == ']' && at > first)
            return at + 1;
        size_t posix = posix_length(text + at, len - at);
        at += posix ? posix : text[at] == '\\' && at + 1 < len ? 2 : 1;
    }
    return 0;
}

static bool is_posix(const char *name, size_t len, uint32_t c)
{
    static const struct {
        const char *name;
        int (*is)(int);
    } rows[] = {{"alpha", isalpha}, {"digit", isdigit}, {"alnum", isalnum}, {"upper", isupper},
                {"lower", islower}, {"space", isspace}, {"blank", isblank}, {"punct", ispunct},
                {"cntrl", iscntrl}, {"graph", isgraph}, {"print", isprint}, {"xdigit", isxdigit}};
    if (c >= 0x80)
        return false;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0)
            return rows[i].is((int)c) != 0;
    return false;
}

static uint32_t take_escaped(const char *text, size_t end, size_t *at)
{
    if (text[*at] == '\\' && *at + 1 < end)
        (*at)++;
    return take(text, end, at);
}

/* `len` is the class's length with both brackets. */
static bool class_has(const char *text, size_t len, uint32_t c)
{
    size_t end = len - 1, at = 1;
    bool is_negated = text[1] == '!' || text[1] == '^';
    bool is_hit = false;
    at += is_negated;
    while (at < end) {
        size_t posix = posix_length(text + at, end - at);
        if (posix > 0) {
            is_hit |= is_posix(text + at + 2, posix - 4, c);
            at += posix;
            continue;
        }
        uint32_t low = take_escaped(text, end, &at), high = low;
        if (at + 1 < end && text[at] == '-') {
            at++;
            high = take_escaped(text, end, &at);
        }
        is_hit |= c >= low && c <= high;
    }
    return is_hit != is_negated;
}

/* ---- matching ---- */

/* One element that is not a star against the character at *name_at; moves both on success. */
static bool match_one(const glob_part_t *part, size_t *at, const char *name, size_t len, size_t *name_at)
{
    const char *p = part->text;
    size_t next_name = *name_at;
    uint32_t c = take(name, len, &next_name);
    size_t next = *at;
    if (p[next] == '?') {
        next++;
    } else if (p[next] == '[' && glob_class_length(p + next, part->len - next) > 0) {
        size_t n = glob_class_length(p + next, part->len - next);
        if (!class_has(p + next, n, c))
            return false;
        next += n;
    } else if (take_escaped(p, part->len, &next) != c) {
        return false;
    }
    *at = next;
    *name_at = next_name;
    return true;
}

/* Backs up to the last star only: it can take over whatever an earlier one would have taken. */
static bool match_wild(const glob_part_t *part, const char *name, size_t len)
{
    size_t at = 0, name_at = 0, star = SIZE_MAX, star_name = 0;
    while (name_at < len) {
        if (at < part->len && part->text[at] == '*') {
            star = ++at;
            star_name = name_at;
        } else if (at < part->len && match_one(part, &at, name, len, &name_at)) {
            continue;
        } else if (star != SIZE_MAX) {
            (void)take(name, len, &star_name);
            name_at = star_name;
            at = star;
        } else {
            return false;
        }
    }
    while (at < part->len && part->text[at] == '*')
        at++;
    return at == part->len;
}

bool glob_part_match(const glob_part_t *part, const char *name, size_t len)
{
    switch (part->kind) {
    case GLOB_PART_LITERAL:
        return len == part->len && memcmp(part->text, name, len) == 0;
    case GLOB_PART_SUFFIX: {
        size_t suffix = part->len - 1;
        return len >= suffix && memcmp(part->text + 1, name + len - suffix, suffix) == 0;
    }
    case GLOB_PART_DEEP:
        return true;
    case GLOB_PART_WILD:
        return match_wild(part, name, len);
    }
    return false;
}
