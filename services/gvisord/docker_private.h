/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the Docker backend share; nobody else's.
 */
#ifndef EW_SERVICES_GVISORD_DOCKER_PRIVATE_H
#define EW_SERVICES_GVISORD_DOCKER_PRIVATE_H

#include "common/process.h"
#include "common/provider/provider.h"
#include "services/gvisord/docker_attach.h"
#include "services/gvisord/docker_http.h"
#include "services/gvisord/docker_task.h"
#include "services/gvisord/image.h"

#include <sys/queue.h>

#define DOCKER_NAME_PREFIX "agent-workspace-"
#define DOCKER_IMAGE_PREFIX "emergent-workspaces/"
#define DOCKER_LABEL_INSTANCE "emergent.workspaces.instance"
#define DOCKER_LABEL_SANDBOX "emergent.workspaces.sandbox"
#define DOCKER_TAG_SIZE 13
#define DOCKER_REF_MAX 300
#define DOCKER_QUICK_MS 10000
#define DOCKER_START_MS 60000
#define DOCKER_PLAIN_WARNING                                                                                      \
    "SECURITY: sandboxes run under the Docker Engine's standard runtime, without gVisor: only the host kernel's " \
    "namespaces isolate them"

/* What the probe knows. */
typedef struct docker_probe_result {
    bool is_usable, is_plain, has_full_network, has_storage_limit;
    uint32_t startup_ms;
    char version[64];
    char message[600];
    char network_message[300];
    char files_message[300];
} docker_probe_result_t;

typedef struct docker_probe docker_probe_t;
typedef struct docker_image_job docker_image_job_t;

typedef struct docker {
    daemon_t *daemon;
    provider_t *provider;
    docker_host_t host;
    docker_http_t *http;
    char tag[DOCKER_TAG_SIZE];
    char agent_id[33]; /* digest */
    buf_t agent_tar;
    docker_probe_t *probe;
    struct docker_status *status;
    LIST_HEAD(docker_image_list, docker_image_job) image_jobs;
    json_t *images; /* references that are in Docker: array of strings */
    json_t *found;  /* containers at the start: name -> whether it runs; NULL: it is not known */
} docker_t;

/* ---- docker_container.c ---- */

/* One container to be made, of the registry or of the probe. */
typedef struct docker_container {
    docker_t *d;
    const char *id; /* host id */
    const sandbox_spec_t *spec;
    const char *image_ref;
    bool has_volume, is_plain, has_storage_limit;
    char docker_id[65]; /* once it is made */
    bool is_missing;    /* it was to be started again */
    uint64_t settle_ms; /* monotonic: not to be started again before */
} docker_container_t;

char *docker_container_name(const char *id);
json_t *docker_container_json(const docker_container_t *c);
uint64_t docker_memory_limit(const sandbox_spec_t *spec);
/* Tables of docker_task_start, `arg` is a docker_container_t. */
extern const docker_step_t DOCKER_CREATE[]; /* up to a container that runs */
extern const docker_step_t DOCKER_START[];  /* one that is there and may run; else is_missing */
extern const docker_step_t DOCKER_STOP[];
extern const docker_step_t DOCKER_KILL[];
extern const docker_step_t DOCKER_REMOVE[]; /* container and volume; idempotent */
/* A failed start leaves processes of the runtime behind (gVisor's in the default network): those of this container,
 * which is removed, are killed. Local daemons only. */
void docker_kill_leaked(const docker_t *d, const char *docker_id);

/* ---- docker_tar.c ---- */
/* The agent and the directories of every sandbox, as a tar file. */
int docker_agent_tar(docker_t *d, err_t **e);

/* ---- docker_image.c ---- */

typedef void (*docker_image_fn)(void *arg, const char *ref, const err_t *err);
/* Sees to it that the image is there: one of our store is imported once, another one pulled. */
docker_image_job_t *docker_image_want(docker_t *d, const char *image, docker_image_fn done, void *arg);
void docker_image_forget(docker_image_job_t **job);
/* At the daemon's end: of a job that nobody waits for. */
void docker_image_close(docker_image_job_t *job);
/* What it is called in Docker; not whether it is there. */
int docker_image_ref(const docker_t *d, const char *image, char ref[DOCKER_REF_MAX], err_t **e);

/* ---- docker_trial.c ---- */

/* Makes a container of the default image, talks to its agent and removes it. message NULL: that worked. */
typedef struct docker_trial docker_trial_t;
typedef void (*docker_trial_fn)(void *arg, const char *message, uint32_t startup_ms);
docker_trial_t *docker_trial_start(docker_t *d, const docker_probe_result_t *how, const char *network,
                                   docker_trial_fn ended, void *arg);
void docker_trial_stop(docker_trial_t *t); /* it ends soon */
void docker_trial_free(docker_trial_t **t);

/* ---- docker_probe.c ---- */
docker_probe_t *docker_probe_new(docker_t *d);
void docker_probe_free(docker_probe_t **p);
/* Before the daemon ends: runs the loop until the trial's container is gone (at most some seconds). */
void docker_probe_drain(docker_probe_t *p);
void docker_probe_run(docker_probe_t *p, provider_done_fn done, void *arg);
const docker_probe_result_t *docker_probe_get(const docker_probe_t *p);

/* ---- docker_status.c ---- */
void docker_isolation(const docker_probe_result_t *r, const docker_t *d, char *out, size_t size);
void docker_status_refresh(docker_t *d);
const struct provider_status *docker_status_get(provider_t *p);
void docker_status_free(docker_t *d);
void docker_list_images(provider_t *p, struct image_list_reply *reply, buf_t *storage);

/* ---- docker_sweep.c ---- */
/* Before the registry is read: what there is (d->found). Runs the loop, for at most DOCKER_QUICK_MS. */
void docker_look(docker_t *d);
/* Removes containers and volumes with our label that no sandbox has. */
void docker_sweep(docker_t *d);

/* ---- docker_ops.c ---- */
extern const provider_ops_t DOCKER_OPS;

#endif
