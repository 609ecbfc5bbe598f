-- name: InsertSnapshot :one
INSERT INTO snapshots (id, team_id, host_id, name, state, sandbox_id, template, key_id, vcpus, memory_mib, disk_bytes, op, op_until)
VALUES (@id, @team_id, @host_id, @name, 'creating', @sandbox_id, @template, sqlc.narg('key_id'), @vcpus, @memory_mib, @disk_bytes, @op::text,
    now() + @op_time::interval)
ON CONFLICT (team_id, name) DO NOTHING
RETURNING *;

-- name: SnapshotReady :one
-- One whose making was given up, and whose name may be another's by now, has no operation any more.
UPDATE snapshots SET state = 'ready', op = NULL, op_until = NULL
WHERE id = @id AND state IN ('creating', 'deleting') AND op IS NOT DISTINCT FROM sqlc.narg('op')
RETURNING *;

-- name: SnapshotDeleting :one
-- One whose server has not been heard of for longer than that takes was cut off.
UPDATE snapshots SET state = 'deleting', op = NULL, op_until = now() + @op_time::interval
WHERE id = @id AND (state IN ('ready', 'deleting') OR op_until < now())
RETURNING *;

-- name: RenewSnapshot :exec
UPDATE snapshots SET op_until = now() + @op_time::interval WHERE id = @id AND op = @op::text;

-- name: TakeSnapshot :one
-- An operation that is asked again goes on from where it was.
UPDATE snapshots SET op_until = now() + @op_time::interval WHERE id = @id AND team_id = @team_id AND state = 'creating' AND op = @op::text RETURNING *;

-- name: SnapshotOfID :one
SELECT * FROM snapshots WHERE id = @id AND team_id = @team_id;

-- name: SnapshotsCutOff :many
SELECT * FROM snapshots WHERE host_id = @host_id AND state <> 'ready' AND op_until < now() ORDER BY op_until LIMIT @page::int;

-- name: AbandonSnapshot :execrows
-- Its name is free at once. Its host may yet end it under its id, so that one is deleted there once that can't be any more.
UPDATE snapshots SET state = 'deleting', name = id, op = NULL, op_until = now() + @op_time::interval
WHERE id = @id AND state = 'creating' AND op_until < now();

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

-- name: GiveUpSnapshot :one
UPDATE snapshots SET state = 'deleting', name = id, op = NULL, op_until = now() + @op_time::interval WHERE id = @id AND op = @op::text RETURNING *;
