// Package suite finds, builds and judges host tests: those that need root, KVM or device-mapper and stand in files with the
// build tag hosttest.
package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Tag is the build tag of files with host tests.
const Tag = "hosttest"

// Package is a package with host tests.
type Package struct {
	ImportPath string
	Name       string   // the import path within the module: "internal/disk/devmapper"
	Dir        string   // where its source is
	Tests      []string // its host tests' names, those of top level, in the order of the source
}

// Discover returns the packages among patterns that have host tests, in the order of their import paths. A pattern that
// names no package is an error.
func Discover(ctx context.Context, patterns ...string) ([]Package, error) {
	plain, err := list(ctx, patterns)
	if err != nil {
		return nil, err
	}
	tagged, err := list(ctx, append([]string{"-tags", Tag}, patterns...))
	if err != nil {
		return nil, err
	}
	without := make(map[string][]string)
	for _, p := range plain {
		without[p.ImportPath] = p.testFiles()
	}
	var found []Package
	for _, p := range tagged {
		pkg := Package{ImportPath: p.ImportPath, Dir: p.Dir, Name: strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/")}
		for _, file := range p.testFiles() {
			if slices.Contains(without[p.ImportPath], file) {
				continue
			}
			names, err := testsIn(filepath.Join(p.Dir, file), nil)
			if err != nil {
				return nil, err
			}
			pkg.Tests = append(pkg.Tests, names...)
		}
		if len(pkg.Tests) > 0 {
			found = append(found, pkg)
		}
	}
	return found, nil
}

// listed is what is asked of 'go list' about a package.
type listed struct {
	ImportPath   string
	Dir          string
	TestGoFiles  []string
	XTestGoFiles []string
	Module       struct{ Path string }
	Error        *struct{ Err string }
}

func (l listed) testFiles() []string { return slices.Concat(l.TestGoFiles, l.XTestGoFiles) }

// list runs 'go list'. It tolerates packages whose files are all behind the tag.
func list(ctx context.Context, args []string) ([]listed, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-e", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles,Module,Error"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("go list: %w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("go list: %w", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if p.Dir == "" {
			return nil, fmt.Errorf("no package %s: %s", p.ImportPath, p.reason())
		}
		all = append(all, p)
	}
}

func (l listed) reason() string {
	if l.Error == nil {
		return "go list knows no folder of it"
	}
	return l.Error.Err
}

// testsIn returns the names of the test functions in a file. Src is as in parser.ParseFile.
func testsIn(file string, src any) ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && isTest(fn) {
			names = append(names, fn.Name.Name)
		}
	}
	return names, nil
}

// isTest says what package testing takes for a test: TestXxx with one *testing.T.
func isTest(fn *ast.FuncDecl) bool {
	rest, ok := strings.CutPrefix(fn.Name.Name, "Test")
	if first, _ := utf8.DecodeRuneInString(rest); !ok || unicode.IsLower(first) {
		return false
	}
	params := fn.Type.Params.List
	if fn.Recv != nil || len(params) != 1 || len(params[0].Names) > 1 {
		return false
	}
	star, ok := params[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	sel, ok := star.X.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "T"
}
