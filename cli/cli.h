/* SPDX-License-Identifier: Apache-2.0
 *
 * The `emergent` command line: a table of commands, each one row with its options and its function. A command talks to
 * the gateway over REST (client.h) and never to a daemon. Result on stdout, everything else on stderr.
 *
 * Exit codes: 0 done; 1 the gateway refused or failed the request; 2 wrong usage; 3 the gateway cannot be reached; 130
 * interrupted. `workspace exec` ends with the exit code of the command itself, 124 after its timeout, 125 when the
 * suite failed.
 */
#ifndef EW_CLI_CLI_H
#define EW_CLI_CLI_H

#include "cli/client.h"
#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_UNREACHABLE = 3,
    CLI_TIMED_OUT = 124,
    CLI_EXEC_FAILED = 125,
    CLI_INTERRUPTED = 130,
    CLI_BROKEN_PIPE = 141
};

#define CLI_OPTIONS_MAX 128 /* options given in one command line */

typedef struct cli cli_t;

typedef struct cli_option {
    const char *name;  /* without dashes; NULL ends a list */
    char letter;       /* 0 = none */
    const char *value; /* what it takes, for the help; NULL = a switch */
    const char *doc;
} cli_option_t;

typedef struct cli_command {
    const char *group; /* NULL = top level */
    const char *name;
    const char *arguments; /* for the usage line */
    int min_args;
    int max_args;    /* -1 = any number */
    int options_end; /* options are looked for only up to this many arguments; 0 = everywhere */
    const cli_option_t *options;
    int (*run)(cli_t *c, err_t **e); /* the exit code, or -1 with *e */
    const char *doc;
} cli_command_t;

struct cli {
    config_t config;
    char *url;
    char *api_key; /* NULL = none found */
    client_t *client;
    bool is_json;
    bool is_usage; /* the error at hand is about the command line, not about what was asked */
    const cli_command_t *command;
    char **args;
    int arg_count;
    struct {
        const char *name;
        const char *value;
    } given[CLI_OPTIONS_MAX];
    size_t given_count;
};

extern const cli_option_t cli_global_options[];
const cli_command_t *cli_command_at(size_t i); /* NULL past the end */

/* Options of the command line: the last value wins; a switch has the value "". NULL if not given. */
const char *cli_option(const cli_t *c, const char *name);
/* Every value of a repeatable option, in order; `at` starts with 0. NULL ends. */
const char *cli_option_next(const cli_t *c, const char *name, size_t *at);
/* An option that must be a whole number; absent = `otherwise`. */
int cli_option_int(cli_t *c, const char *name, int64_t otherwise, int64_t *value, err_t **e);

