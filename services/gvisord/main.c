/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"
#include "services/gvisord/docker.h"
#include "services/gvisord/gvisord.h"
#include "services/gvisord/start.h"

#include <stdio.h>

static int serve(gvisord_t *gv, err_t **e)
{
    if (docker_is_chosen(&gv->daemon, e))
        return docker_serve(&gv->daemon, e);
    if (*e || start_prepare(gv, e) < 0)
        return -1;
    gv->probe = probe_new(gv);
    if (worker_attach(gv->worker, gv->daemon.base, e) < 0 || reaper_start(gv, e) < 0)
        return -1;
    gv->provider = provider_new(&gv->daemon, &GVISORD_OPS, gv, e);
    if (!gv->provider)
        return -1;
    sweep_start(gv);
    start_prune(gv);
    daemon_run(&gv->daemon);
    return gv->has_lost_worker ? err_set(e, ERR_INTERNAL,
                                         "the worker process has ended, so gvisord ends; sandboxes live "
                                         "on until it is started again")
                               : 0;
}

int main(int argc, char **argv)
{
    gvisord_t gv = {0};
    auto_err err_t *e = NULL;
    int exit_code = 0;
    if (argc > 1 && start_is_import(argv[1]))
        return start_import(argc, argv);
    int rc = daemon_init(&gv.daemon, "gvisord", CONFIG_GVISORD, argc, argv, &exit_code, &e);
    if (rc > 0)
        return exit_code;
    if (rc == 0 && serve(&gv, &e) < 0)
        rc = -1;
    if (rc < 0) {
        log_error("%s", err_message(e));
        fprintf(stderr, "gvisord: %s\n", err_message(e));
    }
    if (gv.provider && !gv.has_lost_worker)
        provider_drain_pools(gv.provider);
    if (gv.probe && !gv.has_lost_worker)
        probe_drain(gv.probe);
    if (!gv.has_lost_worker)
        start_leave(&gv);
    provider_destroy(&gv.provider);
    probe_free(&gv.probe);
    worker_stop(&gv.worker);
    reaper_stop(&gv);
    start_free(&gv);
    daemon_free(&gv.daemon);
    return rc < 0;
}
