package pagertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/pager"
	"wrenn.dev/wrenn/internal/pager/uffd"
)

// BareLoop is the least that answers page faults: wait, read a message, read the page, copy it. It has no bounds, no bookkeeping and
// no idea of memory that is taken away. It is what a pager's speed is compared with, for regions of pages of 4096 bytes. It returns
// nil when the machine ends.
func BareLoop(socket string, layout pager.Layout, files []*os.File, ready func() error) error {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return err
	}
	defer ln.Close()
	if err := ready(); err != nil {
		return err
	}
	conn, err := ln.AcceptUnix()
	if err != nil {
		return err
	}
	mem, regions, err := bareHello(conn)
	if err != nil {
		return err
	}
	f, err := conn.File()
	if err != nil {
		return err
	}
	defer f.Close()
	return bareServe(f, mem, regions, layout, files)
}

func bareServe(f *os.File, mem uffd.Memory, regions []bareRegion, layout pager.Layout, files []*os.File) error {
	fds := []unix.PollFd{{Fd: int32(mem.FD()), Events: unix.POLLIN}, {Fd: int32(f.Fd())}}
	msgs, buf := make([]uffd.Msg, 64), make([]byte, Page)
	for {
		if _, err := unix.Ppoll(fds, nil, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if fds[1].Revents != 0 {
			return nil
		}
		n, err := mem.Read(msgs)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		for _, m := range msgs[:n] {
			if err := bareFault(mem, regions, layout, files, m.Start, buf); err != nil {
				return err
			}
		}
	}
}

func bareHello(conn *net.UnixConn) (*uffd.FD, []bareRegion, error) {
	body, control := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	n, nc, _, _, err := conn.ReadMsgUnix(body, control)
	if err != nil {
		return nil, nil, err
	}
	var regions []bareRegion
	if err := json.Unmarshal(body[:n], &regions); err != nil {
		return nil, nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(control[:nc])
	if err != nil || len(msgs) != 1 {
		return nil, nil, fmt.Errorf("%d control messages: %w", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, nil, err
	}
	mem, err := uffd.FromFD(fds[0])
	return mem, regions, err
}

type bareRegion struct {
	Base   uint64 `json:"base_host_virt_addr"`
	Size   uint64 `json:"size"`
	Offset uint64 `json:"offset"`
}

func bareFault(mem uffd.Memory, regions []bareRegion, layout pager.Layout, files []*os.File, addr uint64, buf []byte) error {
	i := slices.IndexFunc(regions, func(r bareRegion) bool { return addr >= r.Base && addr-r.Base < r.Size })
	if i < 0 {
		return fmt.Errorf("fault at %#x, in no region", addr)
	}
	e := layout.Find(addr - regions[i].Base + regions[i].Offset)
	var err error
	if e.File < 0 {
		_, err = mem.Zero(addr, Page)
	} else {
		if _, err := unix.Pread(int(files[e.File].Fd()), buf, e.Offset); err != nil {
			return err
		}
		_, err = mem.Copy(addr, buf)
	}
	if errors.Is(err, unix.EEXIST) {
		return mem.Wake(addr, Page)
	}
	return err
}
