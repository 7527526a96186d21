// SPDX-License-Identifier: Apache-2.0
/* file_watch: one EVENT per change in a directory, or of one file, until the call is cancelled. HEAD (empty) says that
 * the watch is set: changes after it are told. Paths are relative to the watched directory; "." is that directory
 * itself, and after its `remove` the call ends. For a file, its directory is watched, so that replacing it by rename is
 * seen; the path is its name.
 *
 * A move is `rename` of the old path and `create` of the new one. Writes to a file that arrive together are one
 * `write`. What is already in a new directory when its watch is set is told as created, so that nothing made in between
 * is missed. `overflow` (path ".") means that something may be missing from here on: the kernel's queue ran over, the
 * caller is too slow, or there are more than FS_WATCHES_MAX directories. */
#include "agent/call.h"
#include "agent/fs_path.h"
#include "agent/fs_watches.h"
#include "agent/walk.h"
#include "common/clock.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

#define WATCH_MASK                                                                                                   \
    (IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | \
     IN_MOVE_SELF)
#define READ_BYTES (64 * 1024)
#define RECENT_MAX 32

/* A directory whose content is to be watched too. */
typedef struct pending {
    struct pending *next;
    bool is_new; /* its entries are told as created */
    char path[]; /* below the root */
} pending_t;

typedef struct watch_state {
    int fd;
    bool is_recursive;
    bool is_over; /* overflow for too many directories was told */
    bool is_lost; /* an event was refused: overflow is due */
    bool has_head;
    fs_watches_t watches;
    char *only;               /* the one name that is told, when a file is watched */
    char *recent[RECENT_MAX]; /* paths whose write was told in this batch */
    size_t recent_count;
    walk_t *walk;
    pending_t *walking;
    pending_t *first;
    pending_t **last;
    char root[FS_PATH_SIZE];
} watch_state_t;

/* ---- telling ---- */

static void tell(agent_call_t *call, watch_state_t *s, const char *type, const char *path)
{
    struct file_event lost = {.type = "overflow", .path = "."};
    struct file_event event = {.type = type, .path = path};
    if (s->is_lost && call_event(call, MSG_file_event, &lost))
        s->is_lost = false;
    if (s->is_lost || !call_event(call, MSG_file_event, &event))
        s->is_lost = true;
}

static void forget_recent(watch_state_t *s)
{
    while (s->recent_count > 0)
        free(s->recent[--s->recent_count]);
}

/* True the first time in a batch, for as long as nothing else happens. */
static bool is_news(watch_state_t *s, const char *path)
{
    for (size_t i = 0; i < s->recent_count; i++)
        if (strcmp(s->recent[i], path) == 0)
            return false;
    if (s->recent_count == RECENT_MAX)
        forget_recent(s);
    s->recent[s->recent_count++] = mem_strdup(path);
    return true;
}

/* ---- directories ---- */

static void too_many(agent_call_t *call, watch_state_t *s)
{
    if (!s->is_over)
        tell(call, s, "overflow", ".");
    s->is_over = true;
}

static int add_watch(agent_call_t *call, watch_state_t *s, const char *below, err_t **e)
{
    char path[FS_PATH_SIZE];
    int len =
        below[0] ? snprintf(path, sizeof path, "%s/%s", s->root, below) : snprintf(path, sizeof path, "%s", s->root);
    if (len < 0 || (size_t)len >= sizeof path)
        return err_set(e, ERR_BAD_REQUEST, "cannot watch: the path is longer than %d bytes", FS_PATH_SIZE - 1);
    int wd = inotify_add_watch(s->fd, path, WATCH_MASK | IN_ONLYDIR | (below[0] ? IN_DONT_FOLLOW : 0));
    if (wd < 0) {
        int errnum = errno;
        if (errnum == ENOSPC && below[0])
            too_many(call, s);
        return err_set_errno(e, errnum == ENOSPC ? ERR_LIMIT_REACHED : ERR_NONE, errnum, "cannot watch %s", path);
    }
    if (!fs_watches_put(&s->watches, wd, below)) {
        (void)inotify_rm_watch(s->fd, wd);
        too_many(call, s);
        return err_set(e, ERR_LIMIT_REACHED, "cannot watch %s: there are %d directories already", path, FS_WATCHES_MAX);
    }
    return 0;
}

static void want_walk(agent_call_t *call, watch_state_t *s, const char *below, bool is_new)
{
    size_t size = strlen(below) + 1;
    pending_t *p = mem_alloc(sizeof *p + size);
    p->is_new = is_new;
    memcpy(p->path, below, size);
    *s->last = p;
    s->last = &p->next;
    call_want_steps(call, true);
}

