-- +goose Up
-- Money is in nano-units (1e-9) of the books' one currency, everywhere.

-- A named plan: limits that many keys share. 0 = the gateway's default.
CREATE TABLE tariffs (
    name        text COLLATE "C" PRIMARY KEY,
    description text NOT NULL,
    tariff      bigint NOT NULL CHECK (tariff > 0),
    daily       bigint NOT NULL CHECK (daily >= 0),
    monthly     bigint NOT NULL CHECK (monthly >= 0),
    rpm         bigint NOT NULL CHECK (rpm >= 0),
    tpm         bigint NOT NULL CHECK (tpm >= 0),
    concurrent  bigint NOT NULL CHECK (concurrent >= 0),
    money       bigint NOT NULL CHECK (money >= 0)
);
INSERT INTO tariffs (name, description, tariff, daily, monthly, rpm, tpm, concurrent, money) VALUES
    ('basic', 'Basic plan', 10000, 0, 0, 0, 0, 0, 0),
    ('premium', 'Premium plan', 100000, 0, 0, 0, 0, 0, 0),
    ('enterprise', 'Enterprise plan', 1000000, 0, 0, 0, 0, 0, 0),
    ('unlimited', 'Unlimited plan', 10000000, 0, 0, 0, 0, 0, 0);

-- plan is the name of a tariff, '' = none. money is the budget of a calendar
-- month, 0 = the plan's, or none.
ALTER TABLE keys ADD COLUMN plan text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN money bigint NOT NULL DEFAULT 0 CHECK (money >= 0);
ALTER TABLE keys ADD COLUMN blocked_at bigint NOT NULL DEFAULT 0 CHECK (blocked_at >= 0);

-- Only ever appended to. Figures are nano-units for a million tokens; NULL = as
-- the kind that it is a part of; all NULL = no price from then on.
CREATE TABLE prices (
    id           bigint PRIMARY KEY CHECK (id > 0),
    model        text COLLATE "C" NOT NULL,
    valid_from   bigint NOT NULL CHECK (valid_from >= 0),
    input        bigint CHECK (input >= 0),
    cached_read  bigint CHECK (cached_read >= 0),
    cache_write  bigint CHECK (cache_write >= 0),
    output       bigint CHECK (output >= 0),
    reasoning    bigint CHECK (reasoning >= 0),
    audio_input  bigint CHECK (audio_input >= 0),
    audio_output bigint CHECK (audio_output >= 0),
    created_at   bigint NOT NULL CHECK (created_at >= 0)
);

ALTER TABLE accounts ADD COLUMN spent bigint NOT NULL DEFAULT 0 CHECK (spent >= 0);
ALTER TABLE accounts ADD COLUMN reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0);

-- price is the id of the price that applies, 0 = none.
ALTER TABLE holds ADD COLUMN price bigint NOT NULL DEFAULT 0 CHECK (price >= 0);
ALTER TABLE holds ADD COLUMN cost bigint NOT NULL DEFAULT 0 CHECK (cost >= 0);

ALTER TABLE charges ADD COLUMN cache_write bigint NOT NULL DEFAULT 0 CHECK (cache_write >= 0);
ALTER TABLE charges ADD COLUMN audio_prompt bigint NOT NULL DEFAULT 0 CHECK (audio_prompt >= 0);
ALTER TABLE charges ADD COLUMN audio_completion bigint NOT NULL DEFAULT 0 CHECK (audio_completion >= 0);
ALTER TABLE charges ADD COLUMN price bigint NOT NULL DEFAULT 0 CHECK (price >= 0);
ALTER TABLE charges ADD COLUMN cost bigint NOT NULL DEFAULT 0 CHECK (cost >= 0);
ALTER TABLE charges ADD COLUMN hold_cost bigint NOT NULL DEFAULT 0 CHECK (hold_cost >= 0);

-- A chain for each writer: a link seals the charges of one transaction and the
-- link before it. sealed is, for each of them in the order of their ids, the 16
-- bytes of the id and the SHA-256 of the row; hash is the SHA-256 of the hash
-- before it and of sealed.
CREATE TABLE links (
    writer  text COLLATE "C" NOT NULL,
    link    bigint NOT NULL CHECK (link > 0),
    charges bigint NOT NULL CHECK (charges > 0),
    hash    bytea NOT NULL CHECK (length(hash) = 32),
    sealed  bytea NOT NULL CHECK (length(sealed) = 48 * charges),
    PRIMARY KEY (writer, link)
);

-- What operators changed, in the transaction that changed it. Only appended to.
CREATE TABLE changes (
    id      text COLLATE "C" PRIMARY KEY,
    at      bigint NOT NULL CHECK (at >= 0),
    actor   text NOT NULL,
    action  text NOT NULL,
    subject text COLLATE "C" NOT NULL,
    detail  text NOT NULL
);
