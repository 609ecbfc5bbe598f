package hostcheck

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// clock looks whether guests will have a PTP clock (/dev/ptp0, by their module ptp_kvm). KVM gives them one only while the
// host's own clock is the TSC.
func (h host) clock(context.Context) []Item {
	const name = "ptp_kvm"
	source, err := read(h.sys, "devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return warn(name, err.Error(), "guests may have no PTP clock; their time then follows from the network alone")
	}
	if source != "tsc" {
		return warn(name, "the clock source is "+source+", so guests have no PTP clock",
			"boot with tsc=reliable clocksource=tsc if the CPU's TSC is invariant; without, a resumed guest's time is late until NTP steps it")
	}
	return ok(name, "the clock source is tsc, so guests have a PTP clock")
}

func (h host) smt(context.Context) []Item {
	const name = "smt"
	if active, err := read(h.sys, "devices/system/cpu/smt/active"); err == nil && active == "1" {
		return warn(name, "two threads share a core", "boot with nosmt: guests of different owners can spy on each other through what threads of a core share")
	}
	return ok(name, "no two threads share a core")
}

func (h host) ksm(context.Context) []Item {
	const name = "ksm"
	if run, err := read(h.sys, "kernel/mm/ksm/run"); err == nil && run == "1" {
		return warn(name, "memory pages are merged", "echo 0 >/sys/kernel/mm/ksm/run: a guest can learn what others have in memory")
	}
	return ok(name, "off")
}

// uids looks whether the range of uids is nobody's: no account is in it, and it was given to no container.
func (h host) uids(context.Context) []Item {
	const name = "uid range"
	err := checkUIDRange(h.etc, h.UIDBase, h.Slots)
	if field := (*errs.FieldError)(nil); errors.As(err, &field) {
		return fail(name, field.Problem, field.Fix)
	}
	if err != nil {
		return failed(name, err, "make the file readable")
	}
	return ok(name, "%d to %d are nobody's", h.UIDBase, h.UIDBase+h.Slots-1)
}

// maxUID is the last uid: the one after it means "none" to the kernel.
const maxUID = 1<<32 - 2

// CheckUIDRange looks whether count uids from first on are free on this host: above root's, of no account in /etc/passwd or
// /etc/group, and of no range in /etc/subuid or /etc/subgid. Otherwise it fails with a *errs.FieldError of --uid-base.
func CheckUIDRange(first, count int) error { return checkUIDRange("/etc", first, count) }

func checkUIDRange(etc string, first, count int) error {
	last := first + count - 1
	bad := func(why string) error {
		return errs.Field("--uid-base", fmt.Sprintf("%d to %d can't be the machines' uids: %s", first, last, why),
			fmt.Sprintf("give the first of %d numbers that are nobody's", count))
	}
	if first < 1 || last > maxUID {
		return bad(fmt.Sprintf("they are not all from 1 to %d", maxUID))
	}
	for _, file := range []struct {
		name   string
		column int
		ranges bool
	}{{"passwd", 2, false}, {"group", 2, false}, {"subuid", 1, true}, {"subgid", 1, true}} {
		path := filepath.Join(etc, file.name)
		who, err := taken(path, file.column, file.ranges, first, last)
		if err != nil {
			return err
		}
		if who != "" {
			return bad(fmt.Sprintf("%s in %s has some of them", who, path))
		}
	}
	return nil
}

// taken is the first name of a file whose number, or range of numbers, meets the one from first to last.
func taken(path string, column int, ranges bool, first, last int) (who string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Split(s.Text(), ":")
		if len(fields) <= column {
			continue
		}
		from, err := strconv.Atoi(fields[column])
		if err != nil {
			continue
		}
		to := from
		if ranges && len(fields) > column+1 {
			if n, err := strconv.Atoi(fields[column+1]); err == nil {
				to = from + n - 1
			}
		}
		if from <= last && to >= first {
			return fields[0], nil
		}
	}
	return "", nil
}
