/* SPDX-License-Identifier: Apache-2.0
 *
 * A provider daemon that keeps sandboxes as entries of a table, on a real fabric link in the test's own loop. The test
 * tells it to fail, to hold its replies, to forget or to kill.
 */
#ifndef EW_TESTS_FAKE_PROVIDER_H
#define EW_TESTS_FAKE_PROVIDER_H

#include "common/fabric.h"
#include "common/mem.h"
#include "proto/verbs.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define FAKE_SANDBOXES 64

typedef struct fake_sandbox {
    uuid16_t id;
    char state[16];
    char suite[UUID_TEXT_SIZE];
} fake_sandbox_t;

#define FAKE_SNAPSHOTS 16

typedef struct fake_snapshot {
    uuid16_t id;
    char state[16];
    char suite[UUID_TEXT_SIZE];
    bool has_processes;
} fake_snapshot_t;

typedef struct fake_provider {
    struct event_base *base;
    const char *role, *name, *node;
    const char *images, *modes; /* one of each */
    const char *create_error;   /* not NULL: creates fail with it */
    const char *destroy_error;
    const char *stop_error, *resume_error;
    const char *error_code; /* of those two; NULL: sandbox_failed */
    bool is_holding;        /* creates get no reply until fake_provider_release */
    bool is_holding_moves;  /* nor do stops and resumes, until fake_provider_release_moves */
    bool loses_processes;
    bool refuses_known; /* a create of a sandbox that is there is a conflict */
    bool healthy, requires_kvm;
    fabric_t *link;
    fabric_peer_t *hub;
    fake_sandbox_t sandboxes[FAKE_SANDBOXES];
    size_t sandbox_count;
    envelope_t held[FAKE_SANDBOXES];
    size_t held_count;
    envelope_t held_moves[FAKE_SANDBOXES];
    size_t held_move_count;
    size_t creates, destroys, cancels, lists, stops, resumes;
    bool without_processes; /* of the last stop */
    uint32_t cpu_milli, pids_max;
    uint64_t memory_bytes, disk_bytes;
    bool use_warm;
    char network[16], image[64], env[256];
    /* ---- snapshots ---- */
    bool has_no_snapshots;      /* its capabilities say so */
    const char *snapshot_error; /* not NULL: takes fail with it */
    const char *snapshot_delete_error;
    const char *lie_id, *lie_state; /* a hostile answer to a take */
    uint64_t snapshot_bytes;
    bool is_holding_snapshots; /* takes get no reply until fake_provider_release_snapshots */
    bool is_silent_snapshot;   /* takes are done and never answered */
    envelope_t held_snapshot;
    size_t held_snapshots;
    fake_snapshot_t snapshots[FAKE_SNAPSHOTS];
    size_t snapshot_count;
    size_t takes, snapshot_deletes, snapshot_lists;
    size_t fail_create_number; /* this one of the creates fails (1 = the next) */
    char from_snapshot[UUID_TEXT_SIZE];
} fake_provider_t;

static inline bool fake_snapshot_verb(fake_provider_t *p, const envelope_t *env, const uint8_t *body, size_t len);

static inline fake_sandbox_t *fake_sandbox_find(fake_provider_t *p, const uuid16_t *id)
{
    for (size_t i = 0; i < p->sandbox_count; i++)
        if (memcmp(&p->sandboxes[i].id, id, sizeof(*id)) == 0)
            return &p->sandboxes[i];
    return NULL;
}

static inline void fake_sandbox_remove(fake_provider_t *p, const uuid16_t *id)
{
    fake_sandbox_t *s = fake_sandbox_find(p, id);
    if (s != NULL)
        *s = p->sandboxes[--p->sandbox_count];
}

static inline void fake_send(fake_provider_t *p, const envelope_t *request, enum envelope_kind kind, unsigned msg_id,
                             const void *msg)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t body = {0};
    cr_assert_eq(proto_encode(msg_id, msg, &body, &e), 0, "%s", err_message(e));
    envelope_t env = {.kind = (uint8_t)kind, .flags = 0, .call_id = request->call_id, .sandbox = request->sandbox};
    cr_assert_eq(fabric_send(p->hub, &env, body.data, body.len), FABRIC_SENT);
}

static inline void fake_send_error(fake_provider_t *p, const envelope_t *request, const char *code, const char *text)
{
    struct error error = {.code = code, .message = text};
    fake_send(p, request, ENVELOPE_KIND_ERROR, MSG_error, &error);
}

