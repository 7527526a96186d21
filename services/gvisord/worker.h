/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker: a small process forked off before the daemon has threads or sockets. It runs jobs that block (mkfs,
 * mount, unmount, waiting for processes to end, ip and nft), each in a child of its own, so that a slow disk never
 * stops the loop and no job costs an exec of the whole daemon. It lives in the host's mount namespace and ends with the
 * daemon, and the daemon with it; a job that is running then ends its work first, holding a shared lock on
 * `worker.lock`: worker_wait_for_old() keeps a new daemon from meeting it.
 *
 * Arguments and results are JSON objects of at most WORKER_MESSAGE_MAX bytes.
 */
#ifndef EW_SERVICES_GVISORD_WORKER_H
#define EW_SERVICES_GVISORD_WORKER_H

#include "common/err.h"
#include "common/process.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdint.h>

#define WORKER_MESSAGE_MAX (64 * 1024)
#define WORKER_JOB_TIMEOUT_MS 60000

typedef struct worker worker_t;
typedef struct worker_job worker_job_t;

/* Runs in the job's own process and may block. Fills `result`. */
typedef int (*worker_fn)(const json_t *args, json_t *result, err_t **e);
/* result is borrowed; err NULL = success. Called once, from the loop. */
typedef void (*worker_done_fn)(void *arg, const json_t *result, const err_t *err);

/* Waits (at most about a minute) until no job of an earlier daemon with this state directory runs. */
int worker_wait_for_old(const char *state_dir, err_t **e);
/* Forks. Call before threads, sockets and the event loop exist. */
worker_t *worker_start(const char *state_dir, err_t **e);
/* Puts the worker into the loop. */
int worker_attach(worker_t *w, struct event_base *base, err_t **e);
/* Running jobs go on by themselves; their `done` is not called. */
void worker_stop(worker_t **w);
int worker_pid(const worker_t *w);

/* Takes args. NULL + error: the worker is gone or the arguments are too long. */
worker_job_t *worker_run(worker_t *w, worker_fn fn, json_t *args, worker_done_fn done, void *arg, err_t **e);
/* Another deadline than WORKER_JOB_TIMEOUT_MS, from now on. */
void worker_job_deadline(worker_job_t *job, unsigned timeout_ms);
/* The job goes on, `done` is not called. */
void worker_forget(worker_job_t **job);

/* For jobs: runs a program to its end and collects its output; error sandbox_failed with the output when it fails.
 * input may be NULL. */
int worker_exec(const char *const argv[], const char *input, unsigned timeout_ms, err_t **e);
/* For jobs: a program that needs more (a cgroup, a network namespace, descriptors); its exit code, -1 + error when it
 * could not be started or did not end in time. */
int worker_exec_with(const process_options_t *options, err_t **e);
/* For jobs: the daemon that asked has ended. What only it would use need not be finished. */
bool worker_is_orphaned(void);

#endif
