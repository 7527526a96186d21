# SPDX-License-Identifier: Apache-2.0
"""Who may do what: credentials, scopes, owners, request ids, the open routes."""

import datetime
import uuid

from api import WORKSPACES, Api

KEYS = "/api/v1/admin/api-keys"


def with_headers(api, path, **headers):
    return Api(api.url, None).get(path, headers=headers)


def make_key(api, **fields):
    reply = api.post(KEYS, dict({"name": "test", "scopes": ["admin:read", "admin:write"]}, **fields))
    assert reply.status == 201, reply
    row = reply.json()
    return row["id"], Api(api.url, row["key"])


def test_no_credential(api):
    for path in (WORKSPACES, WORKSPACES + "/providers", KEYS, WORKSPACES + "/" + str(uuid.uuid4())):
        reply = with_headers(api, path)
        assert reply.status == 401 and reply.code == "missing_token" and reply.message == "Missing authorization token", reply


def test_bad_credentials(api):
    wrong = ({"Authorization": "Bearer nonsense"}, {"X-API-Key": "nonsense"}, {"X-API-Key": api.key[:-1]}, {"X-API-Key": api.key + "x"},
             {"Authorization": "Bearer " + api.key[:-1]})
    for headers in wrong:
        reply = Api(api.url, None).get(WORKSPACES, headers=headers)
        assert reply.status == 401 and reply.message in ("Invalid or expired token", "Missing authorization token"), (headers, reply)
    reply = Api(api.url, None).get(WORKSPACES, headers={"Authorization": "Bearer nonsense"})
    assert reply.code == "invalid_token" and reply.message == "Invalid or expired token", reply


def test_both_headers_are_accepted_and_the_query_is_not(api):
    assert Api(api.url, None).get(WORKSPACES, headers={"X-API-Key": api.key}).status == 200
    assert Api(api.url, None).get(WORKSPACES, headers={"Authorization": "Bearer " + api.key}).status == 200
    for name in ("token", "api_key", "access_token"):
        assert Api(api.url, None).get("%s?%s=%s" % (WORKSPACES, name, api.key)).status == 401, name


def test_a_key_without_the_scope_is_told_which(api, ws):
    number, reader = make_key(api, scopes=["admin:read"], owner="standalone")
    assert reader.get(WORKSPACES).status == 200
    for method, path in (("POST", WORKSPACES), ("DELETE", ws.path), ("POST", ws.path + "/bash"), ("POST", KEYS)):
        reply = reader.request(method, path, body={"command": "true"} if method == "POST" else None)
        assert reply.status == 403 and reply.code == "forbidden" and reply.message == "Insufficient permissions", (path, reply)
        assert reply.json()["error"]["details"]["missing"] == ["admin:write"], reply
    api.delete("%s/%s" % (KEYS, number))


def test_a_deleted_or_expired_key_is_refused(api):
    number, client = make_key(api)
    assert client.get(WORKSPACES).status == 200
    assert api.delete("%s/%s" % (KEYS, number)).status == 204
    assert client.get(WORKSPACES).code == "invalid_token"
    past = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    reply = api.post(KEYS, {"name": "old", "scopes": ["admin:read"], "expires_at": past})
    if reply.status == 201:
        assert Api(api.url, reply.json()["key"]).get(WORKSPACES).code == "invalid_token"
        api.delete("%s/%s" % (KEYS, reply.json()["id"]))
    else:
        assert reply.status in (400, 422), reply


def test_the_list_of_keys_tells_no_secret(api):
    number, client = make_key(api, name="listed")
    reply = api.get(KEYS)
    assert reply.status == 200 and client.key not in reply.body.decode(), "a key is shown once"
    assert number in reply.body.decode()
    api.delete("%s/%s" % (KEYS, number))


def test_a_foreign_workspace_does_not_exist(api, ws):
    number, other = make_key(api, owner="somebody-else")
    for method, path, body in (("GET", ws.path, None), ("DELETE", ws.path, None), ("POST", ws.path + "/bash", {"command": "id"}),
                               ("GET", ws.path + "/events", None), ("GET", ws.files("x"), None), ("GET", ws.path + "/processes", None)):
        reply = other.request(method, path, body=body)
        assert reply.status == 404 and reply.message == "workspace '%s' not found" % ws.id, (method, path, reply)
    assert other.get(WORKSPACES).json() == []
    api.delete("%s/%s" % (KEYS, number))
    assert ws.sh("echo still here") == "still here\n"


def test_open_routes_need_no_key(api):
    open_api = Api(api.url, None)
    for path in ("/health", "/ready", "/version", "/openapi.json"):
        reply = open_api.get(path)
        assert reply.status == 200 and isinstance(reply.json(), dict), (path, reply)
    assert open_api.get("/metrics").status in (200, 401)
    text = api.get("/metrics")
    assert text.status == 200 and b"# TYPE" in text.body, text


def test_every_answer_has_a_request_id(api):
    for reply in (api.get(WORKSPACES), api.get("/nothing"), Api(api.url, None).get(WORKSPACES)):
        assert reply.headers["X-Request-Id"], reply
    assert api.get(WORKSPACES, headers={"X-Request-Id": "mine-1.2_3"}).headers["X-Request-Id"] == "mine-1.2_3"
    for bad in ("x" * 65, "with space", "a<script>"):
        assert api.get(WORKSPACES, headers={"X-Request-Id": bad}).headers["X-Request-Id"] != bad


def test_unknown_routes_and_methods(api):
    reply = api.get("/api/v1/agent/nothing")
    assert reply.status == 404 and reply.code == "not_found" and reply.message == "Not Found", reply
    reply = api.request("PATCH", WORKSPACES, body={})
    assert reply.status == 405 and reply.code == "method_not_allowed", reply
    assert "POST" in reply.headers["Allow"] and "GET" in reply.headers["Allow"], reply.headers
    assert api.get(WORKSPACES + "/").status == 200, "a trailing slash is stripped"
