/* SPDX-License-Identifier: Apache-2.0 */
#include "common/mem.h"
#include "services/gvisord/docker_http.h"

#include <netdb.h>
#include <stdio.h>
#include <sys/un.h>

#define UNIX_PREFIX "unix://"
#define TCP_PREFIX "tcp://"

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int parse_unix(docker_host_t *host, const char *path, err_t **e)
{
    struct sockaddr_un *address = (struct sockaddr_un *)&host->address;
    if (*path != '/' || strlen(path) >= sizeof address->sun_path)
        return err_set(e, ERR_BAD_REQUEST, "DOCKER_HOST: '%.150s' is no absolute path of at most %zu bytes", path,
                       sizeof address->sun_path - 1);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, strlen(path) + 1);
    host->address_len = sizeof *address;
    host->path = mem_strdup(path);
    host->authority = mem_strdup("docker");
    return 0;
}

static int parse_tcp(docker_host_t *host, const char *text, err_t **e)
{
    const char *tls = getenv("DOCKER_TLS_VERIFY");
    const char *colon = strrchr(text, ':');
    if (tls && *tls)
        return err_set(e, ERR_BAD_REQUEST,
                       "DOCKER_TLS_VERIFY is not supported: reach %s by a unix socket or an SSH tunnel", host->text);
    size_t name_len = colon ? (size_t)(colon - text) : 0;
    if (name_len == 0 || text[strcspn(text, "/?#@ ")])
        return err_set(e, ERR_BAD_REQUEST, "DOCKER_HOST: '%s' is not tcp://HOST:PORT", host->text);
    bool is_bracketed = text[0] == '[' && colon[-1] == ']';
    auto_free char *name = mem_strndup(text + is_bracketed, name_len - 2 * (size_t)is_bracketed);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int rc = getaddrinfo(name, colon + 1, &hints, &found);
    if (rc != 0 || !found || found->ai_addrlen > sizeof host->address) {
        if (found)
            freeaddrinfo(found);
        return err_set(e, ERR_PROVIDER_UNAVAILABLE, "DOCKER_HOST: %s is not found: %s", host->text, gai_strerror(rc));
    }
    memcpy(&host->address, found->ai_addr, found->ai_addrlen);
    host->address_len = found->ai_addrlen;
    freeaddrinfo(found);
    host->authority = mem_strdup(text);
    return 0;
}

int docker_host_parse(docker_host_t *host, const char *text, err_t **e)
{
    *host = (docker_host_t){0};
    snprintf(host->text, sizeof host->text, "%s", text);
    int rc;
    if (has_prefix(text, UNIX_PREFIX))
        rc = parse_unix(host, text + strlen(UNIX_PREFIX), e);
    else if (has_prefix(text, TCP_PREFIX))
        rc = parse_tcp(host, text + strlen(TCP_PREFIX), e);
    else
        rc = err_set(e, ERR_BAD_REQUEST, "DOCKER_HOST: '%s' is neither unix://PATH nor tcp://HOST:PORT", host->text);
    if (rc < 0)
        docker_host_free(host);
    return rc;
}

void docker_host_free(docker_host_t *host)
{
    free(host->path);
    free(host->authority);
    host->path = host->authority = NULL;
}
