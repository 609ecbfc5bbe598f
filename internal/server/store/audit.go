package store

import (
	"context"
	"math"
	"strconv"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// auditTime is how long records of the audit log are kept.
const auditTime = 90 * 24 * time.Hour

// Act is a record of the audit log: who did what, on what, and how it ended.
type Act = db.Audit

// AddAct writes one; its id and its time are the database's.
func (s *Store) AddAct(ctx context.Context, a Act) error {
	return kind(s.q.AddAudit(ctx, db.AddAuditParams{TeamID: a.TeamID, KeyID: a.KeyID, Operation: a.Operation, Resource: words(a.Resource),
		Status: a.Status, RequestID: a.RequestID, Address: a.Address}))
}

// ListActs returns a page of what was done with a team's keys, or with an empty team with all, the newest first, and the cursor of the
// next page, empty on the last.
func (s *Store) ListActs(ctx context.Context, team, cursor string, limit int) (list []Act, next string, err error) {
	before := int64(math.MaxInt64)
	if cursor != "" {
		if before, err = strconv.ParseInt(cursor, 10, 64); err != nil || before < 0 {
			return nil, "", errs.Field("cursor", "it is not one", "give next_cursor of the page before, as it is, or leave it out")
		}
	}
	if team == "" {
		list, err = s.q.ListAudit(ctx, db.ListAuditParams{Before: before, Page: int32(limit + 1)})
	} else {
		list, err = s.q.ListAuditOfTeam(ctx, db.ListAuditOfTeamParams{TeamID: team, Before: before, Page: int32(limit + 1)})
	}
	list, next = cut(list, limit, func(a Act) string { return strconv.FormatInt(a.ID, 10) })
	return list, next, kind(err)
}
