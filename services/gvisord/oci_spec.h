/* SPDX-License-Identifier: Apache-2.0
 *
 * The OCI bundle configuration (config.json, runtime-spec 1.0.2) of one sandbox. Hardened: no host mounts, no devices,
 * masked paths, no new privileges, and only the capabilities that installing packages needs. PID 1 is the agent; under
 * gVisor it also has CAP_SYS_ADMIN and CAP_SETPCAP, which it takes away from everything that it starts. Under crun,
 * where capabilities are those of the real kernel, it does not.
 */
#ifndef EW_SERVICES_GVISORD_OCI_SPEC_H
#define EW_SERVICES_GVISORD_OCI_SPEC_H

#include "common/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define OCI_AGENT_PATH "/.emergent/agent"

typedef struct oci_spec {
    const char *rootfs;
    const char *hostname;
    uint64_t memory_bytes;   /* /dev/shm gets half of it */
    bool has_user_namespace; /* identity mapping: root inside has no power over the host's namespaces */
    bool is_crun;
    const char *netns_path; /* network full: what it joins; NULL: one of its own */
} oci_spec_t;

/* New reference. No environment is in it: what the agent has of its own would be in every copy of its memory, so the
 * kit tells it (agent_configure). */
json_t *oci_spec_build(const oci_spec_t *spec, err_t **e);
int oci_spec_write(const oci_spec_t *spec, const char *path, err_t **e);

#endif
