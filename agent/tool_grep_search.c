// SPDX-License-Identifier: Apache-2.0
/* Three ways, the first that is possible:
 *   1. the expression needs a literal: look for that (by its two rarest bytes), run the expression on the lines that
 * have it;
 *   2. the expression may run over many lines at once: one call of PCRE2 for a window of the block. Windows shrink when
 * a call takes long, so that a slow expression cannot hold the agent up;
 *   3. line by line. */
#include "agent/tool_grep_search.h"

#include "agent/tool_grep_pattern.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/text.h"

#include <stdio.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MATCH_LIMIT 1000000  /* backtracking steps per start position */
#define HEAP_LIMIT_KIB 16384 /* of the interpreter */
#define JIT_STACK_FIRST (32 * 1024)
#define JIT_STACK_MAX (512 * 1024)
#define WINDOW_FIRST ((size_t)256 * 1024)
#define WINDOW_LEAST ((size_t)4 * 1024)
#define WINDOW_SLOW_US 3000
#define CLOCK_EVERY 8 /* lines */

struct grep_search {
    grep_plan_t plan;
    size_t rare;   /* which byte of the literal is looked for */
    size_t second; /* and which one besides; the same when there is only one */
    pcre2_code *line_code;
    pcre2_code *buffer_code; /* NULL: line by line */
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
    size_t window;
};

/* The less common a byte is in source code and prose, the smaller. */
static unsigned how_common(uint8_t byte)
{
    static const char order[] = "zqjxkvwybgfpmucdhlrsnioate ";
    const char *at = byte ? strchr(order, byte) : NULL;
    if (at != NULL)
        return 100 + (unsigned)(at - order);
    return byte >= '0' && byte <= '9'                                 ? 80
           : byte >= 0x80                                             ? 90
           : byte == '_' || byte == '(' || byte == ')' || byte == '.' ? 100
                                                                      : 50;
}

/* The rarest byte's index, not counting `but`. */
static size_t rarest(const buf_t *literal, size_t but)
{
    size_t best = but == 0 && literal->len > 1 ? 1 : 0;
    for (size_t i = 0; i < literal->len; i++)
        if (i != but && how_common(literal->data[i]) < how_common(literal->data[best]))
            best = i;
    return best;
}

static pcre2_code *compile(const void *pattern, size_t len, uint32_t options, err_t **e)
{
    int code;
    size_t offset;
    char text[256] = "", details[64];
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (context == NULL)
        abort();
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_code *compiled = pcre2_compile(pattern, len, options, &code, &offset, context);
    pcre2_compile_context_free(context);
    if (compiled == NULL) {
        pcre2_get_error_message(code, (PCRE2_UCHAR8 *)text, sizeof text);
        err_set(e, ERR_BAD_REQUEST, "the pattern is not a valid regular expression: %s at offset %zu", text, offset);
        snprintf(details, sizeof details, "{\"offset\":%zu}", offset);
        err_set_details(*e, details);
        return NULL;
    }
    (void)pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); /* where it cannot be had, PCRE2 interprets */
    return compiled;
}

static void make_buffer_code(grep_search_t *g, uint32_t options)
{
    err_t *ignored = NULL;
    if (!g->plan.is_buffer_safe)
        return;
    g->buffer_code = compile(g->plan.buffer_pattern.data ? g->plan.buffer_pattern.data : (const uint8_t *)"",
                             g->plan.buffer_pattern.len, options | PCRE2_MULTILINE | PCRE2_ALT_CIRCUMFLEX, &ignored);
    err_free(&ignored); /* line by line is always possible */
}

