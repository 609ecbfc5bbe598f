package process

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"wrenn.dev/wrenn/internal/pager"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// maxRecord is how many pages of 4096 bytes are recorded of a start: 64 MiB.
const maxRecord = 16 << 10

// Command is the argument that makes the program a pager.
const Command = "pager"

// Main is a pager's process: it takes what Start adds to the command and returns the exit code. It is called before anything
// else of the program is set up: what is not needed takes memory, once for every machine.
func Main(args []string) int {
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func run(args []string) error {
	fs := flag.NewFlagSet("pager", flag.ContinueOnError)
	builds, build := fs.String("builds", "", "folder of builds"), fs.String("build", "", "the build to serve")
	socket, control := fs.String("socket", "", "socket for the machine"), fs.String("control", "", "socket for commands")
	record, prefetch := fs.String("record", "", "file for the working set"), fs.String("prefetch", "", "working set to bring in first")
	machine, become := fs.Int("machine", 0, "uid of the machine"), fs.Int("become", 0, "uid to run under")
	stream := fs.Bool("stream", false, "bring in everything, and end")
	if err := fs.Parse(args); err != nil {
		return err
	}
	layout, files, err := open(*builds, *build)
	if err != nil {
		return err
	}
	folder, err := os.OpenRoot(filepath.Dir(*record)) // while there is the privilege to
	if err != nil {
		return err
	}
	defer folder.Close()
	ready, end := os.NewFile(readyFD, "ready"), ""
	err = pager.Run(context.Background(), pager.Config{
		Layout: layout, Files: files,
		Listen:  pager.Socket{Path: *socket, UID: *machine, GID: *machine},
		Control: &pager.Socket{Path: *control, UID: 0, GID: 0},
		Peer:    pager.Peer{UID: *machine}, DropTo: &pager.Identity{UID: *become, GID: *become},
		Prefetch: *prefetch, Record: *record, MaxPages: maxRecord, Stream: *stream, Leave: *stream,
		Metrics: func(s pager.Stats) { end = s.End },
		Ready: func() error {
			_, err := ready.Write([]byte{1})
			return errors.Join(err, ready.Close())
		},
	})
	if err != nil || end != pager.EndAllIn {
		return err
	}
	return leave(folder)
}

// leave says that the machine goes on without its pager. One that is killed before counts as dead, and its machine ends with it.
func leave(folder *os.Root) error {
	f, err := folder.OpenFile(leftName, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// open reads a build's map and opens the memory file of every build in it. Whether they are what was written was seen before
// the pager was started.
func open(builds, build string) (pager.Layout, []*os.File, error) {
	if err := blockmap.CheckBuildID(build); err != nil {
		return nil, nil, err
	}
	f, err := os.Open(filepath.Join(builds, build, manifest.MemoryMap))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	m, err := blockmap.Read(f)
	if err != nil {
		return nil, nil, fmt.Errorf("map of build %s: %w", build, err)
	}
	var files []*os.File
	index := map[string]int{}
	for i, b := range m.Builds() {
		memory, err := os.Open(filepath.Join(builds, b, manifest.Memory))
		if err != nil {
			return nil, nil, err
		}
		files = append(files, memory)
		index[b] = i
	}
	return layout{m, index}, files, nil
}

// layout is a block map as the pager asks for it: in bytes.
type layout struct {
	m     *blockmap.Map
	files map[string]int
}

// Size is the size of the memory.
func (l layout) Size() uint64 { return uint64(l.m.Pages()) * blockmap.PageSize }

// Find is the extent from offset on.
func (l layout) Find(offset uint64) pager.Extent {
	page := int64(offset / blockmap.PageSize)
	r := l.m.Find(page)
	within := int64(offset) - r.Start*blockmap.PageSize
	e := pager.Extent{File: -1, Length: uint64(r.Count*blockmap.PageSize - within)}
	if !r.Zero() {
		e.File, e.Offset = l.files[r.Build], r.Offset+within
	}
	return e
}
