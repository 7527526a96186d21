// SPDX-License-Identifier: Apache-2.0
/* Rows of snapshots reach the disk before anybody hears of them, as those of workspaces do (workspace_commit.c). */
#include "services/gateway/snapshots_internal.h"

#include "common/log.h"
#include "common/mem.h"

enum write_kind { WRITE_INSERT, WRITE_UPDATE, WRITE_DELETE };

struct snapshot_write {
    snapshot_t *s; /* NULL: a newer write took its place */
    enum write_kind kind;
    enum snapshot_status status;
    snapshot_then_fn then;
    bool is_in_store; /* the store will call back */
    struct event *retry;
};

static void send_write(snapshot_write_t *w);

/* At close the store's callbacks never come. */
void snapshot_write_free(snapshot_write_t *w)
{
    if (w == NULL)
        return;
    if (w->retry != NULL)
        event_free(w->retry);
    free(w);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    send_write(arg);
}

static void retry_later(snapshot_write_t *w, const err_t *err)
{
    log_error("write the row of snapshot %s, tried again: %s", w->s->id_text, err_message(err));
    if (w->retry == NULL)
        w->retry = evtimer_new(w->s->all->gw->daemon.base, on_retry, w);
    struct timeval delay = {.tv_sec = WORKSPACE_RETRY_MS / 1000};
    event_add(w->retry, &delay);
}

static void finish(snapshot_write_t *w, const err_t *err)
{
    snapshot_t *s = w->s;
    snapshot_then_fn then = w->then;
    s->write = NULL;
    if (err == NULL && w->kind == WRITE_UPDATE)
        snapshot_set_status(s, w->status);
    if (err == NULL && w->kind == WRITE_INSERT)
        s->is_committed = true;
    snapshot_write_free(w);
    if (then != NULL)
        then(s, err);
}

static void on_written(void *arg, const store_result_t *result, const err_t *err)
{
    (void)result;
    snapshot_write_t *w = arg;
    w->is_in_store = false;
    if (w->s == NULL)
        snapshot_write_free(w);
    else if (err != NULL && w->kind != WRITE_INSERT)
        retry_later(w, err);
    else
        finish(w, err);
}

/* From the loop: the caller of snapshot_insert is still at work on the snapshot. */
static void on_refused(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    auto_err err_t *e = NULL;
    err_set(&e, ERR_OVERLOADED, "the database has too much to do; retry later");
    finish(arg, e);
}

static void send_write(snapshot_write_t *w)
{
    static const enum store_statement STATEMENTS[] = {STORE_SNAPSHOT_INSERT, STORE_SNAPSHOT_UPDATE,
                                                      STORE_SNAPSHOT_DELETE};
    snapshot_t *s = w->s;
    auto_err err_t *e = NULL;
    store_value_t values[SNAPSHOT_COLUMN_COUNT] = {store_text(s->id_text)};
    snapshot_storage_t storage = {0};
    size_t count = w->kind == WRITE_INSERT   ? snapshot_insert_values(s, values, &storage)
                   : w->kind == WRITE_UPDATE ? snapshot_update_values(s, w->status, values, &storage)
                                             : 1;
    w->is_in_store = store_exec(s->all->gw->store, STATEMENTS[w->kind], values, count, on_written, w, &e) == 0;
    snapshot_storage_free(&storage);
    if (w->is_in_store)
        return;
    if (w->kind != WRITE_INSERT) {
        retry_later(w, e);
        return;
    }
    static const struct timeval NOW = {0};
    w->retry = evtimer_new(s->all->gw->daemon.base, on_refused, w);
    event_add(w->retry, &NOW);
}

static void start(snapshot_t *s, snapshot_write_t what)
{
    snapshot_write_t *old = s->write;
    if (old != NULL && old->is_in_store)
        old->s = NULL; /* freed when the store calls back; the store keeps the order */
    else
        snapshot_write_free(old);
    snapshot_write_t *w = mem_alloc(sizeof(*w));
    *w = what;
    w->s = s;
    s->write = w;
    send_write(w);
}

void snapshot_insert(snapshot_t *s, snapshot_then_fn then)
{
    start(s, (snapshot_write_t){.kind = WRITE_INSERT, .then = then});
}

void snapshot_commit(snapshot_t *s, enum snapshot_status status, snapshot_then_fn then)
{
    start(s, (snapshot_write_t){.kind = WRITE_UPDATE, .status = status, .then = then});
}

void snapshot_delete_row(snapshot_t *s, snapshot_then_fn then)
{
    start(s, (snapshot_write_t){.kind = WRITE_DELETE, .then = then});
}
