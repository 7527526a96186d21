/* SPDX-License-Identifier: Apache-2.0
 *
 * A provider's vtable for tests of the kit: a sandbox is a real agent, run as an ordinary process over two FIFOs in the
 * sandbox's directory; "kept processes" are an agent that is stopped by SIGSTOP. Each function can be made to fail or
 * to wait, before its work or after it. What it knows of a sandbox stands in private_, as with a real provider, so the
 * kit may be destroyed and started again at any moment.
 */
#ifndef EW_TESTS_UNIT_FAKE_VTABLE_H
#define EW_TESTS_UNIT_FAKE_VTABLE_H

#include "common/provider/provider.h"

enum fake_op { FAKE_CREATE, FAKE_DESTROY, FAKE_STOP, FAKE_RESUME, FAKE_SNAPSHOT, FAKE_CREATE_FROM, FAKE_OP_COUNT };
enum fake_mode {
    FAKE_RUN,
    FAKE_WAIT_BEFORE, /* nothing is done yet */
    FAKE_WAIT_AFTER,  /* all is done, but `done` is not called */
    FAKE_FAIL,        /* nothing is done; error */
    FAKE_FAIL_DEAD,   /* the sandbox ends, error */
    FAKE_MUTE         /* create, resume: an agent that never answers */
};

typedef struct fake {
    enum fake_mode modes[FAKE_OP_COUNT];
    unsigned calls[FAKE_OP_COUNT];
    unsigned running; /* functions that have not called done */
    bool was_kept;    /* what the last stop was asked for */
    bool runs_on;     /* snapshot: tells so before it ends */
    bool is_unhealthy;
    bool is_clumsy; /* two functions ran at once for one sandbox */
    struct provider_status status;
} fake_t;

extern const provider_ops_t fake_ops;
/* A vtable without stop, resume and snapshots. */
extern const provider_ops_t fake_ops_small;

#endif
