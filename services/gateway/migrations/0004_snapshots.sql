/* SPDX-License-Identifier: Apache-2.0
 * Snapshots: the row is intent and identity, the daemon on `node` has the bytes. hidden: made for a fork, removed after it. */
MIGRATION(4, snapshots,
CREATE TABLE kb.workspace_snapshots (
    id text PRIMARY KEY,
    owner text NOT NULL,
    workspace_id text NOT NULL,
    provider text NOT NULL,
    node text NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    status text NOT NULL,
    hidden bigint NOT NULL DEFAULT 0,
    has_processes bigint NOT NULL DEFAULT 0,
    size_bytes bigint NOT NULL DEFAULT 0,
    stall_ms bigint NOT NULL DEFAULT 0,
    resource_limits text NOT NULL DEFAULT '{}',
    image text NOT NULL,
    network text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    failure_reason text,
    warnings text NOT NULL DEFAULT '[]'
);
CREATE INDEX idx_workspace_snapshots_owner ON kb.workspace_snapshots (owner, created_at);
CREATE INDEX idx_workspace_snapshots_expires ON kb.workspace_snapshots (expires_at) WHERE expires_at IS NOT NULL;
)
