package store

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Query says which of a team's sandboxes List returns.
type Query struct {
	Team     string
	States   []State           // none is all that have not ended
	Metadata map[string]string // those that it must have
	Cursor   string            // what the page before gave; empty is the first page
	Limit    int
}

// List returns a page of sandboxes, the newest first, and the cursor of the next page, empty on the last. What is made meanwhile shows on
// none of the later pages; nothing shows twice.
func (s *Store) List(ctx context.Context, q Query) (list []Sandbox, next string, err error) {
	before, beforeID, err := readCursor(q.Cursor)
	if err != nil {
		return nil, "", err
	}
	states, page := slices.Compact(slices.Sorted(slices.Values(q.States))), int32(q.Limit+1) // twice the same state is no two pages
	if len(states) == 0 {
		states = Stop.From
	}
	if len(q.Metadata) > 0 {
		list, err = s.q.ListSandboxesByMetadata(ctx, db.ListSandboxesByMetadataParams{TeamID: q.Team, States: states, Before: before,
			BeforeID: beforeID, Metadata: q.Metadata, Page: page})
	} else {
		list, err = s.q.ListSandboxes(ctx, db.ListSandboxesParams{States: states, TeamID: q.Team, Before: before, BeforeID: beforeID, Page: page})
	}
	if err != nil {
		return nil, "", kind(err)
	}
	if len(list) > q.Limit {
		list = list[:q.Limit]
		last := list[q.Limit-1]
		next = writeCursor(last.CreatedAt, last.ID)
	}
	return list, next, nil
}

// end is after every sandbox.
var end = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// A cursor is the time in microseconds, as PostgreSQL has it, and the id of the last row that was given.
func writeCursor(at time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString(append(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro())), id...))
}

func readCursor(cursor string) (time.Time, string, error) {
	if cursor == "" {
		return end, "", nil
	}
	bad := errs.Field("cursor", "it is not one", "give next_cursor of the page before, as it is, or leave it out")
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(raw) < 8 {
		return end, "", bad
	}
	micros := binary.BigEndian.Uint64(raw)
	if micros > uint64(end.UnixMicro()) {
		return end, "", bad
	}
	last, err := id.Parse(string(raw[8:]))
	if err != nil {
		return end, "", bad
	}
	return time.UnixMicro(int64(micros)), last, nil
}
