/* SPDX-License-Identifier: Apache-2.0
 *
 * The provider kit with a fake vtable and a hub that plays the gateway, all in one process and one loop. Shortest use:
 *
 *   kit_world_t w;
 *   uuid16_t id;
 *   kit_world_open(&w, &fake_ops);
 *   kit_world_create(&w, &id);
 *   kit_world_close(&w);            // destroys what is left and looks for leftovers
 *
 * kit_world_crash() ends the kit as kill -9 would: nothing is saved, nothing is told to the provider but forget.
 */
#ifndef EW_TESTS_UNIT_KIT_WORLD_H
#define EW_TESTS_UNIT_KIT_WORLD_H

#include "common/call.h"
#include "common/provider/provider.h"
#include "tests/unit/fake_vtable.h"

#define KIT_WORLD_WAIT_MS 30000

typedef struct kit_reply {
    bool is_done;
    enum err_code code; /* NONE: a reply */
    char message[1001];
    buf_t body;
    call_t *call;
} kit_reply_t;

typedef struct kit_world {
    struct event_base *base;
    char dir[64];
    daemon_t daemon;
    const provider_ops_t *ops;
    provider_t *provider;
    fake_t fake;
    fabric_t *fabric;
    call_table_t *calls;
    fabric_peer_t *peer; /* the kit, NULL while it is down */
    unsigned ready_events, restarted_events, dead_events;
    char reason[256]; /* of the last restarted or dead */
} kit_world_t;

void kit_world_open(kit_world_t *w, const provider_ops_t *ops);
void kit_world_crash(kit_world_t *w);
void kit_world_start(kit_world_t *w); /* waits for its link */
void kit_world_close(kit_world_t *w);

void kit_world_run(kit_world_t *w, unsigned ms);
/* Runs the loop until the flag or the counter is set; fails the test when it takes too long. */
void kit_world_until(kit_world_t *w, const bool *flag);
void kit_world_until_count(kit_world_t *w, const unsigned *counter, unsigned value);
void kit_world_until_state(kit_world_t *w, const uuid16_t *id, const char *state);

/* The reply must stay until it is done; free its body. call_id 0 = a new one. */
void kit_world_start_call(kit_world_t *w, enum verb verb, const uuid16_t *id, uint64_t call_id, unsigned msg_id,
                          const void *msg, kit_reply_t *r);
void kit_world_call(kit_world_t *w, enum verb verb, const uuid16_t *id, unsigned msg_id, const void *msg,
                    kit_reply_t *r);
/* Decodes a reply; fails the test for an error. Strings borrow from r. */
void kit_world_decode(const kit_reply_t *r, unsigned msg_id, void *msg);
/* Calls, and fails the test unless it is refused with the code. */
void kit_world_refused(kit_world_t *w, enum verb verb, const uuid16_t *id, unsigned msg_id, const void *msg,
                       enum err_code code);

void kit_world_create(kit_world_t *w, uuid16_t *id);
void kit_world_create_request(struct sandbox_create_request *request); /* what kit_world_create asks for */
void kit_world_stop(kit_world_t *w, const uuid16_t *id, bool without_processes);
void kit_world_resume(kit_world_t *w, const uuid16_t *id);
void kit_world_destroy(kit_world_t *w, const uuid16_t *id);
/* Runs a command; returns what it wrote, in a buffer of the world's. */
const char *kit_world_bash(kit_world_t *w, const uuid16_t *id, const char *command);
const char *kit_world_state(kit_world_t *w, const uuid16_t *id); /* "" = unknown */
sandbox_t *kit_world_sandbox(kit_world_t *w, const uuid16_t *id);
/* The agent ends by itself. */
void kit_world_kill_agent(kit_world_t *w, const uuid16_t *id);

#endif
