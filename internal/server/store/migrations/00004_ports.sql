-- +goose Up
ALTER TABLE sandboxes
    -- Whether its ports are open to everybody who knows their URL.
    ADD COLUMN public      boolean NOT NULL DEFAULT false,
    -- Whether a request to one of its ports wakes it.
    ADD COLUMN auto_resume boolean NOT NULL DEFAULT false;

CREATE TABLE access_tokens (
    -- SHA-256 of the whole token, which is kept nowhere.
    hash       bytea PRIMARY KEY,
    sandbox_id text NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX access_tokens_of_sandbox ON access_tokens (sandbox_id, created_at DESC);

-- +goose Down
DROP TABLE access_tokens;
ALTER TABLE sandboxes DROP COLUMN public, DROP COLUMN auto_resume;
