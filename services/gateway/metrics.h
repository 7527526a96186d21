/* SPDX-License-Identifier: Apache-2.0
 *
 * Prometheus text format, version 0.0.4, from two sources: what the gate counts per route (status, latency), and a
 * table of gauges read when asked. Names begin with `ew_`; a label never holds anything a caller chose.
 */
#ifndef EW_GATEWAY_METRICS_H
#define EW_GATEWAY_METRICS_H

#include "services/gateway/gateway.h"

metrics_t *metrics_new(void);
void metrics_destroy(metrics_t **m);
void metrics_request(metrics_t *m, const route_t *route, int status,
                     uint64_t duration_us); /* route NULL = unknown path */
void metrics_write(gateway_t *gw, buf_t *out);

#endif
