/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/docker.h"

#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gvisord/docker_private.h"

#include <dirent.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKEND_MAX 64

/* ---- the choice ---- */

static bool has_sandboxes(const daemon_t *d)
{
    auto_free char *path = mem_printf("%s/sandboxes", d->state_dir);
    DIR *dir = opendir(path);
    bool is_any = false;
    for (struct dirent *de; dir && !is_any && (de = readdir(dir));)
        is_any = de->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return is_any;
}

static bool is_program(const char *name)
{
    if (strchr(name, '/'))
        return access(name, X_OK) == 0;
    const char *path = getenv("PATH");
    for (const char *at = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; *at;) {
        size_t len = strcspn(at, ":");
        auto_free char *candidate = mem_printf("%.*s/%s", (int)len, at, name);
        if (len && access(candidate, X_OK) == 0)
            return true;
        at += len + (at[len] == ':');
    }
    return false;
}

/* Somebody listens there; a remote one is believed. */
static bool is_answering(const char *where)
{
    docker_host_t host;
    auto_err err_t *ignored = NULL;
    if (docker_host_parse(&host, where, &ignored) < 0)
        return false;
    auto_close int fd = socket(host.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_there = !host.path || (fd >= 0 && connect(fd, (struct sockaddr *)&host.address, host.address_len) == 0);
    docker_host_free(&host);
    return is_there;
}

static const char *wanted_backend(const config_t *c)
{
    if (strcmp(c->backend, "auto") != 0)
        return c->backend;
    return !is_program(c->runsc_bin) && is_answering(c->docker_host) ? "docker" : "runsc";
}

bool docker_is_chosen(const daemon_t *d, err_t **e)
{
    auto_free char *path = mem_printf("%s/backend", d->state_dir);
    const char *wanted = wanted_backend(&d->config), *used = wanted;
    auto_buf buf_t kept = {0};
    auto_err err_t *none = NULL;
    if (has_sandboxes(d)) {
        /* Before there was this file, there was one backend. */
        used = file_read(path, BACKEND_MAX, &kept, &none) == 0 ? buf_cstr(&kept) : "runsc";
        if (strcmp(used, wanted) != 0)
            log_warn("GVISORD_BACKEND would be %s now, but there are sandboxes made by %s: that stays in force until "
                     "the last is gone and gvisord is started again",
                     wanted, used);
    }
    bool is_docker = strcmp(used, "docker") == 0;
    return file_write_atomic(path, used, strlen(used), 0600, e) == 0 && is_docker;
}

/* ---- service ---- */

/* Keeps several suites on one Docker Engine apart. */
static void make_tag(docker_t *d)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)d->daemon->state_dir, strlen(d->daemon->state_dir), digest);
    hex_encode(d->tag, digest, (DOCKER_TAG_SIZE - 1) / 2);
}

static int prepare(docker_t *d, err_t **e)
{
    make_tag(d);
    if (docker_host_parse(&d->host, d->daemon->config.docker_host, e) < 0 || docker_agent_tar(d, e) < 0)
        return -1;
    d->http = docker_http_new(d->daemon->base, &d->host, e);
    if (!d->http)
        return -1;
    d->probe = docker_probe_new(d);
    log_info("sandboxes are containers of the Docker Engine at %s", d->host.text);
    return 0;
}

static int serve(docker_t *d, err_t **e)
{
    if (prepare(d, e) < 0)
        return -1;
    docker_look(d);
    d->provider = provider_new(d->daemon, &DOCKER_OPS, d, e);
    json_decref(d->found);
    d->found = NULL;
    if (!d->provider)
        return -1;
    docker_sweep(d);
    daemon_run(d->daemon);
    provider_drain_pools(d->provider);
    docker_probe_drain(d->probe);
    return 0;
}

int docker_serve(daemon_t *daemon, err_t **e)
{
    docker_t d = {.daemon = daemon};
    LIST_INIT(&d.image_jobs);
    int rc = serve(&d, e);
    provider_destroy(&d.provider);
    docker_probe_free(&d.probe);
    for (docker_image_job_t *j; (j = LIST_FIRST(&d.image_jobs));)
        docker_image_close(j);
    docker_http_free(&d.http);
    docker_status_free(&d);
    docker_host_free(&d.host);
    buf_free(&d.agent_tar);
    json_decref(d.images);
    return rc;
}
