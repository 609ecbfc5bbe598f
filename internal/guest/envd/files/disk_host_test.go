//go:build hosttest

package files

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAFullDisk is told apart from other errors, and leaves what was there.
func TestAFullDisk(t *testing.T) {
	h, dir := home(t)
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(disk, 0); err != nil { // fails while anything is open in it
			t.Error(err)
		}
	}()
	large := strings.Repeat("x", 2<<20)
	raw := map[string]string{"Content-Type": "application/octet-stream"}
	for range 3 {
		if w := ask(h, http.MethodPost, "path=disk/f", large, raw, false); w.Code != http.StatusInsufficientStorage ||
			!strings.Contains(w.Body.String(), "not enough disk space") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
	form := map[string]string{"Content-Type": "multipart/form-data; boundary=X"}
	part := "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"disk/%s\"\r\n\r\n%s\r\n"
	body := fmt.Sprintf(part, "small", "x") + fmt.Sprintf(part, "large", large) + "--X--\r\n"
	if w := ask(h, http.MethodPost, "", body, form, false); w.Code != http.StatusInsufficientStorage {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	list, err := os.ReadDir(disk)
	if err != nil || len(list) != 1 || list[0].Name() != "small" {
		t.Errorf("there are %v, %v", list, err)
	}
}
