-- name: LocalHost :one
INSERT INTO hosts (id, address) VALUES (@id, @address)
ON CONFLICT (address) WHERE key_hash IS NULL AND state <> 'removed' DO UPDATE SET address = excluded.address
RETURNING *;

-- name: GetHost :one
SELECT * FROM hosts WHERE id = @id;

-- name: ListHosts :many
SELECT * FROM hosts WHERE id > @after AND (@removed::bool OR state <> 'removed') ORDER BY id LIMIT @page::int;

-- name: HostsToWatch :many
-- What of the hosts a server goes by. Those that are silent are not asked.
SELECT id, address, state, draining, lease_until, key_hash FROM hosts WHERE state <> 'removed' ORDER BY id;

-- name: TemplatesOfHosts :many
SELECT DISTINCT ON (t.name) t.* FROM host_templates t JOIN hosts h ON h.id = t.host_id
WHERE h.state = 'up' ORDER BY t.name, t.host_id;

-- name: TemplateOfHosts :one
SELECT t.* FROM host_templates t JOIN hosts h ON h.id = t.host_id
WHERE h.state = 'up' AND t.name = @name ORDER BY t.host_id LIMIT 1;

-- name: HostsOfTemplate :many
SELECT h.id FROM host_templates t JOIN hosts h ON h.id = t.host_id WHERE h.state = 'up' AND t.name = @name ORDER BY h.id;

-- name: DeleteTemplateOfHost :exec
DELETE FROM host_templates WHERE host_id = @host_id AND name = @name;

-- name: TemplatesOfHost :many
SELECT * FROM host_templates WHERE host_id = @host_id ORDER BY name;

-- name: DeleteTemplates :exec
DELETE FROM host_templates WHERE host_id = @host_id;

-- name: InsertTemplate :exec
INSERT INTO host_templates (host_id, name, template_id, vcpus, memory_mib, disk_bytes)
VALUES (@host_id, @name, @template_id, @vcpus, @memory_mib, @disk_bytes);

-- name: Report :one
UPDATE hosts SET lease_until = now() + @lease::interval, reported_at = now(), address = @address, version = @version, boot = @boot,
    max_sandboxes = @max_sandboxes, max_vcpus = @max_vcpus, max_memory_mib = @max_memory_mib, max_disk_bytes = @max_disk_bytes,
    state = CASE WHEN state = 'lost' THEN 'joining' ELSE state END
WHERE id = @id AND state <> 'removed'
RETURNING *;

-- name: HostSettled :exec
UPDATE hosts SET state = 'up' WHERE id = @id AND state = 'joining' AND lease_until > now() AND reported_at IS NOT NULL;

-- name: SetDraining :one
UPDATE hosts SET draining = @draining WHERE id = @id AND state <> 'removed' RETURNING *;

-- name: LockHost :one
SELECT * FROM hosts WHERE id = @id FOR UPDATE;

-- name: UsersOfHost :many
(SELECT s.id FROM sandboxes s WHERE s.host_id = @host_id AND s.state NOT IN ('stopped', 'failed', 'lost') ORDER BY s.id LIMIT 10)
UNION ALL (SELECT n.id FROM snapshots n WHERE n.host_id = @host_id ORDER BY n.id LIMIT 10);

-- name: RemoveHost :one
UPDATE hosts SET state = 'removed', key_hash = NULL, address = '' WHERE id = @id RETURNING *;

-- name: LosePermanently :exec
UPDATE sandboxes SET with_host = false WHERE host_id = @host_id AND with_host;

-- name: LockLeaseWatch :one
-- Whether nobody has looked for longer than that. Looks of several servers come one after the other.
SELECT (w.at < now() - @gap::interval)::boolean AS late FROM lease_watch w WHERE w.hosts = @hosts FOR UPDATE;

