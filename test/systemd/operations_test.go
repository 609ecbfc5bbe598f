//go:build hostboot

package systemd

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// blocks are the commands of docs/operations.md.
var blocks = regexp.MustCompile("(?ms)^## ([^\n]*)\n|^```sh\n(.*?)^```$")

// TestOperations runs every command of docs/operations.md, in its order, as somebody does who follows it.
func TestOperations(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	section, ran := "", map[string]bool{}
	for _, m := range blocks.FindAllStringSubmatch(string(page), -1) {
		if m[1] != "" {
			section = m[1]
			continue
		}
		h.sh("cd /root; IMAGES=" + images + "\n" + m[2])
		ran[section] = true
		if section == "Restore" {
			h.restored()
		}
	}
	for _, section := range []string{"Install", "Upgrade", "Back up", "Restore", "Watch", "Remove"} {
		if !ran[section] {
			t.Errorf("no command of %q was found", section)
		}
	}
	if left := h.sh("find /var/lib/wrenn /run/netns -mindepth 1; find /dev/mapper -name 'wrenn*'; losetup -a; pgrep -l 'wrenn|firecracker|postgres' || true"); left != "" {
		t.Errorf("after it was removed there is %s", left)
	}
}

// restored looks that what was made before the backup runs, and that both the agent and the database say so.
func (h *host) restored() {
	h.t.Helper()
	all := h.records()
	if len(all) != 1 {
		h.t.Errorf("there are %d sandboxes, want the one of the backup", len(all))
	}
	for id, r := range all {
		if r.State != "running" {
			h.t.Errorf("it is %s", r.State)
		}
		h.sh(`until curl -fsS -H "Authorization: Bearer $(cat /etc/wrenn/first-key)" http://127.0.0.1:8080/v1/sandboxes/` + id + ` | grep -q '"state":"running"'; do sleep 0.2; done`)
	}
}
