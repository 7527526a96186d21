// SPDX-License-Identifier: Apache-2.0
/* Is there room for one more running workspace? What each owner uses is summed up as workspaces come, go and change, so
 * that a create costs the same with ten workspaces and with ten thousand. Like WORKSPACE_MAX_CONCURRENT, an owner's
 * limits are about agent workspaces: MCP servers are the operator's choice. */
#include "services/gateway/workspaces_internal.h"

#include "common/mem.h"
#include "common/text.h"

#include <inttypes.h>
#include <stdio.h>

/* Sums of one owner; exists as long as it has workspaces. */
struct owner_usage {
    owner_usage_t *next;
    char owner[64];
    size_t workspaces; /* that point here */
    size_t running;
    uint64_t cpu_milli, memory_bytes; /* of the running ones */
    uint64_t disk_bytes;              /* of all */
};

static owner_usage_t **bucket_of(workspaces_t *all, const char *owner)
{
    uint32_t hash = 2166136261U; /* FNV-1a; owners are made by the operator, not by strangers */
    for (const char *c = owner; *c != '\0'; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619U;
    return &all->owners[hash % WORKSPACE_OWNER_BUCKETS];
}

static owner_usage_t *find(const workspaces_t *all, const char *owner)
{
    owner_usage_t *usage = *bucket_of((workspaces_t *)(uintptr_t)all, owner);
    while (usage != NULL && strcmp(usage->owner, owner) != 0)
        usage = usage->next;
    return usage;
}

static bool is_limited(const workspace_t *ws)
{
    return workspaces_is_active(ws, WORKSPACE_READY);
}

/* Limits are checked when a workspace is asked for; what is in the database and no limit counts as nothing. */
static quota_amounts_t amounts_of(const workspace_t *ws)
{
    quota_amounts_t q = {0};
    uint32_t milli = 0;
    if (!is_limited(ws))
        return q;
    if (ws->row.cpu != NULL && text_to_milli(ws->row.cpu, &milli))
        q.cpu_milli = milli;
    if (ws->row.memory == NULL || !text_to_size(ws->row.memory, &q.memory_bytes))
        q.memory_bytes = 0;
    if (ws->row.disk == NULL || !text_to_size(ws->row.disk, &q.disk_bytes))
        q.disk_bytes = 0;
    return q;
}

void quota_join(workspace_t *ws)
{
    owner_usage_t *usage = find(ws->all, ws->row.owner);
    if (usage == NULL) {
        owner_usage_t **bucket = bucket_of(ws->all, ws->row.owner);
        usage = mem_alloc(sizeof(*usage));
        snprintf(usage->owner, sizeof(usage->owner), "%s", ws->row.owner);
        usage->next = *bucket;
        *bucket = usage;
    }
    ws->usage = usage;
    ws->amounts = amounts_of(ws);
    usage->workspaces++;
    usage->disk_bytes += ws->amounts.disk_bytes;
}

void quota_leave(workspace_t *ws)
{
    owner_usage_t *usage = ws->usage;
    ws->usage = NULL;
    usage->disk_bytes -= ws->amounts.disk_bytes;
    if (--usage->workspaces > 0)
        return;
    owner_usage_t **at = bucket_of(ws->all, usage->owner);
    while (*at != usage)
        at = &(*at)->next;
    *at = usage->next;
    free(usage);
}

void quota_count(workspace_t *ws, bool is_more)
{
    owner_usage_t *usage = ws->usage;
    size_t sign = is_more ? 1 : SIZE_MAX; /* unsigned arithmetic wraps: times SIZE_MAX is minus */
    usage->running += sign;
    usage->cpu_milli += sign * ws->amounts.cpu_milli;
    usage->memory_bytes += sign * ws->amounts.memory_bytes;
}

void quota_free_all(workspaces_t *all)
{
    for (size_t i = 0; i < WORKSPACE_OWNER_BUCKETS; i++)
        while (all->owners[i] != NULL) {
            owner_usage_t *usage = all->owners[i];
            all->owners[i] = usage->next;
            free(usage);
        }
}

/* ---- limits ---- */

typedef bool (*parse_fn)(const char *text, uint64_t *value);
typedef void (*show_fn)(uint64_t value, char text[32]);

static bool parse_cpu(const char *text, uint64_t *milli)
{
    uint32_t value;
    if (!text_to_milli(text, &value))
        return false;
    *milli = value;
    return true;
}

static void show_cpu(uint64_t milli, char text[32])
{
    snprintf(text, 32, "%g", (double)milli / 1000);
}

static void show_size(uint64_t bytes, char text[32])
{
    static const struct {
        uint64_t unit;
        const char *suffix;
    } UNITS[] = {{UINT64_C(1) << 30, "G"}, {UINT64_C(1) << 20, "M"}, {1, ""}};
    size_t i = 0;
    while (bytes % UNITS[i].unit != 0)
        i++;
    snprintf(text, 32, "%" PRIu64 "%s", bytes / UNITS[i].unit, UNITS[i].suffix);
}

enum amount { AMOUNT_CPU, AMOUNT_MEMORY, AMOUNT_DISK, AMOUNT_COUNT };

static const struct {
    const char *name, *what, *help;
    size_t config; /* offset of the text in config_t */
    parse_fn parse;
    show_fn show;
    const char *form;
} AMOUNTS[AMOUNT_COUNT] = {
    [AMOUNT_CPU] = {"WORKSPACE_OWNER_MAX_CPU", "CPUs of one owner's running workspaces",
                    "stop or destroy one, or ask for less", offsetof(config_t, owner_max_cpu), parse_cpu, show_cpu,
                    "a number of CPUs up to 1024 such as 16"},
    [AMOUNT_MEMORY] = {"WORKSPACE_OWNER_MAX_MEMORY", "memory of one owner's running workspaces",
                       "stop or destroy one, or ask for less", offsetof(config_t, owner_max_memory), text_to_size,
                       show_size, "a size such as 64G"},
    [AMOUNT_DISK] = {"WORKSPACE_OWNER_MAX_DISK", "disk of all of one owner's workspaces, stopped ones too",
                     "destroy one, or ask for less", offsetof(config_t, owner_max_disk), text_to_size, show_size,
                     "a size such as 500G"},
};

/* "" = no limit. */
static const char *limit_text(const config_t *config, enum amount i)
{
    const char *text =
        *(char *const *)(const void *)((const char *)config + AMOUNTS[i].config); /* @UNSAFE: the table's */
    return text == NULL ? "" : text;
}

int quota_check_config(const config_t *config, err_t **e)
{
    uint64_t value;
    for (enum amount i = 0; i < AMOUNT_COUNT; i++)
        if (limit_text(config, i)[0] != '\0' && !AMOUNTS[i].parse(limit_text(config, i), &value))
            return err_set(e, ERR_BAD_REQUEST, "%s must be empty or %s", AMOUNTS[i].name, AMOUNTS[i].form);
    return 0;
}

static int refuse(const char *name, const char *what, const char *help, const char *max, const char *used,
                  const char *wanted, err_t **e)
{
    err_set(e, ERR_LIMIT_REACHED, "the limit of %s is reached: %s is %s, %s is used and this one wants %s; %s", what,
            name, max, used, wanted, help);
    auto_free char *details =
        mem_printf("{\"limit\":\"%s\",\"max\":\"%s\",\"used\":\"%s\",\"wanted\":\"%s\"}", name, max, used, wanted);
    err_set_details(*e, details);
    return -1;
}

static int check_amount(const config_t *config, enum amount i, uint64_t used, uint64_t wanted, err_t **e)
{
    uint64_t max;
    char max_text[32], used_text[32], wanted_text[32];
    if (limit_text(config, i)[0] == '\0' || !AMOUNTS[i].parse(limit_text(config, i), &max))
        return 0;
    if (used <= max && wanted <= max - used)
        return 0;
    AMOUNTS[i].show(max, max_text);
    AMOUNTS[i].show(used, used_text);
    AMOUNTS[i].show(wanted, wanted_text);
    return refuse(AMOUNTS[i].name, AMOUNTS[i].what, AMOUNTS[i].help, max_text, used_text, wanted_text, e);
}

static int check_owner(const workspaces_t *all, const workspace_t *ws, err_t **e)
{
    static const owner_usage_t NOTHING = {0};
    const config_t *config = &all->gw->daemon.config;
    const owner_usage_t *found = find(all, ws->row.owner), *used = found == NULL ? &NOTHING : found;
    bool is_counted = ws->usage != NULL; /* a stopped one: its disk is in the sum */
    quota_amounts_t wanted = is_counted ? ws->amounts : amounts_of(ws);
    uint64_t max = (uint64_t)config->owner_max_workspaces;
    if (max > 0 && used->running >= max) {
        char max_text[32], used_text[32];
        snprintf(max_text, sizeof(max_text), "%" PRIu64, max);
        snprintf(used_text, sizeof(used_text), "%zu", used->running);
        return refuse("WORKSPACE_OWNER_MAX", "running workspaces of one owner", "stop or destroy one", max_text,
                      used_text, "1", e);
    }
    if (check_amount(config, AMOUNT_CPU, used->cpu_milli, wanted.cpu_milli, e) != 0 ||
        check_amount(config, AMOUNT_MEMORY, used->memory_bytes, wanted.memory_bytes, e) != 0)
        return -1;
    return is_counted ? 0 : check_amount(config, AMOUNT_DISK, used->disk_bytes, wanted.disk_bytes, e);
}

int workspaces_check_room(const workspaces_t *all, const workspace_t *ws, err_t **e)
{
    int64_t max = all->gw->daemon.config.max_concurrent;
    if (!workspaces_is_active(ws, WORKSPACE_CREATING))
        return 0;
    if (all->active >= (size_t)max)
        return err_set(e, ERR_LIMIT_REACHED,
                       "maximum concurrent workspace limit reached (%" PRId64 "); wait for one to end or destroy one",
                       max);
    return check_owner(all, ws, e);
}
