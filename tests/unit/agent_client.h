/* SPDX-License-Identifier: Apache-2.0
 *
 * A small synchronous client for tests of the agent: starts the real binary as an ordinary process over two FIFOs and
 * talks frames. Shortest use:
 *
 *   agent_client_t *c = agent_client_start(&(agent_client_options_t){.workspace = dir});
 *   struct bash_request request = {.command = "echo hi"};
 *   agent_result_t *r = agent_client_call(c, VERB_bash, &request);
 *   struct bash_reply reply;
 *   agent_result_reply(r, &reply);          // aborts the test on an ERROR
 *   agent_client_stop(&c);                  // frees the results too
 *
 * Every wait has a limit (AGENT_CLIENT_WAIT_MS) after which the process aborts with what it waited for.
 */
#ifndef EW_TESTS_AGENT_CLIENT_H
#define EW_TESTS_AGENT_CLIENT_H

#include "common/buf.h"
#include "proto/envelope.h"
#include "proto/verbs.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define AGENT_CLIENT_WAIT_MS 30000

typedef struct agent_client_options {
    const char *workspace;  /* AGENT_WORKSPACE; NULL = a fresh directory, removed at stop */
    const char *cgroup;     /* AGENT_CGROUP; NULL = best effort */
    const char *const *env; /* more NAME=value, NULL ends it */
    bool is_silent;         /* do not RESYNC at start */
    uint64_t memory_budget_bytes;
    uint32_t pids_max; /* told by RESYNC */
} agent_client_options_t;

/* What came for one call so far. Owned by the client. */
typedef struct agent_result {
    uint64_t call_id;
    uint16_t verb;
    bool is_done;
    bool is_error;
    char code[65]; /* of the ERROR */
    char message[1001];
    buf_t reply; /* body of REPLY or ERROR */
    buf_t head;
    bool has_head;
    buf_t chunks[CHANNEL_COUNT];
    uint64_t first_offset[CHANNEL_COUNT];
    uint64_t next_offset[CHANNEL_COUNT];
    bool has_ended[CHANNEL_COUNT];
    bool has_gap; /* a chunk's offset was not the next one */
    buf_t *events;
    size_t event_count;
    uint64_t credit_granted; /* by the agent, for IN bytes */
    size_t frame_count;
    struct agent_result *next;
} agent_result_t;

typedef struct agent_client {
    pid_t pid;
    int fd_down;
    int fd_up;
    char dir[64];
    char workspace[128];
    bool owns_workspace;
    bool has_auto_credit; /* grant what comes (default); off to play a slow reader */
    bool is_adopted;
    buf_t in;
    buf_t adopt_body;
    struct adopt adopt; /* of the last RESYNC; borrows adopt_body */
    uint8_t nonce[16];
    uint32_t credit; /* for the next requests; 0 = CALL_WINDOW by default */
    uint32_t deadline_ms;
    uint8_t flags; /* for the next requests: ENVELOPE_KEEP */
    size_t quiesced_count;
    buf_t *notices;
    size_t notice_count;
    uint64_t memory_budget_bytes;
    uint32_t pids_max;
    /* Of the next RESYNC: */
    uuid16_t sandbox;
    bool is_continued; /* this client has read all up to QUIESCED */
    const char *hostname;
    const char *machine_id;
    size_t stray_count; /* frames about calls that this client does not know */
    agent_result_t *results;
} agent_client_t;

agent_client_t *agent_client_start(const agent_client_options_t *options);
void agent_client_stop(agent_client_t **c); /* TERM; the agent must end by itself */
/* The same over the descriptors of an agent that somebody else started; takes them. Nothing is sent yet. */
agent_client_t *agent_client_attach(int fd_down, int fd_up);
void agent_client_detach(agent_client_t **c);

/* As a daemon that opens the stream anew: discards input up to MARKER, then takes ADOPT. */
void agent_client_resync(agent_client_t *c);
const char *agent_client_adopted_state(agent_client_t *c, uint64_t call_id); /* NULL: not listed */

/* Sends a request; call_id 0 = a fresh one. */
agent_result_t *agent_client_send(agent_client_t *c, uint64_t call_id, enum verb verb, const void *request);
agent_result_t *agent_client_send_body(agent_client_t *c, uint64_t call_id, enum verb verb, const void *body,
                                       size_t len);
void agent_client_wait(agent_client_t *c, agent_result_t *r);
agent_result_t *agent_client_call(agent_client_t *c, enum verb verb, const void *request); /* send and wait */
/* Waits until a predicate holds, reading frames. */
void agent_client_until(agent_client_t *c, bool (*is_true)(agent_client_t *c, void *arg), void *arg, const char *what);
/* Reads frames for this long. */
void agent_client_idle(agent_client_t *c, uint32_t ms);

void agent_client_chunk(agent_client_t *c, agent_result_t *r, const void *bytes, size_t len, bool is_end);
void agent_client_frame(agent_client_t *c, const envelope_t *env, const void *body, size_t len);
void agent_client_simple(agent_client_t *c, uint8_t kind, uint64_t call_id); /* CANCEL, ACK, QUIESCE */
void agent_client_credit(agent_client_t *c, uint64_t call_id, uint32_t credit);
void agent_client_raw(agent_client_t *c, const void *bytes, size_t len);

/* Decodes the reply into the verb's reply struct; aborts on an ERROR. Strings borrow from the result. */
void agent_result_reply(agent_result_t *r, void *reply);
void agent_result_event(agent_result_t *r, size_t i, unsigned msg_id, void *event);

#endif