grep_search_t *grep_search_new(const char *pattern, bool ignores_case, err_t **e)
{
    size_t len = strlen(pattern);
    uint32_t options = PCRE2_NEVER_BACKSLASH_C | (ignores_case ? PCRE2_CASELESS : 0);
    if (utf8_is_valid(pattern, len))
        options |= PCRE2_UTF | PCRE2_MATCH_INVALID_UTF;
    grep_search_t *g = mem_alloc(sizeof *g);
    grep_plan_make(&g->plan, pattern, ignores_case);
    g->window = WINDOW_FIRST;
    g->line_code = compile(pattern, len, options, e);
    if (g->line_code == NULL) {
        grep_search_destroy(&g);
        return NULL;
    }
    if (g->plan.literal.len == 0) {
        make_buffer_code(g, options);
    } else {
        g->rare = rarest(&g->plan.literal, SIZE_MAX);
        g->second = rarest(&g->plan.literal, g->rare);
    }
    g->match = pcre2_match_data_create(1, NULL);
    g->limits = pcre2_match_context_create(NULL);
    g->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MAX, NULL);
    if (g->match == NULL || g->limits == NULL)
        abort();
    pcre2_set_match_limit(g->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(g->limits, HEAP_LIMIT_KIB);
    if (g->stack != NULL)
        pcre2_jit_stack_assign(g->limits, NULL, g->stack);
    return g;
}

void grep_search_destroy(grep_search_t **g)
{
    if (*g == NULL)
        return;
    grep_plan_free(&(*g)->plan);
    pcre2_code_free((*g)->line_code);
    pcre2_code_free((*g)->buffer_code);
    pcre2_match_data_free((*g)->match);
    pcre2_match_context_free((*g)->limits);
    pcre2_jit_stack_free((*g)->stack);
    free(*g);
    *g = NULL;
}

static int run(const grep_search_t *g, const pcre2_code *code, const char *text, size_t len)
{
    int n = pcre2_match(code, (PCRE2_SPTR)text, len, 0, 0, g->match, g->limits);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = pcre2_match(code, (PCRE2_SPTR)text, len, 0, PCRE2_NO_JIT, g->match, g->limits);
    return n;
}

static size_t end_of_line(const char *block, size_t len, size_t from)
{
    const char *newline = memchr(block + from, '\n', len - from);
    return newline ? (size_t)(newline - block) : len;
}

static size_t start_of_line(const char *block, size_t from, size_t at)
{
    const char *newline = memrchr(block + from, '\n', at - from);
    return newline ? (size_t)(newline - block) + 1 : from;
}

/* The line that starts at *from. GREP_NONE: *from stands behind it. */
static enum grep_result try_line(const grep_search_t *g, const char *block, size_t len, size_t *from, size_t *line_end)
{
    *line_end = end_of_line(block, len, *from);
    int n = run(g, g->line_code, block + *from, *line_end - *from);
    if (n >= 0)
        return GREP_MATCH;
    if (n != PCRE2_ERROR_NOMATCH)
        return GREP_TOO_HARD;
    *from = *line_end + 1;
    return GREP_NONE;
}

static bool is_literal_at(const grep_search_t *g, const char *block, size_t len, size_t at)
{
    const buf_t *literal = &g->plan.literal;
    return literal->len <= len - at && memcmp(block + at, literal->data, literal->len) == 0;
}

/* Looks at both bytes of 64 places at once with the compiler's vectors: the first place where both fit, or the first
 * that was not looked at because the block ends. */
static size_t skip_places(const grep_search_t *g, const char *block, size_t len, size_t at)
{
    typedef uint8_t vec_t __attribute__((vector_size(16)));
    vec_t rare, second;
    size_t reach = 64 + (g->rare > g->second ? g->rare : g->second);
    memset(&rare, g->plan.literal.data[g->rare], sizeof rare);
    memset(&second, g->plan.literal.data[g->second], sizeof second);
    for (; reach <= len - at; at += 64) {
        vec_t hits[4];
        uint64_t any[2];
        for (size_t i = 0; i < 4; i++) {
            vec_t a, b;
            memcpy(&a, block + at + 16 * i + g->rare, sizeof a);
            memcpy(&b, block + at + 16 * i + g->second, sizeof b);
            hits[i] = (vec_t)(a == rare) & (vec_t)(b == second);
        }
        vec_t all = hits[0] | hits[1] | hits[2] | hits[3];
        memcpy(any, &all, sizeof any);
        if ((any[0] | any[1]) == 0)
            continue;
        for (size_t i = 0; i < 64; i++)
            if (hits[i / 16][i % 16] != 0)
                return at + i;
    }
    return at;
}