/* The same for what a request takes as text, number or flag; absent = nothing is set. */
void cli_set_text(const cli_t *c, json_t *body, const char *option, const char *field);
int cli_set_int(cli_t *c, json_t *body, const char *option, const char *field, err_t **e);
void cli_set_switch(const cli_t *c, json_t *body, const char *option, const char *field);
int cli_set_json(cli_t *c, json_t *body, const char *option, const char *field, err_t **e);
/* An error of the command line itself: the program ends with CLI_USAGE. Returns -1. */
int cli_refuse(cli_t *c, err_t **e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- arguments (args.c) ---- */
/* Fills command, args and given. Errors are bad_request with the usage in the message. *wants_help is set for --help
 * and for nothing. */
int cli_parse(cli_t *c, int argc, char **argv, bool *wants_help, err_t **e);
void cli_print_help(const cli_t *c, buf_t *out);

/* ---- talking (talk.c) ---- */
/* Sends JSON (NULL = no body; stolen) and gives the reply's JSON (NULL for an empty one; caller decrefs). `path` is
 * escaped already. */
int cli_call(cli_t *c, const char *method, const char *path, json_t *body, json_t **reply, err_t **e);
/* "/api/v1/agent/workspaces/<first argument><rest>"; caller frees. */
char *cli_workspace_path(const cli_t *c, const char *rest);
/* Adds `&name=value` (or `?`) escaped. */
void cli_query(buf_t *path, const char *name, const char *value);
void cli_print_json(const json_t *value); /* indented, one newline */
int cli_write(int fd, const void *bytes, size_t len, err_t **e);
/* Whole standard input or file ("-" = standard input), at most max bytes. */
int cli_read_all(const char *path, size_t max, buf_t *out, err_t **e);
/* Sets `key` to the text, or `<key>_base64` when it is not UTF-8. */
void cli_set_bytes(json_t *object, const char *key, const void *bytes, size_t len);
/* Bytes of `key` or of `<key>_base64` in a reply. */
void cli_get_bytes(const json_t *object, const char *key, buf_t *out);

/* Every --env NAME=value into body.env (cmd_workspace.c). */
int cli_env_object(cli_t *c, json_t *body, err_t **e);
/* --cpu, --memory and --disk into body.resource_limits (cmd_workspace.c). */
void cli_limits_object(const cli_t *c, json_t *body);
/* Prints a workspace: JSON, or the fields of `workspace show` (cmd_workspace.c). */
void cli_print_workspace(const cli_t *c, const json_t *workspace);
/* Warnings of a reply on stderr. */
void cli_say_warnings(const json_t *object);

/* One line on stderr. What comes from outside must not talk to the terminal: control characters become '?'. */
void cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- tables (table.c) ---- */
/* At most max bytes of the text, control characters as '?'. */
void cli_append_safe(buf_t *out, const char *text, size_t len, size_t max);
typedef struct cli_column {
    const char *title;
    const char *key; /* "a.b" looks into an object; "*bytes:key", "*time:key" format a number */
} cli_column_t;
/* One line per row; columns as wide as needed; control characters in cells are shown as '?'. */
void cli_print_table(const json_t *rows, const cli_column_t *columns, size_t count);
/* `key: value` lines, one per column. */
void cli_print_fields(const json_t *object, const cli_column_t *fields, size_t count);

/* ---- commands ---- */
int cli_workspace_create(cli_t *c, err_t **e);
int cli_workspace_list(cli_t *c, err_t **e);
int cli_workspace_show(cli_t *c, err_t **e);
int cli_workspace_delete(cli_t *c, err_t **e);
int cli_workspace_exec(cli_t *c, err_t **e);
int cli_workspace_read(cli_t *c, err_t **e);
int cli_workspace_write(cli_t *c, err_t **e);
int cli_workspace_edit(cli_t *c, err_t **e);
int cli_workspace_glob(cli_t *c, err_t **e);
int cli_workspace_grep(cli_t *c, err_t **e);
int cli_workspace_git(cli_t *c, err_t **e);
int cli_workspace_cp(cli_t *c, err_t **e);
int cli_workspace_ps(cli_t *c, err_t **e);
int cli_workspace_logs(cli_t *c, err_t **e);
int cli_workspace_kill(cli_t *c, err_t **e);
int cli_workspace_stop(cli_t *c, err_t **e);
int cli_workspace_resume(cli_t *c, err_t **e);
int cli_workspace_attach(cli_t *c, err_t **e);
int cli_workspace_detach(cli_t *c, err_t **e);
int cli_workspace_fork(cli_t *c, err_t **e);
int cli_workspace_set(cli_t *c, err_t **e);
int cli_workspace_sessions(cli_t *c, err_t **e);
int cli_snapshot_create(cli_t *c, err_t **e);
int cli_snapshot_list(cli_t *c, err_t **e);
int cli_snapshot_show(cli_t *c, err_t **e);
int cli_snapshot_delete(cli_t *c, err_t **e);
int cli_snapshot_restore(cli_t *c, err_t **e);
int cli_audit(cli_t *c, err_t **e);
int cli_providers(cli_t *c, err_t **e);
int cli_pool_list(cli_t *c, err_t **e);
int cli_pool_set(cli_t *c, err_t **e);
int cli_pool_reset(cli_t *c, err_t **e);
int cli_key_create(cli_t *c, err_t **e);
int cli_key_list(cli_t *c, err_t **e);
int cli_key_delete(cli_t *c, err_t **e);
int cli_keygen(cli_t *c, err_t **e);
int cli_version(cli_t *c, err_t **e);
int cli_health(cli_t *c, err_t **e);
int cli_completion(cli_t *c, err_t **e);

#endif
