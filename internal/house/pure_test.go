package house

import (
	"errors"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// core is what every replica has to compute alike: values and pure functions, one thread.
var core = []string{
	"internal/hlc", "internal/id", "internal/invariant", "internal/reject", "internal/slot",
	"internal/order", "internal/inventory", "internal/payment", "internal/notification", "internal/keyspace", "internal/meta",
	"internal/saga", "internal/shard", "internal/shard/*", "internal/cluster",
}

// steps are packages that a simulator drives: they may talk about the world but not act on it. Files of drivers are
// exempt: they turn the steps into goroutines and I/O.
var steps = []string{"internal/cluster/health", "internal/reactor", "internal/replica", "internal/store", "internal/store/memstore", "internal/transport", "internal/transport/memtransport", "internal/sim"}

var drivers = []string{"internal/replica/node.go", "internal/sim/run.go", "internal/sim/command.go"}

// A network in memory has its own order of links; its maps are not looked at by what it carries.
var anyMapOrder = []string{"internal/transport/memtransport"}

// coreImports are the packages of the standard library that compute and nothing else. A new one is a decision.
var coreImports = []string{
	"bytes", "cmp", "container/heap", "context", "crypto/hmac", "crypto/sha256", "encoding/base32", "encoding/base64", "encoding/binary",
	"encoding/hex", "encoding/json", "errors", "fmt", "hash/fnv", "iter", "maps", "math", "math/bits", "net/url", "slices", "sort",
	"strconv", "strings", "time", "unicode", "unicode/utf8",
}

// impure are the functions that read the world or act on it.
var impure = map[string][]string{
	"time":                    {"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer", "Sleep", "LoadLocation", "Local"},
	module + "internal/clock": {"New", "Skewed"},
	"os":                      nil, "net": nil, "net/http": nil, "log": nil, "math/rand": nil, "math/rand/v2": nil, "crypto/rand": nil, // nil: everything
}

func TestCoreImportsOnlyWhatComputes(t *testing.T) {
	for _, p := range ours(t) {
		if !matches(p.name(), core) {
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module) && !slices.Contains(coreImports, imported) {
				t.Errorf("%s imports %s: the core imports nothing that reads or changes the world, and no library", p.name(), imported)
			}
		}
	}
}

func TestCoreAndStepsAreDeterministic(t *testing.T) {
	var paths []string
	for _, p := range ours(t) {
		if matches(p.name(), core) || matches(p.name(), steps) {
			paths = append(paths, p.ImportPath)
		}
	}
	deps := compiled(t, paths...)
	for _, path := range paths {
		p := deps[path]
		p.IgnoredGoFiles = nil // of other builds, which declare the same things again
		fset, files := parse(t, p, false)
		info := typed(t, deps, p.ImportPath, fset, files)
		inCore := matches(p.name(), core)
		for _, f := range files {
			if slices.Contains(drivers, strings.SplitN(place(fset, f.Pos()), ":", 2)[0]) {
				continue
			}
			for _, finding := range inspect(fset, f, info, inCore, !matches(p.name(), anyMapOrder)) {
				t.Error(finding)
			}
		}
	}
}

// compiled lists packages and all they import, with compiled export data, so that sources can be checked with their types.
func compiled(t *testing.T, paths ...string) map[string]*pkg {
	t.Helper()
	all, err := list(append([]string{"-export", "-deps"}, paths...)...)
	if err != nil {
		t.Fatal(err)
	}
	deps := make(map[string]*pkg, len(all))
	for _, p := range all {
		deps[p.ImportPath] = p
	}
	return deps
}

// typed finds out what the names in a package's files mean.
func typed(t *testing.T, deps map[string]*pkg, path string, fset *token.FileSet, files []*ast.File) *types.Info {
	t.Helper()
	info := &types.Info{Types: make(map[ast.Expr]types.TypeAndValue), Uses: make(map[*ast.Ident]types.Object)}
	open := func(path string) (io.ReadCloser, error) {
		if deps[path] == nil {
			return nil, errors.New("no export data of " + path)
		}
		return os.Open(deps[path].Export)
	}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", open)}
	if _, err := conf.Check(path, fset, files, info); err != nil {
		t.Fatal(err)
	}
	return info
}

// inspect lists what in a file depends on anything but the arguments.
func inspect(fset *token.FileSet, f *ast.File, info *types.Info, inCore, mapOrder bool) (findings []string) {
	report := func(n ast.Node, what string) { findings = append(findings, place(fset, n.Pos())+": "+what) }
	var stack []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		if n == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		stack = append(stack, n)
		switch n := n.(type) {
		case *ast.Ident:
			obj := info.Uses[n]
			if obj == nil || obj.Pkg() == nil || obj.Parent() != obj.Pkg().Scope() {
				break
			}
			if names, ok := impure[obj.Pkg().Path()]; ok && (names == nil || slices.Contains(names, obj.Name())) {
				report(n, obj.Pkg().Name()+"."+obj.Name()+" reads or changes the world; it has to come in with the input")
			}
		case *ast.GoStmt:
			report(n, "a goroutine: its timing would decide")
		case *ast.SelectStmt:
			if len(n.Body.List) > 2 || inCore {
				report(n, "select: what is ready first depends on the scheduler")
			}
		case *ast.RangeStmt:
			if typ, ok := info.Types[n.X]; ok && mapOrder && isMap(typ.Type) && !orderless(fset, f, n, stack) {
				report(n, "range over a map: sort what comes out of it, or say in a comment why the order does not matter")
			}
		case ast.Expr:
			if tv, ok := info.Types[n]; ok && inCore && isFloat(tv.Type) {
				report(n, "floating point: machines may round differently")
				return false
			}
		}
		return true
	})
	return findings
}

func isMap(t types.Type) bool {
	_, ok := t.Underlying().(*types.Map)
	return ok
}

func isFloat(t types.Type) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&(types.IsFloat|types.IsComplex) != 0
}

// orderless accepts a loop over a map when its function sorts afterwards, when it only fills another map or deletes, or when a comment on
// its line or the line above speaks of the order.
func orderless(fset *token.FileSet, f *ast.File, loop *ast.RangeStmt, stack []ast.Node) bool {
	line := fset.Position(loop.Pos()).Line
	for _, group := range f.Comments {
		last := fset.Position(group.End()).Line
		if (last == line || last == line-1) && strings.Contains(group.Text(), "order") {
			return true
		}
	}
	if onlyKeyed(loop) {
		return true
	}
	sorts := false
	for i := len(stack) - 1; i >= 0 && !sorts; i-- {
		switch stack[i].(type) {
		case *ast.FuncDecl, *ast.FuncLit:
			ast.Inspect(stack[i], func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && n.Pos() > loop.End() {
					if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "sort" || x.Name == "slices" && strings.HasPrefix(sel.Sel.Name, "Sort")) {
						sorts = true
					}
				}
				return true
			})
		}
	}
	return sorts
}

// onlyKeyed accepts bodies of plain assignments to elements, m[k] = x, and to members of what is visited, v.f = x:
// whatever the order, the same is set.
func onlyKeyed(loop *ast.RangeStmt) bool {
	visited, _ := loop.Value.(*ast.Ident)
	for _, stmt := range loop.Body.List {
		a, ok := stmt.(*ast.AssignStmt)
		if !ok || a.Tok != token.ASSIGN {
			return false
		}
		for _, left := range a.Lhs {
			switch left := left.(type) {
			case *ast.IndexExpr:
			case *ast.SelectorExpr:
				if x, ok := left.X.(*ast.Ident); !ok || visited == nil || x.Name != visited.Name {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}
