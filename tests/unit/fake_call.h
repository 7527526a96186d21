/* SPDX-License-Identifier: Apache-2.0
 *
 * A stand-in for agent/call.c: runs one tool call in the test's own process and keeps what it sent. For unit tests of
 * tools. Link agent/workspace.c beside it.
 *
 *   fake_t f; fake_run(&f, &tool_read, &req); … f.reply is the decoded reply struct, or f.error … fake_free(&f);
 *
 * The window for chunks is endless unless set before; bytes are in f.chunks[channel]. Descriptors that the tool watches
 * are polled.
 */
#ifndef EW_TESTS_FAKE_CALL_H
#define EW_TESTS_FAKE_CALL_H

#include "agent/call.h"

#define FAKE_EVENTS_MAX 4096
#define FAKE_FDS_MAX 16

typedef struct fake_event {
    unsigned msg_id;
    char *bytes; /* encoded */
    size_t len;
} fake_event_t;

typedef struct agent_call fake_t;
struct agent_call {
    const agent_tool_t *tool;
    const void *request;
    void *state;
    bool wants_steps;
    bool is_done;
    bool is_destroyed;
    err_t *error;
    buf_t reply_bytes;
    void *reply; /* decoded: struct of the verb's reply message; borrows from reply_bytes */
    bool has_head;
    unsigned head_id;
    buf_t head_bytes;
    buf_t chunks[CHANNEL_COUNT];
    bool is_ended[CHANNEL_COUNT];
    size_t window; /* bytes the tool may still send */
    uint64_t consumed;
    size_t steps;
    fake_event_t events[FAKE_EVENTS_MAX];
    size_t event_count;
    size_t events_refused_after; /* 0 = never */
    struct {
        int fd;
        short events;
        call_fd_fn fn;
    } fds[FAKE_FDS_MAX];
};

/* Set by a test whose tool uses the agent's real loop: runs that for a moment, instead of the fake's own. */
extern void (*fake_pump)(void);

void fake_init(fake_t *f, const agent_tool_t *tool);
void fake_start(fake_t *f, const void *request); /* start only */
bool fake_turn(fake_t *f, int timeout_ms);       /* one loop turn; false when there was nothing to do */
void fake_finish(fake_t *f);                     /* turns until the call has ended, at most 60 s */
void fake_run(fake_t *f, const agent_tool_t *tool, const void *request);
void fake_chunk(fake_t *f, const void *bytes, size_t len, bool is_end);
void fake_grant(fake_t *f, size_t len); /* more window, on_window */
void fake_cancel(fake_t *f, bool is_deadline);
void fake_free(fake_t *f);

/* Code of the error, ERR_NONE when the call was answered. */
enum err_code fake_code(const fake_t *f);

/* A scratch directory as AGENT_WORKSPACE; emptied and removed by fake_workspace_end. */
const char *fake_workspace(void);
void fake_workspace_end(void);
/* Paths below it; the text is valid for the next 8 calls. */
const char *fake_path(const char *relative);
void fake_put(const char *relative, const void *bytes, size_t len);
void fake_put_str(const char *relative, const char *text);
/* Whole content, NUL-terminated, caller frees; *len may be NULL. NULL when it does not exist. */
char *fake_get(const char *relative, size_t *len);
size_t fake_count_entries(const char *relative);

#endif
