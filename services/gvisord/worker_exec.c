/* SPDX-License-Identifier: Apache-2.0 */
#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "services/gvisord/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_MAX 4096
#define INPUT_MAX 60000 /* fits into a pipe, so that writing it cannot block */

extern char **environ;

static int spawn(const char *const argv[], int fd_in, int fd_out, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (fd_in >= 0)
        posix_spawn_file_actions_adddup2(&actions, fd_in, 0);
    else
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, fd_out, 1);
    posix_spawn_file_actions_adddup2(&actions, fd_out, 2);
    int rc = posix_spawnp(pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* Output until the pipe closes or the time is over. */
static bool collect(int fd, uint64_t until, buf_t *output)
{
    for (;;) {
        uint64_t now = clock_monotonic_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = now < until ? poll(&p, 1, (int)(until - now)) : 0;
        if (ready == 0)
            return false;
        char chunk[1024];
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n == 0 || (n < 0 && errno != EINTR))
            return true;
        if (n > 0 && output->len + (size_t)n < OUTPUT_MAX)
            buf_append(output, chunk, (size_t)n);
    }
}

int worker_exec(const char *const argv[], const char *input, unsigned timeout_ms, err_t **e)
{
    int out[2], in[2] = {-1, -1};
    size_t input_len = input ? strlen(input) : 0;
    if (input_len > INPUT_MAX)
        return err_set(e, ERR_INTERNAL, "the input for %s is too long", argv[0]);
    if (pipe2(out, O_CLOEXEC) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot make a pipe");
    auto_close int out_read = out[0], out_write = out[1];
    if (input && pipe2(in, O_CLOEXEC) < 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot make a pipe");
    auto_close int in_read = in[0], in_write = in[1];
    if (input && write(in_write, input, input_len) != (ssize_t)input_len)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot write the input of %s", argv[0]);
    fd_close_p(&in_write);
    in_write = -1;
    pid_t pid;
    int rc = spawn(argv, in_read, out_write, &pid);
    if (rc != 0)
        return err_set_errno(e, ERR_SANDBOX_FAILED, rc, "cannot run %s", argv[0]);
    fd_close_p(&out_write);
    out_write = -1;
    auto_buf buf_t output = {0};
    bool is_ended = collect(out_read, clock_monotonic_ms() + timeout_ms, &output);
    if (!is_ended)
        kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!is_ended)
        return err_set(e, ERR_SANDBOX_FAILED, "%s did not end within %u ms", argv[0], timeout_ms);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(e, ERR_SANDBOX_FAILED, "%s failed with status %d: %s", argv[0],
                       WIFEXITED(status) ? WEXITSTATUS(status) : -1, buf_cstr(&output));
    return 0;
}

typedef struct ending {
    bool is_ended;
    bool is_timed_out;
    int exit_code;
} ending_t;

static void on_ended(void *arg, const process_result_t *result)
{
    ending_t *ending = arg;
    *ending = (ending_t){.is_ended = true, .is_timed_out = result->is_timed_out, .exit_code = result->exit_code};
}

int worker_exec_with(const process_options_t *options, err_t **e)
{
    ending_t ending = {0};
    struct event_base *base = event_base_new(); /* the job's own: it has no loop yet */
    process_t *p = base ? process_start(base, options, on_ended, &ending, e) : NULL;
    if (!p && !*e)
        err_set(e, ERR_INTERNAL, "cannot make an event loop for %s", options->argv[0]);
    while (p && !ending.is_ended && event_base_loop(base, EVLOOP_ONCE) == 0)
        ;
    if (base)
        event_base_free(base);
    if (!p)
        return -1;
    if (ending.is_timed_out)
        return err_set(e, ERR_SANDBOX_FAILED, "%s did not end within %u ms", options->argv[0], options->timeout_ms);
    return ending.exit_code;
}
