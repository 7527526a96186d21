// SPDX-License-Identifier: Apache-2.0
/* CURVE: certificates, and the answer to libzmq's question who may connect (ZAP, RFC 27). One ZAP socket
 * per context is all that libzmq allows, so all hubs of a process share it, told apart by their domain; they share one
 * loop too.
 *
 * A directory of known keys is read again when its modification time changes: adding or removing a file needs no
 * restart. */
#include "common/curve_cert.h"
#include "common/fabric_private.h"
#include "common/log.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_PARTS_MAX 16
#define ZAP_PART_MAX 256
#define KNOWN_KEYS_MAX 4096
#define CERT_SUFFIX ".txt"

typedef struct known_key {
    uint8_t key[CURVE_KEY_SIZE];
    char name[FABRIC_NAME_MAX + 1];
} known_key_t;

typedef struct known_dir {
    LIST_ENTRY(known_dir) in_list;
    char *domain;
    char *path;
    struct timespec read_at; /* the directory's modification time when read */
    known_key_t *keys;
    size_t count;
} known_dir_t;

static struct zap {
    unsigned users;
    void *socket;
    struct event *readable;
    LIST_HEAD(, known_dir) dirs;
} zap;

/* ---- certificates ---- */

/* The secret of this daemon: nobody else may read it. */
static int load_own(const char *path, curve_cert_t *cert, err_t **e)
{
    struct stat st;
    auto_free char *beside = mem_printf("%s_secret", path);
    const char *read_path = access(beside, F_OK) == 0 ? beside : path;
    if (stat(read_path, &st) < 0)
        return err_set_errno(e, ERR_NONE, errno, "cannot read the certificate %s", read_path);
    if ((st.st_mode & 0077) != 0)
        return err_set(e, ERR_BAD_REQUEST, "the secret certificate %s must not be readable by others: use chmod 600",
                       read_path);
    if (curve_cert_read(path, cert, e) < 0)
        return -1;
    return cert->has_secret ? 0 : err_set(e, ERR_BAD_REQUEST, "the certificate %s has no secret key", path);
}

static int set_key(fabric_t *f, int option, const uint8_t *key, err_t **e)
{
    if (zmq_setsockopt(f->socket, option, key, CURVE_KEY_SIZE) == 0)
        return 0;
    return err_set(e, ERR_INTERNAL, "cannot set a CURVE key: %s", zmq_strerror(errno));
}

static int apply_link(fabric_t *f, const fabric_curve_t *curve, const curve_cert_t *own, err_t **e)
{
    curve_cert_t hub;
    if (curve->server_key == NULL)
        return err_set(e, ERR_BAD_REQUEST, "the hub's public certificate is not given");
    if (curve_cert_read(curve->server_key, &hub, e) < 0)
        return -1;
    mem_wipe(hub.secret_key, sizeof hub.secret_key);
    return set_key(f, ZMQ_CURVE_SERVERKEY, hub.public_key, e) < 0 ||
                   set_key(f, ZMQ_CURVE_PUBLICKEY, own->public_key, e) < 0 ||
                   set_key(f, ZMQ_CURVE_SECRETKEY, own->secret_key, e) < 0
               ? -1
               : 0;
}

/* ---- known keys ---- */

static void read_known_file(known_dir_t *d, const char *file)
{
    size_t len = strlen(file), suffix = strlen(CERT_SUFFIX);
    if (len <= suffix || strcmp(file + len - suffix, CERT_SUFFIX) != 0)
        return;
    if (len - suffix > FABRIC_NAME_MAX || d->count == KNOWN_KEYS_MAX) {
        log_warn("fabric: certificate %s/%s is left out: its name is too long or there are too many", d->path, file);
        return;
    }
    auto_free char *path = mem_printf("%s/%s", d->path, file);
    auto_err err_t *e = NULL;
    curve_cert_t cert;
    if (curve_cert_read(path, &cert, &e) < 0) {
        log_warn("fabric: %s", err_message(e));
        return;
    }
    mem_wipe(cert.secret_key, sizeof cert.secret_key);
    d->keys = mem_realloc(d->keys, (d->count + 1) * sizeof *d->keys);
    known_key_t *known = &d->keys[d->count++];
    *known = (known_key_t){0};
    memcpy(known->key, cert.public_key, CURVE_KEY_SIZE);
    memcpy(known->name, file, len - suffix);
}

