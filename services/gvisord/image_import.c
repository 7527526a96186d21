/* SPDX-License-Identifier: Apache-2.0 */
#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gvisord/image.h"
#include "services/gvisord/worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNPACK_TIMEOUT_MS (30 * 60 * 1000)
#define DEPTH_MAX 512
#define DIGEST_CHUNK 65536
#define INDEX_MAX (1024 * 1024)

/* ---- what an unpacked tree may hold ---- */

/* Removes device nodes, sockets and FIFOs; adds up the sizes. Never follows a link. */
static int scrub(int dir_fd, int depth, uint64_t *size, err_t **e)
{
    if (depth > DEPTH_MAX)
        return err_set(e, ERR_BAD_REQUEST, "the image's directories are nested deeper than %d", DEPTH_MAX);
    DIR *d = fdopendir(dir_fd);
    if (!d) {
        close(dir_fd);
        return err_set_errno(e, ERR_NONE, errno, "cannot list the image");
    }
    int rc = 0;
    for (struct dirent *de; rc == 0 && (de = readdir(d));) {
        struct stat st;
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            rc = err_set_errno(e, ERR_NONE, errno, "cannot look at %s in the image", de->d_name);
        } else if (S_ISDIR(st.st_mode)) {
            int fd = openat(dirfd(d), de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            rc = fd < 0 ? err_set_errno(e, ERR_NONE, errno, "cannot open %s in the image", de->d_name)
                        : scrub(fd, depth + 1, size, e);
        } else if (S_ISREG(st.st_mode)) {
            *size += (uint64_t)st.st_size;
        } else if (!S_ISLNK(st.st_mode) && unlinkat(dirfd(d), de->d_name, 0) < 0) {
            rc = err_set_errno(e, ERR_NONE, errno, "cannot remove the device %s from the image", de->d_name);
        }
    }
    closedir(d);
    return rc;
}

static int file_digest(const char *path, char out[72], err_t **e)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot open %s", path);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    auto_free uint8_t *chunk = mem_alloc(DIGEST_CHUNK);
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    bool is_ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    ssize_t n = 0;
    while (is_ok && (n = read(fd, chunk, DIGEST_CHUNK)) > 0)
        is_ok = EVP_DigestUpdate(ctx, chunk, (size_t)n) == 1;
    is_ok = is_ok && n == 0 && EVP_DigestFinal_ex(ctx, digest, &len) == 1 && len == 32;
    EVP_MD_CTX_free(ctx);
    if (!is_ok)
        return err_set(e, ERR_INTERNAL, "cannot read all of %s", path);
    snprintf(out, 8, "sha256:");
    hex_encode(out + 7, digest, len);
    return 0;
}

/* ---- putting it in place ---- */

typedef struct import {
    const char *store;
    const char *name;
    char *generation; /* "rootfs-<16 digits>" */
    char *staging;    /* a directory beside the image's, same file system */
    char *rootfs;     /* in staging */
} import_t;

static void import_free(import_t *im)
{
    auto_err err_t *ignored = NULL;
    if (im->staging)
        (void)dir_remove(im->staging, &ignored);
    free(im->generation);
    free(im->staging);
    free(im->rootfs);
}
#define auto_import __attribute__((cleanup(import_free)))

static int import_begin(import_t *im, const char *store, const char *name, err_t **e)
{
    *im = (import_t){.store = store, .name = name};
    if (!image_name_is_valid(name))
        return err_set(e, ERR_BAD_REQUEST, "'%.140s' is no image name (letters, digits, . _ -)", name);
    uint8_t salt[4];
    random_bytes(salt, sizeof salt);
    char digits[9];
    hex_encode(digits, salt, sizeof salt);
    im->generation = mem_printf("rootfs-%" PRIu64 "-%s", clock_realtime_ms(), digits);
    im->staging = mem_printf("%s/.import-%s", store, im->generation);
    im->rootfs = mem_printf("%s/%s", im->staging, im->generation);
    return dir_make(store, 0700, e) < 0 || dir_make(im->staging, 0700, e) < 0 ? -1 : 0;
}

