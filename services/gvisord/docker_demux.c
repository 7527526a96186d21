/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/docker_demux.h"

#include <string.h>

enum stream_kind { KIND_STDIN, KIND_STDOUT, KIND_STDERR };

static size_t take_header(docker_demux_t *d, const uint8_t *bytes, size_t len)
{
    size_t part = sizeof d->header - d->header_len;
    part = len < part ? len : part;
    memcpy(d->header + d->header_len, bytes, part);
    d->header_len += part;
    return part;
}

int docker_demux_take(docker_demux_t *d, const uint8_t *bytes, size_t len,
                      void (*on_output)(void *arg, const uint8_t *bytes, size_t len), void *arg)
{
    while (len > 0) {
        size_t part;
        if (d->header_len < sizeof d->header) {
            const uint8_t *h = d->header;
            part = take_header(d, bytes, len);
            if (d->header_len == sizeof d->header) {
                if (h[0] > KIND_STDERR || h[1] || h[2] || h[3])
                    return -1;
                d->left = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
            }
        } else {
            part = len < d->left ? len : d->left;
            if (d->header[0] == KIND_STDOUT)
                on_output(arg, bytes, part);
            d->left -= (uint32_t)part;
        }
        if (d->header_len == sizeof d->header && d->left == 0)
            d->header_len = 0;
        bytes += part;
        len -= part;
    }
    return 0;
}
