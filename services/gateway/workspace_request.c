// SPDX-License-Identifier: Apache-2.0
/* The body of POST …/workspaces: everything is checked here, nothing accepted is ignored, and a bad field is named. */
#include "services/gateway/workspaces_internal.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/text.h"

#include <ctype.h>
#include <stdio.h>
#include <strings.h>

#define LIMIT_MIN_BYTES ((uint64_t)64 << 20)
#define ENV_TOTAL_MAX ((size_t)512 * 1024)

/* metadata keys that the suite writes */
static const char *const RESERVED[] = {"attempts",   "isolation", "warm",   "programs", "phases",
                                       "processes",  "stop",      "resume", "restarts", "created_from_snapshot",
                                       "forked_from"};

static bool is_set(const char *s)
{
    return s != NULL && s[0] != '\0';
}

static char *copy_set(const char *s)
{
    return is_set(s) ? mem_strdup(s) : NULL;
}

static int check_type(const struct workspace_create *m, err_t **e)
{
    const char *type = m->container_type == NULL ? "" : m->container_type;
    if (strcmp(type, "agent_workspace") != 0 && strcmp(type, "mcp_server") != 0)
        return err_set(e, ERR_BAD_REQUEST, "container_type must be 'agent_workspace' or 'mcp_server'");
    bool is_mcp = strcmp(type, "mcp_server") == 0;
    if (is_mcp && (is_set(m->repository_url) || is_set(m->branch)))
        return err_set(e, ERR_BAD_REQUEST, "%s is only for container_type 'agent_workspace'",
                       is_set(m->repository_url) ? "repository_url" : "branch");
    if (!is_mcp && m->has.mcp_config)
        return err_set(e, ERR_BAD_REQUEST, "mcp_config is only for container_type 'mcp_server'");
    if (is_set(m->branch) && !is_set(m->repository_url))
        return err_set(e, ERR_BAD_REQUEST, "branch needs repository_url");
    return 0;
}

