// SPDX-License-Identifier: Apache-2.0
/* What people read about the configuration: docs/configuration.md comes from here. */
#include "common/config.h"

#include "common/config_rows.h"
#include "common/mem.h"

#include <inttypes.h>

static const struct scope_name {
    unsigned bit;
    const char *name;
} scope_names[] = {
    {CONFIG_GATEWAY, "gateway"}, {CONFIG_GVISORD, "gvisord"}, {CONFIG_FCMGR, "fcmgr"},  {CONFIG_E2BPROXY, "e2bproxy"},
    {CONFIG_MCPHOST, "mcphost"}, {CONFIG_GITSYNC, "gitsync"}, {CONFIG_CLI, "emergent"},
};

/* Every variable that the replaced system reads is a row of config.def or stands here. */
static const config_dropped_t dropped[] = {
    {"WORKSPACE_NETWORK_NAME", "workspaces have no Docker network; each gets its own by `network`"},
    {"WORKSPACE_FIRECRACKER_DATA_DIR", "all state is below EW_STATE_DIR, images below EW_IMAGE_DIR"},
    {"STANDALONE_USER_EMAIL", "there are no user profiles; API keys have owners"},
    {"STANDALONE_ORG_NAME", "there are no organisations"},
    {"STANDALONE_PROJECT_NAME", "there are no projects"},
    {"ENVIRONMENT", "no switch opens development logins"},
    {"DEBUG", "no switch opens development logins; see LOG_LEVEL"},
    {"FIRECRACKER_BIN", "nothing read it"},
    {"FIRECRACKER_KERNEL", "nothing read it"},
    {"FIRECRACKER_ROOTFS", "nothing read it"},
    {"FIRECRACKER_DATA_DIR", "nothing read it"},
    {"FIRECRACKER_MAX_VMS", "nothing read it; see EW_MAX_SANDBOXES"},
    {"FIRECRACKER_DEFAULT_VCPUS", "nothing read it; see WORKSPACE_DEFAULT_CPU"},
    {"FIRECRACKER_DEFAULT_MEM_MB", "nothing read it; see WORKSPACE_DEFAULT_MEMORY"},
    {"SCOPES_DISABLED", "scopes cannot be switched off"},
    {"GITHUB_APP_ID", "used by tests only"},
    {"GITHUB_APP_PRIVATE_KEY", "used by tests only"},
    {"GITHUB_APP_INSTALLATION_ID", "used by tests only"},
    {"GITHUB_APP_TEST_REPO", "used by tests only"},
    {"GITHUB_APP_TOKEN", "used by tests only"},
};

const config_dropped_t *config_dropped_at(size_t i)
{
    return i < COUNT_OF(dropped) ? &dropped[i] : NULL;
}

static void add_values(const config_row_t *row, buf_t *out)
{
    switch (row->kind) {
    case CONFIG_KIND_INT:
        buf_printf(out, "%" PRId64 " to %" PRId64, row->min, row->max);
        return;
    case CONFIG_KIND_BOOL:
        buf_append_str(out, "`true`, `false`");
        return;
    case CONFIG_KIND_CHOICE:
        for (const char *p = row->def; *p != '\0';) {
            size_t n = strcspn(p, "|");
            buf_printf(out, "%s`%.*s`", p == row->def ? "" : ", ", (int)n, p);
            p += n + (p[n] == '|');
        }
        return;
    case CONFIG_KIND_SIZE:
        buf_append_str(out, "bytes, or with K, M, G, T");
        return;
    case CONFIG_KIND_CPU:
        buf_append_str(out, "CPUs, up to 1024");
        return;
    case CONFIG_KIND_STR:
        buf_append_str(out, row->flags & CONFIG_SECRET ? "secret text" : "text");
        return;
    }
}

static void add_scope(const config_row_t *row, buf_t *out)
{
    const char *comma = "";
    if (row->scope == CONFIG_ALL) {
        buf_append_str(out, "all");
        return;
    }
    for (size_t i = 0; i < COUNT_OF(scope_names); i++)
        if (row->scope & scope_names[i].bit) {
            buf_printf(out, "%s%s", comma, scope_names[i].name);
            comma = ", ";
        }
}

static void add_row(const config_row_t *row, buf_t *out)
{
    int def_len = (int)(row->kind == CONFIG_KIND_CHOICE ? strcspn(row->def, "|") : strlen(row->def));
    buf_printf(out, "| `%s` | ", row->name);
    if (def_len > 0)
        buf_printf(out, "`%.*s`", def_len, row->def);
    buf_append_str(out, " | ");
    add_values(row, out);
    buf_append_str(out, " | ");
    add_scope(row, out);
    buf_printf(out, " | %s |\n", row->doc);
}

void config_reference(buf_t *out)
{
    buf_append_str(
        out,
        "<!-- SPDX-License-Identifier: Apache-2.0 -->\n"
        "<!-- Generated from common/config.def: change it there. -->\n"
        "# Configuration\n\n"
        "Every key is an environment variable, and may stand in the file that `EW_CONFIG` names as a line\n"
        "`NAME = value` (`#` starts a comment line; quotes around a value are taken off). The environment wins over\n"
        "the file; an empty value means the default. A daemon refuses to start on a bad value or on an unknown key in\n"
        "the file. `<daemon> --check` tries a configuration, `<daemon> --print-config` shows what is in force.\n\n"
        "| key | default | values | read by | meaning |\n|---|---|---|---|---|\n");
    for (size_t i = 0; config_row_at(i) != NULL; i++)
        add_row(config_row_at(i), out);
    buf_append_str(out, "\n## Variables of other systems that mean nothing here\n\n"
                        "Ignored in the environment, refused in the file.\n\n| variable | why |\n|---|---|\n");
    for (size_t i = 0; config_dropped_at(i) != NULL; i++)
        buf_printf(out, "| `%s` | %s |\n", dropped[i].name, dropped[i].reason);
}
