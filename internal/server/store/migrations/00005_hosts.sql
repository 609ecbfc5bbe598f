-- +goose Up
-- The private authority of this installation: it signs the certificates of servers and hosts.
CREATE TABLE authority (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    certificate bytea NOT NULL,
    -- PKCS #8. Who can read it can pass for any server and any host.
    key         bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE join_tokens (
    id         text PRIMARY KEY,
    -- SHA-256 of the secret, which is kept nowhere.
    hash       bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    -- The host that it let in.
    host_id    text REFERENCES hosts
);

ALTER TABLE hosts DROP CONSTRAINT hosts_address_key,
    -- joining → up ⇄ lost, and removed for good. One that was lost is joining again until a server has looked at all that it has.
    ADD state        text NOT NULL DEFAULT 'joining' CHECK (state IN ('joining', 'up', 'lost', 'removed')),
    ADD draining     boolean NOT NULL DEFAULT false,
    -- SHA-256 of its public key; null for the agent on a server's own machine, which is reached by a socket.
    ADD key_hash     bytea UNIQUE,
    -- Until when it may be silent.
    ADD lease_until  timestamptz NOT NULL DEFAULT now(),
    -- When it said last what it has; null before the first time.
    ADD reported_at  timestamptz,
    ADD version      text NOT NULL DEFAULT '',
    ADD boot         text NOT NULL DEFAULT '',
    -- What its sandboxes may take together; 0 is no limit.
    ADD max_sandboxes  integer NOT NULL DEFAULT 0,
    ADD max_vcpus      integer NOT NULL DEFAULT 0,
    ADD max_memory_mib bigint NOT NULL DEFAULT 0,
    ADD max_disk_bytes bigint NOT NULL DEFAULT 0,
    -- What they take, or will, as their rows say: sandbox_reserved keeps it.
    ADD reserved_sandboxes  integer NOT NULL DEFAULT 0,
    ADD reserved_vcpus      integer NOT NULL DEFAULT 0,
    ADD reserved_memory_mib bigint NOT NULL DEFAULT 0,
    ADD reserved_disk_bytes bigint NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX hosts_local ON hosts (address) WHERE key_hash IS NULL AND state <> 'removed';

CREATE TABLE host_templates (
    host_id     text NOT NULL REFERENCES hosts,
    name        text NOT NULL,
    template_id text NOT NULL,
    vcpus       integer NOT NULL,
    memory_mib  integer NOT NULL,
    disk_bytes  bigint NOT NULL,
    PRIMARY KEY (host_id, name)
);

-- When the leases were last looked at, of the hosts that joined and of each server's own.
CREATE TABLE lease_watch (
    hosts text PRIMARY KEY,
    at    timestamptz NOT NULL
);

-- awake: it has a machine, or may. with_host: it is lost because its host is, and may be there again with it.
ALTER TABLE sandboxes ADD awake boolean NOT NULL DEFAULT false, ADD with_host boolean NOT NULL DEFAULT false,
    ADD CHECK (NOT with_host OR state = 'lost');
CREATE INDEX sandboxes_with_host ON sandboxes (host_id, id) WHERE with_host;

-- As in the first migration, but that a sandbox that was lost with its host may come back with it, or be given up.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sandbox_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.state IN ('stopped', 'failed', 'lost') AND NEW.state <> OLD.state
            AND NOT (OLD.with_host AND NEW.state IN ('running', 'paused', 'stopped', 'failed')) THEN
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

-- +goose StatementBegin
CREATE FUNCTION sandbox_awake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.awake := CASE
        WHEN NEW.state IN ('starting', 'running', 'pausing', 'resuming') THEN true
        WHEN NEW.state IN ('stopping', 'lost') AND TG_OP = 'UPDATE' THEN OLD.awake AND (NEW.state = 'stopping' OR NEW.with_host)
        ELSE false END;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER sandbox_awake BEFORE INSERT OR UPDATE ON sandboxes FOR EACH ROW EXECUTE FUNCTION sandbox_awake();

-- What a sandbox takes of its host, as its agent counts it: a machine's CPUs and memory while there is one; its disk, and there the room for its
-- memory, until it ends.
-- +goose StatementBegin
CREATE FUNCTION sandbox_takes(s sandboxes) RETURNS TABLE (sandboxes integer, vcpus integer, memory_mib bigint, disk_bytes bigint)
    LANGUAGE sql IMMUTABLE AS $$
    SELECT s.awake::integer, s.awake::integer * s.vcpus, s.awake::integer::bigint * s.memory_mib,
        CASE WHEN s.state IN ('stopped', 'failed', 'lost') AND NOT s.with_host THEN 0 ELSE s.memory_mib::bigint * 1048576 + s.disk_bytes END
$$;
-- +goose StatementEnd

-- The host's sums follow every change of a row, whatever the program does, and what is asked for does not go over them, nor to where nobody is.
-- +goose StatementBegin
CREATE FUNCTION sandbox_reserved() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    after record;
    before record;
    h hosts%ROWTYPE;
BEGIN
    after := sandbox_takes(NEW);
    IF TG_OP = 'UPDATE' THEN
        before := sandbox_takes(OLD);
    ELSE
        SELECT 0 AS sandboxes, 0 AS vcpus, 0::bigint AS memory_mib, 0::bigint AS disk_bytes INTO before;
    END IF;
    IF after IS NOT DISTINCT FROM before THEN
        RETURN NULL;
    END IF;
    UPDATE hosts SET reserved_sandboxes = reserved_sandboxes + after.sandboxes - before.sandboxes,
        reserved_vcpus = reserved_vcpus + after.vcpus - before.vcpus,
        reserved_memory_mib = reserved_memory_mib + after.memory_mib - before.memory_mib,
        reserved_disk_bytes = reserved_disk_bytes + after.disk_bytes - before.disk_bytes
    WHERE id = NEW.host_id RETURNING * INTO h;
    IF NEW.state = 'resuming' AND h.state = 'lost' THEN
        RAISE EXCEPTION 'host % is lost', h.id USING ERRCODE = 'WR002';
    END IF;
    IF NEW.state IN ('starting', 'resuming') AND (
        (h.max_sandboxes > 0 AND h.reserved_sandboxes > h.max_sandboxes AND after.sandboxes > before.sandboxes)
        OR (h.max_vcpus > 0 AND h.reserved_vcpus > h.max_vcpus AND after.vcpus > before.vcpus)
        OR (h.max_memory_mib > 0 AND h.reserved_memory_mib > h.max_memory_mib AND after.memory_mib > before.memory_mib)
        OR (h.max_disk_bytes > 0 AND h.reserved_disk_bytes > h.max_disk_bytes AND after.disk_bytes > before.disk_bytes)) THEN
        RAISE EXCEPTION 'host %: of % sandboxes, % vcpus, % MiB of memory and % bytes of disk (0 is no limit) there would be taken %, %, % and %',
            h.id, h.max_sandboxes, h.max_vcpus, h.max_memory_mib, h.max_disk_bytes,
            h.reserved_sandboxes, h.reserved_vcpus, h.reserved_memory_mib, h.reserved_disk_bytes USING ERRCODE = 'WR001';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

UPDATE sandboxes SET awake = true WHERE state NOT IN ('paused', 'stopped', 'failed', 'lost');
UPDATE hosts SET reserved_sandboxes = t.n, reserved_vcpus = t.vcpus, reserved_memory_mib = t.memory, reserved_disk_bytes = t.disk
    FROM (SELECT s.host_id, sum(x.sandboxes) AS n, sum(x.vcpus) AS vcpus, sum(x.memory_mib) AS memory, sum(x.disk_bytes) AS disk
        FROM sandboxes s, sandbox_takes(s) x GROUP BY s.host_id) t WHERE t.host_id = hosts.id;
CREATE TRIGGER sandbox_reserved AFTER INSERT OR UPDATE ON sandboxes FOR EACH ROW EXECUTE FUNCTION sandbox_reserved();

-- +goose Down
DROP TRIGGER sandbox_reserved ON sandboxes;
DROP TRIGGER sandbox_awake ON sandboxes;
DROP FUNCTION sandbox_reserved, sandbox_awake, sandbox_takes;
DROP INDEX sandboxes_with_host;
ALTER TABLE sandboxes DROP awake, DROP with_host;
DROP TABLE lease_watch, host_templates, join_tokens, authority;
DROP INDEX hosts_local;
ALTER TABLE hosts DROP state, DROP draining, DROP key_hash, DROP lease_until, DROP reported_at, DROP version, DROP boot,
    DROP max_sandboxes, DROP max_vcpus, DROP max_memory_mib, DROP max_disk_bytes,
    DROP reserved_sandboxes, DROP reserved_vcpus, DROP reserved_memory_mib, DROP reserved_disk_bytes, ADD UNIQUE (address);