/* A new directory: watched first and looked into afterwards, so that an entry is told twice rather than never. */
static void add_directory(agent_call_t *call, watch_state_t *s, const char *below, bool is_new)
{
    err_t *e = NULL;
    if (!s->is_recursive)
        return;
    if (add_watch(call, s, below, &e) == 0)
        want_walk(call, s, below, is_new);
    err_free(&e); /* gone meanwhile, or told as overflow */
}

/* It was moved away, or its old watches now have wrong paths. */
static void drop_directory(watch_state_t *s, const char *below)
{
    for (int wd; (wd = fs_watches_below(&s->watches, below)) >= 0; fs_watches_remove(&s->watches, wd))
        (void)inotify_rm_watch(s->fd, wd);
}

static void begin_walk(watch_state_t *s)
{
    char path[FS_PATH_SIZE];
    err_t *e = NULL;
    s->walking = s->first;
    s->first = s->walking->next;
    if (s->first == NULL)
        s->last = &s->first;
    int len = s->walking->path[0] ? snprintf(path, sizeof path, "%s/%s", s->root, s->walking->path)
                                  : snprintf(path, sizeof path, "%s", s->root);
    if (len > 0 && (size_t)len < sizeof path)
        s->walk = walk_open(path, &e);
    err_free(&e);
}

static void end_walk(watch_state_t *s)
{
    walk_close(&s->walk);
    free(s->walking);
    s->walking = NULL;
}

/* An entry of a directory that was just added. A new directory is walked whole, so the directories in it only need
 * their watch. */
static void visit(agent_call_t *call, watch_state_t *s, const walk_entry_t *entry)
{
    err_t *e = NULL;
    /* Seen only while a walk is open, and begin_walk() opens it for s->walking. */
    const char *top = s->walking->path;
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference)
    auto_free char *below = mem_printf("%s%s%s", top, top[0] ? "/" : "", entry->relative);
    if (s->walking->is_new)
        tell(call, s, "create", below);
    if (entry->type == DT_DIR && (s->is_over || add_watch(call, s, below, &e) != 0))
        walk_skip(s->walk);
    err_free(&e);
}

static void tell_head(agent_call_t *call, watch_state_t *s)
{
    struct empty head = {.unused = false};
    if (!s->has_head)
        (void)call_head(call, MSG_empty, &head);
    s->has_head = true;
}

static void watch_step(agent_call_t *call)
{
    watch_state_t *s = call_state(call);
    uint64_t until = clock_monotonic_us() + AGENT_SLICE_US;
    walk_entry_t entry;
    do {
        if (s->walk == NULL) {
            free(STEAL_PTR(s->walking));
            if (s->first == NULL) {
                tell_head(call, s);
                call_want_steps(call, false);
                return;
            }
            begin_walk(s);
            continue;
        }
        enum walk_result result = walk_next(s->walk, &entry);
        if (result == WALK_END)
            end_walk(s);
        else if (result == WALK_ENTRY)
            visit(call, s, &entry);
    } while (clock_monotonic_us() < until);
}

/* ---- events ---- */

/* True: the root is gone, the call is answered. */
static bool on_self(agent_call_t *call, watch_state_t *s, const struct inotify_event *event, const char *dir)
{
    struct empty done = {.unused = false};
    if (dir[0] != '\0')
        return false; /* the directory above tells it */
    if (event->mask & IN_ATTRIB)
        tell(call, s, "chmod", ".");
    if (event->mask & IN_MOVE_SELF)
        tell(call, s, "rename", ".");
    if (!(event->mask & IN_DELETE_SELF))
        return false;
    tell(call, s, "remove", ".");
    call_reply(call, &done);
    return true;
}

static void on_entry(agent_call_t *call, watch_state_t *s, const struct inotify_event *event, const char *path)
{
    static const struct {
        uint32_t bit;
        const char *type;
    } rows[] = {{IN_CREATE, "create"},
                {IN_MOVED_TO, "create"},
                {IN_MOVED_FROM, "rename"},
                {IN_DELETE, "remove"},
                {IN_ATTRIB, "chmod"}};
    bool is_dir = event->mask & IN_ISDIR;
    if (event->mask & (IN_MODIFY | IN_CLOSE_WRITE)) {
        if (is_news(s, path))
            tell(call, s, "write", path);
        return;
    }
    forget_recent(s);
    if (is_dir && (event->mask & IN_CREATE) && fs_watches_below(&s->watches, path) >= 0)
        return; /* the walk through its parent was here first */
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (event->mask & rows[i].bit)
            tell(call, s, rows[i].type, path);
    if (is_dir && (event->mask & (IN_MOVED_FROM | IN_DELETE)))
        drop_directory(s, path);
    if (is_dir && (event->mask & (IN_CREATE | IN_MOVED_TO)))
        add_directory(call, s, path, (event->mask & IN_CREATE) != 0);
}

