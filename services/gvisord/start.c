/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/start.h"

#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/text.h"

#include <dirent.h>
#include <openssl/sha.h>
#include <stdio.h>

/* The tag keeps several suites on one host apart; the same state directory always gives the same one. */
static void make_tag(gvisord_t *gv)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    char digits[NETWORK_TAG_SIZE];
    SHA256((const unsigned char *)gv->daemon.state_dir, strlen(gv->daemon.state_dir), digest);
    hex_encode(digits, digest, (NETWORK_TAG_SIZE - 1) / 2);
    memcpy(gv->tag, digits, sizeof gv->tag);
    gv->group_tag = mem_printf("gvisord-%s", gv->tag);
}

static int check_paths(const gvisord_t *gv, err_t **e)
{
    const char *paths[] = {gv->daemon.state_dir, gv->image_dir};
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        if (paths[i][strcspn(paths[i], ":,\\ \"")])
            return err_set(e, ERR_BAD_REQUEST,
                           "the path %s cannot be used: mount options cannot hold : , \\ \" or spaces", paths[i]);
    return 0;
}

static bool has_sandboxes(const daemon_t *d)
{
    auto_free char *path = mem_printf("%s/sandboxes", d->state_dir);
    DIR *dir = opendir(path);
    bool is_any = false;
    for (struct dirent *entry; dir != NULL && !is_any && (entry = readdir(dir)) != NULL;)
        is_any = entry->d_name[0] != '.';
    if (dir != NULL)
        closedir(dir);
    return is_any;
}

/* The cgroup that sandboxes live below, kept in the state directory: sandboxes outlive the daemon, and one that is
 * started with another EW_CGROUP_PARENT would not find the processes it has to end. Caller frees. */
static char *cgroup_parent(const daemon_t *d, err_t **e)
{
    auto_free char *path = mem_printf("%s/cgroup-parent", d->state_dir);
    const char *wanted = d->config.cgroup_parent;
    auto_buf buf_t kept = {0};
    auto_err err_t *none = NULL;
    if (has_sandboxes(d) && file_read(path, 4096, &kept, &none) == 0 && strcmp(buf_cstr(&kept), wanted) != 0) {
        log_warn(
            "EW_CGROUP_PARENT is now %s, but sandboxes live below %s: that stays in force until the last is gone and "
            "gvisord is started again",
            wanted, buf_cstr(&kept));
        return buf_steal(&kept);
    }
    return file_write_atomic(path, wanted, strlen(wanted), 0600, e) < 0 ? NULL : mem_strdup(wanted);
}

int start_prepare(gvisord_t *gv, err_t **e)
{
    const daemon_t *d = &gv->daemon;
    auto_err err_t *why = NULL;
    make_tag(gv);
    gv->runtime_root = mem_printf("%s/runtime", d->state_dir);
    gv->template_dir = mem_printf("%s/disks", d->state_dir);
    gv->probe_dir = mem_printf("%s/probe", d->state_dir);
    gv->image_dir = mem_strdup(d->config.image_dir);
    gv->resolv_conf = network_resolv_conf(NULL);
    if (check_paths(gv, e) < 0 || network_pool_parse(&gv->pool, d->config.network_pool, e) < 0)
        return -1;
    if (dir_make(gv->runtime_root, 0700, e) < 0 || dir_make(gv->probe_dir, 0700, e) < 0 ||
        dir_make(gv->image_dir, 0700, e) < 0)
        return -1;
    if (worker_wait_for_old(d->state_dir, e) < 0)
        return -1;
    auto_free char *parent = cgroup_parent(d, e);
    if (parent == NULL)
        return -1;
    if (cgroups_detect(&gv->cgroups, NULL, parent, gv->group_tag, &why) < 0) {
        gv->cgroup_error = mem_strdup(err_message(why));
        err_free(&why);
    }
    gv->agent_layer = agent_layer_make(d->state_dir, &why);
    if (!gv->agent_layer)
        gv->agent_error = mem_strdup(err_message(why));
    jobs_init(gv);
    gv->worker = worker_start(d->state_dir, e);
    return gv->worker ? 0 : -1;
}

void start_leave(gvisord_t *gv)
{
    auto_err err_t *e = NULL;
    if (!gv->provider)
        return;
    for (sandbox_t *s = NULL; (s = provider_sandbox_next(gv->provider, s));)
        if (json_object_get(s->private_, "slot"))
            return;
    if ((gv->has_rules || probe_result(gv->probe)->has_full_network) && network_rules_remove(gv->tag, &e) < 0)
        log_warn("the firewall rules stay: %s", err_message(e));
    cgroups_remove_empty(&gv->cgroups);
}

