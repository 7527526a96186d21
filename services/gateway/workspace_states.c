// SPDX-License-Identifier: Apache-2.0
/* The one table of what may be asked of a workspace when. The first row that fits decides; where nothing fits the
 * operation is refused. */
#include "services/gateway/workspaces_internal.h"

#define ANY (-1)
#define VERDICT_WAKES (-1) /* joins, unless the user stopped it: then refused */

static const char *const STATUS_NAMES[WORKSPACE_STATUS_COUNT] = {"creating", "ready", "stopping", "stopped", "error"};
static const char *const INTENT_NAMES[WORKSPACE_INTENT_COUNT] = {"", "stop", "resume", "destroy"};

/* A refusal reads <before><state><after><advice of the row>. */
static const struct operation_row {
    enum err_code code;
    const char *before, *after;
} OPERATIONS[WORKSPACE_OPERATION_COUNT] = {
    [OPERATION_STOP] = {ERR_CONFLICT, "workspace is in ", " state; cannot stop: "},
    [OPERATION_RESUME] = {ERR_CONFLICT, "workspace is in ", " state; cannot resume: "},
    [OPERATION_ATTACH] = {ERR_CONFLICT, "workspace is in ", " state; cannot attach"},
    [OPERATION_DETACH] = {ERR_CONFLICT, "workspace is in ", " state; cannot detach: "},
    [OPERATION_SNAPSHOT] = {ERR_CONFLICT,
                            "workspace must be in ready or stopped state for snapshot; current state: ", ""},
    [OPERATION_FORK] = {ERR_CONFLICT, "workspace must be in ready or stopped state for fork; current state: ", ""},
    [OPERATION_TOOL] = {ERR_BAD_REQUEST, "workspace is not ready (current status: ", ")"},
    [OPERATION_PATCH] = {ERR_CONFLICT, "workspace is in ", " state; cannot be changed: "},
    [OPERATION_DELETE] = {ERR_CONFLICT, "workspace is in ", " state; cannot be deleted: "},
};

#define DESTROYED "it is being destroyed; create another one"
#define CREATED "wait until it is ready, or delete it"

static const struct transition_row {
    enum workspace_operation operation;
    int status, intent, verdict;
    const char *advice;
} TRANSITIONS[] = {
    {OPERATION_STOP, ANY, INTENT_DESTROY, VERDICT_REFUSED, DESTROYED},
    {OPERATION_STOP, ANY, INTENT_STOP, VERDICT_JOINS, NULL},
    {OPERATION_STOP, ANY, INTENT_RESUME, VERDICT_REFUSED, "it is being resumed; stop it when it is ready"},
    {OPERATION_STOP, WORKSPACE_READY, INTENT_NONE, VERDICT_ALLOWED, NULL},
    {OPERATION_STOP, WORKSPACE_STOPPED, INTENT_NONE, VERDICT_DONE, NULL},
    {OPERATION_STOP, WORKSPACE_CREATING, INTENT_NONE, VERDICT_REFUSED, CREATED},
    {OPERATION_STOP, WORKSPACE_ERROR, INTENT_NONE, VERDICT_REFUSED,
     "resume starts it from its files, delete removes it"},

    {OPERATION_RESUME, ANY, INTENT_DESTROY, VERDICT_REFUSED, DESTROYED},
    {OPERATION_RESUME, ANY, INTENT_RESUME, VERDICT_JOINS, NULL},
    {OPERATION_RESUME, ANY, INTENT_STOP, VERDICT_REFUSED, "it is being stopped; resume it when it is stopped"},
    {OPERATION_RESUME, WORKSPACE_READY, INTENT_NONE, VERDICT_DONE, NULL},
    {OPERATION_RESUME, WORKSPACE_STOPPED, INTENT_NONE, VERDICT_ALLOWED, NULL},
    {OPERATION_RESUME, WORKSPACE_ERROR, INTENT_NONE, VERDICT_ALLOWED, NULL},
    {OPERATION_RESUME, WORKSPACE_CREATING, INTENT_NONE, VERDICT_REFUSED, CREATED},

    {OPERATION_ATTACH, ANY, INTENT_DESTROY, VERDICT_REFUSED, NULL},
    {OPERATION_ATTACH, ANY, INTENT_STOP, VERDICT_WAKES, NULL},
    {OPERATION_ATTACH, WORKSPACE_READY, INTENT_NONE, VERDICT_ALLOWED, NULL},
    {OPERATION_ATTACH, WORKSPACE_STOPPED, INTENT_NONE, VERDICT_ALLOWED, NULL},
    {OPERATION_ATTACH, WORKSPACE_STOPPED, INTENT_RESUME, VERDICT_JOINS, NULL},

    {OPERATION_DETACH, ANY, INTENT_DESTROY, VERDICT_REFUSED, "it is being destroyed, which ends its session too"},
    {OPERATION_DETACH, ANY, ANY, VERDICT_ALLOWED, NULL},

    {OPERATION_SNAPSHOT, WORKSPACE_READY, INTENT_NONE, VERDICT_ALLOWED, NULL},
    {OPERATION_SNAPSHOT, WORKSPACE_STOPPED, INTENT_NONE, VERDICT_ALLOWED, NULL},
    {OPERATION_FORK, WORKSPACE_READY, INTENT_NONE, VERDICT_ALLOWED, NULL},
    {OPERATION_FORK, WORKSPACE_STOPPED, INTENT_NONE, VERDICT_ALLOWED, NULL},

    {OPERATION_TOOL, WORKSPACE_READY, INTENT_NONE, VERDICT_ALLOWED, NULL},
    {OPERATION_TOOL, ANY, INTENT_STOP, VERDICT_WAKES, NULL},
    {OPERATION_TOOL, WORKSPACE_STOPPED, INTENT_NONE, VERDICT_WAKES, NULL},
    {OPERATION_TOOL, WORKSPACE_STOPPED, INTENT_RESUME, VERDICT_WAKES, NULL},

    {OPERATION_PATCH, ANY, INTENT_DESTROY, VERDICT_REFUSED, DESTROYED},
    {OPERATION_PATCH, ANY, ANY, VERDICT_ALLOWED, NULL},

    {OPERATION_DELETE, ANY, INTENT_DESTROY, VERDICT_JOINS, NULL},
    {OPERATION_DELETE, ANY, ANY, VERDICT_ALLOWED, NULL},
};

