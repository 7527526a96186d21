/* SPDX-License-Identifier: Apache-2.0
 * Lifecycle: what is under way with a workspace (intent: empty, stop, resume, destroy), who stopped it (user, idle), its own TTL,
 * and which session held it when. At most one open assignment of a workspace: two gateways cannot give it away twice. */
MIGRATION(3, lifecycle,
ALTER TABLE kb.agent_workspaces ADD COLUMN intent text;
ALTER TABLE kb.agent_workspaces ADD COLUMN stop_reason text;
ALTER TABLE kb.agent_workspaces ADD COLUMN ttl_seconds bigint;
UPDATE kb.agent_workspaces SET intent = 'destroy' WHERE status = 'stopping';
CREATE TABLE kb.workspace_assignments (
    id text PRIMARY KEY,
    workspace_id text NOT NULL,
    agent_session_id text NOT NULL,
    attached_at bigint NOT NULL,
    detached_at bigint,
    reason text,
    detach_reason text
);
CREATE INDEX idx_workspace_assignments_workspace ON kb.workspace_assignments (workspace_id, attached_at);
CREATE UNIQUE INDEX idx_workspace_assignments_open ON kb.workspace_assignments (workspace_id) WHERE detached_at IS NULL;
)
