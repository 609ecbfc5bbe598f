-- name: InsertTeam :one
INSERT INTO teams (id, name) VALUES (@id, @name) ON CONFLICT (name) WHERE deleted_at IS NULL DO UPDATE SET name = excluded.name RETURNING *;

-- name: CountKeys :one
SELECT count(*) FROM api_keys;

-- name: InsertKey :one
INSERT INTO api_keys (id, team_id, name, prefix, hash, scopes, expires_at, max_sandboxes, max_vcpus, max_memory_mib, max_disk_bytes, max_snapshots,
    requests_per_second, burst)
VALUES (@id, @team_id, @name, @prefix, @hash, @scopes, sqlc.narg('expires_at'), sqlc.narg('max_sandboxes'), sqlc.narg('max_vcpus'),
    sqlc.narg('max_memory_mib'), sqlc.narg('max_disk_bytes'), sqlc.narg('max_snapshots'), sqlc.narg('requests_per_second'), sqlc.narg('burst'))
RETURNING *;

-- name: KeyByHash :one
SELECT sqlc.embed(api_keys), sqlc.embed(teams) FROM api_keys JOIN teams ON teams.id = api_keys.team_id WHERE api_keys.hash = @hash;

-- name: ListKeys :many
SELECT * FROM api_keys WHERE team_id = @team_id AND id > @after ORDER BY id LIMIT @page::int;

-- name: RevokeKey :one
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
WHERE id = @id AND team_id = @team_id AND (@by_operator::bool OR NOT 'operator' = ANY (scopes))
RETURNING *;

-- name: KeysUsed :exec
UPDATE api_keys SET last_used_at = used.at FROM (SELECT unnest(@ids::text[]) AS id, unnest(@times::timestamptz[]) AS at) AS used
WHERE api_keys.id = used.id AND (last_used_at IS NULL OR last_used_at < used.at);

-- name: Ping :one
SELECT 1::int;
