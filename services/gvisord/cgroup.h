/* SPDX-License-Identifier: Apache-2.0
 *
 * Cgroups of sandboxes: `<mount>/<EW_CGROUP_PARENT>/<tag>/<sandbox>`, never below the daemon's own, so that a sandbox
 * does not end with it. v1 (also the hybrid layout): cpu, memory and pids each in their own hierarchy; v2: one. runsc
 * is started inside and told
 * --ignore-cgroups: making them here costs 1 ms, letting runsc do it 150 ms (firecracker-gvisor.md B9).
 *
 * Reaching the memory or pids limit here kills the whole sandbox (B9 11): they are a backstop above what the agent
 * enforces inside.
 */
#ifndef EW_SERVICES_GVISORD_CGROUP_H
#define EW_SERVICES_GVISORD_CGROUP_H

#include "common/err.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#define CGROUP_CONTROLLERS 3
#define CGROUP_KILL_WAIT_MS 10000
#define CGROUP_MEMORY_HEADROOM_MIN ((uint64_t)64 << 20)
#define CGROUP_MEMORY_HEADROOM_PERCENT 12
#define CGROUP_PRESSURE_PERCENT 90 /* of the budget */

typedef struct cgroups {
    bool is_v2;
    char *mounts[CGROUP_CONTROLLERS]; /* v1: of cpu, memory, pids (NULL: not there); v2: the first only */
    char *group;                      /* "<parent>/<tag>" */
} cgroups_t;

typedef struct cgroup_limits {
    uint32_t cpu_milli;
    uint64_t memory_budget_bytes;
    uint32_t pids_max; /* inside the sandbox */
} cgroup_limits_t;

uint64_t cgroup_memory_limit(uint64_t budget_bytes);
uint32_t cgroup_pids_limit(uint32_t pids_max);

/* Finds the hierarchies from mountinfo text (NULL = this process's). internal_error when no usable one is mounted. */
int cgroups_detect(cgroups_t *c, const char *mountinfo, const char *parent, const char *tag, err_t **e);
void cgroups_free(cgroups_t *c);
/* A sentence about limits that cannot be enforced here, or NULL. Caller frees. */
char *cgroups_warning(const cgroups_t *c);

int cgroup_make(const cgroups_t *c, const char *name, const cgroup_limits_t *limits, err_t **e);
/* Paths of the cgroup.procs files, NULL ends; paths[] are yours to free. */
void cgroup_procs_paths(const cgroups_t *c, const char *name, char *paths[CGROUP_CONTROLLERS + 1]);
/* Blocks (worker). KILL to all in it until it is empty, then removes it. Idempotent. */
int cgroup_destroy(const cgroups_t *c, const char *name, err_t **e);
/* Removes the group and its parents as far as they are empty. */
void cgroups_remove_empty(const cgroups_t *c);
/* Names below the group (for the sweep): calls fn for each. */
void cgroup_each(const cgroups_t *c, void (*fn)(void *arg, const char *name), void *arg);
bool cgroup_has_processes(const cgroups_t *c, const char *name);
/* First process whose command line has an argument `word`, or 0. */
int cgroup_find_process(const cgroups_t *c, const char *name, const char *word);
/* Times the kernel killed for memory in it. */
uint64_t cgroup_oom_kills(const cgroups_t *c, const char *name);
uint64_t cgroup_memory_used(const cgroups_t *c, const char *name);

/* Tells when memory use passes CGROUP_PRESSURE_PERCENT of the budget. Under v1 it begins to do so when
 * cgroup_watch_register has run: that write waits for all CPUs of the kernel (8 to 24 ms measured), which the loop must
 * not. */
typedef struct cgroup_watch cgroup_watch_t;
cgroup_watch_t *cgroup_watch_new(const cgroups_t *c, const char *name, struct event_base *base,
                                 void (*on_pressure)(void *arg), void *arg, err_t **e);
/* What to give to cgroup_watch_register, -1 when there is nothing to register (v2). */
int cgroup_watch_fd(const cgroup_watch_t *w);
/* Blocks (worker): `fd` is that of process `pid`. */
int cgroup_watch_register(const cgroups_t *c, const char *name, uint64_t budget_bytes, int pid, int fd, err_t **e);
void cgroup_watch_free(cgroup_watch_t **w);

#endif
