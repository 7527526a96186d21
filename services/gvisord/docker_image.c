/* SPDX-License-Identifier: Apache-2.0
 *
 * Images: one of our store is imported into Docker once, under its digest; another name is a Docker reference, pulled
 * when it is not there. Whoever wants the same image meanwhile waits for the same work. An import gets its name only
 * when all of it has arrived; what was broken off has none and is pruned by its label.
 */
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gvisord/docker_private.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define TRANSFER_MS (30 * 60 * 1000)
#define LINES_MAX 60 /* of a pull's progress in the log */
#define TAR_OUTPUT_MAX 2000
#define TAG_DIGITS 32

struct docker_image_job {
    docker_t *d;
    char *image;
    char ref[DOCKER_REF_MAX];
    char *rootfs; /* NULL: to be pulled */
    docker_image_fn done;
    void *arg;
    docker_image_job_t *leader; /* does the work for this one, too */
    docker_request_t *request;
    process_t *tar;
    int fd_tar;
    struct event *turn;
    bool is_tar_done, is_sent;
    unsigned lines;
    char image_id[80];
    char problem[400];
    LIST_ENTRY(docker_image_job) entry;
};

/* ---- names ---- */

static bool is_reference(const char *text)
{
    size_t len = strlen(text);
    if (len == 0 || len >= DOCKER_REF_MAX - 10 || !isalnum((unsigned char)text[0]) || strstr(text, ".."))
        return false;
    for (const char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-/:@", *c))
            return false;
    return true;
}

/* A repository's name is in small letters, with single separators. */
static void repository_of(const char *name, char *out, size_t size)
{
    size_t n = 0;
    for (const char *c = name; *c && n + 1 < size; c++) {
        if (isalnum((unsigned char)*c))
            out[n++] = (char)tolower((unsigned char)*c);
        else if (n > 0 && out[n - 1] != '-')
            out[n++] = '-';
    }
    while (n > 0 && out[n - 1] == '-')
        n--;
    out[n] = '\0';
}

static bool has_tag(const char *ref)
{
    const char *slash = strrchr(ref, '/');
    return strchr(slash ? slash : ref, ':') || strchr(ref, '@');
}

static int resolve(const docker_t *d, const char *name, char ref[DOCKER_REF_MAX], char **rootfs, err_t **e)
{
    auto_image image_t image = {0};
    auto_err err_t *none = NULL;
    char repository[160];
    if (image_name_is_valid(name) && image_find(d->daemon->config.image_dir, name, &image, &none) == 0) {
        const char *colon = image.digest ? strchr(image.digest, ':') : NULL;
        const char *generation = strrchr(image.rootfs, '/') + 1;
        repository_of(name, repository, sizeof repository);
        snprintf(ref, DOCKER_REF_MAX, DOCKER_IMAGE_PREFIX "%s:%.*s", repository, TAG_DIGITS,
                 colon ? colon + 1 : generation);
        if (rootfs)
            *rootfs = STEAL_PTR(image.rootfs);
        return 0;
    }
    if (!is_reference(name))
        return err_set(e, ERR_NOT_FOUND, "image '%.140s' is not on this host and is no Docker reference", name);
    snprintf(ref, DOCKER_REF_MAX, "%s%s", name, has_tag(name) ? "" : ":latest");
    return 0;
}

int docker_image_ref(const docker_t *d, const char *image, char ref[DOCKER_REF_MAX], err_t **e)
{
    return resolve(d, image, ref, NULL, e);
}

/* ---- the end ---- */

static void job_free(docker_image_job_t *j)
{
    LIST_REMOVE(j, entry);
    docker_http_cancel(&j->request);
    process_cancel(&j->tar);
    if (j->fd_tar > 0)
        close(j->fd_tar);
    if (j->turn)
        event_free(j->turn);
    free(j->image);
    free(j->rootfs);
    free(j);
}

static void tell(docker_image_job_t *j, const char *ref, const err_t *err)
{
    docker_image_fn done = j->done;
    void *arg = j->arg;
    char own[DOCKER_REF_MAX];
    snprintf(own, sizeof own, "%s", ref);
    job_free(j);
    if (done)
        done(arg, own, err);
}

static docker_image_job_t *follower_of(docker_image_job_t *leader)
{
    docker_image_job_t *j;
    LIST_FOREACH(j, &leader->d->image_jobs, entry)
    if (j->leader == leader)
        return j;
    return NULL;
}

static void finish(docker_image_job_t *j, const err_t *err)
{
    char ref[DOCKER_REF_MAX];
    memcpy(ref, j->ref, sizeof ref);
    for (docker_image_job_t *f; (f = follower_of(j));)
        tell(f, ref, err);
    tell(j, ref, err);
}

static void __attribute__((format(printf, 2, 3))) fail(docker_image_job_t *j, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    auto_err err_t *e = NULL;
    err_set(&e, ERR_SANDBOX_FAILED, "image '%s' cannot be used: %s", j->image, text);
    finish(j, e);
}

/* ---- import ---- */

static void on_tagged(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_image_job_t *j = arg;
    auto_err err_t *e = NULL;
    j->request = NULL;
    if (!err && reply->status != 201)
        docker_reply_error(reply, "cannot name the image", &e);
    if (err || e)
        fail(j, "%s", err_message(err ? err : e));
    else
        finish(j, NULL);
}

static void import_end(docker_image_job_t *j)
{
    if (!j->is_tar_done || !j->is_sent)
        return;
    if (j->problem[0] || strncmp(j->image_id, "sha256:", 7) != 0) {
        fail(j, "its import into Docker failed: %s", j->problem[0] ? j->problem : "the Docker daemon named no image");
        return;
    }
    const char *colon = strrchr(j->ref, ':');
    docker_call_t call = {.method = "POST", .timeout_ms = DOCKER_QUICK_MS};
    call.path = mem_printf("/images/%s/tag?repo=%.*s&tag=%s", j->image_id, (int)(colon - j->ref), j->ref, colon + 1);
    j->request = docker_http_start(j->d->http, &call, on_tagged, j);
}

static void on_import_line(void *arg, const char *line)
{
    docker_image_job_t *j = arg;
    json_t *root = json_loads(line, 0, NULL);
    const char *status = json_string_value(json_object_get(root, "status"));
    const char *error = json_string_value(json_object_get(root, "error"));
    const char *message = json_string_value(json_object_get(root, "message")); /* of a status >= 400 */
    if (error || message)
        snprintf(j->problem, sizeof j->problem, "%s", error ? error : message);
    if (status && strncmp(status, "sha256:", 7) == 0 && !status[7 + strspn(status + 7, "0123456789abcdef")])
        snprintf(j->image_id, sizeof j->image_id, "%s", status);
    /* "Pulling fs layer", "Pull complete", …; not each step of a progress bar. */
    if (status && !j->rootfs && !json_object_get(root, "progress") && j->lines++ < LINES_MAX) {
        const char *id = json_string_value(json_object_get(root, "id"));
        log_info("image %s: %s%s%.200s", j->ref, id ? id : "", id ? " " : "", status);
    }
    json_decref(root);
}

static void on_imported(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_image_job_t *j = arg;
    j->request = NULL;
    j->is_sent = true;
    if (err)
        snprintf(j->problem, sizeof j->problem, "%s", err_message(err));
    else if (reply->status != 200 && !j->problem[0])
        snprintf(j->problem, sizeof j->problem, "the Docker daemon answered %d", reply->status);
    if (j->problem[0]) {
        process_cancel(&j->tar); /* nobody reads from it any more */
        j->is_tar_done = true;
    }
    import_end(j);
}

static void on_tar_end(void *arg, const process_result_t *result)
{
    docker_image_job_t *j = arg;
    j->tar = NULL;
    j->is_tar_done = true;
    if (result->exit_code != 0 && !j->problem[0])
        snprintf(j->problem, sizeof j->problem, "its files cannot be read: %.300s", result->output);
    import_end(j);
}

static void import(docker_image_job_t *j)
{
    const char *argv[] = {
        "tar", "--create", "--numeric-owner", "--one-file-system", "--directory", j->rootfs, "--file", "-", ".", NULL};
    int fds[2];
    auto_err err_t *e = NULL;
    if (pipe2(fds, O_CLOEXEC) < 0 || fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0) {
        fail(j, "no pipe can be made: %s", strerror(errno));
        return;
    }
    process_options_t options = {.argv = argv,
                                 .fd_stdin = -1,
                                 .fd_stdout = fds[1],
                                 .fd_stderr = -1,
                                 .netns_fd = -1,
                                 .timeout_ms = TRANSFER_MS,
                                 .output_max = TAR_OUTPUT_MAX};
    log_info("image %s: importing it into Docker as %s, once", j->image, j->ref);
    j->fd_tar = fds[0];
    j->tar = process_start(j->d->daemon->base, &options, on_tar_end, j, &e);
    close(fds[1]);
    if (!j->tar) {
        fail(j, "%s", err_message(e));
        return;
    }
    docker_call_t call = {.method = "POST", .fd_upload = j->fd_tar, .on_line = on_import_line};
    call.timeout_ms = TRANSFER_MS;
    call.path = mem_strdup("/images/create?fromSrc=-&changes=LABEL%20emergent.workspaces.image%3Dtrue");
    j->request = docker_http_start(j->d->http, &call, on_imported, j);
}

/* ---- pull ---- */

static void on_pulled(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_image_job_t *j = arg;
    j->request = NULL;
    if (!err && reply->status != 200 && !j->problem[0])
        snprintf(j->problem, sizeof j->problem, "the Docker daemon answered %d", reply->status);
    if (err || j->problem[0])
        fail(j, "it is not there and the pull failed: %s", err ? err_message(err) : j->problem);
    else
        finish(j, NULL);
}

static void pull(docker_image_job_t *j)
{
    if (!strpbrk(j->image, "/:@")) {
        fail(j, "it is neither in %s nor in Docker; name it with a tag to pull it", j->d->daemon->config.image_dir);
        return;
    }
    log_info("image %s: pulling it", j->ref);
    const char *slash = strrchr(j->ref, '/'), *colon = strrchr(slash ? slash : j->ref, ':');
    docker_call_t call = {.method = "POST", .on_line = on_import_line, .timeout_ms = TRANSFER_MS};
    if (strchr(j->ref, '@'))
        call.path = mem_printf("/images/create?fromImage=%s", j->ref);
    else
        call.path = mem_printf("/images/create?fromImage=%.*s&tag=%s", (int)(colon - j->ref), j->ref, colon + 1);
    j->request = docker_http_start(j->d->http, &call, on_pulled, j);
}

/* ---- is it there? ---- */

static void on_looked(void *arg, const docker_reply_t *reply, const err_t *err)
{
    docker_image_job_t *j = arg;
    j->request = NULL;
    if (err)
        fail(j, "%s", err_message(err));
    else if (reply->status == 200)
        finish(j, NULL);
    else if (reply->status != 404)
        fail(j, "the Docker daemon answered %d", reply->status);
    else if (j->rootfs)
        import(j);
    else
        pull(j);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    docker_image_job_t *j = arg, *other;
    auto_err err_t *e = NULL;
    if (resolve(j->d, j->image, j->ref, &j->rootfs, &e) < 0) {
        finish(j, e);
        return;
    }
    LIST_FOREACH(other, &j->d->image_jobs, entry)
    if (other != j && !other->leader && strcmp(other->ref, j->ref) == 0) {
        j->leader = other;
        return;
    }
    docker_call_t call = {.method = "GET", .timeout_ms = DOCKER_QUICK_MS};
    call.path = mem_printf("/images/%s/json", j->ref);
    j->request = docker_http_start(j->d->http, &call, on_looked, j);
}

docker_image_job_t *docker_image_want(docker_t *d, const char *image, docker_image_fn done, void *arg)
{
    docker_image_job_t *j = mem_alloc(sizeof *j);
    *j = (docker_image_job_t){.d = d, .image = mem_strdup(image), .done = done, .arg = arg};
    j->turn = evtimer_new(d->daemon->base, on_turn, j);
    LIST_INSERT_HEAD(&d->image_jobs, j, entry);
    event_active(j->turn, EV_TIMEOUT, 0);
    return j;
}

void docker_image_forget(docker_image_job_t **job)
{
    docker_image_job_t *own = *job;
    *job = NULL;
    if (!own)
        return;
    own->done = NULL; /* others may wait for it */
    if (!follower_of(own))
        job_free(own);
}

void docker_image_close(docker_image_job_t *job)
{
    job_free(job);
}
