/* SPDX-License-Identifier: Apache-2.0 */
#include "common/buf.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gvisord/gvisord.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define AGENT_MAX (16 * 1024 * 1024)
#define AGENT_NAME "ew-agent"
#define LAYER_FORMAT 2 /* of what is in a layer beside the agent: a new one is made when this changes */
/* gVisor mounts a tmpfs on an empty /tmp: its files would take memory, not disk, and be gone after a stop. */
#define TMP_KEEP "tmp/.keep"

/* Mount points and directories that every sandbox has, whatever its image holds. */
static const struct {
    const char *path;
    mode_t mode;
} DIRECTORIES[] = {
    {".emergent", 0755}, {"workspace", 0777}, {"proc", 0555}, {"sys", 0555},
    {"dev", 0755},       {"tmp", 01777},      {"run", 0755},  {"etc", 0755},
};

/* Beside this program, in a build directory as in an installation. */
static char *agent_path(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return mem_strdup(AGENT_NAME);
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    *(slash ? slash : self) = '\0';
    return mem_printf("%s/%s", self, AGENT_NAME);
}

static int fill(const char *layer, const buf_t *agent, err_t **e)
{
    for (size_t i = 0; i < COUNT_OF(DIRECTORIES); i++) {
        auto_free char *path = mem_printf("%s/%s", layer, DIRECTORIES[i].path);
        if (dir_make(path, DIRECTORIES[i].mode, e) < 0)
            return -1;
        if (chmod(path, DIRECTORIES[i].mode) < 0) /* whatever the umask is */
            return err_set_errno(e, ERR_INTERNAL, errno, "cannot set the mode of %s", path);
    }
    auto_free char *keep = mem_printf("%s/" TMP_KEEP, layer);
    if (file_write_atomic(keep, "", 0, 0644, e) < 0)
        return -1;
    auto_free char *path = mem_printf("%s/.emergent/agent", layer);
    return file_write_atomic(path, agent->data, agent->len, 0755, e);
}

char *agent_layer_make(const char *state_dir, err_t **e)
{
    auto_free char *source = agent_path();
    auto_buf buf_t agent = {0};
    buf_init(&agent, AGENT_MAX);
    if (file_read(source, AGENT_MAX, &agent, e) < 0) {
        err_wrap(e, "the agent for sandboxes is not there (build it with `make`)");
        return NULL;
    }
    uint8_t digest[SHA256_DIGEST_LENGTH];
    char name[33];
    SHA256(agent.data, agent.len, digest);
    hex_encode(name, digest, 16);
    auto_free char *layer = mem_printf("%s/agent/%s-%d", state_dir, name, LAYER_FORMAT);
    if (access(layer, F_OK) == 0)
        return STEAL_PTR(layer);
    auto_free char *temporary = mem_printf("%s.%d", layer, getpid());
    auto_err err_t *ignored = NULL;
    if (dir_make(temporary, 0755, e) < 0)
        return NULL;
    (void)chmod(temporary, 0755);
    if (fill(temporary, &agent, e) < 0 || (rename(temporary, layer) < 0 && errno != EEXIST && errno != ENOTEMPTY &&
                                           err_set_errno(e, ERR_INTERNAL, errno, "cannot make %s", layer) < 0)) {
        (void)dir_remove(temporary, &ignored);
        return NULL;
    }
    return STEAL_PTR(layer);
}

void agent_layer_prune(const char *state_dir, bool (*is_used)(void *arg, const char *layer), void *arg)
{
    auto_free char *dir = mem_printf("%s/agent", state_dir);
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *de; (de = readdir(d));) {
        auto_free char *path = mem_printf("%s/%s", dir, de->d_name);
        auto_err err_t *e = NULL;
        if (de->d_name[0] != '.' && !is_used(arg, path) && dir_remove(path, &e) < 0)
            log_warn("an old agent stays: %s", err_message(e));
    }
    closedir(d);
}
