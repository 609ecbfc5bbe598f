-- name: InsertSandbox :one
INSERT INTO sandboxes (id, team_id, host_id, state, reason, op, op_until, template, snapshot_id, vcpus, memory_mib, disk_bytes, internet,
    metadata, ttl_seconds, on_expiry, key_id, public, auto_resume)
VALUES (@id, @team_id, @host_id, @state, @reason, sqlc.narg('op'), now() + sqlc.narg('op_time')::interval, @template, sqlc.narg('snapshot_id'),
    @vcpus, @memory_mib, @disk_bytes, @internet, @metadata, @ttl_seconds, @on_expiry, sqlc.narg('key_id'), @public, @auto_resume)
RETURNING *;

-- name: GetSandbox :one
SELECT * FROM sandboxes WHERE id = @id AND team_id = @team_id;

-- name: GetSandboxOfHost :one
SELECT * FROM sandboxes WHERE id = @id AND host_id = @host_id;

-- name: ListSandboxes :many
SELECT s.* FROM unnest(@states::text[]) AS wanted(state) CROSS JOIN LATERAL (
    SELECT * FROM sandboxes
    WHERE team_id = @team_id AND state = wanted.state AND (created_at, id) < (@before::timestamptz, @before_id::text)
    ORDER BY created_at DESC, id DESC LIMIT @page::int
) s ORDER BY s.created_at DESC, s.id DESC LIMIT @page::int;

-- name: ListSandboxesByMetadata :many
SELECT * FROM sandboxes
WHERE team_id = @team_id AND state = ANY (@states::text[]) AND (created_at, id) < (@before::timestamptz, @before_id::text)
    AND metadata @> @metadata::jsonb
ORDER BY created_at DESC, id DESC LIMIT @page::int;

-- name: ListAlive :many
SELECT * FROM sandboxes
WHERE host_id = @host_id AND id > @after AND (state NOT IN ('stopped', 'failed', 'lost') OR with_host)
ORDER BY id LIMIT @page::int;

-- name: BeginChange :one
-- An operation that is asked again goes on from where it was.
UPDATE sandboxes SET state = @state, reason = @reason, op = @op::text, op_until = now() + @op_time::interval
WHERE id = @id AND team_id = @team_id AND (state = ANY (@from_states::text[]) OR op = @op::text)
RETURNING *;

-- name: ListOfOp :many
SELECT * FROM sandboxes WHERE team_id = @team_id AND id = ANY (@ids::text[]) ORDER BY array_position(@ids::text[], id);

-- name: FinishChange :one
UPDATE sandboxes SET state = @state, reason = @reason, op = NULL, op_until = NULL
WHERE id = @id AND op = @op::text
RETURNING *;

-- name: FinishStart :one
UPDATE sandboxes SET state = 'running', reason = @reason, op = NULL, op_until = NULL,
    template = @template, vcpus = @vcpus, memory_mib = @memory_mib, disk_bytes = @disk_bytes
WHERE id = @id AND op = @op::text
RETURNING *;

-- name: Observe :one
UPDATE sandboxes SET state = @state, reason = @reason, op = NULL, op_until = NULL
WHERE id = @id AND version = @version AND state NOT IN ('stopped', 'failed', 'lost')
    AND (op IS NULL OR op_until < now() OR @state IN ('stopped', 'failed', 'lost'))
RETURNING *;

-- name: SetTTL :one
UPDATE sandboxes SET ttl_seconds = @ttl_seconds, on_expiry = @on_expiry
WHERE id = @id AND team_id = @team_id AND state IN ('running', 'paused')
RETURNING *;

-- name: SetMetadata :one
UPDATE sandboxes SET metadata = @metadata
WHERE id = @id AND team_id = @team_id AND state NOT IN ('stopped', 'failed', 'lost')
RETURNING *;

-- name: DeleteEnded :execrows
-- Of a host that is lost nothing is forgotten: what has ended meanwhile is to be destroyed there.
DELETE FROM sandboxes WHERE state IN ('stopped', 'failed', 'lost') AND changed_at < @before
    AND NOT EXISTS (SELECT 1 FROM hosts h WHERE h.id = sandboxes.host_id AND h.state IN ('lost', 'joining'));
