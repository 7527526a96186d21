// SPDX-License-Identifier: Apache-2.0
/* Messages of a hostile peer to a hub. Byte 0: bit 0 whole, bit 1 a good HELLO came before; then envelope, then body.
 */
// LINK: common/fabric.c common/fabric_pump.c common/fabric_peer.c common/fabric_socket.c common/fabric_curve.c
// LINK: common/curve_cert.c common/crypto.c common/file.c common/log.c common/json_writer.c common/mem.c common/err.c
// LINK: common/buf.c common/text.c common/clock.c
// LINK: proto/envelope.c proto/pack.c proto/proto.c proto/verbs.c
#include "common/fabric_private.h"
#include "common/log.h"
#include "common/mem.h"

#include <unistd.h>

static void on_frame(void *arg, fabric_peer_t *peer, const envelope_t *env, const uint8_t *body, size_t len)
{
    (void)arg;
    fabric_send(peer, env, body, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const fabric_events_t events = {.on_frame = on_frame};
    static const fabric_self_t self = {"gateway", "n", "i"};
    static fabric_t *f;
    static buf_t hello;
    uint8_t head[ENVELOPE_SIZE];
    auto_err err_t *e = NULL;
    char dir[] = "/tmp/fuzz-fabric-XXXXXX";
    if (f == NULL && mkdtemp(dir) != NULL) {
        auto_free char *endpoint = mem_printf("ipc://%s/hub", dir);
        struct hello good = {
            .protocol = FABRIC_PROTOCOL, .version = 1, .role = "x", .node = "n", .instance = "i", .release = "r"};
        log_open("fuzz", LOG_LEVEL_ERROR);
        proto_encode(MSG_hello, &good, &hello, &e);
        f = fabric_bind(event_base_new(), endpoint, &self, NULL, &events, NULL, &e);
        unlink(endpoint + strlen("ipc://"));
        rmdir(dir);
    }
    envelope_encode(&(envelope_t){.kind = ENVELOPE_KIND_HELLO, .offset = 1}, head);
    if (size > 0 && data[0] & 2)
        fabric_handle(
            f, &(fabric_message_t){(const uint8_t *)"id", 2, head, sizeof head, hello.data, hello.len, true, NULL});
    size_t n = size > ENVELOPE_SIZE + 1 ? ENVELOPE_SIZE : size > 0 ? size - 1 : 0;
    if (size > 0)
        fabric_handle(f, &(fabric_message_t){(const uint8_t *)"id", 2, data + 1, n, data + 1 + n, size - 1 - n,
                                             data[0] & 1, NULL});
    fabric_peers_free(f);
    return 0;
}
