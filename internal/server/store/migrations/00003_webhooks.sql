-- +goose Up
-- Work that one server at a time does, though several run: whose it is, and until when.
CREATE TABLE leases (
    name        text PRIMARY KEY,
    holder      text NOT NULL,
    -- Rises with every holder: what an earlier one writes is told apart, however late it comes.
    term        bigint NOT NULL,
    lease_until timestamptz NOT NULL
);

-- How far a worker has read the events.
CREATE TABLE places (
    name     text PRIMARY KEY,
    tx       bigint NOT NULL,
    event_id bigint NOT NULL
);

-- Who makes messages of events begins with what happens from now on.
INSERT INTO places (name, tx, event_id) VALUES ('webhooks', pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1, 0);

CREATE TABLE webhooks (
    id              text PRIMARY KEY,
    team_id         text NOT NULL REFERENCES teams,
    url             text NOT NULL,
    -- What messages are signed with, and what they were signed with before, as long as that is good. They must be known to sign with.
    secret          text NOT NULL,
    old_secret      text,
    old_until       timestamptz,
    -- The states whose events it gets; empty is all.
    states          text[] NOT NULL,
    active          boolean NOT NULL,
    -- Why it was switched off, if the server did it.
    disabled_reason text,
    -- Since when nothing has reached it.
    failing_since   timestamptz,
    -- It gets the events of transactions after this one.
    after_tx        bigint NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CHECK ((old_secret IS NULL) = (old_until IS NULL))
);
CREATE INDEX webhooks_of_team ON webhooks (team_id, id);

CREATE TABLE webhook_deliveries (
    id              text PRIMARY KEY,
    -- The order in which they are sent.
    seq             bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
    webhook_id      text NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    -- The event; none of a test.
    tx              bigint,
    event_id        bigint,
    sandbox_id      text,
    type            text NOT NULL,
    -- What is sent, the same at every attempt.
    body            text NOT NULL,
    state           text NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    last_attempt_at timestamptz,
    last_status     integer,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- When somebody asked for it to be sent, at last.
    asked_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (webhook_id, tx, event_id),
    CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL))
);
CREATE INDEX webhook_deliveries_page ON webhook_deliveries (webhook_id, seq);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (webhook_id, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_line ON webhook_deliveries (webhook_id, sandbox_id, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (asked_at);

-- +goose Down
DROP TABLE webhook_deliveries, webhooks, places, leases;
