/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gvisord/image.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/mem.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 128
#define JSON_FILE_MAX 65536
#define IMAGES_MAX 256

void image_free(image_t *image)
{
    free(image->name);
    free(image->rootfs);
    free(image->digest);
    free(image->source);
    *image = (image_t){0};
}

bool image_name_is_valid(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > NAME_MAX_BYTES || !isalnum((unsigned char)name[0]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
            return false;
    return true;
}

static int parse(const char *store, const char *name, json_t *root, image_t *image, err_t **e)
{
    const char *rootfs, *digest = NULL, *source = NULL;
    json_int_t size = 0, created = 0;
    json_error_t je;
    if (json_unpack_ex(root, &je, 0, "{s:s,s?s,s?s,s?I,s?I}", "rootfs", &rootfs, "digest", &digest, "source", &source,
                       "size_bytes", &size, "created_at_ms", &created) < 0)
        return err_set(e, ERR_INTERNAL, "image '%s' has a broken image.json: %s", name, je.text);
    if (!image_name_is_valid(rootfs))
        return err_set(e, ERR_INTERNAL, "image '%s' has a broken image.json: rootfs is no directory name", name);
    *image = (image_t){.name = mem_strdup(name),
                       .rootfs = mem_printf("%s/%s/%s", store, name, rootfs),
                       .digest = digest ? mem_strdup(digest) : NULL,
                       .source = source ? mem_strdup(source) : NULL,
                       .size_bytes = (uint64_t)size,
                       .created_at_ms = (uint64_t)created};
    struct stat st;
    if (stat(image->rootfs, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    err_set(e, ERR_INTERNAL, "image '%s' has lost its files in %s; import it again", name, image->rootfs);
    image_free(image);
    return -1;
}

static void append_name(void *arg, const image_t *image)
{
    buf_t *list = arg;
    buf_printf(list, "%s%s", list->len ? ", " : "", image->name);
}

int image_find(const char *store, const char *name, image_t *image, err_t **e)
{
    *image = (image_t){0};
    if (!image_name_is_valid(name))
        return err_set(e, ERR_BAD_REQUEST, "'%.140s' is no image name (letters, digits, . _ -)", name);
    auto_free char *path = mem_printf("%s/%s/image.json", store, name);
    auto_buf buf_t text = {0};
    auto_err err_t *why = NULL;
    if (file_read(path, JSON_FILE_MAX, &text, &why) < 0) {
        auto_buf buf_t names = {0};
        buf_init(&names, 500);
        image_each(store, append_name, &names);
        return err_set(e, ERR_NOT_FOUND,
                       "image '%s' is not on this host; there are: %s. Build it with a script of "
                       "deploy/images or import it with `gvisord --import-image`",
                       name, names.len ? buf_cstr(&names) : "none");
    }
    json_error_t je;
    json_t *root = json_loadb((const char *)text.data, text.len, 0, &je);
    if (!root)
        return err_set(e, ERR_INTERNAL, "image '%s' has a broken image.json: %s", name, je.text);
    int rc = parse(store, name, root, image, e);
    json_decref(root);
    return rc;
}

void image_each(const char *store, void (*fn)(void *arg, const image_t *image), void *arg)
{
    struct dirent **entries;
    int n = scandir(store, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        image_t image;
        auto_err err_t *ignored = NULL;
        auto_free char *json = mem_printf("%s/%s/image.json", store, entries[i]->d_name);
        if (i < IMAGES_MAX && image_name_is_valid(entries[i]->d_name) && access(json, F_OK) == 0 &&
            image_find(store, entries[i]->d_name, &image, &ignored) == 0) {
            fn(arg, &image);
            image_free(&image);
        }
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

typedef struct prune {
    const char *store;
    bool (*is_used)(void *arg, const char *rootfs);
    void *arg;
} prune_t;

static void prune_one(void *arg, const image_t *image)
{
    const prune_t *p = arg;
    auto_free char *dir = mem_printf("%s/%s", p->store, image->name);
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *de; (de = readdir(d));) {
        auto_free char *path = mem_printf("%s/%s", dir, de->d_name);
        if (strncmp(de->d_name, "rootfs-", 7) != 0 || strcmp(path, image->rootfs) == 0 || p->is_used(p->arg, path))
            continue;
        auto_err err_t *e = NULL;
        if (dir_remove(path, &e) < 0)
            log_warn("an old image generation stays: %s", err_message(e));
    }
    closedir(d);
}

void image_prune(const char *store, bool (*is_used)(void *arg, const char *rootfs), void *arg)
{
    prune_t p = {.store = store, .is_used = is_used, .arg = arg};
    image_each(store, prune_one, &p);
}
