-- +goose Up
CREATE TABLE meta (
    k TEXT PRIMARY KEY,
    v TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (k, v) VALUES
    ('format', 'llm-gateway books'),
    ('instance', lower(hex(randomblob(16)))),
    ('key_rev', '0'),
    ('heartbeat', '0');

-- Secrets are never stored, only their digests. A revoked key stays as a tombstone.
CREATE TABLE keys (
    id          TEXT PRIMARY KEY,
    digest      BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    digest_kind TEXT NOT NULL CHECK (digest_kind IN ('sha256', 'hmac-sha256')),
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    display     TEXT NOT NULL,
    tariff      INTEGER NOT NULL CHECK (tariff >= 0),
    daily       INTEGER NOT NULL CHECK (daily >= 0),
    monthly     INTEGER NOT NULL CHECK (monthly >= 0),
    rpm         INTEGER NOT NULL CHECK (rpm >= 0),
    models      TEXT NOT NULL,
    origin      TEXT NOT NULL,
    created_at  INTEGER NOT NULL CHECK (created_at >= 0),
    expires_at  INTEGER NOT NULL CHECK (expires_at >= 0),
    revoked_at  INTEGER NOT NULL CHECK (revoked_at >= 0),
    rev         INTEGER NOT NULL CHECK (rev >= 0)
) STRICT;
CREATE INDEX keys_rev ON keys (rev);

-- One row per key and UTC day; a month is the sum of its days.
CREATE TABLE accounts (
    key_id   TEXT NOT NULL,
    day      TEXT NOT NULL,
    used     INTEGER NOT NULL CHECK (used >= 0),
    held     INTEGER NOT NULL CHECK (held >= 0),
    requests INTEGER NOT NULL CHECK (requests >= 0),
    PRIMARY KEY (key_id, day)
) STRICT, WITHOUT ROWID;

-- state: 1 held, 2 answering, 3 void. Instants are microseconds UTC.
CREATE TABLE holds (
    id              TEXT PRIMARY KEY,
    key_id          TEXT NOT NULL,
    day             TEXT NOT NULL,
    model           TEXT NOT NULL,
    endpoint        TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    tokens          INTEGER NOT NULL CHECK (tokens > 0),
    prompt_bound    INTEGER NOT NULL CHECK (prompt_bound >= 0),
    prompt_estimate INTEGER NOT NULL CHECK (prompt_estimate >= 0),
    state           INTEGER NOT NULL CHECK (state IN (1, 2, 3)),
    seen_prompt     INTEGER NOT NULL CHECK (seen_prompt >= 0),
    seen_completion INTEGER NOT NULL CHECK (seen_completion >= 0),
    admitted_at     INTEGER NOT NULL CHECK (admitted_at >= 0),
    resolved_at     INTEGER NOT NULL CHECK (resolved_at >= 0)
) STRICT, WITHOUT ROWID;

-- Only ever appended to. A correction is a new row of kind 'adjust' that
-- refers to the charge and carries the difference.
CREATE TABLE charges (
    id           TEXT PRIMARY KEY,
    ref          TEXT,
    kind         TEXT NOT NULL CHECK (kind IN ('charge', 'adjust')),
    key_id       TEXT NOT NULL,
    day          TEXT NOT NULL,
    model        TEXT NOT NULL,
    answer_model TEXT NOT NULL,
    endpoint     TEXT NOT NULL,
    request_id   TEXT NOT NULL,
    prompt       INTEGER NOT NULL CHECK (prompt >= 0),
    completion   INTEGER NOT NULL CHECK (completion >= 0),
    total        INTEGER NOT NULL CHECK (total >= 0),
    cached       INTEGER NOT NULL CHECK (cached >= 0),
    reasoning    INTEGER NOT NULL CHECK (reasoning >= 0),
    provenance   TEXT NOT NULL CHECK (provenance IN ('reported', 'estimated', 'aborted', 'recovered', 'expired')),
    hold_tokens  INTEGER NOT NULL CHECK (hold_tokens >= 0),
    overshoot    INTEGER NOT NULL CHECK (overshoot >= 0),
    note         TEXT NOT NULL,
    admitted_at  INTEGER NOT NULL CHECK (admitted_at >= 0),
    settled_at   INTEGER NOT NULL CHECK (settled_at >= 0)
) STRICT, WITHOUT ROWID;
CREATE INDEX charges_ref ON charges (ref) WHERE ref IS NOT NULL;
CREATE INDEX charges_day ON charges (day);
