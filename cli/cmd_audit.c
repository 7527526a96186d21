/* SPDX-License-Identifier: Apache-2.0
 *
 * audit: what was done. audit verify: recomputes the hash of every line that the gateway shows (common/audit_chain.h)
 * and how the lines follow each other. An owner sees its own lines only: what lies between them is checked as far as
 * neighbours are both its own. With --all-owners (the standalone key) nothing may be missing from the first line that
 * is kept to the last.
 */
#include "cli/cli.h"

#include "common/audit_chain.h"
#include "common/crypto.h"
#include "common/mem.h"
#include "common/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 1000

static const cli_column_t columns[] = {
    {"AT", "at"},
    {"OPERATION", "operation"},
    {"STATUS", "status"},
    {"MS", "duration_ms"},
    {"WORKSPACE", "workspace_id"},
    {"CALLER", "caller"},
    {"SUMMARY", "summary"},
    {"ERROR", "error"},
};

static void append_filters(const cli_t *c, buf_t *path)
{
    static const char *const filters[][2] = {{"operation", "operation"},
                                             {"status", "status"},
                                             {"from", "from"},
                                             {"to", "to"},
                                             {"session", "agent_session_id"}};
    for (size_t i = 0; i < COUNT_OF(filters); i++) {
        if (cli_option(c, filters[i][0]) != NULL) {
            cli_query(path, filters[i][1], cli_option(c, filters[i][0]));
        }
    }
    if (cli_option(c, "all-owners") != NULL) {
        cli_query(path, "all_owners", "true");
    }
}

static void append_path(const cli_t *c, buf_t *path)
{
    const char *workspace = cli_option(c, "workspace");
    buf_append_str(path, workspace != NULL ? "/api/v1/agent/workspaces/" : "/api/v1/agent");
    if (workspace != NULL) {
        client_escape(path, workspace);
    }
    buf_append_str(path, "/audit");
}

/* ---- show ---- */

static int show(cli_t *c, err_t **e)
{
    auto_buf buf_t path;
    buf_init(&path, 0);
    append_path(c, &path);
    append_filters(c, &path);
    if (cli_option(c, "limit") != NULL) {
        cli_query(&path, "limit", cli_option(c, "limit"));
    }
    json_t *rows = NULL;
    if (cli_call(c, "GET", buf_cstr(&path), NULL, &rows, e) != 0) {
        return -1;
    }
    if (c->is_json) {
        cli_print_json(rows);
    } else {
        cli_print_table(rows, columns, COUNT_OF(columns));
    }
    json_decref(rows);
    return CLI_OK;
}

/* ---- verify ---- */

typedef struct seen {
    size_t chain;
    uint64_t sequence;
    uint8_t hash[SHA256_SIZE], previous[SHA256_SIZE];
    bool has_previous; /* else: the first of its chain, or what it follows is no longer kept */
    bool is_good;      /* its hash is that of its content */
} seen_t;

typedef struct check {
    seen_t *lines;
    size_t count, cap;
    char **chains;
    size_t chain_count;
} check_t;

static const char *text(const json_t *line, const char *key)
{
    return json_string_value(json_object_get(line, key));
}

static uint64_t number(const json_t *line, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(line, key));
}

static size_t chain_index(check_t *k, const char *name)
{
    for (size_t i = 0; i < k->chain_count; i++) {
        if (strcmp(k->chains[i], name) == 0) {
            return i;
        }
    }
    k->chains = mem_realloc(k->chains, (k->chain_count + 1) * sizeof(*k->chains));
    k->chains[k->chain_count] = mem_strdup(name);
    return k->chain_count++;
}

static int take_line(check_t *k, const json_t *line, err_t **e)
{
    char hash[AUDIT_HASH_SIZE];
    struct audit_entry entry = {
        .sequence = number(line, "sequence"),
        .chain = text(line, "chain"),
        .at = text(line, "at"),
        .owner = text(line, "owner"),
        .workspace_id = text(line, "workspace_id"),
        .operation = text(line, "operation"),
        .method = text(line, "method"),
        .status = (uint32_t)number(line, "status"),
        .duration_ms = number(line, "duration_ms"),
        .caller = text(line, "caller"),
        .agent_session_id = text(line, "agent_session_id"),
        .request_id = text(line, "request_id"),
        .summary = text(line, "summary"),
        .error_code = text(line, "error_code"),
        .error = text(line, "error"),
        .previous_hash = text(line, "previous_hash"),
    };
    const char *given = text(line, "hash");
    if (entry.chain == NULL || given == NULL) {
        return err_set(e, ERR_PROTOCOL, "the gateway's answer is no list of lines of an audit");
    }
    if (k->count == k->cap) {
        k->cap = k->cap == 0 ? PAGE : k->cap * 2;
        k->lines = mem_realloc(k->lines, k->cap * sizeof(*k->lines));
    }
    seen_t *seen = &k->lines[k->count++];
    memset(seen, 0, sizeof(*seen));
    seen->chain = chain_index(k, entry.chain);
    seen->sequence = entry.sequence;
    seen->has_previous =
        entry.previous_hash != NULL && hex_decode(seen->previous, sizeof(seen->previous), entry.previous_hash);
    audit_chain_hash(&entry, hash);
    /* The oldest line that is kept follows one that is gone: only the next one vouches for it. */
    bool is_oldest_kept = !seen->has_previous && entry.sequence > 1;
    seen->is_good = hex_decode(seen->hash, sizeof(seen->hash), given) && (is_oldest_kept || strcmp(hash, given) == 0);
    return 0;
}

