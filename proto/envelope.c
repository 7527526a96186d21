// SPDX-License-Identifier: Apache-2.0
#include "proto/envelope.h"

#include "common/text.h"

#include <string.h>

static void put_le(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_le(const uint8_t *in, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)in[i] << (8 * i);
    return value;
}

void envelope_encode(const envelope_t *env, uint8_t out[ENVELOPE_SIZE])
{
    out[0] = ENVELOPE_VERSION;
    out[1] = env->kind;
    out[2] = env->flags;
    out[3] = env->channel;
    put_le(out + 4, env->verb, 2);
    put_le(out + 6, 0, 2);
    put_le(out + 8, env->call_id, 8);
    memcpy(out + 16, env->sandbox.bytes, 16);
    memcpy(out + 32, env->trace.bytes, 16);
    put_le(out + 48, env->deadline_ms, 4);
    put_le(out + 52, env->credit, 4);
    put_le(out + 56, env->offset, 8);
}

bool envelope_decode(envelope_t *env, const uint8_t *bytes, size_t len)
{
    if (len != ENVELOPE_SIZE || bytes[0] != ENVELOPE_VERSION || bytes[6] != 0 || bytes[7] != 0)
        return false;
    *env = (envelope_t){
        .kind = bytes[1],
        .flags = bytes[2],
        .channel = bytes[3],
        .verb = (uint16_t)get_le(bytes + 4, 2),
        .call_id = get_le(bytes + 8, 8),
        .deadline_ms = (uint32_t)get_le(bytes + 48, 4),
        .credit = (uint32_t)get_le(bytes + 52, 4),
        .offset = get_le(bytes + 56, 8),
    };
    memcpy(env->sandbox.bytes, bytes + 16, 16);
    memcpy(env->trace.bytes, bytes + 32, 16);
    return env->kind > 0 && env->kind < ENVELOPE_KIND_COUNT && (env->flags & ~ENVELOPE_FLAGS_ALL) == 0 &&
           env->channel < CHANNEL_COUNT;
}

const char *envelope_kind_name(unsigned kind)
{
    static const char *const names[ENVELOPE_KIND_COUNT] = {
#define X(name, number, text, doc) [number] = (text),
        ENVELOPE_KINDS(X)
#undef X
    };
    return kind < ENVELOPE_KIND_COUNT && names[kind] ? names[kind] : "?";
}

long stream_frame_length(const uint8_t *bytes, size_t len, size_t frame_max)
{
    if (len < STREAM_LENGTH_SIZE)
        return 0;
    uint64_t total = get_le(bytes, STREAM_LENGTH_SIZE);
    if (total < STREAM_LENGTH_SIZE + ENVELOPE_SIZE || total > frame_max)
        return -1;
    return len < total ? 0 : (long)total;
}

size_t stream_frame_encode(const envelope_t *env, const void *body, size_t body_len, uint8_t *out)
{
    size_t total = STREAM_LENGTH_SIZE + ENVELOPE_SIZE + body_len;
    put_le(out, total, STREAM_LENGTH_SIZE);
    envelope_encode(env, out + STREAM_LENGTH_SIZE);
    if (body_len > 0)
        memcpy(out + STREAM_LENGTH_SIZE + ENVELOPE_SIZE, body, body_len);
    return total;
}

static bool is_dash_position(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

bool uuid16_parse(uuid16_t *uuid, const char *text)
{
    size_t nibble = 0;
    uuid16_t parsed = {{0}};
    if (strnlen(text, UUID_TEXT_SIZE) != UUID_TEXT_SIZE - 1)
        return false;
    for (size_t i = 0; i < UUID_TEXT_SIZE - 1; i++) {
        if (is_dash_position(i)) {
            if (text[i] != '-')
                return false;
            continue;
        }
        int value = hex_value(text[i]);
        if (value < 0)
            return false;
        parsed.bytes[nibble / 2] |= (uint8_t)(nibble % 2 ? value : value << 4);
        nibble++;
    }
    *uuid = parsed;
    return true;
}

void uuid16_format(const uuid16_t *uuid, char out[UUID_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    size_t nibble = 0;
    for (size_t i = 0; i < UUID_TEXT_SIZE - 1; i++) {
        if (is_dash_position(i)) {
            out[i] = '-';
            continue;
        }
        uint8_t byte = uuid->bytes[nibble / 2];
        out[i] = digits[nibble % 2 ? byte & 15 : byte >> 4];
        nibble++;
    }
    out[UUID_TEXT_SIZE - 1] = '\0';
}

bool uuid16_is_zero(const uuid16_t *uuid)
{
    static const uuid16_t zero;
    return memcmp(uuid, &zero, sizeof zero) == 0;
}
