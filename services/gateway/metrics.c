/* SPDX-License-Identifier: Apache-2.0 */
#include "services/gateway/metrics.h"

#include "common/file.h"
#include "common/mem.h"
#include "common/text.h"
#include "services/gateway/api_internal.h"
#include "services/gateway/audit.h"
#include "services/gateway/warm_pools.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define STATUS_MIN 100
#define STATUS_COUNT 500 /* 100…599 */

static const uint64_t bucket_us[] = {250,   500,    1000,   2500,    5000,     10000,    25000,
                                     50000, 100000, 250000, 1000000, 10000000, 120000000};
static const char *const bucket_names[] = {"0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025",
                                           "0.05",    "0.1",    "0.25",  "1",      "10",    "120"};
#define BUCKETS COUNT_OF(bucket_us)

typedef struct route_metrics {
    uint64_t by_status[STATUS_COUNT];
    uint64_t buckets[BUCKETS + 1]; /* the last: slower than all */
    uint64_t sum_us, count;
} route_metrics_t;

struct metrics {
    route_metrics_t *routes; /* by route_index(), and one more for unknown paths */
};

metrics_t *metrics_new(void)
{
    metrics_t *m = mem_alloc(sizeof *m);
    m->routes = mem_alloc_array(route_count() + 1, sizeof *m->routes);
    return m;
}

void metrics_destroy(metrics_t **m)
{
    if (*m) {
        free((*m)->routes);
        free(*m);
        *m = NULL;
    }
}

void metrics_request(metrics_t *m, const route_t *route, int status, uint64_t duration_us)
{
    route_metrics_t *r = &m->routes[route ? route_index(route) : route_count()];
    size_t b = 0;
    while (b < BUCKETS && duration_us > bucket_us[b]) {
        b++;
    }
    r->buckets[b]++;
    r->sum_us += duration_us;
    r->count++;
    if (status >= STATUS_MIN && status < STATUS_MIN + STATUS_COUNT) {
        r->by_status[status - STATUS_MIN]++;
    }
}

/* ---- gauges ---- */

static double connections(gateway_t *gw)
{
    return gw->http ? (double)http_server_connections(gw->http) : 0;
}

static double event_streams(gateway_t *gw)
{
    return gw->api ? (double)gw->api->stream_count : 0;
}

static double calls(gateway_t *gw)
{
    return gw->calls ? (double)call_table_count(gw->calls) : 0;
}

static double audit_lines(gateway_t *gw)
{
    return (double)audit_waiting(gw);
}

static double audit_lines_lost(gateway_t *gw)
{
    return (double)audit_lost(gw);
}

static double open_files(gateway_t *gw)
{
    (void)gw;
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (double)limit.rlim_cur : 0;
}

static double resident_bytes(gateway_t *gw)
{
    (void)gw;
    auto_buf buf_t statm;
    auto_err err_t *e = NULL;
    uint64_t pages = 0;
    buf_init(&statm, 256);
    if (file_read("/proc/self/statm", 255, &statm, &e) == 0) {
        const char *resident = strchr(buf_cstr(&statm), ' '); /* the first number is the whole address space */
        char number[24] = "";
        size_t len = resident ? strcspn(resident + 1, " ") : 0;
        if (len > 0 && len < sizeof number) {
            memcpy(number, resident + 1, len);
        }
        if (!text_to_u64(number, &pages)) {
            pages = 0;
        }
    }
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double cpu_seconds(gateway_t *gw)
{
    (void)gw;
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage)) {
        return 0;
    }
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static const struct {
    const char *name;
    const char *type;
    const char *doc;
    double (*value)(gateway_t *gw);
} gauges[] = {
    {"ew_http_connections", "gauge", "Open client connections.", connections},
    {"ew_http_event_streams", "gauge", "Open server-sent event streams.", event_streams},
    {"ew_calls_in_flight", "gauge", "Calls to daemons and agents under way.", calls},
    {"ew_audit_waiting", "gauge", "Lines of the audit that the database has not taken yet.", audit_lines},
    {"ew_audit_lost_total", "counter", "Lines of the audit lost while the database took none.", audit_lines_lost},
    {"process_max_fds", "gauge", "Most descriptors the process may open.", open_files},
    {"process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes},
    {"process_cpu_seconds_total", "counter", "User and system CPU time spent.", cpu_seconds},
};

static void write_head(buf_t *out, const char *name, const char *type, const char *doc)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, doc, name, type);
}

static const char *method_of(size_t i)
{
    const route_t *route = api_route_at(i);
    return route ? route->method : "";
}

static const char *path_of(size_t i)
{
    const route_t *route = api_route_at(i);
    return route ? route->path : "unknown";
}

