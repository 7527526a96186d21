// SPDX-License-Identifier: Apache-2.0
#include "agent/glob_match.h"

#include "agent/glob_part.h"
#include "common/buf.h"
#include "common/mem.h"

#include <stdint.h>

#define WORK_MAX (8 * 1024 * 1024)

/* One brace alternative: its text, cut into parts at the slashes. */
typedef struct alternative {
    char *text;
    glob_part_t *parts;
    unsigned count;
    bool is_name_only; /* had no slash: matched against the last part of a path */
} alternative_t;

struct glob_pattern {
    alternative_t *alternatives;
    size_t count;
    size_t bytes;
    size_t work; /* bytes copied while expanding: nested braces may cost much and yield little */
};

/* ---- braces ---- */

/* The index behind the element that starts at `at`: an escape, a class or one byte. */
static size_t skip_element(const char *p, size_t at)
{
    if (p[at] == '\\' && p[at + 1] != '\0')
        return at + 2;
    if (p[at] == '[') {
        size_t len = glob_class_length(p + at, strcspn(p + at, "/"));
        return at + (len ? len : 1);
    }
    return at + 1;
}

/* The brace that closes the one at `open`, and whether a comma stands between: 0 = none. */
static size_t find_close(const char *p, size_t open, bool *has_comma)
{
    unsigned depth = 0;
    *has_comma = false;
    for (size_t at = open; p[at] != '\0'; at = skip_element(p, at)) {
        if (p[at] == '{')
            depth++;
        else if (p[at] == ',' && depth == 1)
            *has_comma = true;
        else if (p[at] == '}' && --depth == 0)
            return at;
    }
    return 0;
}

static int too_many(err_t **e)
{
    return err_set(e, ERR_BAD_REQUEST, "the pattern's braces stand for more than %d alternatives or %d bytes",
                   GLOB_ALTERNATIVES_MAX, GLOB_BYTES_MAX);
}

static int add_alternative(glob_pattern_t *g, const char *text, err_t **e)
{
    size_t len = strlen(text);
    if (g->count == GLOB_ALTERNATIVES_MAX || g->bytes + len > GLOB_BYTES_MAX)
        return too_many(e);
    g->alternatives = mem_realloc(g->alternatives, (g->count + 1) * sizeof *g->alternatives);
    g->alternatives[g->count++] = (alternative_t){.text = mem_strndup(text, len)};
    g->bytes += len;
    return 0;
}

static int expand(glob_pattern_t *g, const char *pattern, size_t from, err_t **e);

/* Expands each choice of the braces at open…close on its own, in front of what follows. */
static int expand_choices(glob_pattern_t *g, const char *p, size_t open, size_t close, err_t **e)
{
    unsigned depth = 0;
    size_t start = open + 1;
    for (size_t at = open + 1; at <= close; at = skip_element(p, at)) {
        bool is_edge = at == close || (p[at] == ',' && depth == 0);
        if (is_edge) {
            auto_free char *text = mem_printf("%.*s%.*s%s", (int)open, p, (int)(at - start), p + start, p + close + 1);
            g->work += strlen(text);
            if (g->work > WORK_MAX)
                return too_many(e);
            if (expand(g, text, open, e) != 0)
                return -1;
            start = at + 1;
        } else if (p[at] == '{') {
            depth++;
        } else if (p[at] == '}') {
            depth--;
        }
    }
    return 0;
}

/* Depth is bounded: every level takes a pair of braces out of a text of at most 4095 bytes, and alternatives are
 * counted. */
static int expand(glob_pattern_t *g, const char *pattern, size_t from, err_t **e)
{
    bool has_comma;
    for (size_t at = from; pattern[at] != '\0'; at = skip_element(pattern, at)) {
        if (pattern[at] != '{')
            continue;
        size_t close = find_close(pattern, at, &has_comma);
        if (close != 0 && has_comma)
            return expand_choices(g, pattern, at, close, e);
    }
    return add_alternative(g, pattern, e);
}

/* ---- parts ---- */

