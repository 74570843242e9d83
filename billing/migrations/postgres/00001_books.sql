-- +goose Up
-- The tables of migrations/sqlite at their newest, and what several gateways
-- need beside them. Texts are compared byte by byte, as SQLite does.
CREATE TABLE meta (
    k text COLLATE "C" PRIMARY KEY,
    v text NOT NULL
);
INSERT INTO meta (k, v) VALUES
    ('format', 'llm-gateway books'),
    ('instance', replace(gen_random_uuid()::text, '-', '')),
    ('key_rev', '0');

-- Secrets are never stored, only their digests. A revoked key stays as a tombstone.
CREATE TABLE keys (
    id          text COLLATE "C" PRIMARY KEY,
    digest      bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    digest_kind text NOT NULL CHECK (digest_kind IN ('sha256', 'hmac-sha256')),
    name        text NOT NULL,
    description text NOT NULL,
    display     text NOT NULL,
    tariff      bigint NOT NULL CHECK (tariff >= 0),
    daily       bigint NOT NULL CHECK (daily >= 0),
    monthly     bigint NOT NULL CHECK (monthly >= 0),
    rpm         bigint NOT NULL CHECK (rpm >= 0),
    tpm         bigint NOT NULL CHECK (tpm >= 0),
    concurrent  bigint NOT NULL CHECK (concurrent >= 0),
    models      text NOT NULL,
    origin      text NOT NULL,
    created_at  bigint NOT NULL CHECK (created_at >= 0),
    expires_at  bigint NOT NULL CHECK (expires_at >= 0),
    revoked_at  bigint NOT NULL CHECK (revoked_at >= 0),
    rev         bigint NOT NULL CHECK (rev >= 0)
);
CREATE INDEX keys_rev ON keys (rev);

-- One row per key and UTC day; a month is the sum of its days. Its rows change
-- only under the lock of the key's row. Room in each page keeps the changes of
-- today's rows off the index.
CREATE TABLE accounts (
    key_id   text COLLATE "C" NOT NULL,
    day      text COLLATE "C" NOT NULL,
    used     bigint NOT NULL CHECK (used >= 0),
    held     bigint NOT NULL CHECK (held >= 0),
    requests bigint NOT NULL CHECK (requests >= 0),
    PRIMARY KEY (key_id, day)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- A gateway that shares the books. Its open holds stand while its lease does.
CREATE TABLE replicas (
    id          text COLLATE "C" PRIMARY KEY,
    started_at  bigint NOT NULL CHECK (started_at >= 0),
    lease_until bigint NOT NULL CHECK (lease_until >= 0)
) WITH (fillfactor = 50);

-- state: 1 held, 2 answering, 3 void. Instants are microseconds UTC.
CREATE TABLE holds (
    id              text COLLATE "C" PRIMARY KEY,
    replica         text COLLATE "C" NOT NULL,
    key_id          text COLLATE "C" NOT NULL,
    day             text COLLATE "C" NOT NULL,
    model           text COLLATE "C" NOT NULL,
    endpoint        text NOT NULL,
    request_id      text NOT NULL,
    tokens          bigint NOT NULL CHECK (tokens > 0),
    prompt_bound    bigint NOT NULL CHECK (prompt_bound >= 0),
    prompt_estimate bigint NOT NULL CHECK (prompt_estimate >= 0),
    state           bigint NOT NULL CHECK (state IN (1, 2, 3)),
    seen_prompt     bigint NOT NULL CHECK (seen_prompt >= 0),
    seen_completion bigint NOT NULL CHECK (seen_completion >= 0),
    admitted_at     bigint NOT NULL CHECK (admitted_at >= 0),
    resolved_at     bigint NOT NULL CHECK (resolved_at >= 0)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
CREATE INDEX holds_open ON holds (replica) WHERE state < 3;

-- Only ever appended to. A correction is a new row of kind 'adjust' that
-- refers to the charge and carries the difference.
CREATE TABLE charges (
    id           text COLLATE "C" PRIMARY KEY,
    ref          text COLLATE "C",
    kind         text NOT NULL CHECK (kind IN ('charge', 'adjust')),
    key_id       text COLLATE "C" NOT NULL,
    day          text COLLATE "C" NOT NULL,
    model        text COLLATE "C" NOT NULL,
    answer_model text NOT NULL,
    endpoint     text NOT NULL,
    request_id   text NOT NULL,
    prompt       bigint NOT NULL CHECK (prompt >= 0),
    completion   bigint NOT NULL CHECK (completion >= 0),
    total        bigint NOT NULL CHECK (total >= 0),
    cached       bigint NOT NULL CHECK (cached >= 0),
    reasoning    bigint NOT NULL CHECK (reasoning >= 0),
    provenance   text COLLATE "C" NOT NULL CHECK (provenance IN ('reported', 'estimated', 'aborted', 'recovered', 'expired')),
    hold_tokens  bigint NOT NULL CHECK (hold_tokens >= 0),
    overshoot    bigint NOT NULL CHECK (overshoot >= 0),
    note         text NOT NULL,
    admitted_at  bigint NOT NULL CHECK (admitted_at >= 0),
    settled_at   bigint NOT NULL CHECK (settled_at >= 0)
);
CREATE INDEX charges_ref ON charges (ref) WHERE ref IS NOT NULL;
CREATE INDEX charges_day ON charges (day);
