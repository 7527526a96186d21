// SPDX-License-Identifier: Apache-2.0
#include "agent/proc_io.h"

#include "agent/loop.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define READ_SIZE ((size_t)64 * 1024) /* what a pipe holds */
#define DRAIN_MAX ((size_t)1024 * 1024)

static uint8_t read_buffer[READ_SIZE]; /* one thread */

static int pipe_open(int *ours, int *theirs, bool is_input, err_t **e)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot make a pipe");
    *ours = fds[is_input ? 1 : 0];
    *theirs = fds[is_input ? 0 : 1];
    if (fcntl(*ours, F_SETFL, O_NONBLOCK) != 0)
        return err_set_errno(e, ERR_INTERNAL, errno, "cannot set up a pipe");
    return 0;
}

int proc_io_open(proc_t *proc, bool has_stdin, int child_fds[3], err_t **e)
{
    if (has_stdin && pipe_open(&proc->in_fd, &child_fds[0], true, e) < 0)
        return -1;
    for (int i = 0; i < 2; i++)
        if (pipe_open(&proc->out_fds[i], &child_fds[i + 1], false, e) < 0)
            return -1;
    return 0;
}

static void out_close(proc_t *proc, int which)
{
    if (proc->out_fds[which] < 0)
        return;
    loop_watch(proc->out_fds[which], 0, NULL, NULL);
    fd_close_p(&proc->out_fds[which]);
    proc->out_fds[which] = -1;
}

static void in_close(proc_t *proc)
{
    if (proc->in_fd < 0)
        return;
    loop_watch(proc->in_fd, 0, NULL, NULL);
    fd_close_p(&proc->in_fd);
    proc->in_fd = -1;
    buf_free(&proc->in);
}

/* Returns the bytes read; 0 at the end or when nothing is there. */
static size_t out_read(proc_t *proc, int which, size_t max)
{
    ssize_t n;
    do
        n = read(proc->out_fds[which], read_buffer, max < READ_SIZE ? max : READ_SIZE);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0) {
        out_close(proc, which);
        return 0;
    }
    output_append(&proc->out[which], read_buffer, (size_t)n);
    return (size_t)n;
}

static void on_out(void *arg, int fd, short revents)
{
    proc_t *proc = arg;
    int which = fd == proc->out_fds[0] ? 0 : 1;
    (void)revents;
    if (out_read(proc, which, READ_SIZE) > 0)
        proc_notify(proc, PROC_OUTPUT);
}

static void out_watch(proc_t *proc, int which)
{
    int fd = proc->out_fds[which];
    if (fd >= 0 && !loop_watch(fd, proc->is_paused[which] ? 0 : POLLIN, on_out, proc))
        out_close(proc, which); /* too many descriptors: the command gets SIGPIPE instead of hanging for ever */
}

void proc_pause(proc_t *proc, int which, bool is_paused)
{
    if (proc->is_paused[which] == is_paused)
        return;
    proc->is_paused[which] = is_paused;
    out_watch(proc, which);
}

void proc_io_drain(proc_t *proc)
{
    bool is_any = false;
    for (int which = 0; which < 2; which++) {
        int there = 0;
        if (proc->out_fds[which] < 0)
            continue;
        if (ioctl(proc->out_fds[which], FIONREAD, &there) != 0)
            there = (int)READ_SIZE;
        size_t left = (size_t)there < DRAIN_MAX ? (size_t)there : DRAIN_MAX;
        while (left > 0) {
            size_t n = out_read(proc, which, left);
            if (n == 0)
                break;
            is_any = true;
            left -= n;
        }
    }
    if (is_any)
        proc_notify(proc, PROC_OUTPUT);
}

static void in_write(proc_t *proc)
{
    while (proc->in.len > proc->in_at) {
        ssize_t n = write(proc->in_fd, proc->in.data + proc->in_at, proc->in.len - proc->in_at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) { /* the command closed it, or is gone */
            in_close(proc);
            return;
        }
        proc->in_written += (uint64_t)n;
        proc->in_at += (size_t)n;
    }
    buf_reset(&proc->in);
    proc->in_at = 0;
    if (proc->in_ends)
        in_close(proc);
}

static void on_in(void *arg, int fd, short revents);

static void in_pump(proc_t *proc)
{
    in_write(proc);
    if (proc->in_fd >= 0)
        loop_watch(proc->in_fd, proc->in.len > proc->in_at ? POLLOUT : 0, on_in, proc);
}

static void on_in(void *arg, int fd, short revents)
{
    proc_t *proc = arg;
    (void)fd;
    (void)revents;
    in_pump(proc);
    proc_notify(proc, PROC_INPUT);
}

int proc_input(proc_t *proc, const void *bytes, size_t len, bool is_end, err_t **e)
{
    if (proc->in_fd < 0 || proc->in_ends)
        return err_set(e, ERR_CONFLICT, "standard input of process %u is not open", (unsigned)proc->id);
    if (proc->in.len + len > PROC_INPUT_MAX)
        return err_set(e, ERR_OVERLOADED, "process %u does not read its standard input and %zu bytes wait for it",
                       (unsigned)proc->id, proc->in.len - proc->in_at);
    buf_append(&proc->in, bytes, len);
    proc->in_queued += len;
    proc->in_ends = is_end;
    in_pump(proc);
    return 0;
}

void proc_io_begin(proc_t *proc, const void *input, size_t len, bool is_end)
{
    out_watch(proc, 0);
    out_watch(proc, 1);
    if (proc->in_fd < 0)
        return;
    buf_init(&proc->in, len > PROC_INPUT_MAX ? len + 1 : PROC_INPUT_MAX + 1);
    if (len > 0)
        buf_append(&proc->in, input, len);
    proc->in_queued = len;
    proc->in_ends = is_end;
    in_pump(proc);
}

void proc_io_close(proc_t *proc)
{
    out_close(proc, 0);
    out_close(proc, 1);
    in_close(proc);
}
