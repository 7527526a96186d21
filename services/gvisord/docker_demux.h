/* SPDX-License-Identifier: Apache-2.0
 *
 * The frames of Docker's attach stream: kind, three zeros, length (big endian), bytes. Freestanding.
 */
#ifndef EW_SERVICES_GVISORD_DOCKER_DEMUX_H
#define EW_SERVICES_GVISORD_DOCKER_DEMUX_H

#include <stddef.h>
#include <stdint.h>

#define DOCKER_DEMUX_HEADER 8

typedef struct docker_demux {
    uint8_t header[DOCKER_DEMUX_HEADER];
    size_t header_len;
    uint32_t left; /* of the frame's bytes */
} docker_demux_t;

/* Calls on_output for what is standard output; what is another stream's is dropped. -1: these are no such frames. */
int docker_demux_take(docker_demux_t *d, const uint8_t *bytes, size_t len,
                      void (*on_output)(void *arg, const uint8_t *bytes, size_t len), void *arg);

#endif
