-- +goose Up
-- For a key that asks what it used.
CREATE INDEX charges_key_day ON charges (key_id, day);
