/* SPDX-License-Identifier: Apache-2.0
 *
 * Every cell of the table of transitions.
 */
// LINK: services/gateway/workspace_states.c
#include "services/gateway/workspaces_internal.h"

#include "common/mem.h"

#include <criterion/criterion.h>

/* Rows: creating, ready, stopping, stopped, error. Columns: no intent, stop, resume, destroy.
 * A allowed, J joins, D done already, - refused, W joins what was stopped for want of use and is refused otherwise. */
static const char *const EXPECTED[WORKSPACE_OPERATION_COUNT][WORKSPACE_STATUS_COUNT] = {
    [OPERATION_STOP] = {"-J--", "AJ--", "-J--", "DJ--", "-J--"},
    [OPERATION_RESUME] = {"--J-", "D-J-", "--J-", "A-J-", "A-J-"},
    [OPERATION_ATTACH] = {"-W--", "AW--", "-W--", "AWJ-", "-W--"},
    [OPERATION_DETACH] = {"AAA-", "AAA-", "AAA-", "AAA-", "AAA-"},
    [OPERATION_SNAPSHOT] = {"----", "A---", "----", "A---", "----"},
    [OPERATION_FORK] = {"----", "A---", "----", "A---", "----"},
    [OPERATION_TOOL] = {"-W--", "AW--", "-W--", "WWW-", "-W--"},
    [OPERATION_PATCH] = {"AAA-", "AAA-", "AAA-", "AAA-", "AAA-"},
    [OPERATION_DELETE] = {"AAAJ", "AAAJ", "AAAJ", "AAAJ", "AAAJ"},
};

static enum workspace_verdict meaning(char cell, bool is_idle)
{
    return cell == 'A'                               ? VERDICT_ALLOWED
           : cell == 'J' || (cell == 'W' && is_idle) ? VERDICT_JOINS
           : cell == 'D'                             ? VERDICT_DONE
                                                     : VERDICT_REFUSED;
}

static void check_cell(enum workspace_operation operation, unsigned status, unsigned intent, const char *reason)
{
    auto_err err_t *e = NULL;
    workspace_row_t row = {.status = (enum workspace_status)status,
                           .intent = (enum workspace_intent)intent,
                           .stop_reason = (char *)(uintptr_t)reason};
    bool is_idle = reason != NULL && strcmp(reason, "user") != 0;
    enum workspace_verdict expected = meaning(EXPECTED[operation][status][intent], is_idle);
    enum workspace_verdict verdict = workspace_judge(&row, operation, &e);
    cr_assert_eq(verdict, expected, "operation %d, status %s, intent '%s', stopped by %s: %d", (int)operation,
                 workspace_status_name(row.status), workspace_intent_name(row.intent), reason ? reason : "nobody",
                 (int)verdict);
    cr_assert_eq(e != NULL, verdict == VERDICT_REFUSED);
    if (e == NULL)
        return;
    bool is_ending = row.intent == INTENT_STOP || row.intent == INTENT_DESTROY;
    const char *shown = is_ending ? "stopping" : workspace_status_name(row.status);
    cr_assert_eq(err_code(e), operation == OPERATION_TOOL ? ERR_BAD_REQUEST : ERR_CONFLICT);
    cr_assert_not_null(strstr(err_message(e), shown), "%s does not name %s", err_message(e), shown);
}

Test(workspace_states, every_cell_is_as_the_matrix_says)
{
    static const char *const REASONS[] = {NULL, "user", "idle", "daemon"};
    for (unsigned operation = 0; operation < WORKSPACE_OPERATION_COUNT; operation++)
        for (unsigned status = 0; status < WORKSPACE_STATUS_COUNT; status++)
            for (unsigned intent = 0; intent < WORKSPACE_INTENT_COUNT; intent++)
                for (size_t i = 0; i < COUNT_OF(REASONS); i++)
                    check_cell((enum workspace_operation)operation, status, intent, REASONS[i]);
}

Test(workspace_states, the_texts_of_the_contract_stay)
{
    static const struct {
        enum workspace_operation operation;
        enum workspace_status status;
        const char *text;
    } rows[] = {
        {OPERATION_TOOL, WORKSPACE_CREATING, "workspace is not ready (current status: creating)"},
        {OPERATION_TOOL, WORKSPACE_STOPPED, "workspace is not ready (current status: stopped)"},
        {OPERATION_ATTACH, WORKSPACE_ERROR, "workspace is in error state; cannot attach"},
        {OPERATION_SNAPSHOT, WORKSPACE_CREATING,
         "workspace must be in ready or stopped state for snapshot; current state: creating"},
        {OPERATION_STOP, WORKSPACE_ERROR,
         "workspace is in error state; cannot stop: resume starts it from its files, delete removes it"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        auto_err err_t *e = NULL;
        workspace_row_t row = {.status = rows[i].status};
        cr_assert_eq(workspace_judge(&row, rows[i].operation, &e), VERDICT_REFUSED);
        cr_assert_str_eq(err_message(e), rows[i].text);
    }
}

Test(workspace_states, names_come_back_as_what_they_name)
{
    enum workspace_status status;
    enum workspace_intent intent;
    for (unsigned i = 0; i < WORKSPACE_STATUS_COUNT; i++)
        cr_assert(workspace_status_parse(workspace_status_name((enum workspace_status)i), &status) && status == i);
    for (unsigned i = 0; i < WORKSPACE_INTENT_COUNT; i++)
        cr_assert(workspace_intent_parse(workspace_intent_name((enum workspace_intent)i), &intent) && intent == i);
    cr_assert(!workspace_status_parse("bogus", &status) && !workspace_intent_parse("bogus", &intent));
}
