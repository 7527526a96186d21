/* SPDX-License-Identifier: Apache-2.0
 *
 * key create, list, delete (API keys) and keygen (CURVE certificates of the daemons).
 */
#include "cli/cli.h"

#include "common/mem.h"

#include <czmq.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define KEYS "/api/v1/admin/api-keys"

static const cli_column_t key_columns[] = {
    {"ID", "id"},         {"NAME", "name"},          {"OWNER", "owner"},        {"PREFIX", "prefix"},
    {"SCOPES", "scopes"}, {"EXPIRES", "expires_at"}, {"CREATED", "created_at"},
};

int cli_key_create(cli_t *c, err_t **e)
{
    json_t *body = json_object();
    json_t *scopes = json_array();
    size_t at = 0;
    const char *scope;
    while ((scope = cli_option_next(c, "scope", &at)) != NULL) {
        json_array_append_new(scopes, json_string(scope));
    }
    if (json_array_size(scopes) == 0) {
        json_array_append_new(scopes, json_string("admin:read"));
        json_array_append_new(scopes, json_string("admin:write"));
    }
    json_object_set_new(body, "name", json_string(c->args[0]));
    json_object_set_new(body, "scopes", scopes);
    const char *names[][2] = {{"owner", "owner"}, {"expires", "expires_at"}};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char *value = cli_option(c, names[i][0]);
        if (value != NULL) {
            json_object_set_new(body, names[i][1], json_string(value));
        }
    }
    json_t *reply = NULL;
    if (cli_call(c, "POST", KEYS, body, &reply, e) != 0) {
        return -1;
    }
    const char *key = json_string_value(json_object_get(reply, "key"));
    if (c->is_json) {
        cli_print_json(reply);
    } else {
        printf("%s\n", key != NULL ? key : "");
        fputs("emergent: this key is shown only now; keep it safe\n", stderr);
    }
    json_decref(reply);
    return CLI_OK;
}

int cli_key_list(cli_t *c, err_t **e)
{
    json_t *rows = NULL;
    if (cli_call(c, "GET", KEYS, NULL, &rows, e) != 0) {
        return -1;
    }
    if (c->is_json) {
        cli_print_json(rows);
    } else {
        cli_print_table(rows, key_columns, COUNT_OF(key_columns));
    }
    json_decref(rows);
    return CLI_OK;
}

int cli_key_delete(cli_t *c, err_t **e)
{
    auto_buf buf_t path;
    buf_init(&path, 0);
    buf_append_str(&path, KEYS "/");
    client_escape(&path, c->args[0]);
    json_t *reply = NULL;
    if (cli_call(c, "DELETE", buf_cstr(&path), NULL, &reply, e) != 0) {
        return -1;
    }
    json_decref(reply);
    return CLI_OK;
}

/* The public file's name without .txt is the instance name; the secret one is named so that a directory of known
 * certificates does not take it for one. */
int cli_keygen(cli_t *c, err_t **e)
{
    const char *name = c->args[0];
    const char *dir = cli_option(c, "dir");
    dir = dir != NULL ? dir : ".";
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL) {
        return cli_refuse(c, e, "'%s' is not a name for a certificate: no slash, no dot in front", name);
    }
    auto_free char *public_file = mem_printf("%s/%s.txt", dir, name);
    auto_free char *secret_file = mem_printf("%s/%s.secret", dir, name);
    struct stat st;
    if (cli_option(c, "force") == NULL && (stat(public_file, &st) == 0 || stat(secret_file, &st) == 0)) {
        return err_set(e, ERR_CONFLICT, "%s or %s is there already; --force replaces them", public_file, secret_file);
    }
    zsys_handler_set(NULL);
    mode_t mask = umask(077);
    zcert_t *cert = zcert_new();
    int done = 0;
    if (cert == NULL) {
        done = err_set(e, ERR_INTERNAL, "no certificate could be made: libzmq has no CURVE");
    } else {
        zcert_set_meta(cert, "name", "%s", name);
        if (zcert_save_public(cert, public_file) != 0 || zcert_save_secret(cert, secret_file) != 0) {
            done = err_set_errno(e, ERR_BAD_REQUEST, errno, "%s and %s could not be written", public_file, secret_file);
        }
    }
    umask(mask);
    zcert_destroy(&cert);
    if (done == 0) {
        printf("%s\n%s\n", public_file, secret_file);
    }
    return done;
}