const char *workspace_status_name(enum workspace_status status)
{
    return STATUS_NAMES[status];
}

static bool name_index(const char *const *names, size_t count, const char *text, unsigned *index)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], text) == 0) {
            *index = (unsigned)i;
            return true;
        }
    return false;
}

bool workspace_status_parse(const char *text, enum workspace_status *status)
{
    unsigned i = 0;
    bool is_known = name_index(STATUS_NAMES, WORKSPACE_STATUS_COUNT, text, &i);
    *status = (enum workspace_status)i;
    return is_known;
}

const char *workspace_intent_name(enum workspace_intent intent)
{
    return INTENT_NAMES[intent];
}

bool workspace_intent_parse(const char *text, enum workspace_intent *intent)
{
    unsigned i = 0;
    bool is_known = name_index(INTENT_NAMES, WORKSPACE_INTENT_COUNT, text, &i);
    *intent = (enum workspace_intent)i;
    return is_known;
}

static const struct transition_row *find_row(const workspace_row_t *row, enum workspace_operation operation)
{
    for (size_t i = 0; i < sizeof(TRANSITIONS) / sizeof(TRANSITIONS[0]); i++) {
        const struct transition_row *t = &TRANSITIONS[i];
        if (t->operation == operation && (t->status == ANY || t->status == (int)row->status) &&
            (t->intent == ANY || t->intent == (int)row->intent))
            return t;
    }
    return NULL;
}

/* As it is going to be shown: a decision counts before it is on disk. */
static const char *state_of(const workspace_row_t *row)
{
    bool is_ending = row->intent == INTENT_STOP || row->intent == INTENT_DESTROY;
    return STATUS_NAMES[is_ending ? WORKSPACE_STOPPING : row->status];
}

enum workspace_verdict workspace_judge(const workspace_row_t *row, enum workspace_operation operation, err_t **e)
{
    const struct transition_row *t = find_row(row, operation);
    bool is_users = row->stop_reason == NULL || strcmp(row->stop_reason, "user") == 0;
    int verdict = t == NULL ? VERDICT_REFUSED : t->verdict;
    if (verdict == VERDICT_WAKES)
        verdict = is_users ? VERDICT_REFUSED : VERDICT_JOINS;
    if (verdict == VERDICT_REFUSED) {
        const struct operation_row *o = &OPERATIONS[operation];
        err_set(e, o->code, "%s%s%s%s", o->before, state_of(row), o->after,
                t == NULL || t->advice == NULL ? "" : t->advice);
    }
    return (enum workspace_verdict)verdict;
}

enum workspace_admission workspaces_admit(const workspace_row_t *ws, err_t **e)
{
    switch (workspace_judge(ws, OPERATION_TOOL, e)) {
    case VERDICT_ALLOWED:
        return WORKSPACE_RUNS;
    case VERDICT_JOINS:
        return WORKSPACE_WAKES;
    case VERDICT_DONE:
    case VERDICT_REFUSED:
        break;
    }
    return WORKSPACE_REFUSED;
}
