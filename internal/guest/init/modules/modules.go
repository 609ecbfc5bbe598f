// Package modules loads kernel modules with all that they need, in order, by what depmod wrote in modules.dep.
//
// The image builder uses it to choose what goes into the initramfs, and wrenn-init to load the rest later.
//
// It is a leaf package.
package modules

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// maxLine bounds a line of modules.dep: one module and all that it needs.
const maxLine = 64 << 10

// initCompressed is MODULE_INIT_COMPRESSED_FILE: the kernel decompresses the file itself.
const initCompressed = 4

// Deps are the modules of one kernel, by name.
type Deps struct{ byName map[string]module }

type module struct {
	path  string
	needs []string // paths, as depmod orders them: what is needed last comes first
}

// ParseDeps reads a modules.dep. It fails with errs.ErrCorrupt.
func ParseDeps(r io.Reader) (Deps, error) {
	d := Deps{byName: map[string]module{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		file, needs, ok := strings.Cut(lines.Text(), ":")
		if lines.Text() == "" || strings.HasPrefix(file, "#") {
			continue
		}
		m := module{path: file, needs: strings.Fields(needs)}
		for _, p := range append([]string{m.path}, m.needs...) {
			if !ok || !filepath.IsLocal(p) {
				return Deps{}, fmt.Errorf("modules.dep: line %.100q: %w", lines.Text(), errs.ErrCorrupt)
			}
		}
		d.byName[Name(file)] = m
	}
	if err := lines.Err(); err != nil {
		return Deps{}, fmt.Errorf("modules.dep: %w: %w", err, errs.ErrCorrupt)
	}
	return d, nil
}

// Name is a module's name as the kernel has it: the file's without its endings, with _ for -.
func Name(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// Order is the paths, relative to modules.dep, of the named modules and all that they need, each once and after what it
// needs. A name that is not there is errs.ErrNotFound.
func (d Deps) Order(names ...string) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	add := func(p string) {
		if !seen[p] {
			seen[p] = true
			order = append(order, p)
		}
	}
	for _, name := range names {
		m, ok := d.byName[Name(name)]
		if !ok {
			return nil, fmt.Errorf("kernel module %s: %w", name, errs.ErrNotFound)
		}
		for i := len(m.needs) - 1; i >= 0; i-- {
			add(m.needs[i])
		}
		add(m.path)
	}
	return order, nil
}

// LoadFile loads one module file; a name that ends in .ko is a plain one, any other is decompressed by the kernel. One that is
// loaded already is no error.
func LoadFile(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("kernel module %s: %w", file, err)
	}
	defer unix.Close(fd)
	flags := initCompressed
	if strings.HasSuffix(file, ".ko") {
		flags = 0
	}
	if err := unix.FinitModule(fd, "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("kernel module %s: %w", file, err)
	}
	return nil
}

// Load loads modules by name, with what they need, from a kernel's folder of modules. A kernel that has one built in has no
// file of it: that is errs.ErrNotFound.
func Load(dir string, names ...string) error {
	f, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return err
	}
	defer f.Close()
	deps, err := ParseDeps(f)
	if err != nil {
		return err
	}
	order, err := deps.Order(names...)
	if err != nil {
		return err
	}
	for _, p := range order {
		if err := LoadFile(filepath.Join(dir, p)); err != nil {
			return err
		}
	}
	return nil
}
