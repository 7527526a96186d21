/* SPDX-License-Identifier: Apache-2.0
 *
 * emergent: the command line of the suite.
 */
#include "cli/cli.h"

#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_FILE_MAX 4096

/* What to do about an error, for a person. */
static const struct {
    enum err_code code;
    const char *text;
} hints[] = {
    {ERR_MISSING_TOKEN,
     "give the key with --api-key or EMERGENT_API_KEY; a local suite keeps it in $EW_STATE_DIR/api-key"},
    {ERR_INVALID_TOKEN, "the key is not known to this gateway; see --api-key and $EW_STATE_DIR/api-key"},
    {ERR_FORBIDDEN, "make a key with the missing scope: emergent key create <name> --scope admin:write"},
    {ERR_LIMIT_REACHED, "stop or delete a workspace, or raise the limit that the message names"},
    {ERR_OVERLOADED, "wait a moment and repeat the command"},
    {ERR_PROVIDER_GONE, "the provider daemon restarted; repeat the command"},
    {ERR_TOOL_UNAVAILABLE, "use an image that has the program"},
    {ERR_NO_SPACE, "delete files in the workspace or make one with a larger --disk"},
    {ERR_INTERNAL, "look into the gateway's log for the request id"},
};

static char *read_key_file(const config_t *config)
{
    auto_buf buf_t text;
    auto_err err_t *ignored = NULL;
    auto_free char *path = mem_printf("%s/api-key", config->state_dir);
    buf_init(&text, 0);
    if (file_read(path, KEY_FILE_MAX, &text, &ignored) != 0) {
        return NULL; /* no local suite: the gateway will ask for a key */
    }
    buf_truncate(&text, strcspn(buf_cstr(&text), "\r\n"));
    return buf_steal(&text);
}

static char *find_key(const cli_t *c)
{
    const char *given[] = {cli_option(c, "api-key"), getenv("EMERGENT_API_KEY"), c->config.standalone_api_key};
    for (size_t i = 0; i < COUNT_OF(given); i++) {
        if (given[i] != NULL && given[i][0] != '\0') {
            return mem_strdup(given[i]);
        }
    }
    return read_key_file(&c->config);
}

/* Port 0 means: the gateway chose one and wrote it down. */
static char *local_url(const config_t *config)
{
    auto_buf buf_t port;
    auto_err err_t *ignored = NULL;
    buf_init(&port, 0);
    buf_printf(&port, "%" PRId64, config->server_port);
    if (config->server_port == 0) {
        auto_free char *path = mem_printf("%s/gateway.port", config->state_dir);
        buf_reset(&port);
        file_read(path, 8, &port, &ignored);
        buf_truncate(&port, strspn(buf_cstr(&port), "0123456789"));
    }
    const char *address = config->server_address;
    if (strcmp(address, "0.0.0.0") == 0) {
        address = "127.0.0.1";
    } else if (strcmp(address, "::") == 0) {
        address = "::1";
    }
    bool is_v6 = strchr(address, ':') != NULL;
    return mem_printf("http://%s%s%s:%s", is_v6 ? "[" : "", address, is_v6 ? "]" : "", buf_cstr(&port));
}

static int connect_client(cli_t *c, err_t **e)
{
    if (config_load(&c->config, CONFIG_CLI, e) != 0) {
        return -1;
    }
    const char *url = cli_option(c, "url");
    url = url != NULL ? url : getenv("EMERGENT_URL");
    c->url = url != NULL && url[0] != '\0' ? mem_strdup(url) : local_url(&c->config);
    c->api_key = find_key(c);
    c->client = client_new(c->url, c->api_key, e);
    return c->client != NULL ? 0 : -1;
}

static int report(const cli_t *c, const err_t *e)
{
    enum err_code code = err_code(e);
    bool is_unreachable = c->client != NULL && client_is_unreachable(c->client);
    bool is_exec = c->command != NULL && c->command->run == cli_workspace_exec;
    if (client_is_interrupted()) {
        fputs("emergent: interrupted\n", stderr);
        return CLI_INTERRUPTED;
    }
    cli_say("emergent: %s (%s)", err_message(e), err_code_name(code));
    if (err_details(e) != NULL) {
        cli_say("  details: %s", err_details(e));
    }
    if (is_unreachable) {
        fputs("  start the suite with `make up`, or name another gateway with --url or EMERGENT_URL\n", stderr);
        return is_exec ? CLI_EXEC_FAILED : CLI_UNREACHABLE;
    }
    if (c->client != NULL && client_request_id(c->client)[0] != '\0') {
        fprintf(stderr, "  request: %s\n", client_request_id(c->client));
    }
    for (size_t i = 0; i < COUNT_OF(hints); i++) {
        if (hints[i].code == code) {
            fprintf(stderr, "  %s\n", hints[i].text);
        }
    }
    if (c->is_usage) {
        return CLI_USAGE;
    }
    return is_exec ? CLI_EXEC_FAILED : CLI_FAILED;
}

static void release(cli_t *c)
{
    client_destroy(&c->client);
    config_free(&c->config);
    if (c->api_key != NULL) {
        mem_wipe(c->api_key, strlen(c->api_key));
    }
    free(c->api_key);
    free(c->url);
    free(c->args);
}

int main(int argc, char **argv)
{
    cli_t c = {0};
    auto_err err_t *e = NULL;
    bool wants_help = false;
    int code;
    log_open("emergent", LOG_LEVEL_WARN);
    client_catch_signals();
    if (cli_parse(&c, argc, argv, &wants_help, &e) != 0) {
        cli_say("emergent: %s", err_message(e));
        code = CLI_USAGE;
    } else if (wants_help) {
        auto_buf buf_t text;
        buf_init(&text, 0);
        cli_print_help(&c, &text);
        bool is_asked = cli_option(&c, "help") != NULL;
        fputs(buf_cstr(&text), is_asked ? stdout : stderr);
        code = is_asked ? CLI_OK : CLI_USAGE;
    } else if (connect_client(&c, &e) != 0) {
        code = report(&c, e);
    } else {
        code = c.command->run(&c, &e);
        code = code < 0 ? report(&c, e) : code;
    }
    if (fflush(stdout) != 0 && code == CLI_OK) {
        code = CLI_FAILED; /* a closed pipe or a full disk */
    }
    release(&c);
    return code;
}
