// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/agent_client.h"

#include "common/clock.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "agent client: %s (errno %d)\n", what, errno);
    abort();
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void agent_path_find(char *out, size_t size)
{
    char exe[PATH_MAX] = "";
    const char *env = getenv("EW_AGENT");
    if (env != NULL) {
        snprintf(out, size, "%s", env);
        return;
    }
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0)
        die("where am I");
    snprintf(out, size, "%s/../bin/ew-agent", dirname(exe));
}

/* Named pipes, opened for both directions: neither end ever sees the end of the other. */
static int fifo_open(const agent_client_t *c, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", c->dir, name);
    if (mkfifo(path, 0600) != 0 && errno != EEXIST)
        die("mkfifo");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die("open fifo");
    return fd;
}

static void child_exec(const agent_client_t *c, const agent_client_options_t *o)
{
    char path[PATH_MAX], workspace[PATH_MAX + 32], cgroup[PATH_MAX + 32] = "EW_UNUSED=1";
    const char *env[64] = {workspace, cgroup, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"};
    size_t count = 3;
    agent_path_find(path, sizeof path);
    snprintf(workspace, sizeof workspace, "AGENT_WORKSPACE=%s", c->workspace);
    if (o->cgroup != NULL)
        snprintf(cgroup, sizeof cgroup, "AGENT_CGROUP=%s", o->cgroup);
    for (const char *const *var = o->env; var != NULL && *var != NULL && count < COUNT_OF(env) - 1; var++)
        env[count++] = *var;
    /* Its own open files: non-blocking is the agent's business, not ours. */
    if (dup2(fifo_open(c, "down"), 0) != 0 || dup2(fifo_open(c, "up"), 1) != 1)
        _exit(126);
    char *argv[] = {path, NULL};
    /* A test that crashes must not leave an agent and its commands behind. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    execve(path, argv, (char **)env);
    _exit(127);
}

agent_client_t *agent_client_start(const agent_client_options_t *o)
{
    agent_client_t *c = mem_alloc(sizeof *c);
    snprintf(c->dir, sizeof c->dir, "/tmp/ew-agent-test-XXXXXX");
    if (mkdtemp(c->dir) == NULL)
        die("mkdtemp");
    c->owns_workspace = o->workspace == NULL;
    snprintf(c->workspace, sizeof c->workspace, "%s%s", o->workspace ? o->workspace : c->dir,
             o->workspace ? "" : "/ws");
    if (c->owns_workspace && mkdir(c->workspace, 0755) != 0)
        die("mkdir");
    c->has_auto_credit = true;
    c->memory_budget_bytes = o->memory_budget_bytes;
    c->pids_max = o->pids_max;
    c->fd_down = fifo_open(c, "down");
    c->fd_up = fifo_open(c, "up");
    c->pid = fork();
    if (c->pid == 0)
        child_exec(c, o);
    if (c->pid < 0)
        die("fork");
    if (!o->is_silent)
        agent_client_resync(c);
    return c;
}

static void results_free(agent_client_t *c)
{
    while (c->results != NULL) {
        agent_result_t *r = c->results;
        c->results = r->next;
        buf_free(&r->reply);
        buf_free(&r->head);
        for (int i = 0; i < CHANNEL_COUNT; i++)
            buf_free(&r->chunks[i]);
        for (size_t i = 0; i < r->event_count; i++)
            buf_free(&r->events[i]);
        free(r->events);
        free(r);
    }
}

agent_client_t *agent_client_attach(int fd_down, int fd_up)
{
    agent_client_t *c = mem_alloc(sizeof *c);
    c->has_auto_credit = true;
    c->fd_down = fd_down;
    c->fd_up = fd_up;
    return c;
}

void agent_client_detach(agent_client_t **client)
{
    agent_client_t *c = *client;
    fd_close_p(&c->fd_down);
    fd_close_p(&c->fd_up);
    results_free(c);
    buf_free(&c->in);
    buf_free(&c->adopt_body);
    for (size_t i = 0; i < c->notice_count; i++)
        buf_free(&c->notices[i]);
    free(c->notices);
    free(c);
    *client = NULL;
}

void agent_client_stop(agent_client_t **client)
{
    agent_client_t *c = *client;
    int status = -1;
    kill(c->pid, SIGTERM);
    for (int i = 0; i < 1000 && waitpid(c->pid, &status, WNOHANG) == 0; i++)
        usleep(10000);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        kill(c->pid, SIGKILL);
        die("the agent did not end well");
    }
    nftw(c->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    agent_client_detach(client);
}

/* ---- sending ---- */

void agent_client_raw(agent_client_t *c, const void *bytes, size_t len)
{
    ssize_t n = write(c->fd_down, bytes, len);
    if (n != (ssize_t)len)
        die("write");
}

void agent_client_frame(agent_client_t *c, const envelope_t *env, const void *body, size_t len)
{
    uint8_t frame[STREAM_FRAME_DOWN_MAX];
    if (len > STREAM_BODY_DOWN_MAX)
        die("frame too long");
    agent_client_raw(c, frame, stream_frame_encode(env, body, len, frame));
}

void agent_client_simple(agent_client_t *c, uint8_t kind, uint64_t call_id)
{
    envelope_t env = {.kind = kind, .call_id = call_id};
    agent_client_frame(c, &env, NULL, 0);
}

void agent_client_credit(agent_client_t *c, uint64_t call_id, uint32_t credit)
{
    envelope_t env = {.kind = ENVELOPE_KIND_CREDIT, .call_id = call_id, .credit = credit};
    agent_client_frame(c, &env, NULL, 0);
}

static agent_result_t *result_find(agent_client_t *c, uint64_t id)
{
    agent_result_t *r = c->results;
    while (r != NULL && r->call_id != id)
        r = r->next;
    return r;
}

static agent_result_t *result_new(agent_client_t *c, uint64_t id, enum verb verb)
{
    /* A repeated id starts afresh: the old result is kept, but frames go to the new one. */
    agent_result_t *r = mem_alloc(sizeof *r);
    r->call_id = id;
    r->verb = (uint16_t)verb;
    r->next = c->results;
    c->results = r;
    return r;
}

static void pump(agent_client_t *c, int timeout_ms);

agent_result_t *agent_client_send_body(agent_client_t *c, uint64_t id, enum verb verb, const void *body, size_t len)
{
    envelope_t env = {
        .kind = ENVELOPE_KIND_REQUEST, .verb = (uint16_t)verb, .credit = c->credit, .deadline_ms = c->deadline_ms};
    if (id == 0)
        random_bytes(&id, sizeof id);
    env.call_id = id;
    agent_result_t *r = result_new(c, id, verb);
    size_t at = 0;
    do {
        size_t n = len - at < STREAM_BODY_DOWN_MAX ? len - at : STREAM_BODY_DOWN_MAX;
        while (at + n > CALL_WINDOW + r->credit_granted && !r->is_done)
            pump(c, 1000);
        env.flags = (uint8_t)(c->flags | (at + n < len ? ENVELOPE_MORE : 0));
        agent_client_frame(c, &env, (const uint8_t *)body + at, n);
        at += n;
    } while (at < len && !r->is_done);
    return r;
}

agent_result_t *agent_client_send(agent_client_t *c, uint64_t id, enum verb verb, const void *request)
{
    auto_buf buf_t body = {0};
    err_t *e = NULL;
    if (proto_encode(verb_row(verb)->request, request, &body, &e) < 0)
        die(err_message(e));
    return agent_client_send_body(c, id, verb, body.data, body.len);
}

void agent_client_chunk(agent_client_t *c, agent_result_t *r, const void *bytes, size_t len, bool is_end)
{
    envelope_t env = {.kind = ENVELOPE_KIND_CHUNK, .call_id = r->call_id, .channel = CHANNEL_DATA};
    size_t at = 0;
    do {
        size_t n = len - at < STREAM_BODY_DOWN_MAX ? len - at : STREAM_BODY_DOWN_MAX;
        env.offset = r->next_offset[CHANNEL_STDIN] + at;
        while (env.offset + n > CALL_WINDOW / 2 + r->credit_granted && !r->is_done)
            pump(c, 1000);
        if (r->is_done)
            return;
        env.flags = is_end && at + n == len ? ENVELOPE_END : 0;
        agent_client_frame(c, &env, (const uint8_t *)bytes + at, n);
        at += n;
    } while (at < len);
    r->next_offset[CHANNEL_STDIN] += len; /* no verb sends on it: used for what we sent */
}

/* ---- receiving ---- */

static void list_append(buf_t **list, size_t *count, const uint8_t *body, size_t len, bool is_more)
{
    *list = mem_realloc(*list, (*count + 1) * sizeof **list);
    buf_init(&(*list)[*count], 0);
    buf_append(&(*list)[(*count)++], body, len);
    (void)is_more;
}

static void result_chunk(agent_result_t *r, const envelope_t *env, const uint8_t *body, size_t len)
{
    unsigned ch = env->channel;
    if (r->chunks[ch].len == 0 && !r->has_ended[ch] && r->next_offset[ch] == 0)
        r->first_offset[ch] = r->next_offset[ch] = env->offset;
    if (env->offset != r->next_offset[ch])
        r->has_gap = true;
    buf_append(&r->chunks[ch], body, len);
    r->next_offset[ch] = env->offset + len;
    r->has_ended[ch] = r->has_ended[ch] || env->flags & ENVELOPE_END;
}

static void result_error(agent_result_t *r)
{
    struct error error;
    err_t *e = NULL;
    if (proto_decode(MSG_error, &error, r->reply.data, r->reply.len, &e) < 0)
        die("bad ERROR body");
    snprintf(r->code, sizeof r->code, "%s", error.code);
    snprintf(r->message, sizeof r->message, "%s", error.message);
    r->is_error = true;
}

static void result_frame(agent_client_t *c, agent_result_t *r, const envelope_t *env, const uint8_t *body, size_t len)
{
    bool is_more = env->flags & ENVELOPE_MORE;
    r->frame_count++;
    switch (env->kind) {
    case ENVELOPE_KIND_CHUNK:
        result_chunk(r, env, body, len);
        break;
    case ENVELOPE_KIND_HEAD:
        buf_append(&r->head, body, len);
        r->has_head = !is_more;
        break;
    case ENVELOPE_KIND_EVENT:
        list_append(&r->events, &r->event_count, body, len, is_more);
        break;
    case ENVELOPE_KIND_CREDIT:
        r->credit_granted += env->credit;
        break;
    case ENVELOPE_KIND_REPLY:
    case ENVELOPE_KIND_ERROR:
        if (r->is_done)
            die("two ends of one call");
        buf_append(&r->reply, body, len);
        r->is_done = !is_more;
        if (!is_more && env->kind == ENVELOPE_KIND_ERROR)
            result_error(r);
        break;
    default:
        die("a frame that is not a call's");
    }
    if (c->has_auto_credit && len > 0 && !r->is_done)
        agent_client_credit(c, r->call_id, (uint32_t)len);
}

static void adopt_take(agent_client_t *c, const uint8_t *body, size_t len)
{
    err_t *e = NULL;
    buf_reset(&c->adopt_body);
    buf_append(&c->adopt_body, body, len);
    if (proto_decode(MSG_adopt, &c->adopt, c->adopt_body.data, c->adopt_body.len, &e) < 0)
        die(err_message(e));
    c->is_adopted = true;
}

static void frame_take(agent_client_t *c, const envelope_t *env, const uint8_t *body, size_t len)
{
    agent_result_t *r = result_find(c, env->call_id);
    if (env->kind == ENVELOPE_KIND_ADOPT)
        adopt_take(c, body, len);
    else if (env->kind == ENVELOPE_KIND_QUIESCED)
        c->quiesced_count++;
    else if (env->kind == ENVELOPE_KIND_NOTICE)
        list_append(&c->notices, &c->notice_count, body, len, false);
    else if (env->kind != ENVELOPE_KIND_MARKER && r != NULL)
        result_frame(c, r, env, body, len);
    else
        c->stray_count++;
}

static bool input_more(agent_client_t *c, int timeout_ms)
{
    struct pollfd p = {.fd = c->fd_up, .events = POLLIN};
    if (poll(&p, 1, timeout_ms) <= 0)
        return false;
    uint8_t *at = buf_reserve(&c->in, 65536);
    ssize_t n = read(c->fd_up, at, 65536);
    if (n <= 0)
        die("read");
    buf_commit(&c->in, (size_t)n);
    return true;
}

static void input_parse(agent_client_t *c)
{
    envelope_t env;
    long total;
    while ((total = stream_frame_length(c->in.data, c->in.len, STREAM_FRAME_UP_MAX)) != 0) {
        if (total < 0 || !envelope_decode(&env, c->in.data + STREAM_LENGTH_SIZE, ENVELOPE_SIZE))
            die("the agent sent a broken frame");
        size_t skip = STREAM_LENGTH_SIZE + ENVELOPE_SIZE;
        frame_take(c, &env, c->in.data + skip, (size_t)total - skip);
        buf_consume(&c->in, (size_t)total);
    }
}

static void pump(agent_client_t *c, int timeout_ms)
{
    if (input_more(c, timeout_ms))
        input_parse(c);
}

void agent_client_until(agent_client_t *c, bool (*is_true)(agent_client_t *, void *), void *arg, const char *what)
{
    uint64_t end = clock_monotonic_ms() + AGENT_CLIENT_WAIT_MS;
    while (!is_true(c, arg)) {
        if (clock_monotonic_ms() > end)
            die(what);
        pump(c, 100);
    }
}

static bool is_done(agent_client_t *c, void *arg)
{
    (void)c;
    return ((agent_result_t *)arg)->is_done;
}

void agent_client_wait(agent_client_t *c, agent_result_t *r)
{
    agent_client_until(c, is_done, r, "no end of a call");
}

agent_result_t *agent_client_call(agent_client_t *c, enum verb verb, const void *request)
{
    agent_result_t *r = agent_client_send(c, 0, verb, request);
    agent_client_wait(c, r);
    return r;
}

void agent_client_idle(agent_client_t *c, uint32_t ms)
{
    uint64_t end = clock_monotonic_ms() + ms;
    for (uint64_t now; (now = clock_monotonic_ms()) < end;)
        pump(c, (int)(end - now));
}

/* ---- RESYNC ---- */

/* Finds the MARKER with our nonce and drops what is before it. */
static bool marker_skip(agent_client_t *c)
{
    size_t head = STREAM_LENGTH_SIZE + ENVELOPE_SIZE;
    uint8_t *at = c->in.len > 0 ? memmem(c->in.data, c->in.len, c->nonce, sizeof c->nonce) : NULL;
    if (at == NULL)
        return false;
    size_t offset = (size_t)(at - c->in.data);
    if (offset < head || c->in.data[offset - ENVELOPE_SIZE + 1] != ENVELOPE_KIND_MARKER)
        die("a nonce without MARKER");
    buf_consume(&c->in, offset - head);
    return true;
}

static bool is_adopted(agent_client_t *c, void *arg)
{
    (void)arg;
    return c->is_adopted;
}

void agent_client_resync(agent_client_t *c)
{
    static uint64_t epoch;
    uint8_t entropy[32];
    auto_buf buf_t body = {0};
    err_t *e = NULL;
    random_bytes(c->nonce, sizeof c->nonce);
    random_bytes(entropy, sizeof entropy);
    struct resync resync = {
        .nonce = {c->nonce, sizeof c->nonce},
        .epoch = ++epoch,
        .realtime_ns = clock_realtime_ns(),
        .entropy = {entropy, sizeof entropy},
        .memory_budget_bytes = c->memory_budget_bytes,
        .pids_max = c->pids_max,
        .hostname = c->hostname,
        .machine_id = c->machine_id,
        .is_continued = c->is_continued,
    };
    envelope_t env = {.kind = ENVELOPE_KIND_RESYNC, .sandbox = c->sandbox};
    if (proto_encode(MSG_resync, &resync, &body, &e) < 0)
        die(err_message(e));
    c->is_adopted = false;
    agent_client_frame(c, &env, body.data, body.len);
    for (uint64_t end = clock_monotonic_ms() + AGENT_CLIENT_WAIT_MS; !marker_skip(c);) {
        if (clock_monotonic_ms() > end)
            die("no MARKER");
        input_more(c, 100);
    }
    input_parse(c);
    agent_client_until(c, is_adopted, NULL, "no ADOPT");
}

const char *agent_client_adopted_state(agent_client_t *c, uint64_t call_id)
{
    proto_iter_t it = proto_iter(&c->adopt.calls);
    proto_nested_t nested;
    while (proto_iter_msg(&it, &nested)) {
        struct adopted_call row;
        err_t *e = NULL;
        if (proto_decode(MSG_adopted_call, &row, nested.bytes, nested.len, &e) < 0)
            die(err_message(e));
        if (row.call_id == call_id)
            return row.state;
    }
    return NULL;
}

/* ---- results ---- */

void agent_result_reply(agent_result_t *r, void *reply)
{
    err_t *e = NULL;
    if (r->is_error)
        die(r->message);
    if (proto_decode(verb_row(r->verb)->reply, reply, r->reply.data, r->reply.len, &e) < 0)
        die(err_message(e));
}

void agent_result_event(agent_result_t *r, size_t i, unsigned msg_id, void *event)
{
    err_t *e = NULL;
    if (i >= r->event_count || proto_decode(msg_id, event, r->events[i].data, r->events[i].len, &e) < 0)
        die("bad EVENT");
}