static inline void fake_reply_create(fake_provider_t *p, const envelope_t *request)
{
    auto_buf buf_t programs = {0}, warnings = {0};
    proto_list_add_str(&programs, "bash");
    proto_list_add_str(&warnings, "a warning of the provider");
    struct sandbox_create_reply reply = {
        .provider_workspace_id = "fake-1",
        .total_ms = 3,
        .phases = "{\"disk\":1}",
        .isolation = "fake/none",
        .programs = proto_list_of(1, &programs),
        .warnings = proto_list_of(1, &warnings),
    };
    fake_sandbox_t *s = fake_sandbox_find(p, &request->sandbox);
    if (s == NULL) { /* destroyed while the reply was held */
        fake_send_error(p, request, "not_found", "unknown sandbox");
        return;
    }
    snprintf(s->state, sizeof(s->state), "ready");
    fake_send(p, request, ENVELOPE_KIND_REPLY, MSG_sandbox_create_reply, &reply);
}

static inline void fake_take_create(fake_provider_t *p, const envelope_t *env, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    struct sandbox_create_request m;
    cr_assert_eq(proto_decode(MSG_sandbox_create_request, &m, body, len, &e), 0, "%s", err_message(e));
    p->cpu_milli = m.cpu_milli;
    p->memory_bytes = m.memory_bytes;
    p->disk_bytes = m.disk_bytes;
    p->pids_max = m.pids_max;
    p->use_warm = m.use_warm;
    snprintf(p->network, sizeof(p->network), "%s", m.network);
    snprintf(p->image, sizeof(p->image), "%s", m.image);
    proto_iter_t it = proto_iter_map(&m.env);
    const char *name, *value;
    p->env[0] = '\0';
    while (proto_iter_str(&it, &name) && proto_iter_str(&it, &value))
        snprintf(p->env + strlen(p->env), sizeof(p->env) - strlen(p->env), "%s=%s;", name, value);
    snprintf(p->from_snapshot, sizeof(p->from_snapshot), "%s", m.snapshot_id == NULL ? "" : m.snapshot_id);
    fake_sandbox_t *s = fake_sandbox_find(p, &env->sandbox);
    if (s == NULL)
        s = &p->sandboxes[p->sandbox_count++];
    s->id = env->sandbox;
    snprintf(s->state, sizeof(s->state), "creating");
    it = proto_iter_map(&m.labels);
    while (proto_iter_str(&it, &name) && proto_iter_str(&it, &value))
        if (strcmp(name, "ew.suite") == 0)
            snprintf(s->suite, sizeof(s->suite), "%s", value);
}

static inline void fake_on_create(fake_provider_t *p, const envelope_t *env, const uint8_t *body, size_t len)
{
    p->creates++;
    bool is_chosen = p->fail_create_number > 0 && --p->fail_create_number == 0;
    if (p->create_error != NULL || is_chosen) {
        fake_send_error(p, env, "sandbox_failed", is_chosen ? "told to fail this one" : p->create_error);
        return;
    }
    if (p->refuses_known && fake_sandbox_find(p, &env->sandbox) != NULL) {
        fake_send_error(p, env, "conflict", "sandbox exists and is not ready");
        return;
    }
    fake_take_create(p, env, body, len);
    if (p->is_holding)
        p->held[p->held_count++] = *env;
    else
        fake_reply_create(p, env);
}

static inline void fake_provider_release(fake_provider_t *p)
{
    p->is_holding = false;
    for (size_t i = 0; i < p->held_count; i++)
        fake_reply_create(p, &p->held[i]);
    p->held_count = 0;
}

static inline void fake_on_destroy(fake_provider_t *p, const envelope_t *env)
{
    struct empty empty = {0};
    p->destroys++;
    if (p->destroy_error != NULL) {
        fake_send_error(p, env, "internal_error", p->destroy_error);
        return;
    }
    fake_sandbox_remove(p, &env->sandbox);
    fake_send(p, env, ENVELOPE_KIND_REPLY, MSG_empty, &empty);
}

