// SPDX-License-Identifier: Apache-2.0
/* Once a day the oldest lines go, chain by chain, always from the front: what is left is a chain without gaps, and its
 * newest line stays so that it goes on from there. In steps, so that other work gets its turn between them. */
#include "services/gateway/audit.h"
#include "services/gateway/store.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/envelope.h"

#include <inttypes.h>
#include <stdio.h>

#define FIRST_S 60 /* after the start, when there is other work */
#define EACH_S 86400
#define DAY_MS INT64_C(86400000)

struct audit_keep {
    gateway_t *gw;
    struct event *timer;
    char (*chains)[UUID_TEXT_SIZE];
    size_t count, at;
    bool is_busy;
    int64_t before_ms, removed;
};

static void prune(audit_keep_t *k);

static void over(audit_keep_t *k, const err_t *err)
{
    k->is_busy = false;
    free(k->chains);
    k->chains = NULL;
    if (err != NULL)
        log_warn("audit: remove old lines: %s; tried again tomorrow", err_message(err));
    if (k->removed > 0)
        log_info("audit: %" PRId64 " lines older than %" PRId64 " days are removed", k->removed,
                 k->gw->daemon.config.audit_keep_days);
}

static void on_pruned(void *arg, const store_result_t *result, const err_t *err)
{
    audit_keep_t *k = arg;
    if (err != NULL) {
        over(k, err);
        return;
    }
    k->removed += result->changed;
    k->at += result->changed == 0;
    prune(k);
}

static void prune(audit_keep_t *k)
{
    auto_err err_t *e = NULL;
    if (k->at == k->count) {
        over(k, NULL);
        return;
    }
    store_value_t params[] = {store_text(k->chains[k->at]), store_int(k->before_ms)};
    if (store_exec(k->gw->store, STORE_AUDIT_PRUNE, params, 2, on_pruned, k, &e) != 0)
        over(k, e);
}

static void on_chains(void *arg, const store_result_t *result, const err_t *err)
{
    audit_keep_t *k = arg;
    if (err != NULL) {
        over(k, err);
        return;
    }
    k->count = result->row_count;
    k->chains = mem_alloc_array(k->count + 1, sizeof(*k->chains));
    for (size_t i = 0; i < k->count; i++) {
        const char *chain = store_text_at(result, i, 0);
        snprintf(k->chains[i], sizeof(k->chains[i]), "%s", chain == NULL ? "" : chain);
    }
    prune(k);
}

void audit_keep_now(audit_keep_t *k)
{
    auto_err err_t *e = NULL;
    if (k == NULL || k->is_busy)
        return;
    k->is_busy = true;
    k->at = 0;
    k->removed = 0;
    k->before_ms = (int64_t)clock_realtime_ms() - k->gw->daemon.config.audit_keep_days * DAY_MS;
    if (store_exec(k->gw->store, STORE_AUDIT_CHAINS, NULL, 0, on_chains, k, &e) != 0)
        over(k, e);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    audit_keep_t *k = arg;
    static const struct timeval AGAIN = {.tv_sec = EACH_S};
    evtimer_add(k->timer, &AGAIN);
    audit_keep_now(k);
}

audit_keep_t *audit_keep_new(gateway_t *gw)
{
    if (gw->daemon.config.audit_keep_days == 0)
        return NULL;
    audit_keep_t *k = mem_alloc(sizeof(*k));
    k->gw = gw;
    k->timer = evtimer_new(gw->daemon.base, on_timer, k);
    static const struct timeval FIRST = {.tv_sec = FIRST_S};
    evtimer_add(k->timer, &FIRST);
    return k;
}

void audit_keep_free(audit_keep_t *k)
{
    if (k == NULL)
        return;
    event_free(k->timer);
    free(k->chains);
    free(k);
}