static int add_part(alternative_t *a, const char *text, size_t len, err_t **e)
{
    if (a->count == GLOB_PARTS_MAX)
        return err_set(e, ERR_BAD_REQUEST, "the pattern has more than %d parts", GLOB_PARTS_MAX);
    glob_part_t part = glob_part_of(text, len);
    if (part.kind == GLOB_PART_DEEP && a->count > 0 && a->parts[a->count - 1].kind == GLOB_PART_DEEP)
        return 0; /* two in a row say the same as one */
    a->parts = mem_realloc(a->parts, (a->count + 1) * sizeof *a->parts);
    a->parts[a->count++] = part;
    return 0;
}

static int split(alternative_t *a, err_t **e)
{
    const char *p = a->text;
    bool is_rooted = p[0] == '.' && p[1] == '/';
    while (p[0] == '.' && p[1] == '/')
        p += 2;
    size_t text_len = strlen(p);
    if (text_len > 0 && p[text_len - 1] == '/')
        return 0; /* asks for a directory: no file can match */
    a->is_name_only = !is_rooted && strchr(p, '/') == NULL && strcmp(p, "**") != 0;
    while (*p != '\0') {
        size_t len = strcspn(p, "/");
        if (len > 0 && add_part(a, p, len, e) != 0)
            return -1;
        p += len + (p[len] == '/');
    }
    /* "everything below" means at least one more part */
    if (a->count > 0 && a->parts[a->count - 1].kind == GLOB_PART_DEEP)
        return add_part(a, "*", 1, e);
    return 0;
}

glob_pattern_t *glob_new(const char *pattern, err_t **e)
{
    glob_pattern_t *g = mem_alloc(sizeof *g);
    int result = expand(g, pattern, 0, e);
    for (size_t i = 0; result == 0 && i < g->count; i++)
        result = split(&g->alternatives[i], e);
    if (result != 0)
        glob_destroy(&g);
    return g;
}

void glob_destroy(glob_pattern_t **g)
{
    if (*g == NULL)
        return;
    for (size_t i = 0; i < (*g)->count; i++) {
        free((*g)->alternatives[i].text);
        free((*g)->alternatives[i].parts);
    }
    free((*g)->alternatives);
    free(*g);
    *g = NULL;
}

/* ---- matching: bit i of a state set = the first i parts are used up ---- */

static uint64_t with_deep_skipped(const alternative_t *a, uint64_t states)
{
    for (unsigned i = 0; i < a->count; i++)
        if (states >> i & 1 && a->parts[i].kind == GLOB_PART_DEEP)
            states |= (uint64_t)1 << (i + 1);
    return states;
}

static uint64_t step(const alternative_t *a, uint64_t states, const char *name, size_t len)
{
    uint64_t next = 0;
    for (unsigned i = 0; i < a->count; i++) {
        if (!(states >> i & 1))
            continue;
        if (a->parts[i].kind == GLOB_PART_DEEP)
            next |= (uint64_t)1 << i;
        else if (glob_part_match(&a->parts[i], name, len))
            next |= (uint64_t)1 << (i + 1);
    }
    return with_deep_skipped(a, next);
}

static uint64_t run(const alternative_t *a, const char *path)
{
    uint64_t states = with_deep_skipped(a, 1);
    while (*path != '\0' && states != 0) {
        size_t len = strcspn(path, "/");
        states = step(a, states, path, len);
        path += len + (path[len] == '/');
    }
    return states;
}

bool glob_match(const glob_pattern_t *g, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    for (size_t i = 0; i < g->count; i++) {
        const alternative_t *a = &g->alternatives[i];
        if (a->count > 0 && run(a, a->is_name_only ? name : path) >> a->count & 1)
            return true;
    }
    return false;
}

bool glob_may_enter(const glob_pattern_t *g, const char *dir_path)
{
    for (size_t i = 0; i < g->count; i++) {
        const alternative_t *a = &g->alternatives[i];
        uint64_t unfinished = ((uint64_t)1 << a->count) - 1;
        if (a->count > 0 && (a->is_name_only || (run(a, dir_path) & unfinished) != 0))
            return true;
    }
    return false;
}

size_t glob_literal_prefix(const char *pattern)
{
    size_t special = strcspn(pattern, "*?[{\\");
    if (pattern[special] == '\0') {
        const char *slash = strrchr(pattern, '/');
        return slash ? (size_t)(slash - pattern) + 1 : 0;
    }
    while (special > 0 && pattern[special - 1] != '/')
        special--;
    return special;
}
