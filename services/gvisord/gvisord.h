/* SPDX-License-Identifier: Apache-2.0
 *
 * gvisord: sandboxes made by runsc (OCI bundles). What its parts share.
 *
 * main.c     start, the provider's vtable          box.c      one sandbox: create, adopt, destroy
 * jobs.c     what runs in the worker               probe.c    which variants of runsc work here
 * status.c   what is told to the hubs              agent_layer.c  the agent as an overlay layer
 * reaper.c   children that nobody waits for        sweep.c    leftovers without an entry in the registry
 */
#ifndef EW_SERVICES_GVISORD_GVISORD_H
#define EW_SERVICES_GVISORD_GVISORD_H

#include "common/daemon.h"
#include "common/process.h"
#include "common/provider/provider.h"
#include "services/gvisord/cgroup.h"
#include "services/gvisord/image.h"
#include "services/gvisord/network.h"
#include "services/gvisord/worker.h"

typedef struct probe probe_t;
typedef struct box box_t;

/* One way to run sandboxes. */
typedef struct runtime_variant {
    char platform[16]; /* "systrap", "ptrace", "kvm"; "" for crun */
    bool has_user_namespace;
    bool is_crun;
    bool has_loop; /* the disk is an image of its own */
} runtime_variant_t;

typedef struct gvisord {
    daemon_t daemon;
    provider_t *provider;
    worker_t *worker;
    char tag[NETWORK_TAG_SIZE]; /* of the state directory: names everything of this daemon on the host */
    char *group_tag;            /* "gvisord-<tag>", its cgroup */
    char *runtime_root;         /* runsc --root */
    char *template_dir;
    char *image_dir;
    char *probe_dir;
    char *agent_layer; /* NULL: no agent, see agent_error */
    char *agent_error;
    char *resolv_conf;
    cgroups_t cgroups;
    char *cgroup_error; /* NULL: usable */
    network_pool_t pool;
    bool has_rules; /* of nftables: loaded by this process */
    struct event *child_signal;
    probe_t *probe;
    struct status_storage *status;
} gvisord_t;

/* ---- box.c ---- */

/* A process costs gVisor half a MiB of the sandbox's memory before it has any of its own (tables, and a process on the
 * host), and a crowd that ends keeps it for a while. */
#define BOX_PROCESS_BYTES ((uint64_t)4 << 20)

/* A sandbox of the registry or of the probe. The creator fills the first part and keeps it alive. */
struct box {
    gvisord_t *gv;
    const char *id;
    const char *dir;
    const sandbox_spec_t *spec;
    json_t *facts; /* saved by the owner: pids, slot, rootfs, … and isolation, phases, warnings for the kit */
    int (*save)(box_t *box, err_t **e);
    void (*on_gone)(box_t *box, const char *reason); /* it ended by itself */
    void (*on_pressure)(box_t *box, uint64_t used_bytes);
    void *owner;
    /* box.c's own */
    runtime_variant_t variant;
    provider_done_fn done;
    void *done_arg;
    worker_job_t *job;
    process_t *process;
    pid_t process_pid;
    int fds[3]; /* FIFO in, FIFO out, /dev/null, while the runtime is started */
    int netns_fd;
    pid_watch_t *watches[2];
    pid_t watched[2];
    cgroup_watch_t *pressure;
    bool is_destroying;
    uint64_t phase_start_us;
};

void box_create(box_t *box, const runtime_variant_t *variant, provider_done_fn done, void *arg);
void box_destroy(box_t *box, provider_done_fn done, void *arg);
/* Kills what runs of it, in the background; box_destroy is still to come. */
void box_end(box_t *box);
int box_adopt(box_t *box, err_t **e);
int box_open_stream(box_t *box, int *fd_in, int *fd_out, err_t **e);
/* Stops watching; the sandbox lives on. */
void box_release(box_t *box);

/* ---- jobs.c ---- */
void jobs_init(const gvisord_t *gv);
int job_prepare(const json_t *args, json_t *result, err_t **e);
int job_end(const json_t *args, json_t *result, err_t **e);
int job_teardown(const json_t *args, json_t *result, err_t **e);
int job_network_rules(const json_t *args, json_t *result, err_t **e);
int job_host_facts(const json_t *args, json_t *result, err_t **e);
int job_watch_memory(const json_t *args, json_t *result, err_t **e);
int job_prune(const json_t *args, json_t *result, err_t **e);

/* ---- probe.c ---- */
probe_t *probe_new(gvisord_t *gv);
void probe_free(probe_t **p);
/* Before the daemon ends: runs the loop until the probe sandbox is gone (at most some seconds). */
void probe_drain(probe_t *p);
void probe_run(probe_t *p, provider_done_fn done, void *arg);
/* What the last probe found. */
typedef struct probe_result {
    bool is_usable;
    bool is_degraded;
    bool is_running_first; /* nothing is known yet */
    bool has_full_network;
    uint32_t startup_ms;
    runtime_variant_t variant;
    char version[128];
    char message[600];
    char network_message[300];
    char disk_message[300];
} probe_result_t;
const probe_result_t *probe_result(const probe_t *p);
/* Absolute path of the runtime in use, NULL when there is none. */
const char *probe_runtime_path(const probe_t *p);

/* ---- status.c ---- */
const struct provider_status *status_get(provider_t *p);
void status_refresh(gvisord_t *gv);
void status_free(gvisord_t *gv);
void status_list_images(provider_t *p, struct image_list_reply *reply, buf_t *storage);
/* "runsc/systrap", "runsc/systrap, user namespace", "crun (no gVisor)" */
void variant_isolation(const runtime_variant_t *v, char *out, size_t size);
#define CRUN_WARNING \
    "SECURITY: sandboxes run under crun, without gVisor: only the host kernel's namespaces isolate them"

/* ---- agent_layer.c ---- */
/* The overlay layer that holds the agent of this build; made when it is not there. Named by the binary's digest, so
 * that sandboxes of an older build keep theirs. */
char *agent_layer_make(const char *state_dir, err_t **e);
void agent_layer_prune(const char *state_dir, bool (*is_used)(void *arg, const char *layer), void *arg);

/* ---- reaper.c ---- */
/* gvisord is a subreaper: sandboxes become its children when runsc ends. An unreaped one makes teardown wait. */
int reaper_start(gvisord_t *gv, err_t **e);
void reaper_stop(gvisord_t *gv);
/* Children that someone else waits for. */
void reaper_own(pid_t pid);
void reaper_disown(pid_t pid);

/* ---- sweep.c ---- */
/* Removes cgroups, namespaces, runtime state and probe directories of this daemon that belong to no sandbox in the
 * registry. */
void sweep_start(gvisord_t *gv);

#endif
