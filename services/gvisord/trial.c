/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/trial.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "proto/verbs.h"

#include <stdio.h>

#define TRIAL_CPU_MILLI 1000
#define TRIAL_MEMORY ((uint64_t)256 << 20)
#define TRIAL_DISK ((uint64_t)64 << 20)
#define TRIAL_PIDS 64
#define TRIAL_COMMAND "ls -l / > /dev/null"
#define EXIT_NOT_FOUND 127

struct trial {
    gvisord_t *gv;
    box_t box;
    sandbox_spec_t spec;
    uuid16_t id;
    char id_text[UUID_TEXT_SIZE];
    char *dir;
    stream_t *stream;
    struct event *timeout, *turn;
    uint64_t started_ms;
    uint64_t call_id;
    enum trial_kind kind;
    uint64_t epoch; /* of the stream */
    bool is_ending;
    bool is_making; /* or stopping, or resuming */
    trial_outcome_t outcome;
    void (*ended)(void *arg, const trial_outcome_t *outcome);
    void *arg;
};

static void trial_free(trial_t *t)
{
    stream_destroy(&t->stream);
    box_close(&t->box);
    if (t->timeout)
        event_free(t->timeout);
    if (t->turn)
        event_free(t->turn);
    json_decref(t->box.facts);
    free(t->spec.image);
    free(t->spec.network);
    free(t->dir);
    free(t);
}

static void on_destroyed(void *arg, const err_t *err)
{
    trial_t *t = arg;
    auto_err err_t *e = NULL;
    if (err)
        log_warn("a probe sandbox could not be removed: %s", err_message(err));
    else if (dir_remove(t->dir, &e) < 0)
        log_warn("%s", err_message(e));
    void (*ended)(void *, const trial_outcome_t *) = t->ended;
    void *ended_arg = t->arg;
    trial_outcome_t outcome = t->outcome;
    trial_free(t);
    ended(ended_arg, &outcome);
}

static void end(trial_t *t, const char *message)
{
    if (t->is_ending)
        return;
    if (message)
        snprintf(t->outcome.message, sizeof t->outcome.message, "%s", message);
    event_del(t->timeout);
    t->is_ending = true;
    if (!t->is_making)
        box_destroy(&t->box, on_destroyed, t);
}

/* The stream is destroyed later, in trial_free: these run inside its own callbacks. */
static void on_frame(void *arg, const envelope_t *env, const uint8_t *body, size_t len)
{
    trial_t *t = arg;
    struct bash_reply reply;
    auto_err err_t *e = NULL;
    if (env->call_id != t->call_id || t->is_ending)
        return;
    if (env->kind == ENVELOPE_KIND_ERROR) {
        t->outcome.has_working_ls = true; /* no shell in the image: nothing to hold against the runtime */
        end(t, NULL);
    } else if (env->kind == ENVELOPE_KIND_REPLY) {
        if (proto_decode(MSG_bash_reply, &reply, body, len, &e) < 0) {
            end(t, err_message(e));
            return;
        }
        t->outcome.has_working_ls = reply.exit_code == 0 || reply.exit_code == EXIT_NOT_FOUND;
        char message[300];
        snprintf(message, sizeof message, "`ls` does not work inside: %.*s",
                 (int)(reply.stderr.len < 200 ? reply.stderr.len : 200), (const char *)reply.stderr.data);
        end(t, t->outcome.has_working_ls ? NULL : message);
    }
}

static void open_stream(trial_t *t);

static void ask_ls(trial_t *t)
{
    struct bash_request request = {.command = TRIAL_COMMAND, .workdir = "/"};
    envelope_t env = {.kind = ENVELOPE_KIND_REQUEST, .verb = VERB_bash, .sandbox = t->id, .credit = CALL_WINDOW};
    random_bytes(&t->call_id, sizeof t->call_id);
    t->call_id |= 1;
    env.call_id = t->call_id;
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    if (proto_encode(MSG_bash_request, &request, &body, &e) < 0 || !stream_send(t->stream, &env, body.data, body.len))
        end(t, e ? err_message(e) : "the agent takes no request");
}

static void on_resumed(void *arg, const err_t *err)
{
    trial_t *t = arg;
    t->is_making = false;
    if (t->is_ending)
        box_destroy(&t->box, on_destroyed, t);
    else if (err)
        end(t, err_message(err));
    else if (!t->box.result.has_processes)
        end(t, t->box.result.warning);
    else
        open_stream(t);
}

