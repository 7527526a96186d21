/* SPDX-License-Identifier: Apache-2.0 */
#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gvisord/docker_private.h"
#include "services/gvisord/gvisord.h"

#include <openssl/sha.h>
#include <stdio.h>

#define AGENT_MAX ((size_t)16 << 20)
#define BLOCK ((size_t)512)

/* ustar; numbers are octal text. */
typedef struct tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6], version[2];
    char owner[32], group[32], dev[2][8], prefix[155], pad[12];
} tar_header_t;

static const struct {
    const char *name;
    unsigned mode;
    char type; /* '5': a directory */
} ENTRIES[] = {
    {".emergent/", 0755, '5'},
    {"workspace/", 0777, '5'},
    {"tmp/", 01777, '5'},
    {"tmp/.keep", 0644, '0'}, /* gVisor mounts a tmpfs on an empty /tmp */
};

static void add_entry(buf_t *tar, const char *name, unsigned mode, char type, const void *bytes, size_t len)
{
    tar_header_t h = {.type = type, .magic = "ustar", .version = {'0', '0'}};
    unsigned sum = 0;
    _Static_assert(sizeof h == BLOCK, "a tar header is one block");
    snprintf(h.name, sizeof h.name, "%s", name);
    snprintf(h.mode, sizeof h.mode, "%07o", mode);
    snprintf(h.uid, sizeof h.uid, "%07o", 0);
    snprintf(h.gid, sizeof h.gid, "%07o", 0);
    snprintf(h.size, sizeof h.size, "%011zo", len);
    snprintf(h.mtime, sizeof h.mtime, "%011o", 0);
    memset(h.sum, ' ', sizeof h.sum);
    for (size_t i = 0; i < sizeof h; i++)
        sum += ((const uint8_t *)&h)[i];
    snprintf(h.sum, sizeof h.sum, "%06o", sum);
    buf_append(tar, &h, sizeof h);
    buf_append(tar, bytes, len);
    static const uint8_t zeros[BLOCK];
    if (len % BLOCK)
        buf_append(tar, zeros, BLOCK - len % BLOCK);
}

int docker_agent_tar(docker_t *d, err_t **e)
{
    static const uint8_t end[2 * BLOCK];
    auto_free char *layer = agent_layer_make(d->daemon->state_dir, e);
    if (!layer)
        return -1;
    auto_free char *path = mem_printf("%s/.emergent/agent", layer);
    auto_buf buf_t agent = {0};
    uint8_t digest[SHA256_DIGEST_LENGTH];
    buf_init(&agent, AGENT_MAX);
    if (file_read(path, AGENT_MAX, &agent, e) < 0)
        return -1;
    SHA256(agent.data, agent.len, digest);
    hex_encode(d->agent_id, digest, 16);
    for (size_t i = 0; i < COUNT_OF(ENTRIES); i++)
        add_entry(&d->agent_tar, ENTRIES[i].name, ENTRIES[i].mode, ENTRIES[i].type, "", 0);
    add_entry(&d->agent_tar, ".emergent/agent", 0755, '0', agent.data, agent.len);
    buf_append(&d->agent_tar, end, sizeof end);
    return 0;
}