/* Stop and resume: the sandbox is between two states until the reply goes out. */
static inline void fake_reply_move(fake_provider_t *p, const envelope_t *env)
{
    fake_sandbox_t *s = fake_sandbox_find(p, &env->sandbox);
    bool is_stop = env->verb == VERB_sandbox_stop;
    const char *error = is_stop ? p->stop_error : p->resume_error;
    if (s == NULL) {
        fake_send_error(p, env, "not_found", "unknown sandbox");
        return;
    }
    if (error != NULL) {
        snprintf(s->state, sizeof(s->state), "%s", is_stop ? "ready" : "stopped");
        fake_send_error(p, env, p->error_code == NULL ? "sandbox_failed" : p->error_code, error);
        return;
    }
    auto_buf buf_t warnings = {0};
    if (p->loses_processes)
        proto_list_add_str(&warnings, is_stop ? "its processes were ended" : "it was started anew from its files");
    struct sandbox_stop_reply stopped = {.has_processes = !p->loses_processes && !p->without_processes,
                                         .total_ms = 7,
                                         .kept_bytes = 4096,
                                         .phases = "{\"checkpoint_ms\":5}",
                                         .warnings = proto_list_of(p->loses_processes, &warnings)};
    struct sandbox_resume_reply resumed = {.has_processes = !p->loses_processes && !p->without_processes,
                                           .total_ms = 9,
                                           .phases = "{\"restore_ms\":6}",
                                           .warnings = proto_list_of(p->loses_processes, &warnings)};
    snprintf(s->state, sizeof(s->state), "%s", is_stop ? "stopped" : "ready");
    if (is_stop)
        fake_send(p, env, ENVELOPE_KIND_REPLY, MSG_sandbox_stop_reply, &stopped);
    else
        fake_send(p, env, ENVELOPE_KIND_REPLY, MSG_sandbox_resume_reply, &resumed);
}

static inline void fake_on_move(fake_provider_t *p, const envelope_t *env, const uint8_t *body, size_t len)
{
    fake_sandbox_t *s = fake_sandbox_find(p, &env->sandbox);
    bool is_stop = env->verb == VERB_sandbox_stop;
    *(is_stop ? &p->stops : &p->resumes) += 1;
    if (is_stop) {
        auto_err err_t *e = NULL;
        struct sandbox_stop_request m;
        cr_assert_eq(proto_decode(MSG_sandbox_stop_request, &m, body, len, &e), 0, "%s", err_message(e));
        p->without_processes = m.without_processes;
    }
    if (s != NULL)
        snprintf(s->state, sizeof(s->state), "%s", is_stop ? "stopping" : "resuming");
    if (p->is_holding_moves)
        p->held_moves[p->held_move_count++] = *env;
    else
        fake_reply_move(p, env);
}

static inline void fake_provider_release_moves(fake_provider_t *p)
{
    p->is_holding_moves = false;
    for (size_t i = 0; i < p->held_move_count; i++)
        fake_reply_move(p, &p->held_moves[i]);
    p->held_move_count = 0;
}

static inline void fake_on_list(fake_provider_t *p, const envelope_t *env)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t list = {0};
    for (size_t i = 0; i < p->sandbox_count; i++) {
        char id[UUID_TEXT_SIZE];
        uuid16_format(&p->sandboxes[i].id, id);
        auto_buf buf_t labels = {0};
        proto_list_add_str(&labels, "ew.suite");
        proto_list_add_str(&labels, p->sandboxes[i].suite);
        struct sandbox_info info = {.id = id, .state = p->sandboxes[i].state, .labels = proto_list_of(1, &labels)};
        cr_assert_eq(proto_list_add_msg(&list, MSG_sandbox_info, &info, &e), 0, "%s", err_message(e));
    }
    struct sandbox_list_reply reply = {.sandboxes = proto_list_of((uint32_t)p->sandbox_count, &list)};
    p->lists++;
    fake_send(p, env, ENVELOPE_KIND_REPLY, MSG_sandbox_list_reply, &reply);
}

static void fake_on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    fake_provider_t *p = arg;
    p->hub = peer;
    if (env->kind == ENVELOPE_KIND_CANCEL) {
        p->cancels++;
        return;
    }
    if (env->kind != ENVELOPE_KIND_REQUEST)
        return;
    if (env->verb == VERB_sandbox_create)
        fake_on_create(p, env, body, len);
    else if (env->verb == VERB_sandbox_destroy)
        fake_on_destroy(p, env);
    else if (env->verb == VERB_sandbox_list)
        fake_on_list(p, env);
    else if (env->verb == VERB_sandbox_stop || env->verb == VERB_sandbox_resume)
        fake_on_move(p, env, body, len);
    else
        (void)fake_snapshot_verb(p, env, body, len);
}

