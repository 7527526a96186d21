/* SPDX-License-Identifier: Apache-2.0
 *
 * What every daemon's main() does before and after its own work: arguments (--check, --print-config, --version,
 * --help), configuration, log, state directories (0700), one libevent loop, SIGTERM/SIGINT through the loop, SIGPIPE
 * ignored, CPU set, a lock file so that one state directory has one instance, a `ready` file for whoever waits.
 */
#ifndef EW_COMMON_DAEMON_H
#define EW_COMMON_DAEMON_H

#include "common/config.h"
#include "common/err.h"

#include <event2/event.h>

#define EW_VERSION "0.1.0"

typedef struct daemon {
    const char *name;
    config_t config;
    struct event_base *base;
    char instance[33]; /* random, per start */
    char *state_dir;   /* $EW_STATE_DIR/<name>, 0700 */
    struct event *signals[2];
    int lock_fd;
} daemon_t;

/* Fills `d`. Returns 0 to go on, 1 if the process should exit with *exit_code (after --check and the like), -1 on
 * error. */
int daemon_init(daemon_t *d, const char *name, unsigned scope, int argc, char **argv, int *exit_code, err_t **e);
/* Runs the loop until a signal or daemon_stop(). Writes $EW_RUN_DIR/<name>.pid first. */
void daemon_run(daemon_t *d);
void daemon_stop(daemon_t *d);
void daemon_free(daemon_t *d);

/* `ipc://<run_dir>/gateway.fabric` or what EW_GATEWAY_ENDPOINTS says; caller frees. */
char *daemon_gateway_endpoints(const daemon_t *d);

#endif
