package client

import (
	"context"
	"iter"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// AuditRecord is one request for which ScopeRead is not enough, done or refused.
type AuditRecord struct {
	ID            string
	At            time.Time
	TeamID, KeyID string // whose key it was
	Operation     string // the API's name of it: "createSandbox"
	Resource      string // on what: the path below /v1/
	Status        int    // of the answer; 499 when there was none
	RequestID     string
	Address       string // where it came from; empty when it came by a socket
}

func toAuditRecord(r rest.AuditRecord) *AuditRecord {
	return &AuditRecord{ID: r.ID, At: r.At, TeamID: r.TeamID, KeyID: r.KeyID, Operation: r.Operation, Resource: r.Resource, Status: int(r.Status),
		RequestID: r.RequestID, Address: r.Address}
}

// AuditOptions choose records.
type AuditOptions struct {
	Team string // only what was done with this team's keys; another team than the caller's is for operators
}

// Audit goes through what was done with API keys, the newest first, and asks for each page as it is needed. Its error is the last pair. It needs
// ScopeAdmin, and sees the key's own team; with ScopeOperator it sees all.
func (c *Client) Audit(ctx context.Context, o AuditOptions) iter.Seq2[*AuditRecord, error] {
	return pages(func(cursor *string) ([]rest.AuditRecord, *string, error) {
		resp, err := c.rest.ListAudit(ctx, &rest.ListAuditParams{Team: given(o.Team), Cursor: cursor})
		page, err := decode[rest.AuditPage](resp, err)
		return page.Records, page.NextCursor, err
	}, toAuditRecord)
}
