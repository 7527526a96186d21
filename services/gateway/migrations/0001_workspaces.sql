/* SPDX-License-Identifier: Apache-2.0
 * Workspaces: what the gateway intends and how each is known to its provider. Times are milliseconds since 1970; mcp_config
 * and env are sealed (common/crypto). The file is SQL in a C macro so that the compiler keeps track of it: no lone quotes. */
MIGRATION(1, workspaces,
CREATE TABLE kb.agent_workspaces (
    id text PRIMARY KEY,
    owner text NOT NULL,
    agent_session_id text,
    container_type text NOT NULL,
    provider text NOT NULL,
    provider_workspace_id text NOT NULL,
    node text NOT NULL,
    requested_provider text NOT NULL,
    use_warm bigint NOT NULL DEFAULT 1,
    repository_url text,
    branch text,
    deployment_mode text NOT NULL DEFAULT 'self-hosted',
    lifecycle text NOT NULL DEFAULT 'ephemeral',
    status text NOT NULL DEFAULT 'creating',
    created_at bigint NOT NULL,
    last_used_at bigint NOT NULL,
    expires_at bigint,
    resource_limits text NOT NULL DEFAULT '{}',
    snapshot_id text,
    mcp_config bytea,
    metadata text NOT NULL DEFAULT '{}',
    image text NOT NULL,
    network text NOT NULL,
    failure_reason text,
    warnings text NOT NULL DEFAULT '[]',
    env bytea,
    updated_at bigint NOT NULL
);
CREATE INDEX idx_agent_workspaces_session ON kb.agent_workspaces (agent_session_id) WHERE agent_session_id IS NOT NULL;
CREATE INDEX idx_agent_workspaces_status ON kb.agent_workspaces (status);
CREATE INDEX idx_agent_workspaces_expires ON kb.agent_workspaces (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX idx_agent_workspaces_persistent_mcp ON kb.agent_workspaces (container_type, lifecycle, status)
    WHERE container_type = 'mcp_server' AND lifecycle = 'persistent';
)
