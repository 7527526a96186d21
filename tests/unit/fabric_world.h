/* SPDX-License-Identifier: Apache-2.0
 *
 * A hub and a link of the fabric in one event loop, and what their events told; for the tests of the fabric.
 */
#ifndef EW_TESTS_FABRIC_WORLD_H
#define EW_TESTS_FABRIC_WORLD_H

#include "common/fabric.h"

/* One end: what its events told. */
typedef struct end {
    fabric_t *fabric;
    fabric_peer_t *peer; /* last one up */
    unsigned ups, downs, frames, writables, statuses;
    char reason[512], instance[65];
    char status_name[33];
    envelope_t env;
    buf_t body;
    bool echoes;
} end_t;

typedef struct world {
    struct event_base *base;
    char dir[64];
    char endpoint[128];
    end_t hub, link;
} world_t;

extern const fabric_events_t end_events;

void make_world(world_t *w);
void start_hub(world_t *w, const char *instance);
void start_link(world_t *w, const char *instance);
void end_world(world_t *w);
void run_ms(world_t *w, unsigned ms);
bool reaches(world_t *w, const unsigned *counter, unsigned value, unsigned ms);

#endif
