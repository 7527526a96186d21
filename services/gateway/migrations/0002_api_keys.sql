/* SPDX-License-Identifier: Apache-2.0
 * API keys (only their SHA-256 rests here) and the few facts the suite keeps about itself. */
MIGRATION(2, api_keys,
CREATE TABLE core.api_keys (
    id text PRIMARY KEY,
    name text NOT NULL,
    owner text NOT NULL,
    key_hash text NOT NULL,
    prefix text NOT NULL,
    scopes text NOT NULL,
    expires_at bigint,
    created_at bigint NOT NULL,
    revoked_at bigint,
    last_used_at bigint
);
CREATE UNIQUE INDEX idx_api_keys_hash ON core.api_keys (key_hash);
CREATE TABLE core.settings (
    name text PRIMARY KEY,
    value text NOT NULL
);
)
