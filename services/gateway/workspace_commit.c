// SPDX-License-Identifier: Apache-2.0
/* Status changes reach the disk before anybody sees them. A database that fails is tried again every second: a sandbox
 * exists or does not, whatever the database says, so the row must follow. */
#include "services/gateway/workspaces_internal.h"

#include "common/log.h"
#include "common/mem.h"

struct commit {
    workspace_t *ws; /* NULL: a newer commit took its place */
    enum workspace_status status;
    enum workspace_intent intent;
    workspace_then_fn then;
    bool is_deletion;
    bool is_in_store; /* the store will call back */
    struct event *retry;
};

static void send_commit(commit_t *c);

void workspace_database_error(const err_t *err, err_t **e)
{
    store_client_error(err, e);
}

static void destroy_commit(commit_t *c)
{
    if (c->retry != NULL)
        event_free(c->retry);
    free(c);
}

/* At close the store's callbacks never come. */
void commit_free(commit_t *c)
{
    if (c != NULL)
        destroy_commit(c);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    send_commit(arg);
}

static void retry_later(commit_t *c, const err_t *err)
{
    log_write(LOG_LEVEL_ERROR, &(log_ctx_t){.sandbox = c->ws->row.id_text},
              "write the workspace's row, tried again: %s", err_message(err));
    if (c->retry == NULL)
        c->retry = evtimer_new(c->ws->all->gw->daemon.base, on_retry, c);
    struct timeval delay = {.tv_sec = WORKSPACE_RETRY_MS / 1000};
    event_add(c->retry, &delay);
}

static void on_committed(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    commit_t *c = arg;
    c->is_in_store = false;
    if (c->ws == NULL) {
        destroy_commit(c);
        return;
    }
    if (err != NULL) {
        retry_later(c, err);
        return;
    }
    workspace_t *ws = c->ws;
    workspace_then_fn then = c->then;
    ws->commit = NULL;
    if (!c->is_deletion) {
        workspace_set_intent(ws, c->intent);
        workspace_set_status(ws, c->status);
    }
    destroy_commit(c);
    if (then != NULL)
        then(ws);
}

static void send_commit(commit_t *c)
{
    workspace_t *ws = c->ws;
    auto_err err_t *e = NULL;
    store_value_t values[WORKSPACE_COLUMN_COUNT] = {store_text(ws->row.id_text)};
    workspace_row_storage_t storage = {0};
    size_t count = c->is_deletion ? 1 : workspace_update_values(ws, c->status, c->intent, values, &storage);
    enum store_statement statement = c->is_deletion ? STORE_WORKSPACE_DELETE : STORE_WORKSPACE_UPDATE;
    c->is_in_store = store_exec(ws->all->gw->store, statement, values, count, on_committed, c, &e) == 0;
    workspace_row_free(&storage);
    if (!c->is_in_store)
        retry_later(c, e);
}

static void start(workspace_t *ws, commit_t what)
{
    commit_t *old = ws->commit;
    if (old != NULL && old->is_in_store)
        old->ws = NULL; /* freed when the store calls back; the store keeps the order */
    else if (old != NULL)
        destroy_commit(old);
    commit_t *c = mem_alloc(sizeof(*c));
    *c = what;
    c->ws = ws;
    ws->commit = c;
    send_commit(c);
}

void workspace_commit(workspace_t *ws, enum workspace_status status, workspace_then_fn then)
{
    start(ws, (commit_t){.status = status, .then = then});
}

void workspace_commit_intent(workspace_t *ws, enum workspace_status status, enum workspace_intent intent,
                             workspace_then_fn then)
{
    start(ws, (commit_t){.status = status, .intent = intent, .then = then});
}

static void forget(workspace_t *ws)
{
    workspaces_remove(ws->all, ws);
}

void workspace_delete_row(workspace_t *ws, workspace_then_fn then)
{
    start(ws, (commit_t){.is_deletion = true, .then = then == NULL ? forget : then});
}
