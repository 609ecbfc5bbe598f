// Package actas lets root's process touch files with the rights of one of the guest's users and with no others, so that the kernel
// decides about every path, at the moment it is used: a symbolic link that is swapped, or a folder that is renamed, in the middle of an
// operation leads nowhere that the user could not go by himself.
//
// It is a leaf package of envd.
package actas

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// Run calls f as a user and returns its error. What f does with files must be done before it returns, and on its own goroutine.
//
// For that, f runs on a thread of its own, which has the user's fsuid, fsgid and groups and no capability at all, and which dies with
// f: it never is anybody else's again. The other ids stay root's, so that the user's processes can neither signal nor trace the
// thread: that would be the whole of envd. The user root is root. A process that is not root's can act as its own user alone.
//
// A panic of f is the caller's.
func Run(u user.User, f func() error) error {
	if os.Geteuid() != 0 {
		if int64(u.UID) != int64(os.Geteuid()) {
			return fault.New(errs.ErrFailedPrecondition, "envd is not root and can't act as '%s'", u.Name)
		}
		return f()
	}
	if u.UID == 0 {
		return f()
	}
	var err error
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		defer func() { panicked = recover() }()
		if err = become(u); err == nil {
			err = f()
		}
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return err
}

// become gives the calling thread the rights of a user. These calls of package unix are about the thread, other than those of
// package syscall.
func become(u user.User) error {
	groups := make([]int, 0, len(u.Groups))
	for _, g := range u.Groups {
		groups = append(groups, int(g))
	}
	if err := unix.Setgroups(groups); err != nil {
		return fmt.Errorf("take the groups of %q: %w", u.Name, err)
	}
	// The two can't tell that they failed, but what they return is the id before.
	for _, id := range []struct {
		set  func(int) (int, error)
		want int
	}{{unix.SetfsgidRetGid, int(u.GID)}, {unix.SetfsuidRetUid, int(u.UID)}} {
		_, _ = id.set(id.want)
		if now, err := id.set(id.want); err != nil || now != id.want {
			return fmt.Errorf("take the ids of %q: they are %d", u.Name, now)
		}
	}
	// A changed fsuid takes away what overrides permissions on files, but not, for one, what lets root read other processes in /proc,
	// or fill the part of a disk that is kept for root.
	none := [2]unix.CapUserData{}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities for %q: %w", u.Name, err)
	}
	return nil
}
