/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/docker_task.h"

#include "common/mem.h"

#define AGAIN_MS 250
#define AGAIN_MAX 40
#define PATIENT_MAX 240

struct docker_task {
    docker_http_t *http;
    const docker_step_t *step;
    void *arg;
    provider_done_fn done;
    void *done_arg;
    docker_request_t *request;
    struct event *turn;
    unsigned repeats;
};

static void turn_later(docker_task_t *t, unsigned ms)
{
    struct timeval tv = {.tv_usec = ms * 1000};
    evtimer_add(t->turn, &tv);
}

static void finish(docker_task_t *t, const err_t *err)
{
    provider_done_fn done = t->done;
    void *arg = t->done_arg;
    docker_task_cancel(&t);
    done(arg, err);
}

static int take(docker_task_t *t, const docker_reply_t *reply, err_t **e)
{
    if (t->step->take)
        return t->step->take(t->arg, reply, e);
    return reply->status / 100 == 2 ? DOCKER_NEXT : docker_reply_error(reply, t->step->what, e);
}

static void on_reply(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_task_t *t = arg;
    auto_err err_t *e = NULL;
    t->request = NULL;
    if (err && t->step->is_patient && ++t->repeats <= PATIENT_MAX) {
        turn_later(t, AGAIN_MS);
        return;
    }
    if (err) {
        err_set(&e, err_code(err), "%s: %s", t->step->what, err_message(err));
        finish(t, e);
        return;
    }
    int next = take(t, reply, &e);
    if (next == DOCKER_AGAIN && ++t->repeats > AGAIN_MAX)
        next = docker_reply_error(reply, t->step->what, &e);
    if (next < 0) {
        finish(t, e);
    } else if (next == DOCKER_AGAIN) {
        turn_later(t, AGAIN_MS);
    } else {
        t->repeats = 0;
        t->step++;
        turn_later(t, 0);
    }
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    docker_task_t *t = arg;
    for (; t->step->make; t->step++) {
        docker_call_t call = {.timeout_ms = t->step->timeout_ms};
        if (t->step->make(t->arg, &call) == 1)
            continue;
        t->request = docker_http_start(t->http, &call, on_reply, t);
        return;
    }
    finish(t, NULL);
}

docker_task_t *docker_task_start(docker_http_t *h, struct event_base *base, const docker_step_t *steps, void *arg,
                                 provider_done_fn done, void *done_arg)
{
    docker_task_t *t = mem_alloc(sizeof *t);
    *t = (docker_task_t){.http = h, .step = steps, .arg = arg, .done = done, .done_arg = done_arg};
    t->turn = evtimer_new(base, on_turn, t);
    if (!t->turn)
        abort(); /* out of memory */
    turn_later(t, 0);
    return t;
}

void docker_task_cancel(docker_task_t **t)
{
    docker_task_t *own = *t;
    *t = NULL;
    if (!own)
        return;
    docker_http_cancel(&own->request);
    event_free(own->turn);
    free(own);
}
