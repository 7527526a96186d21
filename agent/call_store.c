// SPDX-License-Identifier: Apache-2.0
#include "agent/call_private.h"

#include "common/mem.h"

#define BUCKETS 1024 /* a power of two */

static agent_call_t *buckets[BUCKETS];
static struct call_list running;  /* assembling ones too */
static struct call_list finished; /* oldest first */
static struct call_list lost;

static agent_call_t **bucket_of(uint64_t id)
{
    return &buckets[(id ^ id >> 32) & (BUCKETS - 1)];
}

struct call_list *store_list(enum call_state state)
{
    return state == CALL_LOST ? &lost : state == CALL_FINISHED ? &finished : &running;
}

agent_call_t *store_find(uint64_t id)
{
    agent_call_t *call = *bucket_of(id);
    while (call != NULL && call->id != id)
        call = call->hash_next;
    return call;
}

static void list_append(struct call_list *list, agent_call_t *call)
{
    call->prev = list->last;
    call->next = NULL;
    *(list->last ? &list->last->next : &list->first) = call;
    list->last = call;
    list->count++;
    list->bytes += call->reply.len;
}

static void list_remove(struct call_list *list, agent_call_t *call)
{
    *(call->prev ? &call->prev->next : &list->first) = call->next;
    *(call->next ? &call->next->prev : &list->last) = call->prev;
    call->prev = call->next = NULL;
    list->count--;
    list->bytes -= call->reply.len;
}

agent_call_t *store_add(uint64_t id)
{
    agent_call_t *call = mem_alloc(sizeof *call);
    agent_call_t **bucket = bucket_of(id);
    call->id = id;
    call->state = CALL_ASSEMBLING;
    call->items_end = &call->items;
    call->hash_next = *bucket;
    *bucket = call;
    list_append(&running, call);
    return call;
}

void store_move(agent_call_t *call, enum call_state state)
{
    struct call_list *from = store_list(call->state);
    struct call_list *to = store_list(state);
    call->state = (uint8_t)state;
    if (from == to)
        return;
    /* The reply was made while the call was in its old list. */
    size_t bytes = call->reply.len;
    if (from == &running)
        from->bytes += bytes;
    list_remove(from, call);
    list_append(to, call);
}

void store_forget(agent_call_t *call)
{
    agent_call_t **at = bucket_of(call->id);
    while (*at != call)
        at = &(*at)->hash_next;
    *at = call->hash_next;
    list_remove(store_list(call->state), call);
    out_unqueue(call);
    out_items_drop(call);
    buf_free(&call->reply);
    buf_free(&call->body);
    free(call->watches);
    free(call);
}

/* Not while its caller is taking it, nor before the tool let go. */
static bool is_droppable(const agent_call_t *call)
{
    return !call->is_ending && !call->is_skipping && (call->is_detached || call->is_reply_sent);
}

static void reply_drop(agent_call_t *call)
{
    if (call->is_acked || call->is_transient) {
        store_forget(call);
        return;
    }
    out_unqueue(call);
    out_items_drop(call);
    list_remove(&finished, call);
    buf_free(&call->reply);
    call->state = CALL_LOST;
    list_append(&lost, call);
    if (lost.count > CALLS_LOST_MAX)
        store_forget(lost.first);
}

static bool is_over(void)
{
    return finished.count > CALLS_KEPT_MAX || finished.bytes > CALLS_KEPT_BYTES;
}

void store_trim(void)
{
    for (int round = 0; round < 2 && is_over(); round++) {
        for (agent_call_t *call = finished.first, *next; call != NULL && is_over(); call = next) {
            next = call->next;
            bool is_cheap = !call->is_kept || call->is_acked;
            if (is_droppable(call) && (is_cheap || round == 1))
                reply_drop(call);
        }
    }
}
