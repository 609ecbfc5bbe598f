package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// serverUnit has systemd run the server. Commands that tests run are in its cgroup, as those of an ssh session would be in theirs; they
// end with the host.
const serverUnit = `[Unit]
Description=The server of the emulated KVM host
DefaultDependencies=no

[Service]
ExecStart=` + serverPath + `
WorkingDirectory=/root
Environment=%s
StandardOutput=tty
TTYPath=/dev/console
OOMPolicy=continue
TasksMax=infinity
`

// becomeSystemd hands the host over to systemd, which starts the server among the first. It returns only errors.
func becomeSystemd() error {
	if err := os.Link(initPath, serverPath); err != nil {
		return err
	}
	const units, name = "/run/systemd/system", "kvmhost-server.service"
	wants := filepath.Join(units, "sysinit.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	environment := ""
	for _, v := range os.Environ() {
		environment += fmt.Sprintf("%q ", v)
	}
	if err := os.WriteFile(filepath.Join(units, name), fmt.Appendf(nil, serverUnit, environment), 0o644); err != nil {
		return err
	}
	if err := os.Symlink("../"+name, filepath.Join(wants, name)); err != nil {
		return err
	}
	const systemd = "/usr/lib/systemd/systemd"
	return unix.Exec(systemd, []string{systemd}, os.Environ())
}
