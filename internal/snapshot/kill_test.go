package snapshot

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// killHelper pauses one sandbox again and again; generation n has n in page 0 and in one more page. It says each that is done.
func killHelper(s *Store, old string) error {
	last, err := generation(s, old)
	if err != nil {
		return err
	}
	for n := last + 1; ; n++ {
		g, err := s.Begin(bg, blockmap.NewBuildID(), old)
		if err != nil {
			return err
		}
		for name, at := range map[string]int64{manifest.Memory: 0, manifest.VMState: 0, manifest.Disk: 0} {
			f, err := os.Create(g.Path(name))
			if err != nil {
				return err
			}
			if _, err := f.WriteAt(fill(n), at); err != nil {
				return err
			}
			if name == manifest.Memory {
				if _, err := f.WriteAt(fill(n), int64(1+n%(pages-1))*pageSize); err != nil {
					return err
				}
				if err := f.Truncate(pages * pageSize); err != nil {
					return err
				}
			}
			if err := f.Close(); err != nil {
				return err
			}
		}
		b, _, err := g.Commit(bg, infoOf(manifest.Diff), ref)
		if err != nil {
			return err
		}
		old = b.ID
		fmt.Println(n)
		if n%5 == 0 {
			if _, err := s.GC(bg); err != nil {
				return err
			}
		}
	}
}

// generation opens a build of the helper and returns which generation it is, after it has seen that all of its pages are of
// it and those before.
func generation(s *Store, build string) (uint64, error) {
	b, err := s.Open(bg, build)
	if err != nil {
		return 0, err
	}
	r := b.Pages()
	defer r.Close()
	buf := make([]byte, pages*pageSize)
	if err := r.ReadPages(0, buf); err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint64(buf)
	for g := n; g > 0 && g+pages-1 > n; g-- {
		page := 1 + g%(pages-1)
		if got := buf[page*pageSize:][:pageSize]; !bytes.Equal(got, fill(g)) {
			return 0, fmt.Errorf("generation %d: page %d is %x…, want that of generation %d", n, page, got[:8], g)
		}
	}
	return n, nil
}

// TestKilledAtAnyTime kills a process that pauses a sandbox over and over, at no step in particular. What it said was done
// is there, or the one after that; never half of one.
func TestKilledAtAnyTime(t *testing.T) {
	s := newStore(t)
	mem := memory{}
	commit(t, s, "", &mem, nil, ref)
	said := uint64(0)
	for i := range 8 {
		said = max(said, killOne(t, s.root, time.Duration(60+17*i)*time.Millisecond))
		build, err := s.GetRef(ref)
		if err != nil {
			t.Fatal(err)
		}
		n, err := generation(s, build)
		if err != nil || n < said || n > said+1 {
			t.Fatalf("generation %d, want %d or one more: %v", n, said, err)
		}
		if _, err := s.GC(bg); err != nil {
			t.Fatal(err)
		}
		if left := rootNames(t, s); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		said = n
	}
	if said < 8 {
		t.Errorf("only %d generations: the test kills before anything happens", said)
	}
}

// killOne lets the helper run for a time from its first generation on, and returns the last that it said was done.
func killOne(t *testing.T, root string, after time.Duration) (last uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperRoot+"="+root, helperTask+"=kill")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for first := true; lines.Scan(); first = false {
		if last, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if first {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatal(stderr.String())
	}
	return last
}
