/* SPDX-License-Identifier: Apache-2.0
 *
 * The provider kit: everything a provider daemon shares. A provider is a small vtable; the kit owns the hub links, the
 * registry of sandboxes on disk, the agent streams, the relay of calls, adoption after a restart, and the reaper.
 *
 * One sandbox = one directory `$EW_STATE_DIR/<daemon>/sandboxes/<uuid>/` (0700) with `sandbox.json`, written atomically
 * at every change of state, before the change is told to anyone. The provider keeps its own files in the same
 * directory.
 *
 * States: creating → ready ⇄ (stopping → stopped → resuming); ready → dead; any → destroying. A daemon that starts
 * finds creating (undo), ready (adopt or dead), stopping (adopt what still runs, finish what does not), resuming (adopt
 * or back to stopped), destroying (finish). A sandbox that died by itself is started anew from its files, a few times.
 *
 * One snapshot = one directory `$EW_STATE_DIR/<daemon>/snapshots/<uuid>/` (0700) with `snapshot.json`; it is made in a
 * directory `.new-<uuid>`, synced, and takes its name last: what has its name is complete. All vtable functions run in
 * the loop and must not block for more than a few milliseconds; long work is a process_start() whose end calls the
 * given `done`.
 */
#ifndef EW_COMMON_PROVIDER_PROVIDER_H
#define EW_COMMON_PROVIDER_PROVIDER_H

#include "common/daemon.h"
#include "common/err.h"
#include "common/fabric.h"
#include "common/stream.h"
#include "proto/messages.h"

#include <jansson.h>

typedef struct provider provider_t;
typedef struct sandbox sandbox_t;

enum sandbox_state {
    SANDBOX_CREATING,
    SANDBOX_READY,
    SANDBOX_STOPPED,
    SANDBOX_DEAD,
    SANDBOX_DESTROYING,
    SANDBOX_STOPPING,
    SANDBOX_RESUMING,
    SANDBOX_WARM /* made ahead, nobody's yet */
};

/* What was asked for; owned by the sandbox. */
typedef struct sandbox_spec {
    char *image;
    uint32_t cpu_milli;
    uint64_t memory_bytes;
    uint64_t disk_bytes;
    uint32_t pids_max;
    char *network;
    json_t *env;    /* object of strings */
    json_t *labels; /* object of strings */
} sandbox_spec_t;

/* A copy of a sandbox that stands on its own. */
typedef struct provider_snapshot {
    uuid16_t id;
    char id_text[UUID_TEXT_SIZE];
    char *dir; /* while it is made: `.new-<uuid>` */
    uuid16_t source;
    sandbox_spec_t spec; /* of its sandbox; env stays empty: it may hold secrets */
    bool has_processes;
    uint64_t size_bytes;
    uint64_t created_at_ms;
    uint32_t stall_ms, total_ms;
    json_t *labels;   /* object of strings */
    json_t *warnings; /* array of strings */
    json_t *private_; /* the provider's own facts, saved in snapshot.json */
} snapshot_t;

struct sandbox {
    uuid16_t id;
    char id_text[UUID_TEXT_SIZE];
    /* Names the directory and everything of it on the host (cgroup, container, host name); the id it was made with. A
     * sandbox of a warm pool gets another id when it is claimed, this stays. */
    char host_id[UUID_TEXT_SIZE];
    char *dir; /* the sandbox's directory */
    enum sandbox_state state;
    sandbox_spec_t spec;
    char *reason; /* why it is dead */
    /* stopped: processes are kept on disk. Set by stop (true = kept) and resume, create (true = they go on). */
    bool has_processes;
    json_t *private_; /* the provider's own facts, saved in sandbox.json */
    void *data;       /* the provider's run-time data */
    stream_t *stream; /* NULL unless ready or becoming so */
    provider_t *provider;
};

/* err NULL = success. */
typedef void (*provider_done_fn)(void *arg, const err_t *err);

