// SPDX-License-Identifier: Apache-2.0
/* What becomes of calls when the stream is opened anew, and when the sandbox becomes another one. */
#include "agent/call_private.h"

#include "agent/loop.h"
#include "agent/tools.h"

static void on_orphan(void *arg)
{
    agent_call_t *call = arg;
    call->deadline = 0;
    call_stop(call, false);
}

static void on_hold(void *arg)
{
    (void)call_abandon(arg);
}

static void items_rewind(agent_call_t *call)
{
    for (struct call_item *item = call->items; item != NULL; item = item->next)
        item->sent = 0;
}

static void running_detach(agent_call_t *call)
{
    call_detach(call);
    items_rewind(call);
    /* Bytes may be lost: an upload that was under way cannot go on. */
    if (call->row->flags & VERB_IN && !call->has_in_ended) {
        call_stop(call, false);
        return;
    }
    if (call->tool->on_abandon != NULL && call->hold == 0 && !call->is_abandoned)
        call->hold = loop_after(CALLS_HOLD_MS, on_hold, call);
    bool has_end = call->deadline != 0 || !(call->row->flags & VERB_LONG || call->tool->has_no_end);
    if (!call->is_kept && !has_end)
        call->deadline = loop_after(CALLS_ORPHAN_MS, on_orphan, call);
}

void calls_on_resync(bool is_same)
{
    agent_call_t *next;
    for (agent_call_t *call = store_list(CALL_RUNNING)->first; call != NULL; call = next) {
        next = call->next;
        if (is_same) {
            out_credit(call);
            out_queue(call);
        } else if (call->state == CALL_ASSEMBLING) {
            assembling_forget(call);
        } else {
            running_detach(call);
        }
    }
    for (agent_call_t *call = store_list(CALL_FINISHED)->first; call != NULL; call = next) {
        next = call->next;
        if (is_same) {
            out_credit(call); /* the rest of a request that is skipped */
            out_queue(call);
            continue;
        }
        call_detach(call);
        items_rewind(call);
        if (call->is_transient && !call->is_ending)
            store_forget(call);
    }
}

static void list_forget(struct call_list *list, const agent_call_t *but)
{
    agent_call_t *next;
    for (agent_call_t *call = list->first; call != NULL; call = next) {
        next = call->next;
        if (call != but)
            store_forget(call);
    }
}

void calls_forget(const agent_call_t *but)
{
    agent_call_t *next;
    for (agent_call_t *call = store_list(CALL_RUNNING)->first; call != NULL; call = next) {
        err_t *e = NULL;
        next = call->next;
        if (call == but)
            continue;
        call_detach(call);
        err_set(&e, ERR_CANCELLED, "the sandbox became another one");
        call_fail(call, &e);
    }
    calls_end_finished();
    list_forget(store_list(CALL_FINISHED), but);
    list_forget(store_list(CALL_LOST), but);
}

static uint32_t list_add(buf_t *out, const agent_call_t *first, const char *state, size_t max_bytes)
{
    uint32_t count = 0;
    for (const agent_call_t *call = first; call != NULL; call = call->next) {
        auto_err err_t *e = NULL;
        size_t before = out->len;
        struct adopted_call row = {.call_id = call->id, .verb = call->verb, .state = state};
        if (call->state == CALL_ASSEMBLING)
            continue;
        if (proto_list_add_msg(out, MSG_adopted_call, &row, &e) < 0 || out->len > max_bytes) {
            buf_truncate(out, before);
            break;
        }
        count++;
    }
    return count;
}

uint32_t calls_list(buf_t *out, size_t max_bytes)
{
    uint32_t count = list_add(out, store_list(CALL_RUNNING)->first, "running", max_bytes);
    count += list_add(out, store_list(CALL_FINISHED)->first, "finished", max_bytes);
    return count + list_add(out, store_list(CALL_LOST)->first, "lost", max_bytes);
}
