-- name: InsertTeam :one
INSERT INTO teams (id, name) VALUES (@id, @name) ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING *;

-- name: CountKeys :one
SELECT count(*) FROM api_keys;

-- name: InsertKey :one
INSERT INTO api_keys (id, team_id, name, prefix, hash, scopes, expires_at)
VALUES (@id, @team_id, @name, @prefix, @hash, @scopes, sqlc.narg('expires_at'))
RETURNING *;

-- name: KeyByHash :one
SELECT * FROM api_keys WHERE hash = @hash;

-- name: ListKeys :many
SELECT * FROM api_keys WHERE team_id = @team_id AND id > @after ORDER BY id LIMIT @page::int;

-- name: RevokeKey :one
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = @id AND team_id = @team_id RETURNING *;

-- name: KeysUsed :exec
UPDATE api_keys SET last_used_at = used.at FROM (SELECT unnest(@ids::text[]) AS id, unnest(@times::timestamptz[]) AS at) AS used
WHERE api_keys.id = used.id AND (last_used_at IS NULL OR last_used_at < used.at);

-- name: Ping :one
SELECT 1::int;