static int read_all(cli_t *c, check_t *k, err_t **e)
{
    auto_buf buf_t path;
    buf_init(&path, 0);
    auto_free char *cursor = mem_strdup("");
    do {
        buf_reset(&path);
        append_path(c, &path);
        append_filters(c, &path);
        cli_query(&path, "limit", "1000");
        if (cursor[0] != '\0') {
            cli_query(&path, "cursor", cursor);
        }
        json_t *rows = NULL, *line;
        size_t i;
        int done = cli_call(c, "GET", buf_cstr(&path), NULL, &rows, e);
        json_array_foreach(rows, i, line)
        {
            if (done == 0) {
                done = take_line(k, line, e);
            }
        }
        json_decref(rows);
        if (done != 0) {
            return -1;
        }
        free(cursor);
        cursor = mem_strdup(client_next_cursor(c->client));
    } while (cursor[0] != '\0');
    return 0;
}

static int by_chain_and_sequence(const void *a, const void *b)
{
    const seen_t *x = a, *y = b;
    if (x->chain != y->chain) {
        return x->chain < y->chain ? -1 : 1;
    }
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

/* What is wrong with the line, seen after the one before it (NULL = the first of its chain); NULL = nothing. */
static const char *fault_of(const seen_t *line, const seen_t *before, bool must_be_whole)
{
    if (!line->is_good) {
        return "its content does not fit its hash";
    }
    if (before != NULL && line->sequence == before->sequence) {
        return "its number is there twice";
    }
    if (before != NULL && line->sequence == before->sequence + 1 &&
        (!line->has_previous || memcmp(line->previous, before->hash, sizeof(before->hash)) != 0)) {
        return "it does not follow the line before";
    }
    if (before != NULL && must_be_whole && line->sequence != before->sequence + 1) {
        return "lines before it are missing";
    }
    bool lacks_previous = before != NULL && !line->has_previous;
    return lacks_previous ? "the line before it is missing" : NULL;
}

static int judge(cli_t *c, check_t *k, err_t **e)
{
    bool is_filtered = cli_option(c, "workspace") != NULL || cli_option(c, "operation") != NULL ||
                       cli_option(c, "status") != NULL || cli_option(c, "from") != NULL ||
                       cli_option(c, "to") != NULL || cli_option(c, "session") != NULL;
    bool must_be_whole = cli_option(c, "all-owners") != NULL && !is_filtered;
    if (k->count > 0) {
        qsort(k->lines, k->count, sizeof(*k->lines), by_chain_and_sequence);
    }
    for (size_t i = 0; i < k->count; i++) {
        const seen_t *line = &k->lines[i];
        const seen_t *before = i > 0 && line[-1].chain == line->chain ? line - 1 : NULL;
        const char *fault = fault_of(line, before, must_be_whole);
        if (fault != NULL) {
            return err_set(e, ERR_CONFLICT, "the audit is broken at line %" PRIu64 " of chain %s: %s", line->sequence,
                           k->chains[line->chain], fault);
        }
    }
    if (c->is_json) {
        json_t *result = json_pack("{s:b, s:I, s:I, s:b}", "good", 1, "lines", (json_int_t)k->count, "chains",
                                   (json_int_t)k->chain_count, "whole", must_be_whole);
        cli_print_json(result);
        json_decref(result);
    } else {
        printf("%zu lines of %zu chains are good%s\n", k->count, k->chain_count,
               must_be_whole ? ", and none is missing between the oldest and the newest" : "");
    }
    return CLI_OK;
}

static int verify(cli_t *c, err_t **e)
{
    check_t k = {0};
    int done = read_all(c, &k, e);
    if (done == 0) {
        done = judge(c, &k, e);
    }
    for (size_t i = 0; i < k.chain_count; i++) {
        free(k.chains[i]);
    }
    free(k.chains);
    free(k.lines);
    return done;
}

int cli_audit(cli_t *c, err_t **e)
{
    if (c->arg_count == 0) {
        return show(c, e);
    }
    if (strcmp(c->args[0], "verify") != 0) {
        return cli_refuse(c, e, "usage: emergent audit [verify]; '%s' is neither", c->args[0]);
    }
    if (cli_option(c, "limit") != NULL) {
        return cli_refuse(c, e, "--limit does not go with verify");
    }
    return verify(c, e);
}
