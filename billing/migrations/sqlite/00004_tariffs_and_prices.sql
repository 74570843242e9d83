-- +goose Up
-- Money is in nano-units (1e-9) of the books' one currency, everywhere.

-- A named plan: limits that many keys share. 0 = the gateway's default.
CREATE TABLE tariffs (
    name        TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    tariff      INTEGER NOT NULL CHECK (tariff > 0),
    daily       INTEGER NOT NULL CHECK (daily >= 0),
    monthly     INTEGER NOT NULL CHECK (monthly >= 0),
    rpm         INTEGER NOT NULL CHECK (rpm >= 0),
    tpm         INTEGER NOT NULL CHECK (tpm >= 0),
    concurrent  INTEGER NOT NULL CHECK (concurrent >= 0),
    money       INTEGER NOT NULL CHECK (money >= 0)
) STRICT;
INSERT INTO tariffs (name, description, tariff, daily, monthly, rpm, tpm, concurrent, money) VALUES
    ('basic', 'Basic plan', 10000, 0, 0, 0, 0, 0, 0),
    ('premium', 'Premium plan', 100000, 0, 0, 0, 0, 0, 0),
    ('enterprise', 'Enterprise plan', 1000000, 0, 0, 0, 0, 0, 0),
    ('unlimited', 'Unlimited plan', 10000000, 0, 0, 0, 0, 0, 0);

-- plan is the name of a tariff, '' = none. money is the budget of a calendar
-- month, 0 = the plan's, or none.
ALTER TABLE keys ADD COLUMN plan TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN money INTEGER NOT NULL DEFAULT 0 CHECK (money >= 0);
ALTER TABLE keys ADD COLUMN blocked_at INTEGER NOT NULL DEFAULT 0 CHECK (blocked_at >= 0);

-- Only ever appended to. Figures are nano-units for a million tokens; NULL = as
-- the kind that it is a part of; all NULL = no price from then on.
CREATE TABLE prices (
    id           INTEGER PRIMARY KEY CHECK (id > 0),
    model        TEXT NOT NULL,
    valid_from   INTEGER NOT NULL CHECK (valid_from >= 0),
    input        INTEGER CHECK (input >= 0),
    cached_read  INTEGER CHECK (cached_read >= 0),
    cache_write  INTEGER CHECK (cache_write >= 0),
    output       INTEGER CHECK (output >= 0),
    reasoning    INTEGER CHECK (reasoning >= 0),
    audio_input  INTEGER CHECK (audio_input >= 0),
    audio_output INTEGER CHECK (audio_output >= 0),
    created_at   INTEGER NOT NULL CHECK (created_at >= 0)
) STRICT;

ALTER TABLE accounts ADD COLUMN spent INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0);
ALTER TABLE accounts ADD COLUMN reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0);

-- price is the id of the price that applies, 0 = none.
ALTER TABLE holds ADD COLUMN price INTEGER NOT NULL DEFAULT 0 CHECK (price >= 0);
ALTER TABLE holds ADD COLUMN cost INTEGER NOT NULL DEFAULT 0 CHECK (cost >= 0);

ALTER TABLE charges ADD COLUMN cache_write INTEGER NOT NULL DEFAULT 0 CHECK (cache_write >= 0);
ALTER TABLE charges ADD COLUMN audio_prompt INTEGER NOT NULL DEFAULT 0 CHECK (audio_prompt >= 0);
ALTER TABLE charges ADD COLUMN audio_completion INTEGER NOT NULL DEFAULT 0 CHECK (audio_completion >= 0);
ALTER TABLE charges ADD COLUMN price INTEGER NOT NULL DEFAULT 0 CHECK (price >= 0);
ALTER TABLE charges ADD COLUMN cost INTEGER NOT NULL DEFAULT 0 CHECK (cost >= 0);
ALTER TABLE charges ADD COLUMN hold_cost INTEGER NOT NULL DEFAULT 0 CHECK (hold_cost >= 0);

-- A chain for each writer: a link seals the charges of one transaction and the
-- link before it. sealed is, for each of them in the order of their ids, the 16
-- bytes of the id and the SHA-256 of the row; hash is the SHA-256 of the hash
-- before it and of sealed.
CREATE TABLE links (
    writer  TEXT NOT NULL,
    link    INTEGER NOT NULL CHECK (link > 0),
    charges INTEGER NOT NULL CHECK (charges > 0),
    hash    BLOB NOT NULL CHECK (length(hash) = 32),
    sealed  BLOB NOT NULL CHECK (length(sealed) = 48 * charges),
    PRIMARY KEY (writer, link)
) STRICT, WITHOUT ROWID;

-- What operators changed, in the transaction that changed it. Only appended to.
CREATE TABLE changes (
    id      TEXT PRIMARY KEY,
    at      INTEGER NOT NULL CHECK (at >= 0),
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