static void on_stopped(void *arg, const err_t *err)
{
    trial_t *t = arg;
    if (err || !t->box.result.has_processes || t->is_ending) {
        t->is_making = false;
        if (t->is_ending)
            box_destroy(&t->box, on_destroyed, t);
        else
            end(t, err ? err_message(err) : t->box.result.warning);
        return;
    }
    const runtime_variant_t variant = t->box.variant;
    box_resume(&t->box, &variant, on_resumed, t);
}

/* Out of the stream's own callback. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    trial_t *t = arg;
    if (t->is_ending)
        return;
    stream_destroy(&t->stream);
    t->is_making = true;
    box_stop(&t->box, true, on_stopped, t);
}

static void on_ready(void *arg, const struct adopt *adopt)
{
    (void)adopt;
    trial_t *t = arg;
    struct timeval now = {0};
    if (!t->outcome.has_answered)
        t->outcome.startup_ms = (uint32_t)(clock_monotonic_ms() - t->started_ms);
    if (t->kind == TRIAL_COMMANDS) {
        t->outcome.has_answered = true;
        ask_ls(t);
    } else if (t->outcome.has_answered) {
        t->outcome.has_resumed = true;
        end(t, NULL);
    } else {
        t->outcome.has_answered = true;
        t->turn = evtimer_new(t->gv->daemon.base, on_turn, t);
        evtimer_add(t->turn, &now);
    }
}

static void on_broken(void *arg, const char *reason)
{
    char message[300];
    snprintf(message, sizeof message, "the agent cannot be talked to: %s", reason);
    end(arg, message);
}

static const stream_events_t EVENTS = {.on_ready = on_ready, .on_frame = on_frame, .on_broken = on_broken};

static void open_stream(trial_t *t)
{
    int fd_in, fd_out;
    auto_err err_t *e = NULL;
    stream_identity_t identity = {.sandbox = t->id,
                                  .epoch = ++t->epoch,
                                  .pids_max = t->spec.pids_max,
                                  .memory_budget_bytes = t->spec.memory_bytes};
    if (box_open_stream(&t->box, &fd_in, &fd_out, &e) == 0)
        t->stream = stream_open(t->gv->daemon.base, fd_in, fd_out, &identity, 0, &EVENTS, t, &e);
    if (!t->stream)
        end(t, err_message(e));
}

static void on_made(void *arg, const err_t *err)
{
    trial_t *t = arg;
    t->is_making = false;
    if (t->is_ending) {
        box_destroy(&t->box, on_destroyed, t);
        return;
    }
    if (err) {
        end(t, err_message(err));
        return;
    }
    open_stream(t);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    end(arg, "the probe sandbox did not answer in time");
}

static void on_gone(box_t *box, const char *reason)
{
    end(box->owner, reason);
}

trial_t *trial_start(gvisord_t *gv, const runtime_variant_t *variant, const char *network, enum trial_kind kind,
                     void (*ended)(void *arg, const trial_outcome_t *outcome), void *arg, err_t **e)
{
    trial_t *t = mem_alloc(sizeof *t);
    t->gv = gv;
    t->kind = kind;
    t->ended = ended;
    t->arg = arg;
    random_bytes(&t->id, sizeof t->id);
    uuid16_format(&t->id, t->id_text);
    t->dir = mem_printf("%s/%s", gv->probe_dir, t->id_text);
    t->spec = (sandbox_spec_t){.image = mem_strdup(gv->daemon.config.default_image),
                               .cpu_milli = TRIAL_CPU_MILLI,
                               .memory_bytes = TRIAL_MEMORY,
                               .disk_bytes = TRIAL_DISK,
                               .pids_max = TRIAL_PIDS,
                               .network = mem_strdup(network)};
    t->box = (box_t){.gv = gv,
                     .id = t->id_text,
                     .dir = t->dir,
                     .spec = &t->spec,
                     .facts = json_object(),
                     .on_gone = on_gone,
                     .owner = t,
                     .fds = {-1, -1, -1},
                     .netns_fd = -1};
    if (dir_make(t->dir, 0700, e) < 0) {
        trial_free(t);
        return NULL;
    }
    t->started_ms = clock_monotonic_ms();
    t->timeout = evtimer_new(gv->daemon.base, on_timeout, t);
    struct timeval tv = {.tv_sec = TRIAL_TIMEOUT_MS / 1000};
    evtimer_add(t->timeout, &tv);
    t->is_making = true;
    box_create(&t->box, variant, on_made, t);
    return t;
}

void trial_stop(trial_t *t)
{
    end(t, "stopped");
}

void trial_abandon(trial_t **tp)
{
    if (*tp)
        trial_free(*tp);
    *tp = NULL;
}