static void fake_on_up(void *arg, fabric_peer_t *peer)
{
    ((fake_provider_t *)arg)->hub = peer;
}

static void fake_on_down(void *arg, fabric_peer_t *peer, const char *reason)
{
    (void)peer;
    (void)reason;
    ((fake_provider_t *)arg)->hub = NULL;
}

/* Tells the hub, and remembers what HELLO says. */
static inline void fake_provider_tell_status(fake_provider_t *p)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t modes = {0}, images = {0}, capabilities = {0}, status = {0};
    proto_list_add_str(&modes, p->modes == NULL ? "none" : p->modes);
    proto_list_add_str(&images, p->images == NULL ? "base" : p->images);
    struct capabilities c = {.name = p->name,
                             .provider_type = p->name,
                             .requires_kvm = p->requires_kvm,
                             .supports_snapshots = !p->has_no_snapshots,
                             .network_modes = proto_list_of(1, &modes)};
    cr_assert_eq(proto_encode(MSG_capabilities, &c, &capabilities, &e), 0, "%s", err_message(e));
    struct provider_status s = {
        .name = p->name,
        .type = p->name,
        .healthy = p->healthy,
        .state = p->healthy ? "healthy" : "unhealthy",
        .message = p->healthy ? NULL : "told to be unhealthy",
        .node = p->node,
        .has_kvm = true,
        .capabilities = {.bytes = capabilities.data, .len = capabilities.len},
        .images = proto_list_of(1, &images),
    };
    cr_assert_eq(proto_encode(MSG_provider_status, &s, &status, &e), 0, "%s", err_message(e));
    fabric_set_status(p->link, status.data, status.len);
}

static inline void fake_provider_connect(fake_provider_t *p, const char *endpoint)
{
    static const fabric_events_t EVENTS = {.on_up = fake_on_up, .on_down = fake_on_down, .on_frame = fake_on_frame};
    auto_err err_t *e = NULL;
    static unsigned starts;
    char instance[32];
    snprintf(instance, sizeof(instance), "%s-%u", p->name, ++starts);
    fabric_self_t self = {.role = p->role, .node = p->node, .instance = instance};
    p->link = fabric_connect(p->base, endpoint, &self, NULL, &EVENTS, p, &e);
    cr_assert_not_null(p->link, "%s", err_message(e));
    fake_provider_tell_status(p);
}

static inline void fake_provider_disconnect(fake_provider_t *p)
{
    fabric_destroy(&p->link);
    p->hub = NULL;
    p->held_count = 0;
    p->held_move_count = 0;
}

static inline void fake_provider_tell_event(fake_provider_t *p, const uuid16_t *id, const char *type,
                                            const char *reason)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t body = {0};
    struct sandbox_event event = {.type = type, .reason = reason};
    cr_assert_eq(proto_encode(MSG_sandbox_event, &event, &body, &e), 0);
    envelope_t env = {.kind = ENVELOPE_KIND_NOTICE, .sandbox = *id};
    cr_assert_eq(fabric_send(p->hub, &env, body.data, body.len), FABRIC_SENT);
}

/* ---- snapshots ---- */

static inline fake_snapshot_t *fake_snapshot_find(fake_provider_t *p, const char *id_text)
{
    uuid16_t id;
    cr_assert(uuid16_parse(&id, id_text));
    for (size_t i = 0; i < p->snapshot_count; i++)
        if (memcmp(&p->snapshots[i].id, &id, sizeof(id)) == 0)
            return &p->snapshots[i];
    return NULL;
}

static inline void fake_snapshot_remove(fake_provider_t *p, const char *id_text)
{
    fake_snapshot_t *s = fake_snapshot_find(p, id_text);
    if (s != NULL)
        *s = p->snapshots[--p->snapshot_count];
}

static inline struct snapshot_info fake_snapshot_info(fake_provider_t *p, const fake_snapshot_t *s,
                                                      char id[UUID_TEXT_SIZE])
{
    uuid16_format(&s->id, id);
    return (struct snapshot_info){.snapshot_id = id,
                                  .state = s->state,
                                  .has_processes = s->has_processes,
                                  .size_bytes = p->snapshot_bytes,
                                  .stall_ms = 7};
}

