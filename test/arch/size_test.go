package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What a piece may grow to before it is taken apart.
const (
	maxFileLines     = 600
	maxFunctionLines = 80
)

func imports(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, path)
	}
	return list
}

func TestPiecesStaySmallAndDocumented(t *testing.T) {
	for _, p := range packages(t) {
		documented := false
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || f.Doc != nil
			if ast.IsGenerated(f) {
				documented = true
				continue
			}
			checkFile(t, fset, f)
		}
		if !documented && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func checkFile(t *testing.T, fset *token.FileSet, f *ast.File) {
	t.Helper()
	lines := func(n ast.Node) int { return fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1 }
	if n := lines(f); n > maxFileLines {
		t.Errorf("%s has %d lines, over %d", fset.Position(f.Pos()), n, maxFileLines)
	}
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if n := lines(d); n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, over %d", fset.Position(d.Pos()), d.Name, n, maxFunctionLines)
			}
			if d.Doc == nil && d.Name.IsExported() && receiverExported(d) {
				t.Errorf("%s: %s has no comment", fset.Position(d.Pos()), d.Name)
			}
		case *ast.GenDecl:
			checkDecl(t, fset, d)
		}
	}
}

func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && name.IsExported()
}

func checkDecl(t *testing.T, fset *token.FileSet, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		var names []*ast.Ident
		var doc *ast.CommentGroup
		switch s := spec.(type) {
		case *ast.TypeSpec:
			names, doc = []*ast.Ident{s.Name}, s.Doc
		case *ast.ValueSpec:
			names, doc = s.Names, s.Doc
			if doc == nil {
				doc = s.Comment
			}
		}
		for _, name := range names {
			if name.IsExported() && doc == nil && d.Doc == nil {
				t.Errorf("%s: %s has no comment", fset.Position(name.Pos()), strings.TrimSpace(name.Name))
			}
		}
	}
}
