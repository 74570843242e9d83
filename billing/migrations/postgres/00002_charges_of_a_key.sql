-- +goose Up
-- For a key that asks what it used, and when last: that is the end of a day's
-- entries, however many there are.
CREATE INDEX charges_key_day ON charges (key_id, day, settled_at);
