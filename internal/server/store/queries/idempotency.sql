-- name: ClaimKey :one
INSERT INTO idempotency (team_id, key, request, claim, claim_until) VALUES (@team_id, @key, @request, @claim, now() + @claim_time::interval)
ON CONFLICT (team_id, key) DO UPDATE SET claim_until = excluded.claim_until
    WHERE idempotency.status IS NULL AND idempotency.claim_until < now() AND idempotency.request = excluded.request
RETURNING *;

-- name: GetKeyed :one
SELECT * FROM idempotency WHERE team_id = @team_id AND key = @key;

-- name: KeepAnswer :exec
UPDATE idempotency SET status = @status::int, answer = @answer WHERE team_id = @team_id AND key = @key AND claim = @claim;

-- name: DropClaim :exec
DELETE FROM idempotency WHERE team_id = @team_id AND key = @key AND claim = @claim AND status IS NULL;

-- name: DeleteOldKeys :execrows
DELETE FROM idempotency WHERE created_at < @before AND (status IS NOT NULL OR claim_until < now());

-- name: RenewClaim :exec
UPDATE idempotency SET claim_until = now() + @claim_time::interval WHERE team_id = @team_id AND key = @key AND claim = @claim AND status IS NULL;

-- name: ClaimDone :exec
UPDATE idempotency SET done = true WHERE claim = @claim;

-- name: IsClaimDone :one
SELECT EXISTS (SELECT FROM idempotency WHERE claim = @claim AND done);