static int import_finish(import_t *im, const char *digest, const char *source, err_t **e)
{
    uint64_t size = 0;
    int fd = open(im->rootfs, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(e, ERR_NONE, errno, "nothing was unpacked into %s", im->rootfs);
    if (scrub(fd, 0, &size, e) < 0)
        return -1;
    if (chmod(im->rootfs, 0755) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot open up %s", im->rootfs);
    auto_free char *dir = mem_printf("%s/%s", im->store, im->name);
    auto_free char *target = mem_printf("%s/%s", dir, im->generation);
    auto_free char *json_path = mem_printf("%s/image.json", dir);
    if (dir_make(dir, 0700, e) < 0)
        return -1;
    if (rename(im->rootfs, target) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot move the image to %s", target);
    json_t *root =
        json_pack("{s:s,s:s,s:s,s:s,s:I,s:I}", "name", im->name, "rootfs", im->generation, "digest", digest, "source",
                  source, "size_bytes", (json_int_t)size, "created_at_ms", (json_int_t)clock_realtime_ms());
    auto_free char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(e, ERR_BAD_REQUEST, "the image's source is not UTF-8");
    return file_write_atomic(json_path, text, strlen(text), 0600, e);
}

int image_import_tar(const char *store, const char *name, const char *tar, const char *source, err_t **e)
{
    auto_import import_t im;
    char digest[72];
    if (import_begin(&im, store, name, e) < 0 || dir_make(im.rootfs, 0755, e) < 0 || file_digest(tar, digest, e) < 0)
        return -1;
    /* GNU tar strips leading slashes, refuses "..", and makes links that lead out last, so that nothing is written
     * through them. */
    const char *argv[] = {"tar",
                          "--extract",
                          "--numeric-owner",
                          "--same-permissions",
                          "--same-owner",
                          "--delay-directory-restore",
                          "--exclude=./dev/*",
                          "--directory",
                          im.rootfs,
                          "--file",
                          tar,
                          "--force-local",
                          NULL};
    if (worker_exec(argv, NULL, UNPACK_TIMEOUT_MS, e) < 0)
        return err_wrap(e, "cannot unpack %s", tar);
    return import_finish(&im, digest, source, e);
}

/* The manifest's digest names an OCI image. */
static int oci_digest(const char *layout, char **digest, err_t **e)
{
    auto_free char *path = mem_printf("%s/index.json", layout);
    auto_buf buf_t text = {0};
    const char *found = NULL;
    if (file_read(path, INDEX_MAX, &text, e) < 0)
        return -1;
    json_t *root = json_loadb((const char *)text.data, text.len, 0, NULL);
    bool is_ok = root && json_unpack(root, "{s:[{s:s}]}", "manifests", "digest", &found) == 0;
    if (is_ok)
        *digest = mem_strndup(found, 80);
    json_decref(root);
    return is_ok ? 0 : err_set(e, ERR_BAD_REQUEST, "%s names no image", path);
}

int image_import_oci(const char *store, const char *name, const char *reference, err_t **e)
{
    auto_import import_t im;
    if (import_begin(&im, store, name, e) < 0)
        return -1;
    auto_free char *layout = mem_printf("%s/oci", im.staging);
    auto_free char *target = mem_printf("oci:%s:image", layout);
    auto_free char *tagged = mem_printf("%s:image", layout);
    auto_free char *digest = NULL;
    const char *copy[] = {"skopeo", "copy", "--quiet", "--", reference, target, NULL};
    const char *unpack[] = {"umoci", "raw", "unpack", "--image", tagged, "--", im.rootfs, NULL};
    if (worker_exec(copy, NULL, UNPACK_TIMEOUT_MS, e) < 0)
        return err_wrap(e, "cannot fetch %s", reference);
    if (oci_digest(layout, &digest, e) < 0)
        return -1;
    if (worker_exec(unpack, NULL, UNPACK_TIMEOUT_MS, e) < 0)
        return err_wrap(e, "cannot unpack %s", reference);
    return import_finish(&im, digest, reference, e);
}
