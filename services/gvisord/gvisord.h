/* SPDX-License-Identifier: Apache-2.0
 *
 * gvisord: sandboxes made by runsc (OCI bundles). What its parts share.
 *
 * main.c     start         ops.c  the vtable          box.c      one sandbox: create, adopt, destroy
 * box_stop.c its stop, resume, life from a snapshot box_snapshot.c  its snapshots
 * jobs*.c    what runs in the worker               probe.c    which variants of runsc work here
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
    bool has_rules;       /* of nftables: loaded by this process */
    bool has_lost_worker; /* it was killed: the daemon ends, the next one goes on from what is on disk */
    struct event *child_signal;
    probe_t *probe;
    struct status_storage *status;
} gvisord_t;

/* ---- box.c ---- */

/* A process costs gVisor half a MiB of the sandbox's memory before it has any of its own (tables, and a process on the
 * host), and a crowd that ends keeps it for a while. */
#define BOX_PROCESS_BYTES ((uint64_t)4 << 20)

/* What stop, resume and create_from have done; valid in their `done`. */
typedef struct box_result {
    bool has_processes;
    char warning[600]; /* "" = none */
} box_result_t;

/* What a snapshot has become; the same. */
typedef struct box_snapshot_result {
    bool has_processes, is_shared;
    uint64_t size_bytes;
    uint32_t stall_ms;
    char warning[600];
} box_snapshot_result_t;
typedef void (*box_snapshot_fn)(void *arg, const box_snapshot_result_t *result, const err_t *err);

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
    void (*on_runs_on)(box_t *box);   /* it is copied and runs on; the copy is not durable yet */
    bool (*is_answering)(box_t *box); /* its agent does */
    void *owner;
    /* box.c's own */
    runtime_variant_t variant;
    provider_done_fn done;
    void *done_arg;
    worker_job_t *job;
    process_t *process;
    int fds[3]; /* FIFO in, FIFO out, /dev/null, while the runtime is started */
    int netns_fd;
    pid_watch_t *watches[2];
    pid_t watched[2];
    cgroup_watch_t *pressure;
    bool is_destroying;            /* its end is wanted */
    bool has_ended;                /* meanwhile */
    worker_job_t *end_job;         /* of box_end: would end what is started meanwhile */
    void (*after_end)(box_t *box); /* what waits for it */
    json_t *start;                 /* arguments of job_start, while the way is cleared for it */
    box_result_t result;
    box_snapshot_result_t snapshot;
    box_snapshot_fn snapshot_done;
    char *snapshot_target;
    worker_job_t *heal_job;
    struct event *heal_timer;
    uint64_t phase_start_us;
};

/* ---- box_stop.c ---- */

/* Up to nothing but files, of a running, half stopped or dead one. Facts: `kept_bytes`, `stop_phases`; those of its
 * processes are gone. On error it runs on, or on_gone was called. */
void box_stop(box_t *box, bool keep_processes, provider_done_fn done, void *arg);
/* From a stopped or dead one. */
void box_resume(box_t *box, const runtime_variant_t *variant, provider_done_fn done, void *arg);
/* A new one from the snapshot in snapshot_dir, made of the given image and agent layer. */
void box_create_from(box_t *box, const runtime_variant_t *variant, const char *snapshot_dir, const json_t *facts,
                     bool has_processes, provider_done_fn done, void *arg);
int box_apply_limits(box_t *box, err_t **e);

/* ---- box_snapshot.c ---- */

/* Into the empty directory target. One at a time and box; it runs on whatever happens. */
void box_snapshot(box_t *box, const char *target, bool is_running, bool keep_processes, box_snapshot_fn done,
                  void *arg);
/* After a restart: undoes what a snapshot that was broken off has left. */
void box_heal(box_t *box);
void box_heal_stop(box_t *box);

/* ---- box.c ---- */

void box_create(box_t *box, const runtime_variant_t *variant, provider_done_fn done, void *arg);
void box_destroy(box_t *box, provider_done_fn done, void *arg);
/* Kills what runs of it, in the background; box_destroy is still to come. */
void box_end(box_t *box);
/* Would it be made the same now (image, agent, runtime)? */
bool box_is_current(const box_t *box);
int box_adopt(box_t *box, err_t **e);
int box_open_stream(box_t *box, int *fd_in, int *fd_out, err_t **e);
/* Frees what it holds; the creator's part is the creator's. */
void box_close(box_t *box);
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
/* jobs_stop.c */
int job_stop(const json_t *args, json_t *result, err_t **e);
int job_start(const json_t *args, json_t *result, err_t **e);
int job_clear(const json_t *args, json_t *result, err_t **e);
int job_forget_used(const json_t *args, json_t *result, err_t **e);
/* jobs_snapshot.c */
int job_snapshot(const json_t *args, json_t *result, err_t **e);
int job_snapshot_durable(const json_t *args, json_t *result, err_t **e);
int job_heal(const json_t *args, json_t *result, err_t **e);

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
    bool keeps_processes; /* a checkpoint was restored */
    bool has_reflink;
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

/* ---- ops.c ---- */
extern const provider_ops_t GVISORD_OPS;

/* ---- sweep.c ---- */
/* Removes cgroups, namespaces, runtime state and probe directories of this daemon that belong to no sandbox in the
 * registry. */
void sweep_start(gvisord_t *gv);

#endif
