/* SPDX-License-Identifier: Apache-2.0 */
// LINK: tests/unit/kit_world.c tests/unit/fake_vtable.c
/* SIGUSR2: everything is stopped with its processes, nothing new begins, the daemon ends. */
#include "common/clock.h"
#include "common/mem.h"
#include "common/provider/kit.h"
#include "tests/unit/kit_world.h"

#include <criterion/criterion.h>
#include <signal.h>

/* Until it would end; in the test's loop daemon_stop() only breaks the turn. */
static void drain(kit_world_t *w)
{
    uint64_t until = clock_monotonic_ms() + KIT_WORLD_WAIT_MS;
    raise(SIGUSR2);
    while (!w->provider->is_drained) {
        cr_assert_lt(clock_monotonic_ms(), until, "the drain does not end");
        kit_world_run(w, 10);
    }
}

Test(provider_drain, what_runs_is_stopped_and_goes_on_later, .timeout = 60)
{
    kit_world_t w;
    uuid16_t ids[6];
    kit_world_open(&w, &fake_ops);
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        kit_world_create(&w, &ids[i]);
    kit_world_bash(&w, &ids[0], "sleep 300 & echo $! > pid");
    kit_world_stop(&w, &ids[5], false);
    drain(&w);
    cr_expect_not(w.fake.is_clumsy);
    for (size_t i = 0; i < COUNT_OF(ids); i++) {
        cr_expect_str_eq(kit_world_state(&w, &ids[i]), "stopped", "%zu", i);
        cr_expect(kit_world_sandbox(&w, &ids[i])->has_processes);
    }
    struct sandbox_create_request request;
    uuid16_t fresh;
    random_bytes(&fresh, sizeof fresh);
    kit_world_create_request(&request);
    kit_world_refused(&w, VERB_sandbox_create, &fresh, MSG_sandbox_create_request, &request, ERR_PROVIDER_UNAVAILABLE);
    kit_world_crash(&w);
    kit_world_start(&w);
    kit_world_resume(&w, &ids[0]);
    cr_expect_str_eq(kit_world_bash(&w, &ids[0], "kill -0 $(cat pid) && echo alive"), "alive\n");
    kit_world_close(&w);
}

Test(provider_drain, what_cannot_be_stopped_does_not_hold_it_up, .timeout = 60)
{
    kit_world_t w;
    uuid16_t ids[2];
    kit_world_open(&w, &fake_ops);
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        kit_world_create(&w, &ids[i]);
    w.fake.modes[FAKE_STOP] = FAKE_FAIL;
    drain(&w);
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        cr_expect_str_eq(kit_world_state(&w, &ids[i]), "ready", "%zu", i);
    cr_expect_eq(w.fake.calls[FAKE_STOP], 2, "each is tried once");
    w.fake.modes[FAKE_STOP] = FAKE_RUN;
    kit_world_close(&w);
}

Test(provider_drain, an_empty_daemon_ends_at_once, .timeout = 60)
{
    kit_world_t w;
    kit_world_open(&w, &fake_ops);
    drain(&w);
    kit_world_close(&w);
}
