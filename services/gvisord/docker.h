/* SPDX-License-Identifier: Apache-2.0
 *
 * The second backend of gvisord: sandboxes as containers of a Docker Engine (laptops, docker-compose).
 *
 * docker.c        choice, start      docker_ops.c    the vtable        docker_container.c what a container is made of
 * docker_http.c   requests           docker_task.c   steps of requests docker_attach.c    the agent's stream
 * docker_demux.c  Docker's frames    docker_image.c  import and pull   docker_probe.c     what works here
 * docker_status.c what hubs are told docker_sweep.c  leftovers         docker_tar.c       the agent as an archive
 * docker_host.c   DOCKER_HOST
 *
 * One sandbox = container and volume `agent-workspace-<host id>`, labelled with this daemon's tag: everything of it is
 * found by its name alone, whenever the daemon died.
 */
#ifndef EW_SERVICES_GVISORD_DOCKER_H
#define EW_SERVICES_GVISORD_DOCKER_H

#include "common/daemon.h"

/* GVISORD_BACKEND; a state directory with sandboxes keeps the backend that made them. */
bool docker_is_chosen(const daemon_t *d, err_t **e);
/* Until a signal. */
int docker_serve(daemon_t *d, err_t **e);

#endif