-- name: LookedAtLeases :exec
INSERT INTO lease_watch (hosts, at) VALUES (@hosts, now()) ON CONFLICT (hosts) DO UPDATE SET at = greatest(lease_watch.at, excluded.at);

-- name: ProlongLeases :exec
UPDATE hosts SET lease_until = greatest(lease_until, now() + @lease::interval)
WHERE state IN ('up', 'joining') AND CASE WHEN @host_id::text = '' THEN key_hash IS NOT NULL ELSE id = @host_id END;

-- name: LoseHosts :many
UPDATE hosts SET state = 'lost'
WHERE state IN ('up', 'joining') AND lease_until < now() AND CASE WHEN @host_id::text = '' THEN key_hash IS NOT NULL ELSE id = @host_id END
RETURNING *;

-- name: SandboxesOfLostHosts :many
-- What was on the way to its end has come to it as far as can be said: it is destroyed when the host is back.
UPDATE sandboxes SET state = CASE WHEN sandboxes.state = 'stopping' THEN 'stopped' ELSE 'lost' END, with_host = sandboxes.state <> 'stopping',
    reason = CASE WHEN sandboxes.state = 'stopping' THEN sandboxes.reason || '; its host is lost, and destroys it when it comes back'
        ELSE 'its host ' || h.id || ' has not been heard of since ' || to_char(h.lease_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') END,
    op = NULL, op_until = NULL
FROM hosts h WHERE h.id = sandboxes.host_id AND h.state = 'lost' AND sandboxes.state IN ('starting', 'running', 'pausing', 'resuming', 'stopping')
RETURNING sandboxes.id;

-- name: ComeBack :one
UPDATE sandboxes SET state = @state, reason = @reason, with_host = false
WHERE sandboxes.id = @id AND sandboxes.version = @version AND with_host
    AND EXISTS (SELECT 1 FROM hosts h WHERE h.id = sandboxes.host_id AND h.state IN ('joining', 'up'))
RETURNING *;

-- name: GiveUp :one
UPDATE sandboxes SET state = 'stopped', reason = @reason, with_host = false WHERE id = @id AND team_id = @team_id AND with_host RETURNING *;

-- name: Place :one
-- The host for a sandbox, locked: of those that have its template and room for it the least loaded. A host that is named has what it starts from.
SELECT h.id, coalesce(nullif(@vcpus::integer, 0), t.vcpus, 0)::integer AS vcpus,
    coalesce(nullif(@memory_mib::integer, 0), t.memory_mib, 0)::integer AS memory_mib,
    coalesce(nullif(@disk_bytes::bigint, 0), t.disk_bytes, 0)::bigint AS disk_bytes
FROM hosts h LEFT JOIN host_templates t ON t.host_id = h.id AND t.name = @template
WHERE h.state = 'up' AND (@host_id::text = '' AND t.name IS NOT NULL OR h.id = @host_id) AND NOT h.draining
    AND (h.max_sandboxes = 0 OR h.reserved_sandboxes < h.max_sandboxes)
    AND (h.max_vcpus = 0 OR h.reserved_vcpus + coalesce(nullif(@vcpus::integer, 0), t.vcpus, 0) <= h.max_vcpus)
    AND (h.max_memory_mib = 0 OR h.reserved_memory_mib + coalesce(nullif(@memory_mib::integer, 0), t.memory_mib, 0) <= h.max_memory_mib)
    AND (h.max_disk_bytes = 0 OR h.reserved_disk_bytes + coalesce(nullif(@memory_mib::integer, 0), t.memory_mib, 0)::bigint * 1048576
        + coalesce(nullif(@disk_bytes::bigint, 0), t.disk_bytes, 0) <= h.max_disk_bytes)
ORDER BY greatest(h.reserved_sandboxes / nullif(h.max_sandboxes, 0)::float8, h.reserved_vcpus / nullif(h.max_vcpus, 0)::float8,
    h.reserved_memory_mib / nullif(h.max_memory_mib, 0)::float8, 0), h.reserved_sandboxes, h.id
LIMIT 1 FOR NO KEY UPDATE OF h;

-- name: AnyFits :one
-- Whether Place has a choice.
SELECT coalesce(bool_or((h.max_sandboxes = 0 OR h.reserved_sandboxes < h.max_sandboxes)
    AND (h.max_vcpus = 0 OR h.reserved_vcpus + coalesce(nullif(@vcpus::integer, 0), t.vcpus, 0) <= h.max_vcpus)
    AND (h.max_memory_mib = 0 OR h.reserved_memory_mib + coalesce(nullif(@memory_mib::integer, 0), t.memory_mib, 0) <= h.max_memory_mib)
    AND (h.max_disk_bytes = 0 OR h.reserved_disk_bytes + coalesce(nullif(@memory_mib::integer, 0), t.memory_mib, 0)::bigint * 1048576
        + coalesce(nullif(@disk_bytes::bigint, 0), t.disk_bytes, 0) <= h.max_disk_bytes)), false)::boolean AS fits
FROM hosts h LEFT JOIN host_templates t ON t.host_id = h.id AND t.name = @template
WHERE h.state = 'up' AND (@host_id::text = '' AND t.name IS NOT NULL OR h.id = @host_id) AND NOT h.draining;

-- name: Room :one
-- How many hosts take sandboxes, and the most that is free on any of them that has the template, of each thing by itself; the greatest number is no limit.
SELECT count(*)::integer AS hosts,
    coalesce(max(CASE WHEN max_sandboxes = 0 THEN 2147483647 ELSE max_sandboxes - reserved_sandboxes END) FILTER (WHERE has), 0)::integer AS sandboxes,
    coalesce(max(CASE WHEN max_vcpus = 0 THEN 2147483647 ELSE max_vcpus - reserved_vcpus END) FILTER (WHERE has), 0)::integer AS vcpus,
    coalesce(max(CASE WHEN max_memory_mib = 0 THEN 9223372036854775807 ELSE max_memory_mib - reserved_memory_mib END) FILTER (WHERE has), 0)::bigint AS memory_mib,
    coalesce(max(CASE WHEN max_disk_bytes = 0 THEN 9223372036854775807 ELSE max_disk_bytes - reserved_disk_bytes END) FILTER (WHERE has), 0)::bigint AS disk_bytes
FROM (SELECT *, @host_id::text <> '' OR EXISTS (SELECT FROM host_templates t WHERE t.host_id = hosts.id AND t.name = @template) AS has FROM hosts) h
WHERE state = 'up' AND (@host_id::text = '' OR id = @host_id) AND NOT draining;

-- name: AnyJoining :one
SELECT EXISTS (SELECT 1 FROM hosts WHERE state = 'joining' AND NOT draining AND (@host_id::text = '' OR id = @host_id));

-- name: InsertAuthority :exec
INSERT INTO authority (certificate, key) VALUES (@certificate, @key) ON CONFLICT DO NOTHING;

-- name: GetAuthority :one
SELECT * FROM authority;

-- name: InsertToken :one
INSERT INTO join_tokens (id, hash, expires_at) VALUES (@id, @hash, now() + @valid::interval) RETURNING *;

-- name: LockToken :one
SELECT t.*, (t.expires_at > now())::boolean AS good FROM join_tokens t WHERE t.hash = @hash FOR UPDATE;

-- name: UseToken :exec
UPDATE join_tokens SET host_id = @host_id::text WHERE id = @id AND host_id IS NULL;

-- name: InsertHost :one
INSERT INTO hosts (id, address, key_hash, lease_until) VALUES (@id, '', @key_hash, now() + @lease::interval) RETURNING *;

-- name: HostByKey :one
SELECT * FROM hosts WHERE key_hash = @key_hash AND state <> 'removed';

-- name: DeleteOldTokens :execrows
DELETE FROM join_tokens WHERE expires_at < @before;
