/* SPDX-License-Identifier: Apache-2.0
 *
 * workspace cp: one file in or out, streamed, of any size. "-" is standard input or output. A download takes its name
 * when it is whole.
 */
#include "cli/cli.h"

#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORKSPACE_ID_LENGTH 36

/* "<uuid>:<path>": the path, and the id in *id. NULL when it is a local name. */
static const char *remote_path(const char *text, char **id)
{
    const char *colon = strchr(text, ':');
    if (colon == NULL || colon - text != WORKSPACE_ID_LENGTH) {
        return NULL;
    }
    *id = mem_strndup(text, WORKSPACE_ID_LENGTH);
    return colon + 1;
}

static char *files_path(const char *id, const char *path)
{
    buf_t out;
    buf_init(&out, 0);
    buf_append_str(&out, "/api/v1/agent/workspaces/");
    client_escape(&out, id);
    buf_append_str(&out, "/files");
    cli_query(&out, "path", path);
    return buf_steal(&out);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static int upload(cli_t *c, const char *local, const char *id, const char *remote, err_t **e)
{
    auto_close int opened = -1;
    client_request_t request = {.method = "PUT",
                                .content_type = "application/octet-stream",
                                .is_upload = true,
                                .upload_size = -1,
                                .label = "upload"};
    request.fd_upload = STDIN_FILENO;
    struct stat st;
    if (strcmp(local, "-") != 0) {
        opened = open(local, O_RDONLY | O_CLOEXEC);
        if (opened < 0 || fstat(opened, &st) != 0) {
            return err_set_errno(e, ERR_BAD_REQUEST, errno, "%s could not be opened", local);
        }
        if (S_ISDIR(st.st_mode)) {
            return err_set(e, ERR_BAD_REQUEST,
                           "%s is a directory; pack it: tar c . | emergent workspace exec --stdin %s 'tar x'", local,
                           id);
        }
        request.fd_upload = opened;
        request.upload_size = S_ISREG(st.st_mode) ? st.st_size : -1;
    }
    size_t len = strlen(remote);
    auto_free char *target = mem_printf("%s%s", remote, len == 0 || remote[len - 1] == '/' ? base_name(local) : "");
    auto_free char *path = files_path(id, target);
    if (opened >= 0 && S_ISREG(st.st_mode)) {
        char *with_mode = mem_printf("%s&mode=%u", path, (unsigned)(st.st_mode & 0777));
        free(path);
        path = with_mode;
    }
    request.path = path;
    client_reply_t reply;
    int done = client_perform(c->client, &request, &reply, e);
    if (done == 0 && c->is_json) {
        printf("%s\n", buf_cstr(&reply.body));
    }
    buf_free(&reply.body);
    return done;
}

typedef struct sink {
    int fd;
    err_t *error;
} sink_t;

static bool on_bytes(void *arg, const void *bytes, size_t len)
{
    sink_t *sink = arg;
    return cli_write(sink->fd, bytes, len, &sink->error) == 0;
}

static int receive(cli_t *c, const char *id, const char *remote, int fd, err_t **e)
{
    auto_free char *path = files_path(id, remote);
    sink_t sink = {.fd = fd};
    client_request_t request = {
        .method = "GET", .path = path, .accept = "*/*", .on_bytes = on_bytes, .arg = &sink, .label = "download"};
    client_reply_t reply;
    int done = client_perform(c->client, &request, &reply, e);
    buf_free(&reply.body);
    if (sink.error != NULL) {
        err_free(e);
        *e = sink.error;
        return -1;
    }
    return done;
}

static int download(cli_t *c, const char *id, const char *remote, const char *local, err_t **e)
{
    if (strcmp(local, "-") == 0) {
        return receive(c, id, remote, STDOUT_FILENO, e);
    }
    struct stat st;
    bool is_dir = stat(local, &st) == 0 && S_ISDIR(st.st_mode);
    const char *name = base_name(remote);
    if (is_dir && (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)) {
        return err_set(e, ERR_BAD_REQUEST, "%s names no file", remote);
    }
    auto_free char *target = is_dir ? mem_printf("%s/%s", local, name) : mem_strdup(local);
    auto_free char *partial = mem_printf("%s.part-XXXXXX", target);
    auto_close int fd = mkostemp(partial, O_CLOEXEC);
    if (fd < 0) {
        return err_set_errno(e, ERR_BAD_REQUEST, errno, "%s could not be made", partial);
    }
    mode_t mask = umask(0);
    umask(mask);
    int done = receive(c, id, remote, fd, e);
    if (done == 0 && (fchmod(fd, 0666 & ~mask) != 0 || rename(partial, target) != 0)) {
        done = err_set_errno(e, ERR_INTERNAL, errno, "%s could not be put in place", target);
    }
    if (done != 0) {
        unlink(partial);
    }
    return done;
}

int cli_workspace_cp(cli_t *c, err_t **e)
{
    auto_free char *from_id = NULL;
    auto_free char *to_id = NULL;
    const char *from = remote_path(c->args[0], &from_id);
    const char *to = remote_path(c->args[1], &to_id);
    if ((from == NULL) == (to == NULL)) {
        return cli_refuse(c, e, "one side must be <workspace id>:<path>, the other a local file or -");
    }
    if (to != NULL) {
        return upload(c, c->args[0], to_id, to, e);
    }
    return download(c, from_id, from, c->args[1], e);
}
