package process

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// killRounds is how often the session is looked through: a process may fork while it is.
const killRounds = 10

// killSession kills every process of the session that sid leads. A shell gives each of its jobs a group of its own, so the
// leader's group is only a part.
func killSession(sid int) {
	_ = unix.Kill(-sid, unix.SIGKILL)
	for range killRounds {
		found := false
		for _, pid := range processes() {
			found = killMember(pid, sid) || found
		}
		if !found {
			return
		}
	}
}

// killMember kills a process if it is of the session, and says whether it was and lived. The handle is taken first, so that the
// number means the same process throughout.
func killMember(pid, sid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	state, session, ok := parseStat(stat)
	if !ok || session != sid || state == 'Z' || state == 'X' {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// parseStat reads a process's state and session: pid (name) state ppid pgrp session … The name may contain anything, so
// what follows is counted from its end.
func parseStat(stat []byte) (state byte, session int, ok bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, 0, false
	}
	f := bytes.Fields(stat[i+1:])
	if len(f) < 4 || len(f[0]) != 1 || !isLetter(f[0][0]) {
		return 0, 0, false
	}
	session, err := strconv.Atoi(string(f[3]))
	return f[0][0], session, err == nil
}

func isLetter(c byte) bool { return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' }

// processes lists the pids of the system.
func processes() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
