// SPDX-License-Identifier: Apache-2.0
#include "agent/tool_grep_pattern.h"

#include <ctype.h>
#include <string.h>

typedef struct scan {
    grep_plan_t *plan;
    const char *at;
    buf_t run; /* literal bytes in a row at the outermost level */
    unsigned depth;
    bool is_plain;    /* nothing special seen */
    bool has_choice;  /* | at the outermost level: no literal is required */
    bool was_char;    /* the element just read is the last character of `run` */
    bool is_given_up; /* something whose effect is not known here */
} scan_t;

static void end_run(scan_t *s)
{
    if (s->run.len > s->plan->literal.len) {
        buf_reset(&s->plan->literal);
        buf_append(&s->plan->literal, s->run.data, s->run.len);
    }
    buf_reset(&s->run);
    s->was_char = false;
}

static void special(scan_t *s)
{
    end_run(s);
    s->is_plain = false;
}

static void copy(scan_t *s, size_t len)
{
    buf_append(&s->plan->buffer_pattern, s->at, len);
    s->at += len;
}

static void literal_byte(scan_t *s, char byte)
{
    if (s->depth == 0) {
        buf_append_byte(&s->run, (uint8_t)byte);
        s->was_char = true;
    } else {
        s->was_char = false;
    }
}

/* Classes that match a newline too, written so that they do not. */
static const char *without_newline(char letter)
{
    switch (letter) {
    case 's':
        return "[^\\S\\n]";
    case 'W':
        return "[^\\w\\n]";
    case 'D':
        return "[^\\d\\n]";
    case 'H':
        return "[^\\h\\n]";
    default:
        return NULL;
    }
}

static void scan_escape(scan_t *s)
{
    char c = s->at[1];
    if (c == '\0') {
        s->is_given_up = true;
        return;
    }
    if (!isalnum((unsigned char)c)) {
        literal_byte(s, c);
        copy(s, 2);
        return;
    }
    special(s);
    const char *narrow = without_newline(c);
    if (narrow != NULL) {
        buf_append_str(&s->plan->buffer_pattern, narrow);
        s->at += 2;
    } else if (strchr("dwSbBhtfrea", c) != NULL) {
        copy(s, 2);
    } else {
        s->is_given_up = true; /* anchors, quotes, references, properties, codes */
    }
}

/* A bracket expression: copied, a negated one with the newline added. */
static void scan_class(scan_t *s)
{
    bool is_negated = s->at[1] == '^';
    special(s);
    copy(s, is_negated ? 2 : 1);
    if (is_negated)
        buf_append_str(&s->plan->buffer_pattern, s->at[0] == ']' ? "" : "\\n");
    bool is_late = is_negated && s->at[0] == ']';
    if (s->at[0] == ']')
        copy(s, 1);
    if (is_late)
        buf_append_str(&s->plan->buffer_pattern, "\\n");
    while (*s->at != ']') {
        if (*s->at == '\0' || (*s->at == '\\' && (s->at[1] == '\0' || s->at[1] == 'Q' || s->at[1] == 'E'))) {
            s->is_given_up = true;
            return;
        }
        if (*s->at == '\\') {
            if (!is_negated && without_newline(s->at[1]) != NULL)
                s->plan->is_buffer_safe = false; /* [\s\S]* would run through the whole file */
            copy(s, 2);
        } else if (*s->at == '[' && (s->at[1] == ':' || s->at[1] == '.' || s->at[1] == '=')) {
            const char *close = strstr(s->at + 2, ":]");
            if (s->at[1] != ':' || close == NULL) {
                s->is_given_up = true;
                return;
            }
            copy(s, (size_t)(close + 2 - s->at));
        } else {
            copy(s, 1);
        }
    }
    copy(s, 1);
}

/* After ? * + or {…}: what it makes optional is no part of a literal. */
static void scan_quantifier(scan_t *s)
{
    size_t len = *s->at == '{' ? strcspn(s->at, "}") + 1 : 1;
    if (*s->at == '{' && s->at[len - 1] == '\0') {
        s->is_given_up = true;
        return;
    }
    if (s->was_char && *s->at != '+') {
        size_t n = s->run.len;
        while (n > 0 && (s->run.data[n - 1] & 0xc0) == 0x80) /* a whole character */
            n--;
        buf_truncate(&s->run, n > 0 ? n - 1 : 0);
    }
    special(s);
    copy(s, len);
    if (*s->at == '+') {
        s->plan->is_buffer_safe = false; /* possessive: takes bytes of the next line and does not give them back */
        copy(s, 1);
    } else if (*s->at == '?') {
        copy(s, 1);
    }
}

static void scan_group(scan_t *s)
{
    special(s);
    if (s->at[1] == '*' || (s->at[1] == '?' && s->at[2] != ':')) {
        s->is_given_up = true; /* verbs, options, look-around, atomic groups */
        return;
    }
    s->depth++;
    copy(s, s->at[1] == '?' ? 3 : 1);
}

static void scan_element(scan_t *s)
{
    switch (*s->at) {
    case '\\':
        scan_escape(s);
        return;
    case '[':
        scan_class(s);
        return;
    case '(':
        scan_group(s);
        return;
    case '*':
    case '+':
    case '?':
    case '{':
        scan_quantifier(s);
        return;
    case ')':
        s->depth -= s->depth > 0;
        break;
    case '|':
        s->has_choice |= s->depth == 0;
        break;
    case '^':
    case '$':
    case '.':
        break;
    default:
        literal_byte(s, *s->at);
        copy(s, 1);
        return;
    }
    special(s);
    copy(s, 1);
}

void grep_plan_make(grep_plan_t *plan, const char *pattern, bool ignores_case)
{
    scan_t s = {.plan = plan, .at = pattern, .is_plain = true};
    buf_init(&plan->literal, 0);
    buf_init(&plan->buffer_pattern, 0);
    buf_init(&s.run, 0);
    plan->is_buffer_safe = true;
    while (*s.at != '\0' && !s.is_given_up)
        scan_element(&s);
    end_run(&s);
    buf_free(&s.run);
    if (s.is_given_up)
        plan->is_buffer_safe = false;
    if (s.is_given_up || s.has_choice || ignores_case)
        buf_reset(&plan->literal);
    plan->is_all_literal = s.is_plain && plan->literal.len > 0;
    if (memchr(plan->literal.len ? plan->literal.data : (const uint8_t *)"", '\n', plan->literal.len) != NULL) {
        plan->is_buffer_safe = false; /* can match no line at all; the plain way finds that out */
        plan->is_all_literal = false;
        buf_reset(&plan->literal);
    }
}

void grep_plan_free(grep_plan_t *plan)
{
    buf_free(&plan->literal);
    buf_free(&plan->buffer_pattern);
}
