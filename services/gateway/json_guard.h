/* SPDX-License-Identifier: Apache-2.0
 *
 * Looks over JSON text before a parser that allocates sees it. Three bytes such as "[]," become a hundred in memory,
 * so a body within its limit could cost gigabytes; no message of ours has that many values.
 */
#ifndef EW_GATEWAY_JSON_GUARD_H
#define EW_GATEWAY_JSON_GUARD_H

#include <stddef.h>

#define JSON_GUARD_VALUES_MAX 50000 /* about 10 MB as a tree; the longest list of a message has 4096 */
#define JSON_GUARD_DEPTH_MAX 64

/* NULL, or why the text is not parsed. Says nothing about whether it is JSON. */
const char *json_guard(const char *text, size_t len);

#endif
