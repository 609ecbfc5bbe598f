package auth

import (
	"fmt"
	"slices"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// The scopes: what a key may be good for. Each stands for itself.
const (
	Read  = "read"  // to see
	Write = "write" // to change
	Admin = "admin" // the team's keys and its audit log
	// Operator is for what belongs to no team: teams, their limits and keys, templates, hosts.
	Operator = "operator"
)

// Scopes are all of them.
var Scopes = []string{Read, Write, Admin, Operator}

// Roles are scopes under names.
var Roles = map[string][]string{
	"viewer":    {Read},
	"developer": {Read, Write},
	"admin":     {Read, Write, Admin},
	"operator":  {Read, Write, Admin, Operator},
}

// RoleOf is the role that has just these scopes, empty when none has.
func RoleOf(scopes []string) string {
	sorted := slices.Sorted(slices.Values(scopes))
	for name, has := range Roles {
		if slices.Equal(sorted, slices.Sorted(slices.Values(has))) {
			return name
		}
	}
	return ""
}

// checkScopes refuses what are no scopes, and none.
func checkScopes(scopes []string) error {
	fix := "give some of " + strings.Join(Scopes, ", ")
	if len(scopes) == 0 {
		return errs.Field("scopes", "there are none", fix+", or a role")
	}
	for _, s := range scopes {
		if !slices.Contains(Scopes, s) {
			return errs.Field("scopes", fmt.Sprintf("%.20q is none", s), fix)
		}
	}
	return nil
}
