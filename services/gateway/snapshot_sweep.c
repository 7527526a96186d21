// SPDX-License-Identifier: Apache-2.0
/* Retention by age and by number, and the end of what nobody waits for any more. Never one that something is being made
 * from: the next sweep finds it again. */
#include "services/gateway/snapshots_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

/* Why it goes, or NULL. `older_count`: how many newer ones its owner has. */
static const char *verdict(const snapshot_t *s, int64_t now_ms, int64_t newer_count)
{
    int64_t max = s->all->gw->daemon.config.snapshot_max_count;
    int64_t expiry = snapshot_expiry(s);
    if (s->status == SNAPSHOT_CREATING && clock_monotonic_ms() - s->settled_ms > SNAPSHOT_GRACE_MS)
        return "its creation was interrupted";
    if (s->status == SNAPSHOT_CREATING)
        return NULL;
    if (expiry != 0 && expiry <= now_ms)
        return "it expired";
    if (max > 0 && newer_count >= max)
        return "its owner has newer ones up to WORKSPACE_SNAPSHOT_MAX_COUNT";
    return NULL;
}

/* Newest first, so that this counts the newer ones. */
static int64_t count_newer(json_t *counts, const snapshot_t *s)
{
    int64_t count = (int64_t)json_integer_value(json_object_get(counts, s->owner));
    if (s->status == SNAPSHOT_READY)
        json_object_set_new(counts, s->owner, json_integer((json_int_t)count + 1));
    return count;
}

static void note(const snapshot_t *s, const char *why)
{
    uuid16_t id;
    const workspace_t *ws = uuid16_parse(&id, s->workspace_id) ? workspaces_get(s->all->gw->workspaces, &id) : NULL;
    auto_free char *summary = mem_printf("id=\"%s\" reason=\"%s\"", s->id_text, why);
    log_info("snapshot %s is deleted: %s", s->id_text, why);
    audit_note(s->all->gw, "snapshot_expire", ws == NULL ? NULL : &ws->row, summary, NULL);
}

void snapshots_sweep(snapshots_t *all)
{
    int64_t now_ms = (int64_t)clock_realtime_ms();
    json_t *counts = json_object();
    for (snapshot_t *s = all->newest, *older; s != NULL; s = older) {
        older = s->older;
        if (s->is_hidden || !s->is_committed || s->is_taking || s->is_deleting || s->status == SNAPSHOT_DELETING)
            continue;
        const char *why = verdict(s, now_ms, count_newer(counts, s));
        if (why == NULL || s->write != NULL || snapshot_is_in_use(s))
            continue;
        note(s, why);
        snapshot_start_deletion(s);
    }
    json_decref(counts);
    snapshots_undo_forks(all); /* a hidden one without its fork */
}
