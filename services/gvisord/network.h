/* SPDX-License-Identifier: Apache-2.0
 *
 * Network `full`: one network namespace and one veth pair per sandbox, a /30 of GVISORD_NETWORK_POOL (first address the
 * host's, second the sandbox's), NAT on the way out, and one nftables table per daemon (`inet ew_<tag>`) that refuses
 * what a sandbox must not reach: the host's own addresses, private, shared, link-local, metadata, multicast and
 * reserved ranges, other sandboxes, anything by IPv6. The rules match interface names, so none is added or removed with
 * a sandbox.
 *
 * Names: namespace `ew-<tag>-<slot>`, host's end of the pair `ew<tag>.<slot>`; tag = NETWORK_TAG_SIZE-1 hexadecimal
 * digits. Functions marked "blocks" belong into a worker's job.
 */
#ifndef EW_SERVICES_GVISORD_NETWORK_H
#define EW_SERVICES_GVISORD_NETWORK_H

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

#define NETWORK_TAG_SIZE 7

typedef struct network_pool {
    uint32_t base; /* host byte order */
    unsigned prefix;
    uint32_t slot_count; /* /30s in it */
} network_pool_t;

typedef struct network_slot {
    uint32_t number;
    char netns[32];
    char netns_path[64];
    char interface[16];
    char host_address[16];
    char guest_address[16];
} network_slot_t;

/* "10.213.0.0/16": private, prefix 11..29. */
int network_pool_parse(network_pool_t *pool, const char *text, err_t **e);
/* Fails with limit_reached when number is outside of the pool. */
int network_slot_of(const network_pool_t *pool, const char *tag, uint32_t number, network_slot_t *slot, err_t **e);
/* Blocks. Does an interface that is not ours have an address in this slot? */
bool network_slot_is_foreign(const network_pool_t *pool, const char *tag, uint32_t number);
/* The ruleset, as given to `nft -f -`. */
void network_ruleset(const network_pool_t *pool, const char *tag, buf_t *out);
/* resolv.conf for sandboxes: the host's name servers that a sandbox may reach, else public ones. NULL =
 * /etc/resolv.conf's text is read. */
char *network_resolv_conf(const char *host_text);

/* Blocks. Loads the rules and turns forwarding on. */
int network_rules_load(const network_pool_t *pool, const char *tag, err_t **e);
/* Blocks. */
int network_rules_remove(const char *tag, err_t **e);
/* Blocks. Idempotent: what is left of an earlier try is removed first. */
int network_up(const network_slot_t *slot, err_t **e);
/* Blocks. Idempotent. */
int network_down(const network_slot_t *slot, err_t **e);
/* Numbers of the slots of this tag that exist in /run/netns. */
void network_each(const char *tag, void (*fn)(void *arg, uint32_t number), void *arg);

#endif
