-- name: InsertSnapshot :one
INSERT INTO snapshots (id, team_id, host_id, name, state, sandbox_id, template)
VALUES (@id, @team_id, @host_id, @name, 'creating', @sandbox_id, @template)
ON CONFLICT (team_id, name) DO NOTHING
RETURNING *;

-- name: SnapshotReady :one
UPDATE snapshots SET state = 'ready' WHERE id = @id AND state IN ('creating', 'deleting') RETURNING *;

-- name: SnapshotDeleting :one
-- One that has been in the making for longer than that takes was cut off.
UPDATE snapshots SET state = 'deleting'
WHERE id = @id AND (state IN ('ready', 'deleting') OR created_at < now() - interval '30 minutes')
RETURNING *;

-- name: RemoveSnapshot :exec
DELETE FROM snapshots WHERE id = @id AND state IN ('creating', 'deleting');

-- name: LockSnapshot :one
SELECT * FROM snapshots WHERE team_id = @team_id AND name = @name FOR UPDATE;

-- name: ShareSnapshot :one
SELECT * FROM snapshots WHERE team_id = @team_id AND name = @name FOR SHARE;

-- name: ListSnapshots :many
SELECT * FROM snapshots WHERE team_id = @team_id AND name > @after AND state = 'ready' ORDER BY name LIMIT @page::int;

-- name: UsersOfSnapshot :many
SELECT id FROM sandboxes WHERE snapshot_id = @snapshot_id::text AND state NOT IN ('stopped', 'failed', 'lost') ORDER BY id LIMIT 10;
