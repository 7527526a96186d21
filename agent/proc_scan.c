// SPDX-License-Identifier: Apache-2.0
#include "agent/proc_scan.h"

#include "common/buf.h"
#include "common/mem.h"
#include "common/text.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define ENVIRON_MAX ((size_t)4 * 1024 * 1024)

/* tty_nr … itrealvalue, which stand before starttime (proc(5)). */
#define STAT_SKIP " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s"

struct row {
    pid_t pid;
    pid_t parent;
    pid_t session;
    unsigned long long start; /* clock ticks after boot: tells two processes of one number apart */
    bool is_in;
};

/* Reads at most `max` bytes of a file in /proc; its size is not known before. */
static bool file_read_all(const char *path, size_t max, buf_t *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    while (out->len < max) {
        uint8_t *at = buf_reserve(out, 4096);
        ssize_t n = at != NULL ? read(fd, at, 4096) : -1;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        buf_commit(out, (size_t)n);
    }
    return true;
}

/* "pid (name) state ppid pgrp session …": the name may hold anything, so fields are counted from the last parenthesis.
 */
static bool stat_read(pid_t pid, struct row *row)
{
    char path[32];
    auto_buf buf_t text = {0};
    char state;
    int parent, group, session;
    unsigned long long start;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (!file_read_all(path, 4096, &text))
        return false;
    const char *after = strrchr(buf_cstr(&text), ')');
    if (after == NULL ||
        sscanf(after + 1, " %c %d %d %d" STAT_SKIP " %llu", &state, &parent, &group, &session, &start) != 5)
        return false;
    *row = (struct row){.pid = pid, .parent = parent, .session = session, .start = start};
    return state != 'Z' && state != 'X';
}

static bool environ_has(pid_t pid, const char *tag)
{
    char path[40];
    auto_buf buf_t text = {0};
    size_t tag_size = strlen(tag) + 1;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    if (!file_read_all(path, ENVIRON_MAX, &text) || text.len < tag_size)
        return false;
    return memmem(text.data, text.len, tag, tag_size) != NULL;
}

static bool pid_next(DIR *dir, pid_t *pid)
{
    struct dirent *entry;
    uint64_t number;
    while ((entry = readdir(dir)) != NULL) {
        if (text_to_u64(entry->d_name, &number) && number > 0 && number <= INT32_MAX) {
            *pid = (pid_t)number;
            return true;
        }
    }
    return false;
}

static size_t rows_read(struct row **rows_r)
{
    DIR *dir = opendir("/proc");
    struct row *rows = NULL;
    size_t count = 0, cap = 0;
    pid_t pid;
    while (dir != NULL && pid_next(dir, &pid)) {
        if (pid == getpid())
            continue;
        if (count == cap) {
            cap = cap ? cap * 2 : 64;
            rows = mem_realloc(rows, cap * sizeof *rows);
        }
        if (stat_read(pid, &rows[count]))
            count++;
    }
    if (dir != NULL)
        closedir(dir);
    *rows_r = rows;
    return count;
}

static bool has_parent_in(const struct row *rows, size_t count, pid_t parent)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].pid == parent)
            return rows[i].is_in;
    return false;
}

uint64_t proc_start_time(pid_t pid)
{
    struct row row = {0};
    (void)stat_read(pid, &row);
    return row.start;
}

/* The leader may have ended long ago and its number belong to a stranger: then the stranger's session is not ours. */
static bool is_number_reused(const struct row *rows, size_t count, pid_t leader, uint64_t start)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].pid == leader)
            return rows[i].start != start;
    return false;
}

size_t proc_scan_tree(pid_t leader, uint64_t leader_start, const char *tag, void (*fn)(void *, pid_t), void *arg)
{
    auto_free struct row *rows = NULL;
    size_t count = rows_read(&rows), found = 0;
    if (leader <= 0)
        return 0;
    bool is_reused = is_number_reused(rows, count, leader, leader_start);
    for (size_t i = 0; i < count; i++)
        rows[i].is_in =
            (!is_reused && (rows[i].pid == leader || rows[i].session == leader)) || environ_has(rows[i].pid, tag);
    for (bool is_changed = true; is_changed;) {
        is_changed = false;
        for (size_t i = 0; i < count; i++) {
            if (!rows[i].is_in && has_parent_in(rows, count, rows[i].parent))
                rows[i].is_in = is_changed = true;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (rows[i].is_in) {
            fn(arg, rows[i].pid);
            found++;
        }
    }
    return found;
}

uint32_t proc_scan_count(void)
{
    DIR *dir = opendir("/proc");
    uint32_t count = 0;
    pid_t pid;
    while (dir != NULL && pid_next(dir, &pid))
        count++;
    if (dir != NULL)
        closedir(dir);
    return count;
}

uint64_t proc_rss_bytes(pid_t pid)
{
    char path[32];
    auto_buf buf_t text = {0};
    unsigned long long total, resident;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    if (!file_read_all(path, 256, &text) || sscanf(buf_cstr(&text), "%llu %llu", &total, &resident) != 2)
        return 0;
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t meminfo_bytes(const char *text, const char *name)
{
    unsigned long long kilobytes;
    const char *at = strstr(text, name);
    return at != NULL && sscanf(at + strlen(name), " %llu", &kilobytes) == 1 ? kilobytes * 1024 : 0;
}

uint64_t proc_memory_used(void)
{
    auto_buf buf_t text = {0};
    if (!file_read_all("/proc/meminfo", 16384, &text))
        return 0;
    uint64_t total = meminfo_bytes(buf_cstr(&text), "MemTotal:");
    uint64_t available = meminfo_bytes(buf_cstr(&text), "MemAvailable:");
    return total > available ? total - available : 0;
}
