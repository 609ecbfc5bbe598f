-- name: EventsAfter :many
SELECT * FROM events
WHERE team_id = @team_id AND (tx, id) > (@tx::bigint, @id::bigint)
    AND tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    AND (@sandbox_id::text = '' OR sandbox_id = @sandbox_id)
ORDER BY tx, id LIMIT @page::int;

-- name: EventsNow :one
SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1)::bigint;

-- name: DeleteOldEvents :execrows
DELETE FROM events WHERE at < @before;
