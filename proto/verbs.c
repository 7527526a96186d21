// SPDX-License-Identifier: Apache-2.0
#include "proto/verbs.h"

#include "common/mem.h"

static const verb_row_t rows[] = {
#define X(number, name, target, request, reply, flags, doc) \
    {(number), #name, VERB_TARGET_##target, MSG_##request, MSG_##reply, (flags), (doc)},
    PROTO_VERBS(X)
#undef X
};

const verb_row_t *verb_row_at(size_t i)
{
    return i < COUNT_OF(rows) ? &rows[i] : NULL;
}

const verb_row_t *verb_row(unsigned number)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (rows[i].number == number)
            return &rows[i];
    return NULL;
}
