/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"
#include "common/mem.h"
#include "services/gvisord/docker_private.h"

#include <stdio.h>

#define STARTUP_GUESS_MS 700
#define IMAGES_MAX 256
#define DISK_WARNING "disk limit not enforced: Docker's volumes have none, /workspace may fill the Docker daemon's disk"

struct docker_status {
    struct provider_status status;
    buf_t capabilities, images, warnings, networks;
    char isolation[64];
    char message[1000];
};

void docker_isolation(const docker_probe_result_t *r, const docker_t *d, char *out, size_t size)
{
    if (r->is_plain)
        snprintf(out, size, "docker (no gVisor)");
    else
        snprintf(out, size, "docker/%.40s", d->daemon->config.docker_runtime);
}

static void add_image_name(void *arg, const image_t *image)
{
    struct docker_status *s = arg;
    proto_list_add_str(&s->images, image->name);
    s->status.images.count++;
}

static void add_warning(struct docker_status *s, const char *text)
{
    if (!*text)
        return;
    proto_list_add_str(&s->warnings, text);
    s->status.warnings.count++;
}

static void encode_capabilities(struct docker_status *s, const docker_probe_result_t *r)
{
    buf_reset(&s->networks);
    proto_list_add_str(&s->networks, "none");
    if (r->has_full_network)
        proto_list_add_str(&s->networks, "full");
    struct capabilities c = {.name = r->is_plain ? "Docker (no gVisor)" : "Docker (gVisor)",
                             .supports_persistence = true,
                             .supports_snapshots = false,
                             .supports_warm_pool = true,
                             .keeps_processes = false,
                             .estimated_startup_ms = r->startup_ms ? r->startup_ms : STARTUP_GUESS_MS,
                             .provider_type = "gvisor",
                             .network_modes = proto_list_of(r->has_full_network ? 2 : 1, &s->networks),
                             .isolation = s->isolation};
    auto_err err_t *e = NULL;
    buf_reset(&s->capabilities);
    if (proto_encode(MSG_capabilities, &c, &s->capabilities, &e) < 0)
        log_error("the capabilities cannot be told: %s", err_message(e));
}

void docker_status_refresh(docker_t *d)
{
    if (!d->status)
        d->status = mem_alloc(sizeof *d->status);
    struct docker_status *s = d->status;
    const docker_probe_result_t *r = docker_probe_get(d->probe);
    buf_reset(&s->images);
    buf_reset(&s->warnings);
    s->status = (struct provider_status){.name = "gvisor", .type = "gvisor"};
    s->isolation[0] = '\0';
    if (r->is_usable)
        docker_isolation(r, d, s->isolation, sizeof s->isolation);
    image_each(d->daemon->config.image_dir, add_image_name, s);
    size_t i;
    const json_t *image;
    json_array_foreach(d->images, i, image)
    {
        proto_list_add_str(&s->images, json_string_value(image));
        s->status.images.count++;
    }
    snprintf(s->message, sizeof s->message, "%s", r->message);
    s->status.healthy = r->is_usable;
    s->status.state = r->is_usable ? "healthy" : "unhealthy";
    if (r->is_usable) {
        if (r->is_plain)
            add_warning(s, DOCKER_PLAIN_WARNING);
        add_warning(s, DISK_WARNING);
        add_warning(s, r->files_message);
        if (!r->has_full_network)
            add_warning(s, r->network_message);
    }
    encode_capabilities(s, r);
    s->status.message = s->message[0] ? s->message : NULL;
    s->status.capabilities = (proto_nested_t){.bytes = s->capabilities.data, .len = s->capabilities.len};
    s->status.images = proto_list_of(s->status.images.count, &s->images);
    s->status.warnings = proto_list_of(s->status.warnings.count, &s->warnings);
}

const struct provider_status *docker_status_get(provider_t *p)
{
    docker_t *d = provider_data(p);
    if (!d->status)
        docker_status_refresh(d);
    return &d->status->status;
}

void docker_status_free(docker_t *d)
{
    if (!d->status)
        return;
    buf_free(&d->status->capabilities);
    buf_free(&d->status->images);
    buf_free(&d->status->warnings);
    buf_free(&d->status->networks);
    free(d->status);
    d->status = NULL;
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

void docker_list_images(provider_t *p, struct image_list_reply *reply, buf_t *storage)
{
    const docker_t *d = provider_data(p);
    image_listing_t listing = {.storage = storage};
    image_each(d->daemon->config.image_dir, add_image, &listing);
    reply->images = proto_list_of(listing.count, storage);
}
