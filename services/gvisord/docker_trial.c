/* SPDX-License-Identifier: Apache-2.0 */
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/docker_private.h"

#include <stdio.h>

#define TRIAL_CPU_MILLI 1000
#define TRIAL_MEMORY ((uint64_t)256 << 20)
#define TRIAL_DISK ((uint64_t)2 << 30)
#define TRIAL_PIDS 64

struct docker_trial {
    docker_t *d;
    docker_container_t container;
    sandbox_spec_t spec;
    char id[UUID_TEXT_SIZE];
    uuid16_t uuid;
    char ref[DOCKER_REF_MAX];
    docker_image_job_t *image;
    docker_task_t *task;
    docker_attach_t *attach;
    stream_t *stream;
    struct event *turn; /* out of the stream's own callbacks */
    uint64_t started_ms;
    uint32_t startup_ms;
    bool is_ending;
    char message[400]; /* "" = it works */
    docker_trial_fn ended;
    void *arg;
};

static void on_removed(void *arg, const err_t *err)
{
    docker_trial_t *t = arg;
    t->task = NULL;
    if (err)
        log_warn("a trial container stays: %s", err_message(err));
    else
        docker_kill_leaked(t->d, t->container.docker_id);
    docker_trial_fn ended = t->ended;
    void *ended_arg = t->arg;
    uint32_t startup_ms = t->startup_ms;
    auto_free char *message = t->message[0] ? mem_strdup(t->message) : NULL;
    docker_trial_free(&t);
    ended(ended_arg, message, startup_ms);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    docker_trial_t *t = arg;
    stream_destroy(&t->stream);
    docker_attach_close(&t->attach);
    t->task = docker_task_start(t->d->http, t->d->daemon->base, DOCKER_REMOVE, &t->container, on_removed, t);
}

/* message NULL: it works. */
static void end(docker_trial_t *t, const char *message)
{
    struct timeval now = {0};
    if (t->is_ending)
        return;
    t->is_ending = true;
    snprintf(t->message, sizeof t->message, "%s", message ? message : "");
    docker_task_cancel(&t->task);
    docker_image_forget(&t->image);
    evtimer_add(t->turn, &now);
}

static void on_ready(void *arg, const struct adopt *adopt)
{
    docker_trial_t *t = arg;
    (void)adopt;
    t->startup_ms = (uint32_t)(clock_monotonic_ms() - t->started_ms);
    end(t, NULL);
}

static void on_frame(void *arg, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)arg;
    (void)env;
    (void)body;
    (void)len;
}

static void on_broken(void *arg, const char *reason)
{
    char message[300];
    snprintf(message, sizeof message, "the agent in a trial container cannot be talked to: %s", reason);
    end(arg, message);
}

static void on_attach_end(void *arg, const char *why)
{
    char message[300];
    snprintf(message, sizeof message, "a trial container has ended at once: %s", why);
    end(arg, message);
}

static const stream_events_t EVENTS = {.on_ready = on_ready, .on_frame = on_frame, .on_broken = on_broken};

static void on_made(void *arg, const err_t *err)
{
    docker_trial_t *t = arg;
    auto_err err_t *e = NULL;
    int fd = -1;
    t->task = NULL;
    if (err) {
        end(t, err_message(err));
        return;
    }
    stream_identity_t identity = {
        .sandbox = t->uuid, .epoch = 1, .pids_max = TRIAL_PIDS, .memory_budget_bytes = TRIAL_MEMORY};
    auto_free char *name = docker_container_name(t->id);
    t->attach = docker_attach_open(t->d->daemon->base, &t->d->host, name, &fd, on_attach_end, t, &e);
    if (t->attach)
        t->stream = stream_open(t->d->daemon->base, fd, fd, &identity, 0, &EVENTS, t, &e);
    if (!t->stream)
        end(t, err_message(e));
}

static void on_image(void *arg, const char *ref, const err_t *err)
{
    docker_trial_t *t = arg;
    t->image = NULL;
    if (err) {
        end(t, err_message(err));
        return;
    }
    snprintf(t->ref, sizeof t->ref, "%s", ref);
    t->started_ms = clock_monotonic_ms();
    t->container.image_ref = t->ref;
    t->task = docker_task_start(t->d->http, t->d->daemon->base, DOCKER_CREATE, &t->container, on_made, t);
}

docker_trial_t *docker_trial_start(docker_t *d, const docker_probe_result_t *how, const char *network,
                                   docker_trial_fn ended, void *arg)
{
    docker_trial_t *t = mem_alloc(sizeof *t);
    *t = (docker_trial_t){.d = d, .ended = ended, .arg = arg};
    random_bytes(&t->uuid, sizeof t->uuid);
    uuid16_format(&t->uuid, t->id);
    t->spec = (sandbox_spec_t){.cpu_milli = TRIAL_CPU_MILLI,
                               .memory_bytes = TRIAL_MEMORY,
                               .disk_bytes = TRIAL_DISK,
                               .pids_max = TRIAL_PIDS,
                               .network = mem_strdup(network)};
    t->container = (docker_container_t){.d = d,
                                        .id = t->id,
                                        .spec = &t->spec,
                                        .has_volume = true,
                                        .is_plain = how->is_plain,
                                        .has_storage_limit = how->has_storage_limit};
    t->turn = evtimer_new(d->daemon->base, on_turn, t);
    t->image = docker_image_want(d, d->daemon->config.default_image, on_image, t);
    return t;
}

void docker_trial_stop(docker_trial_t *t)
{
    end(t, "stopped");
}

void docker_trial_free(docker_trial_t **t)
{
    docker_trial_t *own = *t;
    *t = NULL;
    if (!own)
        return;
    docker_task_cancel(&own->task);
    docker_image_forget(&own->image);
    stream_destroy(&own->stream);
    docker_attach_close(&own->attach);
    event_free(own->turn);
    free(own->spec.network);
    free(own);
}
