// Package debian makes Debian file trees for the developer tools: the guest image, the emulated KVM host, and the tree of
// tools that both are made with. It runs mmdebstrap, takes packages from the mirror that this machine's apt already uses,
// and mounts nothing.
//
// It is used by developer tools and tests only, never by the service.
package debian

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// Suite is the Debian release that everything is made from.
const Suite = "trixie"

// MirrorEnv names the variable that overrides the mirror found in apt's configuration. Its value is the archive's URL, as in
// sources.list, and after a space optionally the security archive's; without one, "-security" is appended to the first.
const MirrorEnv = "WRENN_DEBIAN_MIRROR"

// Sources are apt's one-line sources for Suite, its updates and its security updates. The mirror is the one that this
// machine's apt has package lists of; no host name is known to this project. Without one the error is an
// errs.ErrFailedPrecondition that says what to do.
func Sources() ([]string, error) {
	if v := os.Getenv(MirrorEnv); v != "" {
		return fromEnv(v)
	}
	cmd := exec.Command("apt-get", "indextargets", "--format", targetFormat, "Created-By: Packages")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		return nil, noMirror(fmt.Sprintf("apt-get indextargets: %v", err))
	}
	return fromTargets(out)
}

// targetFormat makes apt-get print a line per package list that it knows. A field that the list has no value for is printed
// as its own name.
const targetFormat = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)"

func fromEnv(value string) ([]string, error) {
	fields := strings.Fields(value)
	if len(fields) == 0 || len(fields) > 2 {
		return nil, errs.Field(MirrorEnv, fmt.Sprintf("%q is not one or two URLs", value), "give the archive's URL as in sources.list")
	}
	for _, f := range fields {
		if !strings.Contains(f, ":/") {
			return nil, errs.Field(MirrorEnv, fmt.Sprintf("%q is not a URL", f), "give the archive's URL as in sources.list")
		}
	}
	security := strings.TrimRight(fields[0], "/") + "-security"
	if len(fields) == 2 {
		security = fields[1]
	}
	return lines(fields[0], security), nil
}

// fromTargets picks the archive and the security archive out of apt's list of targets.
func fromTargets(out []byte) ([]string, error) {
	var main, security string
	for line := range bytes.Lines(out) {
		fields := strings.Split(strings.TrimSpace(string(line)), "|")
		if len(fields) != 3 || fields[0] != "Debian" {
			continue
		}
		uri, release := fields[1], fields[2]
		switch {
		case strings.HasSuffix(release, "-security"):
			security = uri
		case !strings.Contains(release, "-"):
			main = uri
		}
	}
	if main == "" {
		return nil, noMirror("apt has no package list of a Debian archive")
	}
	if security == "" {
		security = strings.TrimRight(main, "/") + "-security"
	}
	return lines(main, security), nil
}

func lines(main, security string) []string {
	main, security = strings.TrimRight(main, "/"), strings.TrimRight(security, "/")
	return []string{
		"deb " + main + " " + Suite + " main",
		"deb " + main + " " + Suite + "-updates main",
		"deb " + security + " " + Suite + "-security main",
	}
}

func noMirror(why string) error {
	return fmt.Errorf("no Debian mirror known: %s; run 'apt-get update', or set %s to an archive's URL: %w", why, MirrorEnv, errs.ErrFailedPrecondition)
}

// proxies are the proxies of this machine's apt as options for mmdebstrap's, which reads no configuration of the machine.
func proxies(ctx context.Context) []string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire").Output()
	if err != nil {
		return nil
	}
	return fromConfig(out)
}

func fromConfig(out []byte) []string {
	var opts []string
	for line := range bytes.Lines(out) {
		s := strings.TrimSpace(string(line))
		name, value, ok := strings.Cut(s, " ")
		if ok && strings.HasSuffix(strings.ToLower(name), "::proxy") && value != `"";` {
			opts = append(opts, s)
		}
	}
	slices.Sort(opts)
	return opts
}
