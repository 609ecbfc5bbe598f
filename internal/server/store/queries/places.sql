-- name: OpenPlace :one
-- A new place is after all that has happened.
INSERT INTO places (name, tx, event_id) VALUES (@name, pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1, 9223372036854775807)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING tx, event_id;

-- name: EventsOfAllAfter :many
SELECT * FROM events
WHERE (tx, id) > (@tx::bigint, @id::bigint) AND tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
ORDER BY tx, id LIMIT @page::int;
