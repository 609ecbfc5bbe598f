-- name: CountWebhooks :one
SELECT count(*) FROM webhooks WHERE team_id = @team_id;

-- name: InsertWebhook :one
INSERT INTO webhooks (id, team_id, url, secret, states, active, after_tx)
VALUES (@id, @team_id, @url, @secret, @states, @active, pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1)
RETURNING *;

-- name: GetWebhook :one
SELECT * FROM webhooks WHERE id = @id AND team_id = @team_id;

-- name: ListWebhooks :many
SELECT * FROM webhooks WHERE team_id = @team_id AND id > @after ORDER BY id LIMIT @page::int;

-- name: UpdateWebhook :one
UPDATE webhooks SET url = coalesce(sqlc.narg('url'), url),
    states = coalesce(sqlc.narg('states')::text[], states),
    active = coalesce(sqlc.narg('active'), active),
    disabled_reason = CASE WHEN sqlc.narg('active')::boolean IS NULL THEN disabled_reason END,
    failing_since = CASE WHEN sqlc.narg('active')::boolean IS NULL THEN failing_since END,
    after_tx = CASE WHEN sqlc.narg('active')::boolean AND NOT active THEN pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1 ELSE after_tx END,
    old_secret = CASE WHEN sqlc.narg('secret')::text <> secret THEN secret ELSE old_secret END,
    old_until = CASE WHEN sqlc.narg('secret')::text <> secret THEN now() + @old_time::interval ELSE old_until END,
    secret = coalesce(sqlc.narg('secret'), secret)
WHERE id = @id AND team_id = @team_id
RETURNING *;

-- name: DeleteWebhook :execrows
DELETE FROM webhooks WHERE id = @id AND team_id = @team_id;

-- name: ListDeliveries :many
SELECT * FROM webhook_deliveries WHERE webhook_id = @webhook_id AND seq < @before ORDER BY seq DESC LIMIT @page::int;

-- name: InsertTestDelivery :one
INSERT INTO webhook_deliveries (id, webhook_id, type, body, state, next_attempt_at)
SELECT @id::text, w.id, @type::text, @body::text, 'pending', now() FROM webhooks w WHERE w.id = @webhook_id FOR KEY SHARE
RETURNING *;

-- name: Redeliver :one
UPDATE webhook_deliveries SET state = 'pending', next_attempt_at = now(), asked_at = now() WHERE id = @id AND webhook_id = @webhook_id
RETURNING *;

-- name: EventsToSend :many
-- One row for each webhook that gets the event, or one without.
SELECT e.tx, e.id, e.sandbox_id, e.state, e.reason, e.at, coalesce(w.id, '')::text AS webhook_id
FROM (
    SELECT * FROM events WHERE (events.tx, events.id) > (@tx::bigint, @id::bigint) AND events.tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY events.tx, events.id LIMIT @page::int
) e LEFT JOIN webhooks w ON w.team_id = e.team_id AND w.active AND e.tx > w.after_tx AND (w.states = '{}' OR e.state = ANY (w.states))
ORDER BY e.tx, e.id;

-- name: InsertDeliveries :exec
INSERT INTO webhook_deliveries (id, webhook_id, tx, event_id, sandbox_id, type, body, state, next_attempt_at)
SELECT d.id, d.webhook_id, d.tx, d.event_id, d.sandbox_id, d.type, d.body, 'pending', now()
FROM (
    SELECT unnest(@ids::text[]) AS id, unnest(@webhook_ids::text[]) AS webhook_id, unnest(@txs::bigint[]) AS tx, unnest(@event_ids::bigint[]) AS event_id,
        unnest(@sandbox_ids::text[]) AS sandbox_id, unnest(@types::text[]) AS type, unnest(@bodies::text[]) AS body
) d
WHERE EXISTS (SELECT FROM webhooks w WHERE w.id = d.webhook_id FOR KEY SHARE)
ORDER BY d.tx, d.event_id
ON CONFLICT (webhook_id, tx, event_id) DO NOTHING;

-- name: DueDeliveries :many
-- Of each webhook that has room the first that may be sent: a message about a sandbox waits for those before it.
SELECT d.id, d.webhook_id, d.body, d.attempts, d.asked_at, w.url, w.secret, w.old_secret, w.old_until, w.failing_since
FROM webhooks w CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries p
    WHERE p.webhook_id = w.id AND p.state = 'pending' AND p.next_attempt_at <= now() AND NOT p.id = ANY (@busy::text[])
        AND NOT EXISTS (SELECT FROM webhook_deliveries b
            WHERE b.webhook_id = p.webhook_id AND b.sandbox_id = p.sandbox_id AND b.state = 'pending' AND b.seq < p.seq)
    ORDER BY p.seq LIMIT @each::int
) d
WHERE w.active AND NOT w.id = ANY (@no_room::text[])
ORDER BY d.seq LIMIT @page::int;

-- name: LockWebhook :one
-- Before its deliveries, as a delete of it does.
SELECT id FROM webhooks WHERE id = @id FOR NO KEY UPDATE;

-- name: DeliveryEnded :one
UPDATE webhook_deliveries SET state = @state, attempts = attempts + 1, last_attempt_at = now(), last_status = sqlc.narg('status'), last_error = sqlc.narg('error'),
    next_attempt_at = now() + sqlc.narg('wait')::interval
WHERE id = @id AND state = 'pending'
RETURNING *;

-- name: WebhookReached :exec
UPDATE webhooks SET failing_since = NULL WHERE id = @id AND failing_since IS NOT NULL;

-- name: WebhookFailed :one
UPDATE webhooks SET failing_since = coalesce(failing_since, now()) WHERE id = @id RETURNING now() - failing_since > @most::interval;

-- name: DisableWebhook :exec
UPDATE webhooks SET active = false, disabled_reason = @reason::text WHERE id = @id;

-- name: DeleteOldDeliveries :execrows
-- Older than any attempt: what is still pending is of a webhook that is off.
DELETE FROM webhook_deliveries WHERE asked_at < @before;

-- name: DeleteExcessDeliveries :execrows
DELETE FROM webhook_deliveries d USING webhooks w, LATERAL (
    SELECT seq FROM webhook_deliveries x WHERE x.webhook_id = w.id ORDER BY x.seq DESC OFFSET @keep::int LIMIT 1
) last
WHERE d.webhook_id = w.id AND d.seq <= last.seq AND d.state <> 'pending';

-- name: CountPendingDeliveries :one
SELECT count(*) FROM webhook_deliveries WHERE state = 'pending';

-- name: CountSandboxes :many
SELECT state, count(*) AS number FROM sandboxes WHERE state NOT IN ('stopped', 'failed', 'lost') GROUP BY state;
