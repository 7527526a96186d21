// SPDX-License-Identifier: Apache-2.0
// LINK: agent/git_status.c agent/git_guard.c proto/proto.c proto/pack.c common/mem.c common/err.c
// LINK: common/buf.c common/text.c common/clock.c
/* Output that claims to be git's: what is read from it always makes a valid message. The same bytes as a list of
 * drivers. */
#include "agent/git_guard.h"
#include "agent/git_status.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    git_status_lists_t s;
    git_guard_t g = {0};
    err_t *e = NULL;
    struct git_status again;
    auto_buf buf_t encoded;
    buf_init(&encoded, 0);
    git_status_parse(&s, data ? data : (const uint8_t *)"", size);
    if (proto_encode(MSG_git_status, &s.msg, &encoded, &e) != 0 ||
        proto_decode(MSG_git_status, &again, encoded.data, encoded.len, &e) != 0)
        abort();
    git_status_free(&s);
    (void)git_guard_answer(&g, data ? data : (const uint8_t *)"", size, size % 2, &e);
    git_guard_free(&g);
    err_free(&e);
    return 0;
}
