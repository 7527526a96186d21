// SPDX-License-Identifier: Apache-2.0
#include "agent/session.h"

#include "agent/calls.h"
#include "agent/link.h"
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
    uuid16_t sandbox;
} session;

void session_init(bool is_init)
{
    session.is_init = is_init;
    session.started_ms = clock_monotonic_ms();
    random_bytes(&session.boot_epoch, sizeof session.boot_epoch);
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

static void on_resync(const envelope_t *env, const uint8_t *body, size_t len)
{
    auto_err err_t *e = NULL;
    struct resync resync;
    /* Everything up to QUIESCED was read, so nothing can be missing on the other side. */
    bool is_same = session.is_quiesced && link_queued_bytes() == 0;
    if (proto_decode(MSG_resync, &resync, body, len, &e) < 0 || resync.nonce.len != 16)
        return;
    identity_apply(&resync);
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
}

static void on_quiesce(const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)body;
    (void)len;
    envelope_t reply = {.kind = ENVELOPE_KIND_QUIESCED, .sandbox = env->sandbox, .trace = env->trace};
    link_send(&reply, NULL, 0);
    link_set_silent(true);
    session.is_quiesced = true;
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
    envelope_t env = {.kind = ENVELOPE_KIND_NOTICE, .sandbox = session.sandbox};
    if (proto_encode(MSG_notice, &notice, &body, &e) == 0)
        link_send(&env, body.data, body.len);
}
