/* SPDX-License-Identifier: Apache-2.0
 *
 * The one table of states. A row says what the state is called, what may begin in it, what a call is told, and what a
 * restarted daemon does with a sandbox that it finds in it.
 */
#include "common/provider/kit.h"

#include "common/mem.h"

static void adopt_or(kit_sandbox_t *ks, void (*otherwise)(kit_sandbox_t *ks));

static void start_ready(kit_sandbox_t *ks)
{
    kit_adopt_ready(ks);
}

static void start_stopping(kit_sandbox_t *ks)
{
    adopt_or(ks, kit_stop_finish);
}

static void start_resuming(kit_sandbox_t *ks)
{
    adopt_or(ks, ks->restart_reason ? kit_restart_queue : kit_resume_undo);
}

typedef struct state_row {
    const char *name;
    enum kit_answer on[KIT_WANT_COUNT];
    enum err_code call_code;
    const char *call_text;
    bool tells_reason;
    void (*start)(kit_sandbox_t *ks); /* NULL: it stays as it is */
} state_row_t;

static const state_row_t STATES[] = {
    [SANDBOX_CREATING] = {.name = "creating",
                          .on = {[KIT_WANT_CREATE] = KIT_JOIN},
                          .call_code = ERR_CONFLICT,
                          .call_text = "is not ready, it is creating",
                          .start = kit_destroy},
    [SANDBOX_READY] = {.name = "ready",
                       .on = {[KIT_WANT_CREATE] = KIT_DONE,
                              [KIT_WANT_STOP] = KIT_BEGIN,
                              [KIT_WANT_RESUME] = KIT_DONE,
                              [KIT_WANT_SNAPSHOT] = KIT_BEGIN},
                       .call_code = ERR_PROVIDER_UNAVAILABLE,
                       .call_text = "is ready but its agent is still being adopted; try again",
                       .start = start_ready},
    [SANDBOX_STOPPING] = {.name = "stopping",
                          .on = {[KIT_WANT_STOP] = KIT_JOIN},
                          .call_code = ERR_CONFLICT,
                          .call_text = "is being stopped; try again when it is resumed",
                          .start = start_stopping},
    [SANDBOX_STOPPED] =
        {.name = "stopped",
         .on = {[KIT_WANT_STOP] = KIT_DONE, [KIT_WANT_RESUME] = KIT_BEGIN, [KIT_WANT_SNAPSHOT] = KIT_BEGIN},
         .call_code = ERR_CONFLICT,
         .call_text = "is stopped; resume it first"},
    [SANDBOX_RESUMING] = {.name = "resuming",
                          .on = {[KIT_WANT_RESUME] = KIT_JOIN},
                          .call_code = ERR_PROVIDER_UNAVAILABLE,
                          .call_text = "is being resumed; try again",
                          .start = start_resuming},
    [SANDBOX_DEAD] = {.name = "dead",
                      .on = {[KIT_WANT_STOP] = KIT_BEGIN, [KIT_WANT_RESUME] = KIT_BEGIN},
                      .call_code = ERR_SANDBOX_FAILED,
                      .call_text = "has ended",
                      .tells_reason = true},
    [SANDBOX_WARM] = {.name = "warm", .call_code = ERR_CONFLICT, .call_text = "is nobody's yet", .start = kit_destroy},
    [SANDBOX_DESTROYING] = {.name = "destroying",
                            .call_code = ERR_CONFLICT,
                            .call_text = "is not ready, it is destroying",
                            .start = kit_destroy},
};

static const char *const WANTS[KIT_WANT_COUNT] = {[KIT_WANT_CREATE] = "created",
                                                  [KIT_WANT_STOP] = "stopped",
                                                  [KIT_WANT_RESUME] = "resumed",
                                                  [KIT_WANT_SNAPSHOT] = "copied to a snapshot"};

const char *kit_state_name(enum sandbox_state state)
{
    return STATES[state].name;
}

bool kit_state_parse(const char *name, enum sandbox_state *state)
{
    for (unsigned i = 0; i < COUNT_OF(STATES); i++)
        if (strcmp(STATES[i].name, name) == 0) {
            *state = (enum sandbox_state)i;
            return true;
        }
    return false;
}

enum kit_answer kit_answer(const kit_sandbox_t *ks, enum kit_want want, err_t **e)
{
    /* In its last seconds it is ready still, but nothing new begins. */
    bool is_going = ks->grace_timer && want != KIT_WANT_CREATE;
    const state_row_t *row = &STATES[is_going ? SANDBOX_DESTROYING : ks->pub.state];
    enum kit_answer answer = row->on[want];
    if (answer == KIT_BEGIN && ks->snapshot) {
        err_set(e, ERR_CONFLICT, "sandbox '%s' cannot be %s while snapshot '%s' of it is being taken", ks->pub.id_text,
                WANTS[want], ks->snapshot->pub.id_text);
        return KIT_REFUSE;
    }
    if (answer == KIT_BEGIN && ks->is_adopting) {
        err_set(e, ERR_PROVIDER_UNAVAILABLE, "sandbox '%s' is still being adopted; try again", ks->pub.id_text);
        return KIT_REFUSE;
    }
    if (answer == KIT_REFUSE && want == KIT_WANT_CREATE)
        err_set(e, ERR_CONFLICT, "sandbox '%s' exists and is %s", ks->pub.id_text, row->name);
    else if (answer == KIT_REFUSE)
        err_set(e, ERR_CONFLICT, "sandbox '%s' cannot be %s now, it is %s", ks->pub.id_text, WANTS[want], row->name);
    return answer;
}

void kit_refuse_call(const kit_sandbox_t *ks, kit_peer_t *kp, const envelope_t *env)
{
    const state_row_t *row = &STATES[ks->pub.state];
    if (ks->pub.state == SANDBOX_RESUMING && ks->restart_reason)
        kit_send_error_code(kp, env, row->call_code, "sandbox '%s' is being restarted after it ended: %s; try again",
                            ks->pub.id_text, ks->restart_reason);
    else if (row->tells_reason)
        kit_send_error_code(kp, env, row->call_code, "sandbox '%s' %s: %s", ks->pub.id_text, row->call_text,
                            ks->pub.reason ? ks->pub.reason : "reason unknown");
    else
        kit_send_error_code(kp, env, row->call_code, "sandbox '%s' %s", ks->pub.id_text, row->call_text);
}

/* ---- after a restart of the daemon ---- */

/* What was going on when the daemon ended: what still runs is ready again, as if nothing had been asked. */
static void adopt_or(kit_sandbox_t *ks, void (*otherwise)(kit_sandbox_t *ks))
{
    auto_err err_t *e = NULL;
    if (ks->pub.provider->ops->adopt(&ks->pub, &e) == 0) {
        kit_resume_adopted(ks);
        return;
    }
    kit_log(ks, LOG_LEVEL_INFO, kit_state_name(ks->pub.state), err_message(e));
    otherwise(ks);
}

void kit_start(kit_sandbox_t *ks)
{
    if (STATES[ks->pub.state].start)
        STATES[ks->pub.state].start(ks);
}
