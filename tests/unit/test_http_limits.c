/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP layer under clients that are slow, many, quiet or gone.
 */
// LINK: services/gateway/http/chunked.c
// LINK: services/gateway/http/server.c services/gateway/http/connection.c services/gateway/http/request.c
// LINK: services/gateway/http/reply.c
#include "tests/unit/http_fixture.h"

TestSuite(http_limits, .init = set_up, .fini = tear_down, .timeout = 60);

Test(http_limits, a_quiet_connection_is_parked_and_goes_on_when_its_client_does)
{
    char reply[4096];
    server->park_at = 0;
    int fd = dial();
    turn_for(20);
    http_connection_t *c = TAILQ_FIRST(&server->connections);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_null(c->bev);
        PUT(fd, GET("/1") GET("/2") "GET /3 HTTP/1.1\r\nHo");
        cr_assert(get(fd, reply, sizeof reply, "GET /2 q=- body=0", 2000), "%s", reply);
        turn_for(20);
        cr_assert_not_null(c->bev, "half a head is there");
        PUT(fd, "st: x\r\n\r\n");
        cr_assert(get(fd, reply, sizeof reply, "GET /3 q=- body=0", 2000), "%s", reply);
        turn_for(20);
    }
    PUT(fd, GET("/hold"));
    turn_for(20);
    http_reply_start(held, 200, "text/plain", -1);
    http_release_head(held);
    cr_assert(http_path(held)[0] == 0 && !http_header(held, "host") && !http_query(held, "q"));
    turn_for(2500); /* the sweep comes once a second */
    cr_assert_null(c->bev, "a stream without bytes");
    static char flood[2 << 20];
    cr_assert(http_reply_force(held, "one", 3));
    cr_assert_null(c->bev);
    for (unsigned i = 0; i < 8 && http_reply_force(held, flood, sizeof flood / 2); i++) {
    }
    cr_assert_not_null(c->bev, "what the socket does not take waits");
    close(fd);
    turn_for(50);
    cr_assert_eq(hung_up, 1);
    cr_assert_eq(http_server_connections(server), 0);
}

Test(http_limits, a_client_that_hangs_up_while_parked_is_noticed)
{
    server->park_at = 0;
    int idle = dial(), streaming = dial();
    PUT(streaming, GET("/hold"));
    turn_for(20);
    http_reply_start(held, 200, "text/plain", -1);
    turn_for(2500);
    cr_assert_eq(http_server_connections(server), 2);
    close(idle);
    close(streaming);
    turn_for(50);
    cr_assert_eq(http_server_connections(server), 0);
    cr_assert_eq(hung_up, 1);
}

Test(http_limits, a_trickle_does_not_hold_a_request_for_ever)
{
    char reply[2048];
    http_server_set_limits(server, 200, 200, 1000, 100);
    int fd = dial();
    PUT(fd, "POST /timed HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n");
    uint64_t began = clock_monotonic_ms();
    for (unsigned i = 0; i < 40 && closed == 0; i++) { /* never idle for as long as the limit */
        PUT(fd, "a");
        turn_for(50);
    }
    cr_assert_lt(clock_monotonic_ms() - began, 1500);
    cr_assert(get(fd, reply, sizeof reply, NULL, 3000));
    cr_assert(strstr(reply, "408"), "%s", reply);
    close(fd);
}

Test(http_limits, slow_clients_together_have_a_limit)
{
    int fds[8];
    server->output_max = 1 << 20;
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        fds[i] = dial();
        PUT(fds[i], GET("/flood"));
        turn_for(30);
    }
    cr_assert_lt(http_server_connections(server), COUNT_OF(fds));
    cr_assert_lt(server->output_bytes, (size_t)2 << 20);
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        close(fds[i]);
    }
    turn_for(50);
    cr_assert_eq(http_server_connections(server), 0);
    cr_assert_eq(server->output_bytes, 0);
}

Test(http_limits, a_slow_head_a_slow_body_and_an_idle_connection_are_ended)
{
    char reply[2048];
    http_server_set_limits(server, 120, 60, 1000, 100);
    int head = dial(), body = dial(), idle = dial();
    PUT(head, "GET / HT");
    PUT(body, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
    cr_assert(get(head, reply, sizeof reply, NULL, 3000));
    cr_assert(strstr(reply, "408"), "%s", reply);
    close(head);
    cr_assert(get(body, reply, sizeof reply, NULL, 3000));
    cr_assert(strstr(reply, "408"), "%s", reply);
    close(body);
    cr_assert(get(idle, reply, sizeof reply, NULL, 3000));
    cr_assert_eq(reply[0], 0);
    close(idle);
}

Test(http_limits, a_client_that_takes_nothing_is_dropped)
{
    http_server_set_limits(server, 5000, 5000, 150, 100);
    int fd = dial();
    PUT(fd, GET("/down"));
    turn_for(50);
    cr_assert_eq(closed, 0);
    turn_for(2500); /* the sweep comes once a second */
    cr_assert_eq(hung_up, 1);
    close(fd);
}

Test(http_limits, more_connections_than_the_limit_wait)
{
    char reply[2048];
    http_server_set_limits(server, 5000, 5000, 5000, 2);
    int a = dial(), b = dial(), c = dial();
    turn_for(20);
    cr_assert_leq(http_server_connections(server), 2);
    close(a);
    turn_for(600);
    PUT(c, GET("/c"));
    cr_assert(get(c, reply, sizeof reply, "GET /c q=- body=0", 2000), "%s", reply);
    close(b);
    close(c);
}

Test(http_limits, draining_ends_idle_connections_and_lets_busy_ones_finish)
{
    char reply[2048];
    int idle = dial(), busy = dial();
    PUT(busy, GET("/hold"));
    turn_for(20);
    http_server_drain(server);
    cr_assert(get(idle, reply, sizeof reply, NULL, 2000));
    http_reply(held, 200, "text/plain", "done", 4);
    cr_assert(get(busy, reply, sizeof reply, NULL, 2000));
    cr_assert(strstr(reply, "Connection: close") && strstr(reply, "done"), "%s", reply);
    cr_assert_eq(http_server_connections(server), 0);
    close(idle);
    close(busy);
}

Test(http_limits, destroying_the_server_tells_every_request)
{
    int fd = dial();
    PUT(fd, GET("/hold"));
    turn_for(20);
    http_server_destroy(&server);
    cr_assert_eq(hung_up, 1);
    close(fd);
}
