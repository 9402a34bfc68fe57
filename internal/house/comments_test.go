package house

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

func TestEveryPackageHasItsComment(t *testing.T) {
	for _, p := range ours(t) {
		_, files := parse(t, p, false)
		comments := 0
		for _, f := range files {
			if f.Doc == nil {
				continue
			}
			comments++
			want := "Package " + f.Name.Name + " "
			if f.Name.Name == "main" {
				want = "Command " + p.name()[strings.LastIndexByte(p.name(), '/')+1:] + " "
			}
			if !strings.HasPrefix(f.Doc.Text(), want) {
				t.Errorf("%s: the package comment begins with %.40q, want %q", p.name(), f.Doc.Text(), want)
			}
		}
		if len(files) > 0 && comments != 1 {
			t.Errorf("%s has %d package comments, want one", p.name(), comments)
		}
	}
}

// Exported names have a comment of their own, of their group, on their line, or are spoken of in the comment of a neighbour. Methods
// may do without where the standard library or an interface of ours says what they do.
func TestExportedNamesHaveComments(t *testing.T) {
	for _, p := range ours(t) {
		if strings.HasPrefix(p.name(), "cmd/") || strings.HasPrefix(p.name(), "test/") {
			continue
		}
		fset, files := parse(t, p, false)
		for _, f := range files {
			for _, decl := range f.Decls {
				for _, name := range uncommented(decl) {
					t.Errorf("%s: %s has no comment", place(fset, name.Pos()), name.Name)
				}
			}
		}
	}
}

func uncommented(decl ast.Decl) (names []*ast.Ident) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Recv == nil && d.Name.IsExported() {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		if d.Doc != nil || d.Tok == token.IMPORT {
			return nil
		}
		var neighbours strings.Builder
		for _, spec := range d.Specs {
			if v, ok := spec.(*ast.ValueSpec); ok {
				neighbours.WriteString(v.Doc.Text())
			}
		}
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Doc == nil && s.Comment == nil && s.Name.IsExported() {
					names = append(names, s.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if s.Doc == nil && s.Comment == nil && n.IsExported() && !strings.Contains(neighbours.String(), n.Name) {
						names = append(names, n)
					}
				}
			}
		}
	}
	return names
}

// Nothing happens because a package is imported.
func TestNoInit(t *testing.T) {
	for _, p := range ours(t) {
		fset, files := parse(t, p, false)
		for _, f := range files {
			for _, decl := range f.Decls {
				if d, ok := decl.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: init runs unasked; let the caller construct", place(fset, d.Pos()))
				}
			}
		}
	}
}

// No test waits for real time: time.Sleep stands only in files that run in a bubble of testing/synctest.
func TestTestsDoNotSleep(t *testing.T) {
	for _, p := range ours(t) {
		fset, files := parse(t, p, true)
		for _, f := range files {
			bubble := false
			for _, i := range f.Imports {
				bubble = bubble || i.Path.Value == `"testing/synctest"`
			}
			if bubble {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
					if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
						t.Errorf("%s: the test sleeps: wait for a condition, or use testing/synctest", place(fset, n.Pos()))
					}
				}
				return true
			})
		}
	}
}
