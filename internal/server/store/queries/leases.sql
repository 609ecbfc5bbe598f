-- name: TakeLease :one
INSERT INTO leases (name, holder, term, lease_until) VALUES (@name, @holder, 1, clock_timestamp() + @ttl::interval)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, term = leases.term + 1, lease_until = excluded.lease_until
WHERE leases.lease_until <= clock_timestamp()
RETURNING term;

-- name: RenewLease :execrows
UPDATE leases SET lease_until = clock_timestamp() + @ttl::interval
WHERE name = @name AND holder = @holder AND term = @term AND lease_until > clock_timestamp();

-- name: GiveLeaseBack :exec
UPDATE leases SET lease_until = clock_timestamp() WHERE name = @name AND holder = @holder AND term = @term AND lease_until > clock_timestamp();

-- name: ProveLease :one
SELECT term FROM leases WHERE name = @name AND holder = @holder AND term = @term AND lease_until > clock_timestamp() FOR SHARE;

-- name: LockPlace :one
SELECT tx, event_id FROM places WHERE name = @name FOR UPDATE;

-- name: MovePlace :exec
UPDATE places SET tx = @tx, event_id = @event_id WHERE name = @name;
