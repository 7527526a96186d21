// SPDX-License-Identifier: Apache-2.0
#include "agent/session.h"

#include "agent/calls.h"
#include "agent/link.h"
#include "agent/loop.h"
#include "agent/machine.h"
#include "agent/pressure.h"
#include "agent/tree.h"
#include "common/clock.h"
#include "common/mem.h"
#include "proto/messages.h"

#include <stdio.h>
#include <unistd.h>

#define AGENT_RELEASE "0.1.0"
#define ADOPT_CALLS_BYTES ((size_t)30 * 1024) /* ADOPT is one frame */

static struct {
    bool is_init;
    bool is_quiesced;
    uint64_t boot_epoch;
    uint64_t started_ms;
    uuid16_t sandbox; /* zero before the first RESYNC */
    buf_t notices;    /* made while quiesced: u16 length and body, each */
} session;

void session_init(bool is_init)
{
    session.is_init = is_init;
    session.started_ms = clock_monotonic_ms();
    random_bytes(&session.boot_epoch, sizeof session.boot_epoch);
    buf_init(&session.notices, SESSION_NOTICES_MAX);
}

uint64_t session_started_ms(void)
{
    return session.started_ms;
}

bool session_is_resync(const uint8_t *body, size_t len)
{
    struct resync resync;
    err_t *e = NULL;
    bool is_it = proto_decode(MSG_resync, &resync, body, len, &e) == 0 && resync.nonce.len == 16;
    err_free(&e);
    return is_it;
}

static bool is_program(const char *name)
{
    static const char *const dirs[] = {"/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"};
    char path[64];
    for (size_t i = 0; i < COUNT_OF(dirs); i++) {
        snprintf(path, sizeof path, "%s/%s", dirs[i], name);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static proto_list_t programs_find(buf_t *list)
{
    static const char *const names[] = {"bash", "sh", "git", "python3", "node"};
    uint32_t count = 0;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (is_program(names[i])) {
            proto_list_add_str(list, names[i]);
            count++;
        }
    }
    return proto_list_of(count, list);
}

static void adopt_send(const envelope_t *reply)
{
    auto_buf buf_t programs = {0}, calls = {0}, body = {0};
    auto_err err_t *e = NULL;
    envelope_t env = *reply;
    uint32_t count = calls_list(&calls, ADOPT_CALLS_BYTES);
    struct adopt adopt = {
        .agent_release = AGENT_RELEASE,
        .version = ENVELOPE_VERSION,
        .kill_tree = trees_are_sure() ? "cgroup" : "best_effort",
        .programs = programs_find(&programs),
        .calls = proto_list_of(count, &calls),
        .boot_epoch = session.boot_epoch,
        .has.boot_epoch = true,
    };
    env.kind = ENVELOPE_KIND_ADOPT;
    if (proto_encode(MSG_adopt, &adopt, &body, &e) == 0)
        link_send(&env, body.data, body.len);
}

static void identity_apply(const struct resync *resync)
{
    machine_add_entropy(resync->entropy.data, resync->entropy.len);
    if (session.is_init) {
        machine_set_clock(resync->realtime_ns);
        machine_set_hostname(resync->hostname);
        machine_set_id(resync->machine_id);
    }
    if (resync->pids_max > 0)
        trees_set_pids_max(resync->pids_max);
    pressure_set_budget(resync->memory_budget_bytes);
}

void session_renew(uuid16_t sandbox, const agent_call_t *but)
{
    calls_forget(but);
    buf_reset(&session.notices);
    random_bytes(&session.boot_epoch, sizeof session.boot_epoch);
    session.sandbox = sandbox;
}

/* Daemons of before 0.1.0 did not say which sandbox they mean. */
static bool is_another(const uuid16_t *sandbox)
{
    return !uuid16_is_zero(&session.sandbox) && !uuid16_is_zero(sandbox) &&
           memcmp(&session.sandbox, sandbox, sizeof *sandbox) != 0;
}

static void notice_send(const uint8_t *body, size_t len)
{
    envelope_t env = {.kind = ENVELOPE_KIND_NOTICE, .sandbox = session.sandbox};
    link_send(&env, body, len);
}

static void notices_flush(void)
{
    for (size_t at = 0, len; at < session.notices.len; at += 2 + len) {
        const uint8_t *row = session.notices.data + at;
        len = row[0] | (size_t)row[1] << 8;
        notice_send(row + 2, len);
    }
    buf_free(&session.notices);
    buf_init(&session.notices, SESSION_NOTICES_MAX);
}

static void on_resync(const envelope_t *env, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    struct resync resync;
    if (proto_decode(MSG_resync, &resync, body, len, &e) < 0 || resync.nonce.len != 16)
        return;
    /* Only who read everything up to QUIESCED may say so, and only if it was all written. */
    bool is_same = resync.is_continued && session.is_quiesced && link_queued_bytes() == 0;
    loop_thaw();
    if (session.is_quiesced && !is_same)
        pressure_reset();
    identity_apply(&resync);
    if (is_another(&env->sandbox)) {
        session_renew(env->sandbox, NULL);
        pressure_reset();
    }
    session.is_quiesced = false;
    session.sandbox = env->sandbox;
    link_reset();
    link_set_silent(false);
    envelope_t reply = {.kind = ENVELOPE_KIND_MARKER, .sandbox = env->sandbox, .trace = env->trace};
    link_send(&reply, resync.nonce.data, resync.nonce.len);
    if (!is_same)
        calls_on_resync(false);
    adopt_send(&reply);
    if (is_same)
        calls_on_resync(true);
    notices_flush();
}

static void on_quiesce(const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    envelope_t reply = {.kind = ENVELOPE_KIND_QUIESCED, .sandbox = env->sandbox, .trace = env->trace};
    if (session.is_quiesced)
        return;
    link_send(&reply, NULL, 0);
    link_set_silent(true);
    session.is_quiesced = true;
    loop_freeze();
}

static void on_pressure(const envelope_t *env, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    struct pressure pressure;
    (void)env;
    if (proto_decode(MSG_pressure, &pressure, body, len, &e) == 0)
        pressure_begin(pressure.used_bytes);
}

bool session_on_frame(const envelope_t *env, const uint8_t *body, size_t len)
{
    static void (*const handlers[ENVELOPE_KIND_COUNT])(const envelope_t *, const uint8_t *, size_t) = {
        [ENVELOPE_KIND_RESYNC] = on_resync,
        [ENVELOPE_KIND_QUIESCE] = on_quiesce,
        [ENVELOPE_KIND_PRESSURE] = on_pressure,
    };
    if (handlers[env->kind] == NULL)
        return false;
    handlers[env->kind](env, body, len);
    return true;
}

void session_notice(const char *type, uint32_t process_id, const char *detail)
{
    auto_buf buf_t body = {0};
    auto_err err_t *e = NULL;
    struct notice notice = {.type = type, .process_id = process_id, .detail = detail};
    if (proto_encode(MSG_notice, &notice, &body, &e) < 0)
        return;
    if (!session.is_quiesced) {
        notice_send(body.data, body.len);
    } else if (session.notices.len + 2 + body.len <= SESSION_NOTICES_MAX) {
        uint8_t length[2] = {(uint8_t)body.len, (uint8_t)(body.len >> 8)};
        buf_append(&session.notices, length, sizeof length);
        buf_append(&session.notices, body.data, body.len);
    }
}
