/* SPDX-License-Identifier: Apache-2.0
 *
 * Removing a large tree takes long: a child process does it, one at a time. What goes to the trash has lost its name
 * before, so that a daemon that is killed meanwhile finds it by that and removes it.
 */
#include "common/provider/kit.h"

#include "common/mem.h"
#include "common/process.h"

#include <errno.h>
#include <unistd.h>

#define REMOVE_TIMEOUT_MS (3600U * 1000)
#define OUTPUT_MAX 2000

struct kit_trash {
    TAILQ_ENTRY(kit_trash) entry;
    provider_t *provider;
    char *path;
    kit_trash_fn done;
    void *arg;
    process_t *process;
};

static void trash_next(provider_t *p);

static void trash_end(kit_trash_t *t, bool is_gone)
{
    provider_t *p = t->provider;
    TAILQ_REMOVE(&p->trash, t, entry);
    if (t->done)
        t->done(t->arg, is_gone);
    free(t->path);
    free(t);
    trash_next(p);
}

static void on_end(void *arg, const process_result_t *result)
{
    kit_trash_t *t = arg;
    t->process = NULL;
    /* Not by its status: a daemon that reaps for its sandboxes may have taken that. */
    bool is_gone = access(t->path, F_OK) < 0 && errno == ENOENT;
    if (!is_gone)
        log_error("cannot remove %s, it stays until the next start: rm ended with %d: %s", t->path, result->exit_code,
                  result->output);
    trash_end(t, is_gone);
}

static void trash_next(provider_t *p)
{
    kit_trash_t *t = TAILQ_FIRST(&p->trash);
    auto_err err_t *e = NULL;
    if (!t || t->process)
        return;
    const char *const argv[] = {"rm", "-rf", "--one-file-system", "--", t->path, NULL};
    process_options_t options = {.argv = argv,
                                 .fd_stdin = -1,
                                 .fd_stdout = -1,
                                 .fd_stderr = -1,
                                 .netns_fd = -1,
                                 .timeout_ms = REMOVE_TIMEOUT_MS,
                                 .output_max = OUTPUT_MAX};
    t->process = process_start(p->daemon->base, &options, on_end, t, &e);
    if (t->process)
        return;
    log_error("cannot remove %s, it stays until the next start: %s", t->path, err_message(e));
    trash_end(t, false);
}

void kit_trash_add(provider_t *p, const char *path, kit_trash_fn done, void *arg)
{
    kit_trash_t *t = mem_alloc(sizeof *t);
    t->provider = p;
    t->path = mem_strdup(path);
    t->done = done;
    t->arg = arg;
    TAILQ_INSERT_TAIL(&p->trash, t, entry);
    trash_next(p);
}

void kit_trash_free(provider_t *p)
{
    for (kit_trash_t *t; (t = TAILQ_FIRST(&p->trash));) {
        TAILQ_REMOVE(&p->trash, t, entry);
        process_cancel(&t->process);
        free(t->path);
        free(t);
    }
}
