-- +goose Up
CREATE TABLE teams (
    id         text PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id           text PRIMARY KEY,
    team_id      text NOT NULL REFERENCES teams,
    name         text NOT NULL,
    -- The first characters, by which a person knows it again.
    prefix       text NOT NULL,
    -- SHA-256 of the whole key, which is kept nowhere.
    hash         bytea NOT NULL UNIQUE,
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    -- Written now and then, not at every request.
    last_used_at timestamptz
);
CREATE INDEX api_keys_of_team ON api_keys (team_id, id);

CREATE TABLE hosts (
    id         text PRIMARY KEY,
    -- How its agent is reached: "unix:///run/wrenn/agent.sock".
    address    text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE snapshots (
    id         text PRIMARY KEY,
    team_id    text NOT NULL REFERENCES teams,
    host_id    text NOT NULL REFERENCES hosts,
    name       text NOT NULL,
    -- creating → ready → deleting → no row.
    state      text NOT NULL CHECK (state IN ('creating', 'ready', 'deleting')),
    -- The sandbox that was frozen.
    sandbox_id text NOT NULL,
    template   text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (team_id, name)
);

CREATE TABLE sandboxes (
    id          text PRIMARY KEY,
    team_id     text NOT NULL REFERENCES teams,
    host_id     text NOT NULL REFERENCES hosts,
    state       text NOT NULL CHECK (state IN ('starting', 'running', 'pausing', 'paused', 'resuming', 'stopping', 'stopped', 'failed', 'lost')),
    reason      text NOT NULL,
    -- Rises with every change: who read the row can tell whether it is still so.
    version     bigint NOT NULL DEFAULT 1,
    -- The operation that is under way, and until when its server is waited for.
    op          text,
    op_until    timestamptz,
    template    text NOT NULL,
    snapshot_id text,
    vcpus       integer NOT NULL,
    memory_mib  integer NOT NULL,
    disk_bytes  bigint NOT NULL,
    internet    boolean NOT NULL,
    metadata    jsonb NOT NULL,
    ttl_seconds integer NOT NULL,
    on_expiry   text NOT NULL CHECK (on_expiry IN ('destroy', 'pause')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    changed_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((op IS NULL) = (op_until IS NULL)),
    CHECK (op IS NULL OR state IN ('starting', 'pausing', 'resuming', 'stopping'))
);
-- A page of a list is read from its place in this index, for each state.
CREATE INDEX sandboxes_page ON sandboxes (team_id, state, created_at DESC, id DESC);
CREATE INDEX sandboxes_metadata ON sandboxes USING gin (metadata jsonb_path_ops);
CREATE INDEX sandboxes_of_snapshot ON sandboxes (snapshot_id) WHERE state NOT IN ('stopped', 'failed', 'lost');
CREATE INDEX sandboxes_of_host ON sandboxes (host_id, id) WHERE state NOT IN ('stopped', 'failed', 'lost');

-- A sequence's numbers become visible out of order, so a reader that goes by them alone would miss some. It goes by the transaction's
-- number first, and reads only what is below every transaction that is still open.
CREATE TABLE events (
    tx         bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    id         bigint GENERATED ALWAYS AS IDENTITY,
    team_id    text NOT NULL REFERENCES teams,
    sandbox_id text NOT NULL,
    state      text NOT NULL,
    reason     text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (tx, id)
);
CREATE INDEX events_of_team ON events (team_id, tx, id);
CREATE INDEX events_by_age ON events (at);

CREATE TABLE idempotency (
    team_id    text NOT NULL REFERENCES teams,
    key        text NOT NULL,
    -- SHA-256 of what was asked.
    request    bytea NOT NULL,
    -- Who works on it, and until when that one is waited for.
    claim      text NOT NULL,
    claim_until timestamptz NOT NULL,
    -- The answer; no status yet while it is worked on.
    status     integer,
    answer     bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- Every change of state has its event, in its transaction, and nothing that has ended comes back: whatever the program does.
-- +goose StatementBegin
CREATE FUNCTION sandbox_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.state IN ('stopped', 'failed', 'lost') AND NEW.state <> OLD.state THEN
            RAISE EXCEPTION 'sandbox % is % and can not become %', OLD.id, OLD.state, NEW.state USING ERRCODE = 'check_violation';
        END IF;
        NEW.version := OLD.version + 1;
        IF NEW.state = OLD.state THEN
            RETURN NEW;
        END IF;
        NEW.changed_at := clock_timestamp();
    END IF;
    INSERT INTO events (team_id, sandbox_id, state, reason, at) VALUES (NEW.team_id, NEW.id, NEW.state, NEW.reason, NEW.changed_at);
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER sandbox_changed BEFORE INSERT OR UPDATE ON sandboxes FOR EACH ROW EXECUTE FUNCTION sandbox_changed();

-- +goose Down
DROP TABLE idempotency, events, sandboxes, snapshots, hosts, api_keys, teams;
DROP FUNCTION sandbox_changed;