/* True: the call is answered. */
static bool on_event(agent_call_t *call, watch_state_t *s, const struct inotify_event *event)
{
    if (event->mask & IN_Q_OVERFLOW) {
        tell(call, s, "overflow", ".");
        return false;
    }
    const char *known = fs_watches_path(&s->watches, event->wd);
    if (known == NULL)
        return false; /* left over from a watch that was dropped */
    auto_free char *dir = mem_strdup(known);
    if (event->mask & IN_IGNORED) {
        fs_watches_remove(&s->watches, event->wd);
        return false;
    }
    if (event->len == 0)
        return on_self(call, s, event, dir);
    if (s->only != NULL && strcmp(s->only, event->name) != 0)
        return false;
    auto_free char *path = mem_printf("%s%s%s", dir, dir[0] ? "/" : "", event->name);
    on_entry(call, s, event, path);
    return false;
}

static void on_readable(agent_call_t *call, int fd, short revents)
{
    watch_state_t *s = call_state(call);
    /* Records stand on four bytes' edges in a buffer that malloc aligned. */
    auto_free char *bytes = mem_alloc(READ_BYTES);
    (void)revents;
    ssize_t n = fs_read_some(fd, bytes, READ_BYTES);
    for (ssize_t at = 0; n - at >= (ssize_t)sizeof(struct inotify_event);) {
        const struct inotify_event *event = (const void *)(bytes + at);
        at += (ssize_t)(sizeof *event + event->len);
        if (at > n || on_event(call, s, event))
            return;
    }
    forget_recent(s);
}

/* ---- life ---- */

static int open_watch(agent_call_t *call, watch_state_t *s, const struct file_watch_request *req, err_t **e)
{
    struct stat st;
    if (agent_path(req->path, s->root, sizeof s->root, e) != 0)
        return -1;
    size_t len = strlen(s->root);
    while (len > 1 && s->root[len - 1] == '/')
        s->root[--len] = '\0';
    if (stat(s->root, &st) != 0)
        return errno == ENOENT ? err_set(e, ERR_NOT_FOUND, "file not found: %s", s->root)
                               : err_set_errno(e, ERR_NONE, errno, "cannot watch %s", s->root);
    s->is_recursive = req->recursive && S_ISDIR(st.st_mode);
    if (!S_ISDIR(st.st_mode)) {
        char *slash = strrchr(s->root, '/');
        s->only = mem_strdup(slash + 1);
        slash[slash == s->root] = '\0';
    }
    s->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (s->fd < 0)
        return err_set_errno(e, errno == EMFILE ? ERR_LIMIT_REACHED : ERR_NONE, errno, "cannot watch %s", s->root);
    return add_watch(call, s, "", e);
}

static void watch_start(agent_call_t *call, const void *request)
{
    err_t *e = NULL;
    watch_state_t *s = mem_alloc(sizeof *s);
    s->fd = -1;
    s->last = &s->first;
    call_set_state(call, s);
    if (open_watch(call, s, request, &e) != 0) {
        call_fail(call, &e);
        return;
    }
    call_watch_fd(call, s->fd, POLLIN, on_readable);
    if (s->is_recursive)
        want_walk(call, s, "", false);
    else
        tell_head(call, s);
}

static void watch_destroy(agent_call_t *call)
{
    watch_state_t *s = call_state(call);
    if (s == NULL)
        return;
    if (s->fd >= 0) {
        call_watch_fd(call, s->fd, 0, NULL);
        close(s->fd);
    }
    end_walk(s);
    for (pending_t *p = s->first; p != NULL;) {
        pending_t *next = p->next;
        free(p);
        p = next;
    }
    forget_recent(s);
    fs_watches_free(&s->watches);
    free(s->only);
    free(s);
}

const agent_tool_t tool_file_watch = {
    .verb = VERB_file_watch,
    .start = watch_start,
    .step = watch_step,
    .destroy = watch_destroy,
};
