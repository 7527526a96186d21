/* SPDX-License-Identifier: Apache-2.0
 *
 * RFC 3339 times of the REST API, always UTC, milliseconds.
 */
#ifndef EW_GATEWAY_WORKSPACE_TIME_H
#define EW_GATEWAY_WORKSPACE_TIME_H

#include <stdbool.h>
#include <stdint.h>

#define RFC3339_SIZE 40

/* Fills text and returns it: "2026-11-26T17:04:35.123Z". */
const char *rfc3339_format(int64_t realtime_ms, char text[RFC3339_SIZE]);
/* Date, 'T', time, optional fraction, 'Z' or offset. False for anything else. */
bool rfc3339_parse(const char *text, int64_t *realtime_ms);

#endif
