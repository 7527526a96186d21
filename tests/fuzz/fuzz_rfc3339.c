// SPDX-License-Identifier: Apache-2.0
// LINK: services/gateway/workspace_time.c common/mem.c
/* Times of the REST API: what parses is written and parsed again to the same instant. */
#include "services/gateway/workspace_time.h"

#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    auto_free char *text = mem_strndup((const char *)data, len);
    int64_t first, second;
    char again[RFC3339_SIZE];
    if (!rfc3339_parse(text, &first) || first < 0)
        return 0;
    if (rfc3339_parse(rfc3339_format(first, again), &second) && second != first)
        abort();
    return 0;
}
