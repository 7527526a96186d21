/* SPDX-License-Identifier: Apache-2.0
 *
 * One part of a glob pattern (between slashes) against one name. See agent/glob_match.h for the language.
 */
#ifndef EW_AGENT_GLOB_PART_H
#define EW_AGENT_GLOB_PART_H

#include <stdbool.h>
#include <stddef.h>

enum glob_part_kind {
    GLOB_PART_LITERAL,
    GLOB_PART_SUFFIX /* a star, then literal */,
    GLOB_PART_DEEP /* ** */,
    GLOB_PART_WILD
};

typedef struct glob_part {
    enum glob_part_kind kind;
    const char *text; /* borrowed */
    size_t len;
} glob_part_t;

glob_part_t glob_part_of(const char *text, size_t len);
bool glob_part_match(const glob_part_t *part, const char *name, size_t len);

/* Length of the bracket expression at the start of `text`, 0 when it does not close within `len`. */
size_t glob_class_length(const char *text, size_t len);

#endif
