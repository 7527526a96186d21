/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests one after the other, as a table.
 */
#ifndef EW_SERVICES_GVISORD_DOCKER_TASK_H
#define EW_SERVICES_GVISORD_DOCKER_TASK_H

#include "common/provider/provider.h"
#include "services/gvisord/docker_http.h"

enum docker_next { DOCKER_NEXT, DOCKER_AGAIN /* after a while, a few times */ };

typedef struct docker_step {
    const char *what; /* "cannot make its volume" */
    /* Fills in the call; 1 = there is nothing to do. */
    int (*make)(void *arg, docker_call_t *call);
    /* docker_next, -1 with the error; NULL: an error is what is not 2xx. */
    int (*take)(void *arg, const docker_reply_t *reply, err_t **e);
    uint32_t timeout_ms;
    bool is_patient; /* a daemon that does not answer is being restarted: wait for it */
} docker_step_t;

typedef struct docker_task docker_task_t;

/* `done` comes later, from the loop. The steps end with one without `make`. */
docker_task_t *docker_task_start(docker_http_t *h, struct event_base *base, const docker_step_t *steps, void *arg,
                                 provider_done_fn done, void *done_arg);
void docker_task_cancel(docker_task_t **t);

#endif