typedef struct provider_ops {
    const char *name; /* "gvisor" */
    /* What a process costs of the sandbox's memory at least: there may be no more than fit, whatever pids_max says, or
     * a fork bomb ends the sandbox by its memory limit. 0 = nothing worth counting. */
    uint64_t process_bytes;
    /* Health: fills *status (all pointers owned by the provider until the next probe), then calls done. */
    void (*probe)(provider_t *p, provider_done_fn done, void *arg);
    const struct provider_status *(*status)(provider_t *p);
    /* Makes everything up to a running sandbox whose stream can be opened. On failure the kit calls destroy. */
    void (*create)(sandbox_t *s, provider_done_fn done, void *arg);
    /* Leaves nothing: idempotent, works on half made ones and after a crash; ends with the sandbox's directory empty of
     * the provider's files (the kit removes it). */
    void (*destroy)(sandbox_t *s, provider_done_fn done, void *arg);
    /* It is given up: ends its processes, if any are left; its files stay until destroy. May be NULL. */
    void (*end)(sandbox_t *s);
    /* The two ends of the agent's byte stream (may be the same descriptor); the kit takes them. */
    int (*open_stream)(sandbox_t *s, int *fd_in, int *fd_out, err_t **e);
    /* After a restart: is it alive? Rebuild run-time data. -1 = dead, with the reason. */
    int (*adopt)(sandbox_t *s, err_t **e);
    /* Frees s->data. */
    void (*forget)(sandbox_t *s);
    /* Keeps a running sandbox on disk and frees everything else of it: memory, processes, cgroup, mounts, loop device,
     * network. The kit has quiesced and closed its stream. keep_processes: memory and processes are kept, too, where
     * that is possible; where not they end and provider_sandbox_warn() says why (never an error). done(NULL): all of it
     * is synced to disk, s->has_processes says what was kept. On error it runs on as before, or is dead
     * (provider_sandbox_died was called). Works on one that is half stopped or dead, too (then only files are left).
     * NULL: cannot stop. */
    void (*stop)(sandbox_t *s, bool keep_processes, provider_done_fn done, void *arg);
    /* Up to a sandbox whose stream can be opened, from stopped or dead. What was kept of processes is used up: it is
     * not used twice, because files go on changing. Falls back to a start from the files (s->has_processes = false and
     * provider_sandbox_warn); an error only when that fails as well. */
    void (*resume)(sandbox_t *s, provider_done_fn done, void *arg);
    /* Fills the empty directory snap->dir from a ready (quiesced by the kit) or stopped sandbox, synced; sets
     * has_processes, size_bytes, stall_ms, private_, warnings. A ready one runs on afterwards, whatever happens. */
    void (*snapshot)(sandbox_t *s, snapshot_t *snap, bool keep_processes, provider_done_fn done, void *arg);
    /* Like create, from a complete snapshot; sets s->has_processes. */
    void (*create_from)(sandbox_t *s, const snapshot_t *snap, provider_done_fn done, void *arg);
    /* New limits (cpu, memory, pids) of s->spec are put in force: at the claim of a warm one. NULL: no warm pool. */
    int (*apply_limits)(sandbox_t *s, err_t **e);
    /* Whether a warm one is as one would be made now (image, agent, isolation); a few hundred microseconds at most.
     * NULL: always. */
    bool (*is_current)(sandbox_t *s);
    void (*list_images)(provider_t *p, struct image_list_reply *reply, buf_t *storage);
} provider_ops_t;

/* Called by the provider when it notices that a sandbox ended by itself. */
void provider_sandbox_died(sandbox_t *s, const char *reason);
/* Tells the gateways that something happened: type `oom` or `notice`. */
void provider_sandbox_event(sandbox_t *s, const char *type, const char *reason);
/* Something its user should know: returned with the operation under way, shown on the workspace. */
void provider_sandbox_warn(sandbox_t *s, const char *text);
/* During ops->snapshot of a ready sandbox: it runs on although the copy is not done, so its calls may go on. May be
 * left out; its calls wait for `done` then. */
void provider_sandbox_runs_on(sandbox_t *s);
/* Complete snapshots, for what must outlive them (image directories, agent layers). NULL starts. */
const snapshot_t *provider_snapshot_next(provider_t *p, const snapshot_t *after);
/* Saves sandbox.json (after a change of private_). The kit shows three keys of private_ to who created the sandbox:
 * `isolation` (string), `phases` (object of milliseconds) and `warnings` (array of strings). */
int provider_sandbox_save(sandbox_t *s, err_t **e);

daemon_t *provider_daemon(provider_t *p);
void *provider_data(provider_t *p);
sandbox_t *provider_sandbox_next(provider_t *p, const sandbox_t *after); /* NULL starts */
size_t provider_sandbox_count(const provider_t *p);

/* Reads the registry, adopts or cleans what it finds, connects to the hubs. */
provider_t *provider_new(daemon_t *d, const provider_ops_t *ops, void *data, err_t **e);
/* Before the daemon ends: what is warm is nobody's and goes; runs the loop until it is gone (at most some seconds). */
void provider_drain_pools(provider_t *p);
void provider_destroy(provider_t **p); /* sandboxes live on */

#endif
