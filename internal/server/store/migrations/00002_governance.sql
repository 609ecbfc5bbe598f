-- +goose Up
-- What a team or a key may have at once, and how often it may ask. NULL is no limit.
ALTER TABLE teams
    ADD COLUMN max_sandboxes       bigint CHECK (max_sandboxes >= 0),
    ADD COLUMN max_vcpus           bigint CHECK (max_vcpus >= 0),
    ADD COLUMN max_memory_mib      bigint CHECK (max_memory_mib >= 0),
    ADD COLUMN max_disk_bytes      bigint CHECK (max_disk_bytes >= 0),
    ADD COLUMN max_snapshots       bigint CHECK (max_snapshots >= 0),
    ADD COLUMN requests_per_second integer CHECK (requests_per_second > 0),
    ADD COLUMN burst               integer CHECK (burst > 0),
    -- What it did is still told under its id, so its row stays when it is deleted.
    ADD COLUMN deleted_at          timestamptz,
    DROP CONSTRAINT teams_name_key;
CREATE UNIQUE INDEX teams_name ON teams (name) WHERE deleted_at IS NULL;

ALTER TABLE api_keys
    ADD COLUMN max_sandboxes       bigint CHECK (max_sandboxes >= 0),
    ADD COLUMN max_vcpus           bigint CHECK (max_vcpus >= 0),
    ADD COLUMN max_memory_mib      bigint CHECK (max_memory_mib >= 0),
    ADD COLUMN max_disk_bytes      bigint CHECK (max_disk_bytes >= 0),
    ADD COLUMN max_snapshots       bigint CHECK (max_snapshots >= 0),
    ADD COLUMN requests_per_second integer CHECK (requests_per_second > 0),
    ADD COLUMN burst               integer CHECK (burst > 0);
-- An installation has an operator: the first key, as in a new one.
UPDATE api_keys SET scopes = scopes || '{operator}'
WHERE id = (SELECT id FROM api_keys WHERE 'admin' = ANY (scopes) ORDER BY created_at, id LIMIT 1);

-- The key that made it, whose limits it counts for as well.
ALTER TABLE sandboxes ADD COLUMN key_id text REFERENCES api_keys;
-- What a team takes is counted from this index alone.
CREATE INDEX sandboxes_taken ON sandboxes (team_id) INCLUDE (key_id, state, vcpus, memory_mib, disk_bytes)
    WHERE state NOT IN ('stopped', 'failed', 'lost');

ALTER TABLE snapshots
    ADD COLUMN key_id     text REFERENCES api_keys,
    ADD COLUMN vcpus      integer NOT NULL DEFAULT 0,
    ADD COLUMN memory_mib integer NOT NULL DEFAULT 0,
    ADD COLUMN disk_bytes bigint NOT NULL DEFAULT 0,
    -- The operation that makes or deletes it, and until when its server is waited for.
    ADD COLUMN op         text,
    ADD COLUMN op_until   timestamptz;
UPDATE snapshots SET vcpus = s.vcpus, memory_mib = s.memory_mib, disk_bytes = s.disk_bytes FROM sandboxes s WHERE s.id = snapshots.sandbox_id;
UPDATE snapshots SET op_until = now() WHERE state <> 'ready';
CREATE INDEX snapshots_cut_off ON snapshots (host_id, op_until) WHERE state <> 'ready';

-- The operation has come to its end well, though nobody has kept its answer.
ALTER TABLE idempotency ADD COLUMN done boolean NOT NULL DEFAULT false;
CREATE INDEX idempotency_claim ON idempotency (claim);

-- Of teams and keys only the ids are kept: a record outlives what it tells of.
CREATE TABLE audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    team_id    text NOT NULL,
    key_id     text NOT NULL,
    -- The document's operationId.
    operation  text NOT NULL,
    resource   text NOT NULL,
    status     integer NOT NULL,
    request_id text NOT NULL,
    address    text NOT NULL
);
CREATE INDEX audit_of_team ON audit (team_id, id DESC);
CREATE INDEX audit_by_age ON audit (at);

-- +goose Down
DROP TABLE audit;
DROP INDEX idempotency_claim;
ALTER TABLE idempotency DROP COLUMN done;
ALTER TABLE snapshots DROP COLUMN key_id, DROP COLUMN vcpus, DROP COLUMN memory_mib, DROP COLUMN disk_bytes, DROP COLUMN op, DROP COLUMN op_until;
ALTER TABLE sandboxes DROP COLUMN key_id;
ALTER TABLE api_keys DROP COLUMN max_sandboxes, DROP COLUMN max_vcpus, DROP COLUMN max_memory_mib, DROP COLUMN max_disk_bytes,
    DROP COLUMN max_snapshots, DROP COLUMN requests_per_second, DROP COLUMN burst;
DROP INDEX teams_name;
DELETE FROM teams WHERE deleted_at IS NOT NULL AND NOT EXISTS (SELECT FROM api_keys WHERE team_id = teams.id);
ALTER TABLE teams DROP COLUMN max_sandboxes, DROP COLUMN max_vcpus, DROP COLUMN max_memory_mib, DROP COLUMN max_disk_bytes,
    DROP COLUMN max_snapshots, DROP COLUMN requests_per_second, DROP COLUMN burst, DROP COLUMN deleted_at;
ALTER TABLE teams ADD CONSTRAINT teams_name_key UNIQUE (name);
