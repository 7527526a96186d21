/* SPDX-License-Identifier: Apache-2.0
 *
 * An agent is told its environment before any call reaches it, not by the runtime: that would stay in the memory of
 * whatever is copied from it. One that comes from the memory of another sandbox also hears that the calls it remembers
 * are not its own.
 */
#include "common/provider/kit.h"

#include "common/mem.h"

static void configure_end(kit_sandbox_t *ks, const err_t *err)
{
    kit_configured_fn fn = STEAL_PTR(ks->on_configured);
    kit_configure_stop(ks);
    if (fn)
        fn(ks, err);
}

static void on_answer(kit_sandbox_t *ks, void *arg, const uint8_t *body, size_t len, bool is_error)
{
    (void)arg;
    struct error msg;
    auto_err err_t *e = NULL, *bad = NULL;
    if (is_error && proto_decode(MSG_error, &msg, body, len, &bad) == 0)
        err_set(&e, ERR_SANDBOX_FAILED, "the agent cannot be configured: %s", msg.message);
    else if (is_error)
        err_set(&e, ERR_SANDBOX_FAILED, "the agent cannot be configured: its error is malformed");
    configure_end(ks, e);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    auto_err err_t *e = NULL;
    err_set(&e, ERR_SANDBOX_FAILED, "the agent did not take its configuration within %d ms", KIT_CONFIGURE_MS);
    configure_end(arg, e);
}

void kit_configure_stop(kit_sandbox_t *ks)
{
    ks->on_configured = NULL;
    if (ks->configure_timer)
        event_free(ks->configure_timer);
    ks->configure_timer = NULL;
}

void kit_configure_lost(kit_sandbox_t *ks, const char *reason)
{
    auto_err err_t *e = NULL;
    err_set(&e, ERR_SANDBOX_FAILED, "%s", reason);
    configure_end(ks, e);
}

void kit_configure(kit_sandbox_t *ks, bool is_new, kit_configured_fn fn)
{
    if (!is_new && json_object_size(ks->pub.spec.env) == 0) {
        fn(ks, NULL);
        return;
    }
    auto_buf buf_t list = {0}, body = {0};
    auto_err err_t *e = NULL;
    uint32_t count = 0;
    const char *key;
    json_t *value;
    json_object_foreach(ks->pub.spec.env, key, value)
    {
        proto_list_add_str(&list, key);
        proto_list_add_str(&list, json_string_value(value));
        count++;
    }
    struct agent_configure_request request = {
        .env = proto_list_of(count, &list), .has.env = true, .is_new = is_new, .has.is_new = true};
    ks->on_configured = fn;
    if (proto_encode(MSG_agent_configure_request, &request, &body, &e) < 0) {
        configure_end(ks, e);
        return;
    }
    if (!kit_relay_call(ks, VERB_agent_configure, body.data, body.len, on_answer, NULL)) {
        err_set(&e, ERR_SANDBOX_FAILED, "the agent does not take its configuration");
        configure_end(ks, e);
        return;
    }
    struct timeval wait = {.tv_sec = KIT_CONFIGURE_MS / 1000};
    ks->configure_timer = evtimer_new(ks->pub.provider->daemon->base, on_timer, ks);
    evtimer_add(ks->configure_timer, &wait);
}
