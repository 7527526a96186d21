/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/gvisord.h"

#include "common/log.h"
#include "common/mem.h"

#include <stdio.h>

#define STARTUP_GUESS_MS 250
#define IMAGES_MAX 256

struct status_storage {
    struct provider_status status;
    buf_t capabilities, images, warnings, networks;
    char isolation[64];
    char message[1000];
};

void variant_isolation(const runtime_variant_t *v, char *out, size_t size)
{
    if (v->is_crun)
        snprintf(out, size, "crun (no gVisor)");
    else
        snprintf(out, size, "runsc/%s%s", v->platform, v->has_user_namespace ? ", user namespace" : "");
}

static void add_image_name(void *arg, const image_t *image)
{
    struct status_storage *s = arg;
    proto_list_add_str(&s->images, image->name);
    s->status.images.count++;
}

static void add_warning(struct status_storage *s, const char *text)
{
    if (!text || !*text)
        return;
    proto_list_add_str(&s->warnings, text);
    s->status.warnings.count++;
}

static void encode_capabilities(struct status_storage *s, const probe_result_t *r)
{
    buf_reset(&s->networks);
    proto_list_add_str(&s->networks, "none");
    if (r->has_full_network)
        proto_list_add_str(&s->networks, "full");
    struct capabilities c = {.name = r->variant.is_crun ? "crun (no gVisor)" : "gVisor (runsc)",
                             .supports_persistence = true,
                             .supports_snapshots = true,
                             .supports_warm_pool = true,
                             .keeps_processes = r->keeps_processes,
                             .has_reflink = r->has_reflink,
                             .estimated_startup_ms = r->startup_ms ? r->startup_ms : STARTUP_GUESS_MS,
                             .provider_type = "gvisor",
                             .network_modes = proto_list_of(r->has_full_network ? 2 : 1, &s->networks),
                             .isolation = s->isolation};
    auto_err err_t *e = NULL;
    buf_reset(&s->capabilities);
    if (proto_encode(MSG_capabilities, &c, &s->capabilities, &e) < 0)
        log_error("the capabilities cannot be told: %s", err_message(e));
}

void status_refresh(gvisord_t *gv)
{
    if (!gv->status)
        gv->status = mem_alloc(sizeof *gv->status);
    struct status_storage *s = gv->status;
    const probe_result_t *r = probe_result(gv->probe);
    buf_reset(&s->images);
    buf_reset(&s->warnings);
    s->status = (struct provider_status){.name = "gvisor", .type = "gvisor"};
    variant_isolation(&r->variant, s->isolation, sizeof s->isolation);
    if (r->is_running_first)
        s->isolation[0] = '\0';
    image_each(gv->image_dir, add_image_name, s);
    snprintf(s->message, sizeof s->message, "%s", r->message);
    s->status.healthy = r->is_usable;
    s->status.state = !r->is_usable ? "unhealthy" : r->is_degraded ? "degraded" : "healthy";
    if (r->is_usable && r->variant.is_crun)
        add_warning(s, CRUN_WARNING);
    if (r->is_usable && !r->variant.has_loop)
        add_warning(s, r->disk_message);
    if (r->is_usable && !r->has_full_network)
        add_warning(s, r->network_message);
    auto_free char *cgroup_warning = cgroups_warning(&gv->cgroups);
    add_warning(s, cgroup_warning);
    encode_capabilities(s, r);
    s->status.message = s->message[0] ? s->message : NULL;
    s->status.capabilities = (proto_nested_t){.bytes = s->capabilities.data, .len = s->capabilities.len};
    s->status.images = proto_list_of(s->status.images.count, &s->images);
    s->status.warnings = proto_list_of(s->status.warnings.count, &s->warnings);
}

const struct provider_status *status_get(provider_t *p)
{
    gvisord_t *gv = provider_data(p);
    if (!gv->status)
        status_refresh(gv);
    return &gv->status->status;
}

void status_free(gvisord_t *gv)
{
    if (!gv->status)
        return;
    buf_free(&gv->status->capabilities);
    buf_free(&gv->status->images);
    buf_free(&gv->status->warnings);
    buf_free(&gv->status->networks);
    free(gv->status);
    gv->status = NULL;
}

typedef struct image_listing {
    buf_t *storage;
    uint32_t count;
} image_listing_t;

static void add_image(void *arg, const image_t *image)
{
    image_listing_t *listing = arg;
    struct image_info info = {.name = image->name,
                              .digest = image->digest,
                              .size_bytes = image->size_bytes,
                              .created_at_ms = image->created_at_ms,
                              .source = image->source};
    auto_err err_t *e = NULL;
    if (listing->count < IMAGES_MAX && proto_list_add_msg(listing->storage, MSG_image_info, &info, &e) == 0)
        listing->count++;
}

void status_list_images(provider_t *p, struct image_list_reply *reply, buf_t *storage)
{
    const gvisord_t *gv = provider_data(p);
    image_listing_t listing = {.storage = storage};
    image_each(gv->image_dir, add_image, &listing);
    reply->images = proto_list_of(listing.count, storage);
}
