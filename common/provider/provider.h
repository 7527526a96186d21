/* SPDX-License-Identifier: Apache-2.0
 *
 * The provider kit: everything a provider daemon shares. A provider is a small vtable; the kit owns the hub links, the
 * registry of sandboxes on disk, the agent streams, the relay of calls, adoption after a restart, and the reaper.
 *
 * One sandbox = one directory `$EW_STATE_DIR/<daemon>/sandboxes/<uuid>/` (0700) with `sandbox.json`, written atomically
 * at every change of state, before the change is told to anyone. The provider keeps its own files in the same
 * directory.
 *
 * States: creating → ready → dead | destroying; a daemon that starts finds creating (undo), ready (adopt or dead),
 * destroying (finish). All vtable functions run in the loop and must not block for more than a few milliseconds; long
 * work is a process_start() whose end calls the given `done`.
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

enum sandbox_state { SANDBOX_CREATING, SANDBOX_READY, SANDBOX_STOPPED, SANDBOX_DEAD, SANDBOX_DESTROYING };

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

struct sandbox {
    uuid16_t id;
    char id_text[UUID_TEXT_SIZE];
    char *dir; /* the sandbox's directory */
    enum sandbox_state state;
    sandbox_spec_t spec;
    char *reason;     /* why it is dead */
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
    void (*list_images)(provider_t *p, struct image_list_reply *reply, buf_t *storage);
} provider_ops_t;

/* Called by the provider when it notices that a sandbox ended by itself. */
void provider_sandbox_died(sandbox_t *s, const char *reason);
/* Tells the gateways that something happened: type `oom` or `notice`. */
void provider_sandbox_event(sandbox_t *s, const char *type, const char *reason);
/* Saves sandbox.json (after a change of private_). The kit shows three keys of private_ to who created the sandbox:
 * `isolation` (string), `phases` (object of milliseconds) and `warnings` (array of strings). */
int provider_sandbox_save(sandbox_t *s, err_t **e);

daemon_t *provider_daemon(provider_t *p);
void *provider_data(provider_t *p);
sandbox_t *provider_sandbox_next(provider_t *p, const sandbox_t *after); /* NULL starts */
size_t provider_sandbox_count(const provider_t *p);

/* Reads the registry, adopts or cleans what it finds, connects to the hubs. */
provider_t *provider_new(daemon_t *d, const provider_ops_t *ops, void *data, err_t **e);
void provider_destroy(provider_t **p); /* sandboxes live on */

#endif
