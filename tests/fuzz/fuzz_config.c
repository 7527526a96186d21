// SPDX-License-Identifier: Apache-2.0
/* The text of a configuration file; what is accepted is printed, too. */
// LINK: common/config.c common/config_reference.c common/file.c common/text.c common/buf.c common/err.c common/mem.c
#include "common/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    config_t config;
    auto_err err_t *e = NULL;
    auto_buf buf_t out = {0};
    if (config_load_text(&config, CONFIG_ALL, "fuzz.conf", (const char *)data, size, &e) != 0)
        return 0;
    config_print(&config, CONFIG_ALL, &out);
    config_free(&config);
    return 0;
}
