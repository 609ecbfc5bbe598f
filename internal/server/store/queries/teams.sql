-- name: AddTeam :one
INSERT INTO teams (id, name, max_sandboxes, max_vcpus, max_memory_mib, max_disk_bytes, max_snapshots, requests_per_second, burst)
VALUES (@id, @name, sqlc.narg('max_sandboxes'), sqlc.narg('max_vcpus'), sqlc.narg('max_memory_mib'), sqlc.narg('max_disk_bytes'),
    sqlc.narg('max_snapshots'), sqlc.narg('requests_per_second'), sqlc.narg('burst'))
RETURNING *;

-- name: GetTeam :one
SELECT * FROM teams WHERE id = @id AND deleted_at IS NULL;

-- name: ListTeams :many
SELECT * FROM teams WHERE deleted_at IS NULL AND id > @after ORDER BY id LIMIT @page::int;

-- name: RenameTeam :one
UPDATE teams SET name = @name WHERE id = @id AND deleted_at IS NULL RETURNING *;

-- name: LimitTeam :one
UPDATE teams SET max_sandboxes = sqlc.narg('max_sandboxes'), max_vcpus = sqlc.narg('max_vcpus'), max_memory_mib = sqlc.narg('max_memory_mib'),
    max_disk_bytes = sqlc.narg('max_disk_bytes'), max_snapshots = sqlc.narg('max_snapshots'),
    requests_per_second = sqlc.narg('requests_per_second'), burst = sqlc.narg('burst')
WHERE id = @id AND deleted_at IS NULL RETURNING *;

-- name: ShareTeam :one
-- As a foreign key's check locks it: the team is not deleted until the transaction ends.
SELECT * FROM teams WHERE id = @id AND deleted_at IS NULL FOR KEY SHARE;

-- name: LockTeam :one
-- One who takes of what the team may have is at work at a time.
SELECT * FROM teams WHERE id = @id AND deleted_at IS NULL FOR NO KEY UPDATE;

-- name: LockTeamToDelete :one
SELECT * FROM teams WHERE id = @id AND deleted_at IS NULL FOR UPDATE;

-- name: UsersOfTeam :many
SELECT id FROM (
    (SELECT s.id FROM sandboxes s WHERE s.team_id = @team_id AND s.state NOT IN ('stopped', 'failed', 'lost') ORDER BY s.id LIMIT 10)
    UNION ALL
    (SELECT n.name FROM snapshots n WHERE n.team_id = @team_id AND n.name <> n.id ORDER BY n.name LIMIT 10)
) AS users LIMIT 10;

-- name: DeleteTeam :exec
UPDATE teams SET deleted_at = now() WHERE id = @id;

-- name: RevokeKeysOfTeam :exec
UPDATE api_keys SET revoked_at = now() WHERE team_id = @team_id AND revoked_at IS NULL;

-- name: GetKey :one
SELECT * FROM api_keys WHERE id = @id AND team_id = @team_id;

-- name: UsedByTeam :one
SELECT count(*) AS sandboxes,
    coalesce(sum(vcpus) FILTER (WHERE state NOT IN ('paused', 'stopping')), 0)::bigint AS vcpus,
    coalesce(sum(memory_mib) FILTER (WHERE state NOT IN ('paused', 'stopping')), 0)::bigint AS memory_mib,
    coalesce(sum(disk_bytes + memory_mib::bigint * 1048576), 0)::bigint AS disk_bytes
FROM sandboxes
WHERE team_id = @team_id AND state NOT IN ('stopped', 'failed', 'lost') AND (@key_id::text = '' OR key_id = @key_id::text);

-- name: SnapshotsOfTeam :one
-- One that was given up has its id for a name.
SELECT count(*) AS snapshots, coalesce(sum(disk_bytes + memory_mib::bigint * 1048576), 0)::bigint AS disk_bytes
FROM snapshots WHERE team_id = @team_id AND name <> id AND (@key_id::text = '' OR key_id = @key_id::text);
