/* SPDX-License-Identifier: Apache-2.0
 *
 * The agent's stream over a container's attach connection: a socket pair, one end for stream_open, the other pumped to
 * and from Docker. Downwards in blocks (common/cobs.h), because a killed daemon leaves half of something there and
 * Docker may still bring it after the next one has attached. Upwards Docker's frames are taken apart. Both directions
 * wait for the slower side: at most ATTACH_HIGH bytes are held for each.
 */
#ifndef EW_SERVICES_GVISORD_DOCKER_ATTACH_H
#define EW_SERVICES_GVISORD_DOCKER_ATTACH_H

#include "services/gvisord/docker_http.h"

#define ATTACH_HIGH ((size_t)256 * 1024)
#define ATTACH_HEAD_MAX ((size_t)16 * 1024)
#define ATTACH_CONNECT_MS 10000

typedef struct docker_attach docker_attach_t;

/* *fd_stream is the caller's. `ended` is called once when the connection fails or ends, from the loop, unless whoever
 * has fd_stream closed it before; fd_stream stays open until docker_attach_close. */
docker_attach_t *docker_attach_open(struct event_base *base, const docker_host_t *host, const char *container,
                                    int *fd_stream, void (*ended)(void *arg, const char *why), void *arg, err_t **e);
void docker_attach_close(docker_attach_t **a);

#endif
