/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of stop, resume and snapshots of real sandboxes: the verbs with their replies, and a process that shows
 * whether it goes on.
 */
#ifndef EW_TESTS_UNIT_GVISORD_LIFE_H
#define EW_TESTS_UNIT_GVISORD_LIFE_H

#include "tests/unit/gvisord_hub.h"

#define SKIP_IF_IMPOSSIBLE()                                \
    do {                                                    \
        const char *why = hub_why_not();                    \
        const char *must = getenv("EW_MUST_WORK");          \
        if (why && must && strcmp(must, "1") == 0)          \
            cr_assert(false, "%s", why);                    \
        if (why) {                                          \
            fprintf(stderr, "gvisord: skipped: %s\n", why); \
            cr_skip_test("%s", why);                        \
        }                                                   \
    } while (0)

/* Of any of these replies. */
typedef struct life {
    bool has_processes;
    uint32_t total_ms, stall_ms;
    uint64_t bytes; /* kept_bytes, size_bytes */
    char phases[512];
    char warnings[1024]; /* joined by "; " */
} life_t;

void life_open(hub_t *h);
/* With a state directory on a file system of its own of so many bytes. */
void life_open_on(hub_t *h, uint64_t bytes);
void life_close_on(hub_t *h);
void life_create(hub_t *h, uuid16_t *id, const char *network);
void life_stop(hub_t *h, const uuid16_t *id, bool without_processes, life_t *l);
/* All that is left on the host is the directory of one sandbox. */
void life_assert_freed(hub_t *h);
void life_resume(hub_t *h, const uuid16_t *id, life_t *l);
/* Tries until it is ready: another operation may be under way. */
void life_resume_patiently(hub_t *h, const uuid16_t *id, life_t *l);
/* A new snapshot. */
void life_snapshot(hub_t *h, const uuid16_t *id, bool without_processes, uuid16_t *snapshot, life_t *l);
void life_snapshot_delete(hub_t *h, const uuid16_t *snapshot);
void life_from_snapshot(hub_t *h, const uuid16_t *snapshot, uint64_t disk_bytes, uuid16_t *id, life_t *l);
/* The same, ending in an error. */
enum err_code life_from_snapshot_fails(hub_t *h, const uuid16_t *snapshot, uint64_t disk_bytes);

/* A shell that holds a file open and adds a line to it ten times a second; /workspace/counter has its lines,
 * counter.pid its process. */
void life_start_counter(hub_t *h, const uuid16_t *id);
/* Its lines are 1, 2, 3, … without a gap, and it goes on. */
void life_assert_counting(hub_t *h, const uuid16_t *id);

/* KILL to the daemon, its worker and the jobs that run, as when its whole cgroup is killed; sandboxes live on. */
void life_kill_all(hub_t *h);
/* KILL to the worker alone; the jobs that run go on. */
void life_kill_worker(const hub_t *h);

/* Runs a program of the host; its exit code. */
int life_run(const char *const *argv);
/* The daemon's directory of a sandbox or snapshot. Caller frees. */
char *life_dir(const hub_t *h, const char *kind, const uuid16_t *id);
void life_edit_key(hub_t *h, const uuid16_t *id, const char *version);
void life_damage_image(hub_t *h, const uuid16_t *id);
/* Files and directories of sandboxes and snapshots that others may look into. */
size_t life_count_readable(const hub_t *h);

#endif