static void read_known(known_dir_t *d)
{
    struct stat st;
    struct dirent *entry;
    if (stat(d->path, &st) == 0 && memcmp(&st.st_mtim, &d->read_at, sizeof d->read_at) == 0)
        return;
    d->count = 0;
    DIR *dir = opendir(d->path);
    if (dir == NULL) {
        log_error("fabric: cannot read the known keys in %s: %s; nobody can connect", d->path, strerror(errno));
        d->read_at = (struct timespec){0};
        return;
    }
    d->read_at = st.st_mtim;
    while ((entry = readdir(dir)) != NULL)
        read_known_file(d, entry->d_name);
    closedir(dir);
}

static const char *known_name(const char *domain, size_t domain_len, const uint8_t *key)
{
    known_dir_t *d;
    LIST_FOREACH(d, &zap.dirs, in_list)
    {
        if (strlen(d->domain) != domain_len || memcmp(d->domain, domain, domain_len) != 0)
            continue;
        read_known(d);
        for (size_t i = 0; i < d->count; i++)
            if (memcmp(d->keys[i].key, key, CURVE_KEY_SIZE) == 0)
                return d->keys[i].name;
    }
    return NULL;
}

/* ---- ZAP ---- */

enum zap_part {
    ZAP_ROUTE,
    ZAP_DELIMITER,
    ZAP_VERSION,
    ZAP_REQUEST,
    ZAP_DOMAIN,
    ZAP_ADDRESS,
    ZAP_IDENTITY,
    ZAP_MECHANISM,
    ZAP_KEY
};

typedef struct zap_request {
    uint8_t parts[ZAP_PARTS_MAX][ZAP_PART_MAX];
    size_t lens[ZAP_PARTS_MAX];
    size_t count;
} zap_request_t;

static bool zap_receive(zap_request_t *r)
{
    int more = 1;
    size_t size = sizeof more;
    uint8_t rest[ZAP_PART_MAX];
    r->count = 0;
    while (more) {
        bool fits = r->count < ZAP_PARTS_MAX;
        // cppcheck-suppress legacyUninitvar ; zmq_recv fills it, nobody reads it
        int len = zmq_recv(zap.socket, fits ? r->parts[r->count] : rest, ZAP_PART_MAX, ZMQ_DONTWAIT);
        if (len < 0)
            return false;
        if (fits)
            r->lens[r->count++] = len < ZAP_PART_MAX ? (size_t)len : ZAP_PART_MAX;
        if (zmq_getsockopt(zap.socket, ZMQ_RCVMORE, &more, &size) < 0)
            return false;
    }
    return true;
}

static void zap_answer(const zap_request_t *r)
{
    const char *name = NULL;
    if (r->count == ZAP_KEY + 1 && r->lens[ZAP_KEY] == CURVE_KEY_SIZE && r->lens[ZAP_MECHANISM] == strlen("CURVE") &&
        memcmp(r->parts[ZAP_MECHANISM], "CURVE", strlen("CURVE")) == 0)
        name = known_name((const char *)r->parts[ZAP_DOMAIN], r->lens[ZAP_DOMAIN], r->parts[ZAP_KEY]);
    if (r->count <= ZAP_REQUEST)
        return; /* not from libzmq */
    const char *status = name != NULL ? "200" : "400";
    const struct {
        const void *bytes;
        size_t len;
    } out[] = {
        {r->parts[ZAP_ROUTE], r->lens[ZAP_ROUTE]},
        {"", 0},
        {"1.0", 3},
        {r->parts[ZAP_REQUEST], r->lens[ZAP_REQUEST]},
        {status, 3},
        {"", 0},
        {name != NULL ? name : "", name != NULL ? strlen(name) : 0},
        {"", 0},
    };
    if (name == NULL)
        log_warn("fabric: a peer at %.*s with an unknown key was refused",
                 r->count > ZAP_ADDRESS ? (int)r->lens[ZAP_ADDRESS] : 0, (const char *)r->parts[ZAP_ADDRESS]);
    for (size_t i = 0; i < COUNT_OF(out); i++)
        if (zmq_send(zap.socket, out[i].bytes, out[i].len, i + 1 < COUNT_OF(out) ? ZMQ_SNDMORE : 0) < 0)
            return;
}