void start_free(gvisord_t *gv)
{
    status_free(gv);
    cgroups_free(&gv->cgroups);
    char *texts[] = {gv->group_tag,   gv->runtime_root, gv->template_dir, gv->image_dir,   gv->probe_dir,
                     gv->agent_layer, gv->agent_error,  gv->resolv_conf,  gv->cgroup_error};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        free(texts[i]);
}

static void on_pruned(void *arg, const json_t *result, const err_t *err)
{
    (void)arg;
    (void)result;
    if (err)
        log_warn("old images stay: %s", err_message(err));
}

static void add_once(json_t *list, json_t *path)
{
    size_t i;
    const json_t *one;
    json_array_foreach(list, i, one) if (json_equal(one, path)) return;
    if (json_is_string(path))
        json_array_append(list, path);
}

static void keep_layers(const json_t *facts, json_t *rootfs, json_t *layers)
{
    add_once(rootfs, json_object_get(facts, "rootfs"));
    add_once(layers, json_object_get(facts, "agent_layer"));
}

void start_prune(gvisord_t *gv)
{
    json_t *rootfs = json_array(), *layers = json_array();
    for (sandbox_t *s = NULL; (s = provider_sandbox_next(gv->provider, s));)
        keep_layers(s->private_, rootfs, layers);
    for (const snapshot_t *snap = NULL; (snap = provider_snapshot_next(gv->provider, snap));)
        keep_layers(snap->private_, rootfs, layers);
    if (gv->agent_layer)
        json_array_append_new(layers, json_string(gv->agent_layer));
    auto_err err_t *e = NULL;
    json_t *args = json_pack("{s:o,s:o}", "rootfs", rootfs, "layers", layers);
    if (!worker_run(gv->worker, job_prune, args, on_pruned, NULL, &e))
        log_warn("old images stay: %s", err_message(e));
}

/* ---- images from the command line ---- */

static int import_tar(const char *store, char **argv, err_t **e)
{
    return image_import_tar(store, argv[2], argv[3], argv[4] ? argv[4] : argv[3], e);
}

static int import_oci(const char *store, char **argv, err_t **e)
{
    return image_import_oci(store, argv[2], argv[3], e);
}

static void print_image(void *arg, const image_t *image)
{
    (void)arg;
    printf("%-24s %6llu MiB  %s  %s\n", image->name, (unsigned long long)(image->size_bytes >> 20),
           image->digest ? image->digest : "-", image->source ? image->source : "-");
}

static int list_images(const char *store, char **argv, err_t **e)
{
    (void)argv;
    (void)e;
    image_each(store, print_image, NULL);
    return 0;
}

static const struct {
    const char *option;
    int argc, argc_max;
    int (*run)(const char *store, char **argv, err_t **e);
    const char *usage;
} COMMANDS[] = {
    {"--import-image", 4, 5, import_tar, "--import-image NAME ROOTFS.tar [SOURCE]"},
    {"--import-oci", 4, 4, import_oci, "--import-oci NAME REFERENCE   (docker://…, oci:dir:tag, docker-archive:file)"},
    {"--list-images", 2, 2, list_images, "--list-images"},
};

bool start_is_import(const char *argument)
{
    for (size_t i = 0; i < COUNT_OF(COMMANDS); i++)
        if (strcmp(COMMANDS[i].option, argument) == 0)
            return true;
    return false;
}

int start_import(int argc, char **argv)
{
    config_t config;
    auto_err err_t *e = NULL;
    if (config_load(&config, CONFIG_GVISORD, &e) < 0) {
        fprintf(stderr, "gvisord: %s\n", err_message(e));
        return 2;
    }
    int rc = 2;
    for (size_t i = 0; i < COUNT_OF(COMMANDS); i++) {
        if (strcmp(COMMANDS[i].option, argv[1]) != 0)
            continue;
        if (argc < COMMANDS[i].argc || argc > COMMANDS[i].argc_max)
            fprintf(stderr, "usage: gvisord %s\n", COMMANDS[i].usage);
        else if (COMMANDS[i].run(config.image_dir, argv, &e) < 0)
            fprintf(stderr, "gvisord: %s\n", err_message(e));
        else
            rc = 0;
    }
    config_free(&config);
    return rc;
}
