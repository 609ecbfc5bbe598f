-- name: RouteOf :one
SELECT s.id, s.team_id, s.host_id, s.state, s.public, s.auto_resume,
    ARRAY(SELECT t.hash FROM access_tokens t WHERE t.sandbox_id = s.id ORDER BY t.created_at DESC)::bytea[] AS tokens
FROM sandboxes s WHERE s.id = @id;

-- name: SetPorts :one
UPDATE sandboxes SET public = coalesce(sqlc.narg('public'), public), auto_resume = coalesce(sqlc.narg('auto_resume'), auto_resume)
WHERE id = @id AND team_id = @team_id AND state NOT IN ('stopped', 'failed', 'lost')
RETURNING *;

-- name: InsertAccessToken :execrows
INSERT INTO access_tokens (hash, sandbox_id)
SELECT @hash, id FROM sandboxes WHERE id = @id AND team_id = @team_id AND state NOT IN ('stopped', 'failed', 'lost');

-- name: TrimAccessTokens :exec
DELETE FROM access_tokens WHERE hash IN (
    SELECT t.hash FROM access_tokens t WHERE t.sandbox_id = @sandbox_id ORDER BY t.created_at DESC OFFSET @keep::int
);

-- name: DeleteAccessTokens :exec
DELETE FROM access_tokens WHERE sandbox_id = @sandbox_id;
