package template

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
)

// as stores a template again under another name, with another root.
func as(t *testing.T, s *Store, of Template, name, root string) Template {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(path, []byte(root), 0o600))
	blob, err := s.Add(t.Context(), path)
	check(t, err)
	of.Name, of.Rootfs = name, blob
	got, err := s.Put(t.Context(), of)
	check(t, err)
	return got
}

func TestDeleteLeavesWhatOthersHave(t *testing.T) {
	s := Open(t.TempDir())
	base := put(t, s, "base")
	web := as(t, s, base, "web", "another root")
	got, own, err := s.Own("web")
	if err != nil || got != web || len(own) != 1 || own[0] != web.Rootfs {
		t.Fatalf("Own = %+v, %v, %v", got, own, err)
	}
	check(t, s.Delete(t.Context(), "web", own))
	if _, err := s.Get("web"); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	if _, err := os.Stat(s.Path(web.Rootfs.Digest)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its own file: %v", err)
	}
	check(t, s.Verify(t.Context(), "base"))
	_, own, err = s.Own("base")
	if err != nil || len(own) != 4 {
		t.Error(own, err)
	}
	put(t, s, "same")
	if _, own, err = s.Own("base"); err != nil || len(own) != 0 {
		t.Errorf("of one that is there twice: %v, %v", own, err)
	}
	for _, name := range []string{"none", "../base"} {
		if _, _, err := s.Own(name); err == nil {
			t.Errorf("Own(%q) found one", name)
		}
	}
}

// deleteIn names, for a process that TestADeleteThatIsCutOff starts, the store in which it deletes.
const deleteIn = "WRENN_TEST_DELETE_IN"

// TestADeleteThatIsCutOff leaves a template that nothing starts from, and that is deleted by asking again.
func TestADeleteThatIsCutOff(t *testing.T) {
	if dir := os.Getenv(deleteIn); dir != "" {
		s := Open(dir)
		_, own, err := s.Own("base")
		check(t, err)
		t.Fatal("it comes to its end: ", s.Delete(t.Context(), "base", own))
	}
	s := Open(t.TempDir())
	put(t, s, "base")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestADeleteThatIsCutOff$")
	cmd.Env = append(os.Environ(), deleteIn+"="+s.dir, failpoint.Env+"="+pointFilesGone.String()+"=kill")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := s.Get("base"); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("Get = %v, want ErrCorrupt", err)
	}
	_, own, err := s.Own("base")
	check(t, err)
	check(t, s.Delete(t.Context(), "base", own))
	if _, err := s.Get("base"); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

func TestNothingIsDeletedBesideWhatCantBeRead(t *testing.T) {
	s := Open(t.TempDir())
	as(t, s, put(t, s, "base"), "web", "another root")
	check(t, os.Truncate(s.file("web"), 40))
	if _, _, err := s.Own("base"); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("Own = %v, want ErrCorrupt", err)
	}
}
