package filesystem

import (
	"io"
	"os"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// maxOwners bounds how much of a passwd or group file is read, in bytes.
const maxOwners = 4 << 20

// owners knows the names of ids, as one operation found them. The files are the guest's: what they say is shown and nothing else.
type owners struct {
	db            user.DB
	users, groups map[uint32]string // nil until the first is asked for
}

func (o *owners) user(id uint32) string {
	if o.users == nil {
		o.users = names(o.db.Passwd)
	}
	return nameOf(o.users, id)
}

func (o *owners) group(id uint32) string {
	if o.groups == nil {
		o.groups = names(o.db.Group)
	}
	return nameOf(o.groups, id)
}

func nameOf(names map[uint32]string, id uint32) string {
	if name, ok := names[id]; ok {
		return name
	}
	return strconv.FormatUint(uint64(id), 10)
}

// names reads the first and third field of each line. Of two names for an id the first counts. A file that can't be read has none.
func names(file string) map[uint32]string {
	m := map[uint32]string{}
	f, err := os.Open(file)
	if err != nil {
		return m
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxOwners))
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimRight(line, "\r\n"), ":", 4)
		if len(fields) < 4 || fields[0] == "" || len(fields[0]) > maxName {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if _, known := m[uint32(id)]; err == nil && !known {
			m[uint32(id)] = strings.Clone(fields[0])
		}
	}
	return m
}