/* Handshakes are few and small: drained at once. The last receive, which finds nothing, re-arms the edge of ZMQ_FD. */
static void zap_on_readable(evutil_socket_t fd, short what, void *arg)
{
    zap_request_t request;
    int events;
    size_t size = sizeof events;
    (void)fd;
    (void)what;
    (void)arg;
    do {
        while (zap_receive(&request))
            zap_answer(&request);
        events = 0;
        if (zmq_getsockopt(zap.socket, ZMQ_EVENTS, &events, &size) < 0)
            break;
    } while (events & ZMQ_POLLIN);
}

static int zap_take(fabric_t *f, void *context, err_t **e)
{
    if (zap.users > 0) {
        zap.users++;
        return 0;
    }
    int linger = 0;
    zap.socket = zmq_socket(context, ZMQ_ROUTER);
    if (zap.socket == NULL || zmq_setsockopt(zap.socket, ZMQ_LINGER, &linger, sizeof linger) < 0 ||
        zmq_bind(zap.socket, ZAP_ENDPOINT) < 0)
        err_set(e, ERR_INTERNAL, "cannot open the ZAP socket: %s", zmq_strerror(errno));
    else
        zap.readable = event_new(f->base, fabric_socket_fd(zap.socket), EV_READ | EV_PERSIST, zap_on_readable, NULL);
    if (zap.readable != NULL && event_add(zap.readable, NULL) == 0) {
        zap.users = 1;
        return 0;
    }
    if (*e == NULL)
        err_set(e, ERR_INTERNAL, "cannot watch the ZAP socket in the event loop");
    if (zap.socket != NULL)
        zmq_close(zap.socket);
    zap.socket = NULL;
    return -1;
}

static void zap_drop(void)
{
    if (--zap.users > 0)
        return;
    event_free(zap.readable);
    zmq_close(zap.socket);
    zap.readable = NULL;
    zap.socket = NULL;
}

static int apply_hub(fabric_t *f, void *context, const fabric_curve_t *curve, const curve_cert_t *own, err_t **e)
{
    static unsigned counter;
    int one = 1;
    struct stat st;
    if (curve->known_dir == NULL || stat(curve->known_dir, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_BAD_REQUEST, "%s is not a directory of known certificates",
                       curve->known_dir ? curve->known_dir : "(nothing)");
    if (zap_take(f, context, e) < 0)
        return -1;
    known_dir_t *d = mem_alloc(sizeof *d);
    d->domain = mem_printf("fabric-%u", counter++);
    d->path = mem_strdup(curve->known_dir);
    LIST_INSERT_HEAD(&zap.dirs, d, in_list);
    f->zap_domain = d->domain;
    if (zmq_setsockopt(f->socket, ZMQ_CURVE_SERVER, &one, sizeof one) < 0 ||
        zmq_setsockopt(f->socket, ZMQ_ZAP_DOMAIN, d->domain, strlen(d->domain)) < 0)
        return err_set(e, ERR_INTERNAL, "cannot make the fabric a CURVE server: %s", zmq_strerror(errno));
    return set_key(f, ZMQ_CURVE_SECRETKEY, own->secret_key, e);
}

int fabric_curve_apply(fabric_t *f, void *context, const fabric_curve_t *curve, err_t **e)
{
    curve_cert_t own;
    int rc = load_own(curve->secret_file, &own, e);
    if (rc == 0)
        rc = f->is_hub ? apply_hub(f, context, curve, &own, e) : apply_link(f, curve, &own, e);
    mem_wipe(own.secret_key, sizeof own.secret_key);
    return rc;
}

void fabric_curve_drop(fabric_t *f)
{
    known_dir_t *d;
    if (f->zap_domain == NULL)
        return;
    LIST_FOREACH(d, &zap.dirs, in_list)
    if (d->domain == f->zap_domain)
        break;
    if (d != NULL) {
        LIST_REMOVE(d, in_list);
        free(d->keys);
        free(d->path);
        free(d->domain);
        free(d);
        zap_drop();
    }
    f->zap_domain = NULL;
}
