// SPDX-License-Identifier: Apache-2.0
/* Which database DATABASE_URL means. */
#include "services/gateway/gateway.h"
#include "services/gateway/store.h"

#include "common/mem.h"

#include <stdlib.h>

/* "" = $EW_STATE_DIR/gateway.db; sqlite:///abs/path, sqlite:path. NULL + error for anything else. */
static char *database_path(const config_t *config, err_t **e)
{
    const char *url = config->database_url;
    if (url == NULL || url[0] == '\0')
        return mem_printf("%s/gateway.db", config->state_dir);
    if (strncmp(url, "sqlite://", 9) == 0 && url[9] == '/')
        return mem_strdup(url + 9);
    if (strncmp(url, "sqlite:", 7) == 0 && url[7] != '\0' && url[7] != '/')
        return mem_strdup(url + 7);
    /* The URL may hold a password: never quoted. */
    err_set(e, ERR_BAD_REQUEST,
            "DATABASE_URL must be empty, `sqlite:///path/of/file.db` or `postgres://user:password@host/database`");
    return NULL;
}

static bool is_postgres(const char *url)
{
    return url != NULL && (strncmp(url, "postgres://", 11) == 0 || strncmp(url, "postgresql://", 13) == 0);
}

/* /proc/PID/environ shows what the program was started with, for as long as that memory holds it. */
static void wipe_environment(void)
{
    char *url = getenv("DATABASE_URL");
    if (url != NULL)
        mem_wipe(url, strlen(url));
}

store_t *store_open(gateway_t *gw, err_t **e)
{
    const char *url = gw->daemon.config.database_url;
    wipe_environment();
    if (is_postgres(url))
        return store_open_postgres(gw->daemon.base, url, e);
    auto_free char *path = database_path(&gw->daemon.config, e);
    return path == NULL ? NULL : store_open_at(gw->daemon.base, path, e);
}