static inline void fake_reply_snapshot(fake_provider_t *p, const envelope_t *env, fake_snapshot_t *s)
{
    char id[UUID_TEXT_SIZE];
    auto_buf buf_t warnings = {0};
    proto_list_add_str(&warnings, "copied");
    struct snapshot_info info = fake_snapshot_info(p, s, id);
    info.warnings = proto_list_of(1, &warnings);
    if (p->lie_id != NULL)
        info.snapshot_id = p->lie_id;
    if (p->lie_state != NULL)
        info.state = p->lie_state;
    fake_send(p, env, ENVELOPE_KIND_REPLY, MSG_snapshot_info, &info);
}

static inline void fake_on_take(fake_provider_t *p, const envelope_t *env, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    struct snapshot_create_request m;
    cr_assert_eq(proto_decode(MSG_snapshot_create_request, &m, body, len, &e), 0, "%s", err_message(e));
    p->takes++;
    if (p->snapshot_error != NULL) {
        fake_send_error(p, env, "no_space", p->snapshot_error);
        return;
    }
    fake_snapshot_t *s = fake_snapshot_find(p, m.snapshot_id);
    if (s == NULL) {
        cr_assert_not_null(fake_sandbox_find(p, &env->sandbox), "a snapshot of a sandbox that is not there");
        s = &p->snapshots[p->snapshot_count++];
        *s = (fake_snapshot_t){.has_processes = !m.without_processes};
        cr_assert(uuid16_parse(&s->id, m.snapshot_id));
    }
    proto_iter_t it = proto_iter_map(&m.labels);
    const char *name, *value;
    while (proto_iter_str(&it, &name) && proto_iter_str(&it, &value))
        if (strcmp(name, "ew.suite") == 0)
            snprintf(s->suite, sizeof(s->suite), "%s", value);
    snprintf(s->state, sizeof(s->state), "ready");
    if (p->is_holding_snapshots) {
        snprintf(s->state, sizeof(s->state), "creating");
        p->held_snapshot = *env;
        p->held_snapshots++;
    } else if (!p->is_silent_snapshot) {
        fake_reply_snapshot(p, env, s);
    }
}

static inline void fake_provider_release_snapshots(fake_provider_t *p)
{
    p->is_holding_snapshots = false;
    fake_snapshot_t *s = &p->snapshots[p->snapshot_count - 1];
    snprintf(s->state, sizeof(s->state), "ready");
    fake_reply_snapshot(p, &p->held_snapshot, s);
    p->held_snapshots = 0;
}

static inline void fake_on_snapshot_list(fake_provider_t *p, const envelope_t *env)
{
    auto_err err_t *e = NULL;
    auto_buf buf_t list = {0};
    p->snapshot_lists++;
    for (size_t i = 0; i < p->snapshot_count; i++) {
        char id[UUID_TEXT_SIZE];
        auto_buf buf_t labels = {0};
        proto_list_add_str(&labels, "ew.suite");
        proto_list_add_str(&labels, p->snapshots[i].suite);
        struct snapshot_info info = fake_snapshot_info(p, &p->snapshots[i], id);
        info.labels = proto_list_of(1, &labels);
        cr_assert_eq(proto_list_add_msg(&list, MSG_snapshot_info, &info, &e), 0, "%s", err_message(e));
    }
    struct snapshot_list_reply reply = {.snapshots = proto_list_of((uint32_t)p->snapshot_count, &list)};
    fake_send(p, env, ENVELOPE_KIND_REPLY, MSG_snapshot_list_reply, &reply);
}

static inline void fake_on_snapshot_delete(fake_provider_t *p, const envelope_t *env, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    struct snapshot_ref m;
    struct empty empty = {0};
    cr_assert_eq(proto_decode(MSG_snapshot_ref, &m, body, len, &e), 0, "%s", err_message(e));
    p->snapshot_deletes++;
    if (p->snapshot_delete_error != NULL) {
        fake_send_error(p, env, "internal_error", p->snapshot_delete_error);
        return;
    }
    fake_snapshot_remove(p, m.snapshot_id);
    fake_send(p, env, ENVELOPE_KIND_REPLY, MSG_empty, &empty);
}

static inline bool fake_snapshot_verb(fake_provider_t *p, const envelope_t *env, const uint8_t *body, size_t len)
{
    if (env->verb == VERB_snapshot_create)
        fake_on_take(p, env, body, len);
    else if (env->verb == VERB_snapshot_list)
        fake_on_snapshot_list(p, env);
    else if (env->verb == VERB_snapshot_delete)
        fake_on_snapshot_delete(p, env, body, len);
    else
        return false;
    return true;
}

#endif
