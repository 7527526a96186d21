/* SPDX-License-Identifier: Apache-2.0
 *
 * Which provider daemon makes a sandbox. What the daemons told about themselves (HELLO, heartbeats) is kept per daemon;
 * a pick walks the chain for container type and deployment mode and judges each daemon, in the end giving candidates in
 * order and, for every one that is none, the reason. No I/O here: the caller tries the candidates.
 */
#ifndef EW_GATEWAY_ORCHESTRATOR_H
#define EW_GATEWAY_ORCHESTRATOR_H

#include "services/gateway/gateway.h"

#define ORCHESTRATOR_PROVIDERS 3
#define ORCHESTRATOR_NODES_MAX 256
#define ORCHESTRATOR_MIN_FREE_MEMORY ((uint64_t)128 << 20) /* a host with less than this gets no more sandboxes */
#define ORCHESTRATOR_MIN_FREE_DISK ((uint64_t)256 << 20)

/* One daemon, known from its first HELLO until the gateway ends. */
typedef struct provider_node {
    struct provider_node *next;
    char provider[33];
    char node[256];
    fabric_peer_t *peer; /* NULL: not connected now */
    char *gone_reason;
    buf_t bytes; /* the encoded status; `status` and `capabilities` borrow from it */
    bool has_status;
    struct provider_status status;
    struct capabilities capabilities;
    uint32_t pending;     /* creates under way there */
    uint64_t pools_taken; /* warm_pools.c: generation of the targets it knows, 0 = none */
    bool is_pools_told;   /* warm_pools.c: a call is under way */
} provider_node_t;

typedef struct pick_request {
    const char *container_type;
    const char *deployment_mode;
    const char *provider;  /* "" or "auto": the chain; else this one and no other */
    const char *preferred; /* tried first when the chain is used; "auto" or NULL: none */
    const char *image;
    const char *network;
} pick_request_t;

typedef struct pick {
    provider_node_t *candidates[ORCHESTRATOR_NODES_MAX];
    size_t count;
    buf_t reasons;         /* "gvisor: …; firecracker: …" of those that are none */
    bool is_callers_fault; /* a healthy provider was refused because of what was asked (image, network) */
    bool is_explicit;
    char requested[33];
    char refusal[16]; /* explicit: `not registered` or `unhealthy`, for the error text */
} pick_t;

orchestrator_t *orchestrator_new(void);
void orchestrator_destroy(orchestrator_t **o);

/* Providers in the order to try them; returns how many (always all of them). */
size_t orchestrator_chain(const char *container_type, const char *deployment_mode, const char *preferred,
                          const char *chain[ORCHESTRATOR_PROVIDERS]);
bool orchestrator_is_provider(const char *name);
const char *orchestrator_provider_names(void); /* "firecracker, e2b, gvisor" for messages */

/* NULL when it is not known and should not be made, or when there are too many. */
provider_node_t *orchestrator_node(orchestrator_t *o, const char *provider, const char *node, bool is_made);
provider_node_t *orchestrator_next_node(orchestrator_t *o, const provider_node_t *after); /* NULL starts */
/* The daemon behind a peer; NULL for peers that are no providers. */
provider_node_t *orchestrator_node_of_peer(orchestrator_t *o, const fabric_peer_t *peer);
/* The same by name, so that it works for a peer that is gone. */
provider_node_t *orchestrator_node_of_hello(orchestrator_t *o, const struct hello *hello, bool is_made);
/* What a daemon says of itself; a broken status is refused. */
int orchestrator_note_status(provider_node_t *n, const uint8_t *bytes, size_t len, err_t **e);

void orchestrator_pick(orchestrator_t *o, const pick_request_t *request, pick_t *pick);
/* Sets the error for a pick without candidates. Always -1. */
int pick_error(const pick_t *pick, err_t **e);
void pick_free(pick_t *pick);

/* The array of GET …/providers. */
int orchestrator_write_providers(orchestrator_t *o, json_writer_t *w, err_t **e);

#endif
