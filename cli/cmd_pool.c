/* SPDX-License-Identifier: Apache-2.0
 *
 * pool list, set, reset: warm pools.
 */
#include "cli/cli.h"

#include "common/mem.h"
#include "common/text.h"

#include <stdio.h>
#include <string.h>

#define POOLS "/api/v1/admin/warm-pools"

static const cli_column_t columns[] = {
    {"PROVIDER", "provider"}, {"NODE", "node"},   {"IMAGE", "image"},   {"DISK", "disk_bytes"}, {"NETWORK", "network"},
    {"SIZE", "size"},         {"READY", "ready"}, {"MAKING", "making"}, {"HITS", "hits"},       {"MISSES", "misses"},
};

/* One row for each pool of each node. */
static json_t *rows_of(const json_t *reply)
{
    json_t *rows = json_array();
    const json_t *node, *pool;
    size_t i, j;
    json_array_foreach(json_object_get(reply, "nodes"), i, node)
    {
        json_array_foreach(json_object_get(node, "pools"), j, pool)
        {
            json_t *row = json_copy((json_t *)(uintptr_t)pool);
            json_object_set(row, "provider", json_object_get(node, "provider"));
            json_object_set(row, "node", json_object_get(node, "node"));
            json_array_append_new(rows, row);
        }
    }
    return rows;
}

static int ask(cli_t *c, const char *method, json_t *body, err_t **e)
{
    json_t *reply = NULL;
    if (cli_call(c, method, POOLS, body, &reply, e) != 0) {
        return -1;
    }
    if (c->is_json) {
        cli_print_json(reply);
    } else {
        json_t *rows = rows_of(reply);
        cli_print_table(rows, columns, COUNT_OF(columns));
        json_decref(rows);
    }
    json_decref(reply);
    return CLI_OK;
}

int cli_pool_list(cli_t *c, err_t **e)
{
    return ask(c, "GET", NULL, e);
}

int cli_pool_reset(cli_t *c, err_t **e)
{
    return ask(c, "DELETE", NULL, e);
}

/* The pools that are set now, without the one of this shape: what is missing in a pool is the default, as the gateway
 * shows it. */
static json_t *others(const json_t *now, const json_t *wanted)
{
    static const char *const SHAPE[] = {"provider", "image", "disk", "network"};
    json_t *rest = json_array();
    const json_t *pool;
    size_t i;
    json_array_foreach(json_object_get(now, "pools"), i, pool)
    {
        bool is_same = true;
        for (size_t s = 0; s < COUNT_OF(SHAPE); s++) {
            const char *ours = json_string_value(json_object_get(wanted, SHAPE[s]));
            const char *theirs = json_string_value(json_object_get(pool, SHAPE[s]));
            is_same = is_same && (ours == NULL || (theirs != NULL && strcmp(ours, theirs) == 0));
        }
        if (!is_same) {
            json_array_append(rest, (json_t *)(uintptr_t)pool);
        }
    }
    return rest;
}

int cli_pool_set(cli_t *c, err_t **e)
{
    static const char *const NAMES[] = {"provider", "image", "disk", "network"};
    json_t *now = NULL, *wanted = json_object();
    uint64_t size;
    if (!text_to_u64(c->args[0], &size)) {
        json_decref(wanted);
        return cli_refuse(c, e, "'%s' is not a number of sandboxes", c->args[0]);
    }
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        const char *value = cli_option(c, NAMES[i]);
        if (value != NULL) {
            json_object_set_new(wanted, NAMES[i], json_string(value));
        }
    }
    json_object_set_new(wanted, "size", json_integer((json_int_t)size));
    if (cli_call(c, "GET", POOLS, NULL, &now, e) != 0) {
        json_decref(wanted);
        return -1;
    }
    json_t *pools = others(now, wanted);
    if (size > 0) {
        json_array_append(pools, wanted);
    }
    json_decref(wanted);
    json_decref(now);
    return ask(c, "PUT", json_pack("{s:o}", "pools", pools), e);
}