static void write_requests(const metrics_t *m, buf_t *out)
{
    write_head(out, "ew_http_requests_total", "counter", "Requests by route and status.");
    for (size_t i = 0; i <= route_count(); i++) {
        for (size_t s = 0; s < STATUS_COUNT; s++) {
            if (m->routes[i].by_status[s]) {
                buf_printf(out, "ew_http_requests_total{method=\"%s\",route=\"%s\",status=\"%zu\"} %llu\n",
                           method_of(i), path_of(i), s + STATUS_MIN, (unsigned long long)m->routes[i].by_status[s]);
            }
        }
    }
    write_head(out, "ew_http_request_duration_seconds", "histogram",
               "From the head of a request to the end of its reply.");
    for (size_t i = 0; i <= route_count(); i++) {
        const route_metrics_t *r = &m->routes[i];
        uint64_t below = 0;
        for (size_t b = 0; r->count && b < BUCKETS; b++) {
            below += r->buckets[b];
            buf_printf(out, "ew_http_request_duration_seconds_bucket{method=\"%s\",route=\"%s\",le=\"%s\"} %llu\n",
                       method_of(i), path_of(i), bucket_names[b], (unsigned long long)below);
        }
        if (r->count) {
            buf_printf(out,
                       "ew_http_request_duration_seconds_bucket{method=\"%s\",route=\"%s\",le=\"+Inf\"} %llu\n"
                       "ew_http_request_duration_seconds_sum{method=\"%s\",route=\"%s\"} %.6f\n"
                       "ew_http_request_duration_seconds_count{method=\"%s\",route=\"%s\"} %llu\n",
                       method_of(i), path_of(i), (unsigned long long)r->count, method_of(i), path_of(i),
                       (double)r->sum_us / 1e6, method_of(i), path_of(i), (unsigned long long)r->count);
        }
    }
}

static void write_providers(gateway_t *gw, buf_t *out)
{
    write_head(out, "ew_provider_up", "gauge", "1 when the provider daemon is connected and can make workspaces.");
    for (fabric_peer_t *peer = gw->fabric ? fabric_peer_next(gw->fabric, NULL) : NULL; peer;
         peer = fabric_peer_next(gw->fabric, peer)) {
        const struct hello *hello = fabric_peer_hello(peer);
        struct provider_status status;
        err_t *e = NULL;
        if (hello->provider.bytes &&
            proto_decode(MSG_provider_status, &status, hello->provider.bytes, hello->provider.len, &e) == 0) {
            /* names come from daemons the operator runs; quotes and line ends would break the format all the same */
            char name[33], node[256];
            snprintf(name, sizeof name, "%s", status.name ? status.name : "");
            snprintf(node, sizeof node, "%s", hello->node ? hello->node : "");
            for (char *at = name; (at = strpbrk(at, "\"\\\n"));) {
                *at = '_';
            }
            for (char *at = node; (at = strpbrk(at, "\"\\\n"));) {
                *at = '_';
            }
            buf_printf(out, "ew_provider_up{provider=\"%s\",node=\"%s\"} %d\n", name, node, status.healthy ? 1 : 0);
            buf_printf(out, "ew_provider_sandboxes{provider=\"%s\",node=\"%s\"} %u\n", name, node, status.active_count);
        }
        err_free(&e);
    }
}

void metrics_write(gateway_t *gw, buf_t *out)
{
    buf_printf(
        out,
        "# HELP ew_build_info Release of the gateway.\n# TYPE ew_build_info gauge\new_build_info{version=\"%s\"} 1\n",
        EW_VERSION);
    for (size_t i = 0; i < COUNT_OF(gauges); i++) {
        write_head(out, gauges[i].name, gauges[i].type, gauges[i].doc);
        buf_printf(out, "%s %.17g\n", gauges[i].name, gauges[i].value(gw));
    }
    if (gw->workspaces) {
        write_head(out, "ew_workspaces", "gauge", "Workspaces by status.");
        for (int s = WORKSPACE_CREATING; s <= WORKSPACE_ERROR; s++) {
            buf_printf(out, "ew_workspaces{status=\"%s\"} %zu\n", api_status_name(s),
                       workspaces_count(gw, (enum workspace_status)s));
        }
    }
    write_head(out, "ew_snapshots", "gauge", "Snapshots by status.");
    for (int s = SNAPSHOT_CREATING; s <= SNAPSHOT_DELETING; s++) {
        buf_printf(out, "ew_snapshots{status=\"%s\"} %zu\n", snapshot_status_name((enum snapshot_status)s),
                   snapshots_count(gw, (enum snapshot_status)s));
    }
    write_providers(gw, out);
    warm_pools_write_metrics(gw, out);
    if (gw->metrics) {
        write_requests(gw->metrics, out);
    }
}
