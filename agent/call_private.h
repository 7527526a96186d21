/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the call layer: call.c (life and tool API), call_out.c (sending), call_store.c (finding and keeping),
 * call_session.c (a new stream, another sandbox).
 */
#ifndef EW_AGENT_CALL_PRIVATE_H
#define EW_AGENT_CALL_PRIVATE_H

#include "agent/call.h"
#include "agent/calls.h"

enum call_state { CALL_ASSEMBLING, CALL_RUNNING, CALL_FINISHED, CALL_LOST };

/* A HEAD or EVENT that waits for its turn. */
struct call_item {
    struct call_item *next;
    uint8_t kind;
    size_t len;
    size_t sent;
    uint8_t body[];
};

struct call_watch {
    int fd;
    call_fd_fn fn;
};

struct agent_call {
    uint64_t id;
    uint16_t verb;
    uint8_t state;
    uint8_t reply_kind; /* ENVELOPE_KIND_REPLY or _ERROR once finished */
    bool is_kept : 1;
    bool is_acked : 1;
    bool is_detached : 1;  /* nobody is listening: send nothing */
    bool is_abandoned : 1; /* … and has not been for a while */
    bool is_skipping : 1;  /* the rest of a request that needs no body is still coming */
    bool is_transient : 1; /* a refusal that may be tried again: forgotten once told */
    bool is_ending : 1;    /* finished, destroy() still to come */
    bool is_started : 1;   /* the tool has seen it */
    bool is_cancelled : 1;
    bool is_out_queued : 1;
    bool is_window_wanted : 1; /* call_chunk took less than it was given */
    bool wants_steps : 1;
    bool has_in_ended : 1;
    bool is_reply_sent : 1;
    uuid16_t sandbox;
    uuid16_t trace;
    const agent_tool_t *tool;
    const verb_row_t *row;
    buf_t body;    /* of the request; `request` points into it */
    void *request; /* decoded */
    void *tool_state;
    uint64_t deadline;
    uint64_t hold; /* until it is abandoned */
    /* Towards the caller. */
    uint64_t out_window;
    uint64_t out_offset[CHANNEL_COUNT];
    struct call_item *items;
    struct call_item **items_end;
    size_t items_bytes;
    buf_t reply;
    size_t reply_at;
    /* From the caller. */
    size_t in_window;   /* bytes it may still send */
    size_t in_consumed; /* bytes to grant with the next CREDIT */
    uint64_t in_offset;
    struct call_watch *watches;
    size_t watch_count;
    /* Lists: by id, by age within its state, for sending, for ending. */
    agent_call_t *hash_next;
    agent_call_t *prev;
    agent_call_t *next;
    agent_call_t *out_next;
    agent_call_t *ending_next;
};

struct call_list {
    agent_call_t *first;
    agent_call_t *last;
    size_t count;
    size_t bytes; /* of replies */
};

/* call.c */
void call_stop(agent_call_t *call, bool is_deadline); /* as if cancelled */
bool call_abandon(agent_call_t *call);                /* true: that ended it */
void call_detach(agent_call_t *call);                 /* the caller wants nothing more of it */
void assembling_forget(agent_call_t *call);

/* call_store.c */
agent_call_t *store_find(uint64_t id);
agent_call_t *store_add(uint64_t id); /* running list */
struct call_list *store_list(enum call_state state);
void store_move(agent_call_t *call, enum call_state state);
void store_forget(agent_call_t *call);
/* Brings what is kept below its limits. */
void store_trim(void);

/* call_out.c */
void out_queue(agent_call_t *call); /* it may have something to send */
void out_unqueue(agent_call_t *call);
void out_item(agent_call_t *call, uint8_t kind, const void *body, size_t len);
void out_items_drop(agent_call_t *call);
void out_credit(agent_call_t *call);
/* One ERROR frame about an id that is not this call's. */
void out_refuse(const envelope_t *request, err_t **e);
envelope_t out_envelope(const agent_call_t *call, uint8_t kind);
size_t out_unsent_bytes(void);

#endif