/* Where the literal stands at or behind `from`; `len` when nowhere. */
static size_t find_literal(const grep_search_t *g, const char *block, size_t len, size_t from)
{
    for (size_t at = from; at < len; at++) {
        at = skip_places(g, block, len, at);
        const char *hit =
            at + g->rare < len ? memchr(block + at + g->rare, g->plan.literal.data[g->rare], len - at - g->rare) : NULL;
        if (hit == NULL)
            return len;
        at = (size_t)(hit - block) - g->rare;
        if (is_literal_at(g, block, len, at))
            return at;
    }
    return len;
}

static enum grep_result next_by_literal(grep_search_t *g, const char *block, size_t len, size_t *from, size_t *line_end,
                                        uint64_t until_us)
{
    for (unsigned i = 1; *from < len; i++) {
        size_t at = find_literal(g, block, len, *from);
        if (at == len)
            break;
        *from = start_of_line(block, *from, at);
        if (g->plan.is_all_literal) {
            *line_end = end_of_line(block, len, at);
            return GREP_MATCH;
        }
        enum grep_result result = try_line(g, block, len, from, line_end);
        if (result != GREP_NONE)
            return result;
        if (i % CLOCK_EVERY == 0 && clock_monotonic_us() >= until_us)
            return GREP_AGAIN;
    }
    *from = len;
    return GREP_NONE;
}

static enum grep_result next_by_line(grep_search_t *g, const char *block, size_t len, size_t *from, size_t *line_end,
                                     uint64_t until_us)
{
    for (unsigned i = 1; *from < len; i++) {
        enum grep_result result = try_line(g, block, len, from, line_end);
        if (result != GREP_NONE)
            return result;
        if (i % CLOCK_EVERY == 0 && clock_monotonic_us() >= until_us)
            return GREP_AGAIN;
    }
    *from = len;
    return GREP_NONE;
}

/* The end, without its newline, of a run of whole lines of about one window. */
static size_t window_end(const grep_search_t *g, const char *block, size_t len, size_t from)
{
    if (len - from <= g->window)
        return block[len - 1] == '\n' ? len - 1 : len;
    return end_of_line(block, len, from + g->window);
}

/* What to make of PCRE2's answer for the window [*from, end). */
static enum grep_result judge_window(grep_search_t *g, int n, const char *block, size_t len, size_t end, size_t *from,
                                     size_t *line_end)
{
    if (n == PCRE2_ERROR_NOMATCH) {
        *from = end + 1;
        return GREP_NONE;
    }
    if (n < 0) { /* too hard for all of it: see which line it is */
        pcre2_code_free(STEAL_PTR(g->buffer_code));
        return GREP_NONE;
    }
    const size_t *span = pcre2_get_ovector_pointer(g->match);
    size_t at = *from + span[0], to = *from + span[1];
    *from = start_of_line(block, *from, at);
    *line_end = end_of_line(block, len, at);
    return to <= *line_end ? GREP_MATCH : try_line(g, block, len, from, line_end);
}

static enum grep_result next_by_window(grep_search_t *g, const char *block, size_t len, size_t *from, size_t *line_end,
                                       uint64_t until_us)
{
    uint64_t before = clock_monotonic_us();
    while (*from < len && g->buffer_code != NULL) {
        size_t end = window_end(g, block, len, *from);
        int n = run(g, g->buffer_code, block + *from, end - *from);
        enum grep_result result = judge_window(g, n, block, len, end, from, line_end);
        if (result != GREP_NONE)
            return result;
        uint64_t now = clock_monotonic_us();
        if (now - before > WINDOW_SLOW_US && g->window > WINDOW_LEAST)
            g->window /= 2;
        if (now >= until_us && *from < len)
            return GREP_AGAIN;
        before = now;
    }
    return *from < len ? next_by_line(g, block, len, from, line_end, until_us) : GREP_NONE;
}

enum grep_result grep_search_next(grep_search_t *g, const char *block, size_t len, size_t *from, size_t *line_end,
                                  uint64_t until_us)
{
    if (*from >= len)
        return GREP_NONE;
    if (g->plan.literal.len > 0)
        return next_by_literal(g, block, len, from, line_end, until_us);
    if (g->buffer_code != NULL)
        return next_by_window(g, block, len, from, line_end, until_us);
    return next_by_line(g, block, len, from, line_end, until_us);
}
