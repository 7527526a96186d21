/* SPDX-License-Identifier: Apache-2.0
 *
 * Output of a command or process as server-sent events: stdout and stderr go to ours as they come, the last event tells
 * how it ended.
 */
#ifndef EW_CLI_FOLLOW_H
#define EW_CLI_FOLLOW_H

#include "cli/cli.h"

typedef struct follow {
    json_t *result;     /* data of `result`; NULL until it came */
    err_t *error;       /* of an `error` event, or of writing our output */
    char *last_id;      /* to go on from after a broken connection */
    bool is_progressed; /* something came since the request began */
} follow_t;

void follow_free(follow_t *f);
/* One request; fills f. accept, on_bytes, arg and last_event_id of the request are set here. */
int follow_request(cli_t *c, follow_t *f, const client_request_t *request, err_t **e);
/* The exit code that a result stands for: 124 after a timeout, 128+n after signal n. */
int follow_exit_code(const json_t *result);

#endif