static int check_provider(const struct workspace_create *m, char **provider, err_t **e)
{
    char lower[33];
    snprintf(lower, sizeof(lower), "%s", m->provider == NULL ? "" : m->provider);
    for (char *c = lower; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    bool is_auto = lower[0] == '\0' || strcmp(lower, "auto") == 0;
    if (!is_auto && !orchestrator_is_provider(lower))
        return err_set(e, ERR_BAD_REQUEST, "provider must be one of auto, %s", orchestrator_provider_names());
    *provider = mem_strdup(is_auto ? "auto" : lower);
    return 0;
}

/* A control character or a blank in a URL or a branch is never meant; a credential in a URL would rest and show in
 * clear. */
static int check_repository(const struct workspace_create *m, err_t **e)
{
    const char *texts[] = {m->repository_url, m->branch};
    const char *names[] = {"repository_url", "branch"};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        for (const char *c = texts[i]; c != NULL && *c != '\0'; c++)
            if ((unsigned char)*c <= ' ' || *c == 0x7f)
                return err_set(e, ERR_BAD_REQUEST, "%s must not contain blanks or control characters", names[i]);
    if (is_set(m->branch) && m->branch[0] == '-')
        return err_set(e, ERR_BAD_REQUEST, "branch must not begin with '-'");
    if (!is_set(m->repository_url))
        return 0;
    const char *scheme_end = strstr(m->repository_url, "://");
    if (strncasecmp(m->repository_url, "https://", 8) != 0 && strncasecmp(m->repository_url, "http://", 7) != 0)
        return err_set(e, ERR_BAD_REQUEST, "repository_url must be an https:// or http:// URL");
    const char *host = scheme_end + 3;
    size_t authority = strcspn(host, "/?#");
    if (authority == 0)
        return err_set(e, ERR_BAD_REQUEST, "repository_url has no host");
    if (memchr(host, '@', authority) != NULL)
        return err_set(e, ERR_BAD_REQUEST,
                       "repository_url must not contain credentials; connect the GitHub App instead");
    return 0;
}

static int check_size(const char *field, const char *text, err_t **e)
{
    uint64_t bytes;
    if (!text_to_size(text, &bytes))
        return err_set(e, ERR_BAD_REQUEST, "resource_limits.%s must be a size such as \"4G\" or \"512M\"", field);
    if (bytes < LIMIT_MIN_BYTES)
        return err_set(e, ERR_BAD_REQUEST, "resource_limits.%s must be at least 64M", field);
    return 0;
}

static int take_limits(workspace_row_t *row, const struct workspace_create *m, const config_t *config, err_t **e)
{
    struct resource_limits limits = {0};
    if (m->resource_limits.bytes != NULL &&
        proto_decode(MSG_resource_limits, &limits, m->resource_limits.bytes, m->resource_limits.len, e) != 0)
        return -1;
    row->cpu = mem_strdup(is_set(limits.cpu) ? limits.cpu : config->default_cpu);
    row->memory = mem_strdup(is_set(limits.memory) ? limits.memory : config->default_memory);
    row->disk = mem_strdup(is_set(limits.disk) ? limits.disk : config->default_disk);
    uint32_t milli;
    if (!text_to_milli(row->cpu, &milli))
        return err_set(e, ERR_BAD_REQUEST,
                       "resource_limits.cpu must be a number of CPUs from 0.001 to 1024, such as \"2\" or \"0.5\"");
    return check_size("memory", row->memory, e) != 0 || check_size("disk", row->disk, e) != 0 ? -1 : 0;
}

static bool is_env_name(const char *name)
{
    if (!isalpha((unsigned char)name[0]) && name[0] != '_')
        return false;
    for (const char *c = name; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && *c != '_')
            return false;
    return strlen(name) <= 255;
}

static int take_env(workspace_row_t *row, const struct workspace_create *m, err_t **e)
{
    proto_iter_t it = proto_iter_map(&m->env);
    const char *name, *value;
    size_t total = 0;
    while (proto_iter_str(&it, &name) && proto_iter_str(&it, &value)) {
        if (!is_env_name(name))
            return err_set(e, ERR_BAD_REQUEST,
                           "env has a bad name: letters, digits and '_' only, not beginning with a digit");
        total += strlen(name) + strlen(value) + 2;
        if (total > ENV_TOTAL_MAX)
            return err_set(e, ERR_BAD_REQUEST, "env must be at most %zu bytes in all", ENV_TOTAL_MAX);
        if (row->env == NULL)
            row->env = json_object();
        if (json_object_set_new(row->env, name, json_string(value)) != 0)
            return err_set(e, ERR_BAD_REQUEST, "env.%s must be UTF-8", name);
    }
    return 0;
}

static int take_json(const char *field, const char *text, json_t **object, err_t **e)
{
    if (text == NULL)
        return 0;
    json_t *value = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(value)) {
        json_decref(value);
        return err_set(e, ERR_BAD_REQUEST, "%s must be an object", field);
    }
    json_decref(*object);
    *object = value;
    return 0;
}

int workspace_check_metadata(const json_t *metadata, err_t **e)
{
    for (size_t i = 0; i < COUNT_OF(RESERVED); i++)
        if (json_object_get(metadata, RESERVED[i]) != NULL)
            return err_set(e, ERR_BAD_REQUEST, "metadata.%s is reserved: the suite writes it", RESERVED[i]);
    return 0;
}

void workspace_copy_own_metadata(json_t *to, const json_t *from)
{
    for (size_t i = 0; i < COUNT_OF(RESERVED); i++) {
        json_t *value = json_object_get(from, RESERVED[i]);
        if (value != NULL)
            json_object_set(to, RESERVED[i], value);
        else
            json_object_del(to, RESERVED[i]);
    }
}

static int take_objects(workspace_row_t *row, const struct workspace_create *m, err_t **e)
{
    row->metadata = json_object();
    row->warnings = json_array();
    if (take_json("metadata", m->metadata, &row->metadata, e) != 0 ||
        take_json("mcp_config", m->mcp_config, &row->mcp_config, e) != 0)
        return -1;
    if (workspace_check_metadata(row->metadata, e) != 0)
        return -1;
    json_t *environment = json_object_get(row->mcp_config, "environment");
    if (environment != NULL && !json_is_object(environment))
        return err_set(e, ERR_BAD_REQUEST, "mcp_config.environment must be an object");
    return 0;
}

