/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/checkpoint.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "services/gvisord/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define COMMAND_TIMEOUT_MS 10000
#define SOCKET_TIMEOUT_MS 2000
#define REPLY_MAX 4096
#define KEY_MAX 65536
#define REASON_MAX 160
#define KEY_FILE "key.json"
#define IMAGE_FILE "checkpoint.img"

/* ---- taking one ---- */

/* runsc's own words are for its developers, and name files and addresses. */
static const struct {
    const char *part, *sentence;
} REASONS[] = {
    {"deleted and invalidated dentries", "a process has a file open that has been removed"},
    {"unsupported networking state", "a network connection was open"},
    {"host FD", "a process was started from outside of the sandbox"},
};

static int explain(const err_t *why, err_t **e)
{
    for (size_t i = 0; i < COUNT_OF(REASONS); i++)
        if (strstr(err_message(why), REASONS[i].part))
            return err_set(e, ERR_SANDBOX_FAILED, "%s", REASONS[i].sentence);
    size_t len = strcspn(err_message(why), "\n");
    return err_set(e, ERR_SANDBOX_FAILED, "%.*s", (int)(len < REASON_MAX ? len : REASON_MAX), err_message(why));
}

static int write_key(const char *dir, const json_t *key, err_t **e)
{
    auto_free char *path = mem_printf("%s/" KEY_FILE, dir);
    auto_free char *text = json_dumps(key, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (!text)
        return err_set(e, ERR_INTERNAL, "a checkpoint's key is not UTF-8");
    return file_write_atomic(path, text, strlen(text), 0600, e);
}

int checkpoint_take(const runtime_t *r, const char *id, const char *dir, const json_t *key, bool leave_running,
                    unsigned timeout_ms, err_t **why)
{
    runtime_command_t c;
    auto_err err_t *failure = NULL, *ignored = NULL;
    mode_t old = umask(077); /* the image holds every secret of the sandbox */
    runtime_begin(&c, r, NULL);
    runtime_add(&c, "checkpoint");
    runtime_add(&c, "--image-path");
    runtime_add(&c, dir);
    runtime_add(&c, "--compression=none");
    if (leave_running)
        runtime_add(&c, "--leave-running");
    runtime_add(&c, id);
    int rc = dir_remove(dir, &failure);
    if (rc == 0)
        rc = dir_make(dir, 0700, &failure);
    if (rc == 0)
        rc = worker_exec(c.argv, NULL, timeout_ms, &failure);
    if (rc == 0)
        rc = write_key(dir, key, &failure);
    (void)umask(old);
    if (rc == 0)
        return 0;
    (void)dir_remove(dir, &ignored);
    return explain(failure, why);
}

/* ---- its key ---- */

static const struct {
    const char *key, *name;
} PARTS[] = {
    {"format", "the format of checkpoints"},
    {"runtime", "runsc"},
    {"flags", "the flags of runsc"},
    {"platform", "the platform of runsc"},
    {"user_namespace", "the use of a user namespace"},
    {"network", "the network"},
    {"cpu", "the host's processor"},
    {"rootfs", "the image"},
    {"agent_layer", "the agent"},
};

bool checkpoint_exists(const char *dir)
{
    auto_free char *image = mem_printf("%s/" IMAGE_FILE, dir);
    auto_free char *key = mem_printf("%s/" KEY_FILE, dir);
    return access(image, F_OK) == 0 && access(key, F_OK) == 0;
}

static char *difference(const json_t *kept, const json_t *now)
{
    for (size_t i = 0; i < COUNT_OF(PARTS); i++) {
        const json_t *before = json_object_get(kept, PARTS[i].key), *after = json_object_get(now, PARTS[i].key);
        if (json_equal(before, after))
            continue;
        const char *was = json_string_value(before), *is = json_string_value(after);
        if (was && is && strcmp(PARTS[i].key, "runtime") == 0)
            return mem_printf("they were kept by \"%.100s\" and this is \"%.100s\"", was, is);
        return mem_printf("%s is not what it was when they were kept", PARTS[i].name);
    }
    return NULL;
}

char *checkpoint_mismatch(const char *dir, const json_t *key)
{
    auto_free char *path = mem_printf("%s/" KEY_FILE, dir);
    auto_buf buf_t text = {0};
    auto_err err_t *e = NULL;
    if (!checkpoint_exists(dir) || file_read(path, KEY_MAX, &text, &e) < 0)
        return mem_strdup("their memory is not complete on disk");
    json_t *kept = json_loadb((const char *)text.data, text.len, 0, NULL);
    char *text_r = kept ? difference(kept, key) : mem_strdup("what is said of their memory on disk cannot be read");
    json_decref(kept);
    return text_r;
}

/* ---- pausing ---- */

/* `runsc-<id>.sock` below --root; by way of /proc, because a path of a socket has 107 bytes at most. */
static int control_connect(const runtime_t *r, const char *id)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_close int dir = open(r->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int n = snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/runsc-%s.sock", dir, id);
    if (dir < 0 || fd < 0 || n < 0 || (size_t)n >= sizeof address.sun_path ||
        connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return -1;
    return STEAL_FD(fd);
}

/* urpc: one JSON object each way, no length, no newline (contracts B1). Internal to runsc: whatever is not the expected
 * answer means "use the command". */
static bool control_call(const runtime_t *r, const char *id, const char *method)
{
    char request[128], reply[REPLY_MAX];
    size_t len = 0;
    auto_close int fd = control_connect(r, id);
    int n = snprintf(request, sizeof request, "{\"method\":\"containerManager.%s\",\"arg\":null}", method);
    if (fd < 0 || n < 0 || send(fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        return false;
    for (uint64_t until = clock_monotonic_ms() + SOCKET_TIMEOUT_MS;;) {
        uint64_t now = clock_monotonic_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (now >= until || len == sizeof reply || poll(&p, 1, (int)(until - now)) <= 0)
            return false;
        ssize_t got = recv(fd, reply + len, sizeof reply - len, 0);
        if (got <= 0)
            return false;
        len += (size_t)got;
        json_t *answer = json_loadb(reply, len, JSON_DISABLE_EOF_CHECK, NULL);
        bool is_success = json_is_true(json_object_get(answer, "success")), is_whole = answer != NULL;
        json_decref(answer);
        if (is_whole)
            return is_success;
    }
}

static int command(const runtime_t *r, const char *verb, const char *id, err_t **e)
{
    runtime_command_t c;
    runtime_begin(&c, r, NULL);
    runtime_add(&c, verb);
    runtime_add(&c, id);
    return worker_exec(c.argv, NULL, COMMAND_TIMEOUT_MS, e);
}

int checkpoint_pause(const runtime_t *r, const char *id, bool *by_command, err_t **e)
{
    *by_command = !control_call(r, id, "Pause");
    return *by_command ? command(r, "pause", id, e) : 0;
}

/* The command knows nothing of a pause by the socket and would refuse. */
int checkpoint_unpause(const runtime_t *r, const char *id, bool by_command, err_t **e)
{
    if (by_command)
        return command(r, "resume", id, e);
    return control_call(r, id, "Resume") ? 0 : err_set(e, ERR_SANDBOX_FAILED, "runsc does not resume sandbox %s", id);
}
