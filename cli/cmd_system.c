/* SPDX-License-Identifier: Apache-2.0
 *
 * providers, version, health.
 */
#include "cli/cli.h"

#include "common/daemon.h"
#include "common/mem.h"

#include <stdio.h>

static const cli_column_t provider_columns[] = {
    {"NAME", "name"},
    {"STATE", "state"},
    {"NODE", "node"},
    {"ACTIVE", "active_count"},
    {"FREE MEMORY", "*bytes:free_memory_bytes"},
    {"FREE DISK", "*bytes:free_disk_bytes"},
    {"ISOLATION", "capabilities.isolation"},
    {"CHECKED", "*time:last_checked_at_ms"},
    {"MESSAGE", "message"},
};

int cli_providers(cli_t *c, err_t **e)
{
    json_t *rows = NULL;
    if (cli_call(c, "GET", "/api/v1/agent/workspaces/providers", NULL, &rows, e) != 0) {
        return -1;
    }
    if (c->is_json) {
        cli_print_json(rows);
    } else {
        cli_print_table(rows, provider_columns, COUNT_OF(provider_columns));
    }
    json_decref(rows);
    return CLI_OK;
}

int cli_version(cli_t *c, err_t **e)
{
    printf("emergent %s\n", EW_VERSION);
    if (cli_option(c, "server") == NULL) {
        return CLI_OK;
    }
    json_t *reply = NULL;
    if (cli_call(c, "GET", "/version", NULL, &reply, e) != 0) {
        return -1;
    }
    cli_print_json(reply);
    json_decref(reply);
    return CLI_OK;
}

int cli_health(cli_t *c, err_t **e)
{
    json_t *reply = NULL;
    if (cli_call(c, "GET", cli_option(c, "ready") != NULL ? "/ready" : "/health", NULL, &reply, e) != 0) {
        return -1;
    }
    cli_print_json(reply);
    json_decref(reply);
    return CLI_OK;
}