static int take_session(workspace_row_t *row, const struct workspace_create *m, err_t **e)
{
    char text[UUID_TEXT_SIZE];
    if (!is_set(m->agent_session_id))
        return 0;
    if (!workspace_session_parse(m->agent_session_id, text))
        return err_set(e, ERR_BAD_REQUEST, "agent_session_id must be a UUID");
    row->agent_session_id = mem_strdup(text);
    return 0;
}

static void fill(workspace_t *ws, const struct workspace_create *m, const api_request_t *r)
{
    const config_t *config = &ws->all->gw->daemon.config;
    workspace_row_t *row = &ws->row;
    bool is_mcp = strcmp(m->container_type, "mcp_server") == 0;
    random_bytes(&row->id, sizeof(row->id));
    row->id.bytes[6] = (uint8_t)((row->id.bytes[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
    row->id.bytes[8] = (uint8_t)((row->id.bytes[8] & 0x3f) | 0x80);
    uuid16_format(&row->id, row->id_text);
    snprintf(row->owner, sizeof(row->owner), "%s", r->caller.owner);
    row->status = WORKSPACE_CREATING;
    row->container_type = mem_strdup(m->container_type);
    row->lifecycle = mem_strdup(is_mcp ? "persistent" : "ephemeral");
    row->deployment_mode = mem_strdup(is_set(m->deployment_mode) ? m->deployment_mode : "self-hosted");
    row->provider_workspace_id = mem_strdup("");
    ws->node = mem_strdup("");
    row->repository_url = copy_set(m->repository_url);
    row->branch = copy_set(m->branch);
    row->image = mem_strdup(is_set(m->image) ? m->image : config->default_image);
    row->network = mem_strdup(is_set(m->network) ? m->network : config->default_network);
    ws->use_warm = !m->has.warm_start || m->warm_start;
    row->created_at_ms = row->last_used_at_ms = (int64_t)clock_realtime_ms();
    row->expires_at_ms = workspace_expiry(ws->all, ws, row->created_at_ms);
}

void workspace_pick_request(const workspace_t *ws, pick_request_t *request)
{
    *request = (pick_request_t){
        .container_type = ws->row.container_type,
        .deployment_mode = ws->row.deployment_mode,
        .provider = ws->requested_provider,
        .preferred = ws->all->gw->daemon.config.default_provider,
        .image = ws->row.image,
        .network = ws->row.network,
    };
}

static int check(workspace_t *ws, const struct workspace_create *m, const api_request_t *r, err_t **e)
{
    workspace_row_t *row = &ws->row;
    if (check_type(m, e) != 0 || check_provider(m, &ws->requested_provider, e) != 0 || check_repository(m, e) != 0)
        return -1;
    fill(ws, m, r);
    row->provider = mem_strdup(strcmp(ws->requested_provider, "auto") == 0 ? "" : ws->requested_provider);
    if (take_limits(row, m, &ws->all->gw->daemon.config, e) != 0 || take_env(row, m, e) != 0 ||
        take_objects(row, m, e) != 0 || take_session(row, m, e) != 0)
        return -1;
    if (row->repository_url != NULL)
        workspace_warn(ws, "repository was not cloned: no gitsync daemon is connected");
    if (row->mcp_config != NULL)
        workspace_warn(ws, "the MCP server was not started: no mcphost daemon is connected");
    return 0;
}

workspace_t *workspace_from_request(workspaces_t *all, const api_request_t *r, pick_request_t *pick, err_t **e)
{
    struct workspace_create m;
    if (proto_decode(MSG_workspace_create, &m, r->encoded.data, r->encoded.len, e) != 0)
        return NULL;
    return workspace_from_message(all, r, &m, pick, e);
}

workspace_t *workspace_from_message(workspaces_t *all, const api_request_t *r, const struct workspace_create *m,
                                    pick_request_t *pick, err_t **e)
{
    workspace_t *ws = workspace_new(all);
    if (check(ws, m, r, e) != 0) {
        workspace_free(ws);
        return NULL;
    }
    workspace_pick_request(ws, pick);
    return ws;
}
