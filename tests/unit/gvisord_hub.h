/* SPDX-License-Identifier: Apache-2.0
 *
 * A hub for tests of a real gvisord: a temporary state directory, the daemon as a child process, calls that wait for
 * their reply. One hub per test process. Every function fails the test when something takes too long.
 */
#ifndef EW_TESTS_UNIT_GVISORD_HUB_H
#define EW_TESTS_UNIT_GVISORD_HUB_H

#include "common/call.h"

#include <sys/types.h>

typedef struct hub {
    struct event_base *base;
    fabric_t *fabric;
    call_table_t *calls;
    fabric_peer_t *peer; /* the daemon, NULL while it is down */
    char dir[64];        /* temporary, holds everything */
    char cgroup_parent[32];
    pid_t daemon;
    char role[16];
    unsigned dead_events; /* sandbox_event `dead` seen */
    unsigned restarted_events;
    unsigned events; /* of all types */
    char dead_reason[512];
} hub_t;

/* Why a real sandbox cannot run here, or NULL. With EW_MUST_WORK=1 a reason is a failure. */
const char *hub_why_not(void);
void hub_open(hub_t *h, const char *role);
void hub_start_daemon(hub_t *h,
                      const char *const *more_env); /* "NAME=value", NULL ends; waits until it is linked and probed */
void hub_kill_daemon(hub_t *h, int signal);         /* and waits for its end */
/* Stops the daemon, checks that nothing is left on the host, removes the directory. */
void hub_close(hub_t *h);

/* Runs the loop until *flag or the time is over. */
bool hub_wait(hub_t *h, const bool *flag, unsigned timeout_ms);
void hub_run_for(hub_t *h, unsigned ms);

typedef struct hub_reply {
    buf_t body;
    enum err_code code; /* ERR_NONE = replied */
    char message[1024];
    bool is_done;
    uint64_t duration_us;
} hub_reply_t;
/* Sends and waits. The caller frees r->body. */
void hub_call(hub_t *h, enum verb verb, const uuid16_t *sandbox, unsigned msg_id, const void *msg, hub_reply_t *r);
/* Sends without waiting; r must stay. */
call_t *hub_call_start(hub_t *h, enum verb verb, const uuid16_t *sandbox, unsigned msg_id, const void *msg,
                       hub_reply_t *r);

/* A sandbox of the base image; fills id. */
void hub_create(hub_t *h, uuid16_t *id, const char *network, hub_reply_t *r);
void hub_destroy(hub_t *h, const uuid16_t *id);
/* Runs a command to its end; stdout is copied to out (may be NULL); returns the exit code. */
int hub_bash(hub_t *h, const uuid16_t *id, const char *command, char *out, size_t size);
/* What the host still has of a sandbox (mounts, cgroups, processes), "" = nothing. */
const char *hub_leftovers(const hub_t *h);

#endif
