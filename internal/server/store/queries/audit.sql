-- name: AddAudit :exec
INSERT INTO audit (team_id, key_id, operation, resource, status, request_id, address)
VALUES (@team_id, @key_id, @operation, @resource, @status, @request_id, @address);

-- name: ListAudit :many
SELECT * FROM audit WHERE id < @before::bigint ORDER BY id DESC LIMIT @page::int;

-- name: ListAuditOfTeam :many
SELECT * FROM audit WHERE team_id = @team_id AND id < @before::bigint ORDER BY id DESC LIMIT @page::int;

-- name: DeleteOldAudit :execrows
DELETE FROM audit WHERE at < @before;
