/* SPDX-License-Identifier: Apache-2.0
 *
 * Glob patterns, compiled once and matched against relative paths (no leading slash, parts separated by one slash).
 *
 *   *        any characters but a slash, none included, a leading dot too (hidden files are files)
 *   ?        one character (UTF-8), not a slash
 *   [abc] [a-z] [!a] [^a] [[:alpha:]]   one character of a class; a `[` without its `]` in the same part is literal
 *   **       as a whole part: any number of parts, none included; at the end: everything below
 *   {a,b}    alternatives, may be nested and contain slashes; {}, {a} and an unclosed brace are literal; a class is not
 * looked into \x       x itself
 *
 * A pattern (or brace alternative) without a slash is matched against the last part of the path, at any depth; a
 * leading "./" is one. Matching takes O(pattern × path) per alternative whatever the pattern. Limits:
 * GLOB_ALTERNATIVES_MAX, GLOB_PARTS_MAX.
 */
#ifndef EW_AGENT_GLOB_MATCH_H
#define EW_AGENT_GLOB_MATCH_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>

#define GLOB_ALTERNATIVES_MAX 1024
#define GLOB_BYTES_MAX (256 * 1024) /* of all alternatives together */
#define GLOB_PARTS_MAX 63

typedef struct glob_pattern glob_pattern_t;

/* bad_request when the pattern goes over a limit. */
glob_pattern_t *glob_new(const char *pattern, err_t **e);
bool glob_match(const glob_pattern_t *g, const char *path);
/* May a path below this directory match? False lets a walk leave it out. */
bool glob_may_enter(const glob_pattern_t *g, const char *dir_path);
void glob_destroy(glob_pattern_t **g);

/* Length of the longest leading run of whole parts (with their slash) in which nothing is special: where a search can
 * start. */
size_t glob_literal_prefix(const char *pattern);

#endif
