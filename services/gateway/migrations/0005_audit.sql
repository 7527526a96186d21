/* SPDX-License-Identifier: Apache-2.0
 * Audit: one line for each tool and lifecycle operation, chained by hash within each chain (one per gateway). Never contents. */
MIGRATION(5, audit,
CREATE TABLE kb.workspace_audit (
    chain text NOT NULL,
    sequence bigint NOT NULL,
    at bigint NOT NULL,
    owner text NOT NULL,
    workspace_id text,
    operation text NOT NULL,
    method text,
    status bigint,
    duration_ms bigint NOT NULL DEFAULT 0,
    caller text,
    agent_session_id text,
    request_id text,
    summary text,
    error_code text,
    error text,
    hash text NOT NULL,
    PRIMARY KEY (chain, sequence)
);
CREATE INDEX idx_workspace_audit_workspace ON kb.workspace_audit (workspace_id, at);
CREATE INDEX idx_workspace_audit_owner ON kb.workspace_audit (owner, at);
)
