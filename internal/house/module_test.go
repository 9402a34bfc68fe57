package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// root is the module's directory as seen from this package's.
const root = "../.."

const module = "hanse/"

// pkg is what go list tells about a package.
type pkg struct {
	ImportPath                         string
	Dir                                string
	Export                             string
	Imports, TestImports, XTestImports []string
	GoFiles, TestGoFiles, XTestGoFiles []string
	IgnoredGoFiles                     []string
	Standard                           bool
	Error                              *struct{ Err string }
}

// name is the import path without the module's.
func (p *pkg) name() string { return strings.TrimPrefix(p.ImportPath, module) }

// packages lists all packages of the module, once for all tests.
var packages = sync.OnceValues(func() ([]*pkg, error) {
	if err := watch(); err != nil {
		return nil, err
	}
	return list("-e", "./...")
})

// watch opens the module's directories. go test repeats a result from its cache while what the test itself opened is the same, and
// does not see what go list opens for it.
func watch() error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		return err
	})
}

func list(args ...string) ([]*pkg, error) {
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Export,Imports,TestImports,XTestImports,GoFiles,TestGoFiles,XTestGoFiles,IgnoredGoFiles,Standard,Error"}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New("go list: " + err.Error() + ": " + stderr.String())
	}
	var all []*pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := d.Decode(p); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
}

// ours returns the packages of the module that are written by hand.
func ours(t *testing.T) []*pkg {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(slices.Clone(all), func(p *pkg) bool { return strings.HasPrefix(p.name(), "api/") })
}

// parse reads a package's files; those of tests when tests is set, the others when it is not.
func parse(t *testing.T, p *pkg, tests bool) (*token.FileSet, []*ast.File) {
	t.Helper()
	names := slices.Concat(p.GoFiles, slices.DeleteFunc(slices.Clone(p.IgnoredGoFiles), isTest))
	if tests {
		names = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return fset, files
}

func isTest(file string) bool { return strings.HasSuffix(file, "_test.go") }

// place makes positions short: package and file.
func place(fset *token.FileSet, pos token.Pos) string {
	p := fset.Position(pos)
	if rel, err := filepath.Abs(root); err == nil {
		p.Filename = strings.TrimPrefix(p.Filename, rel+string(filepath.Separator))
	}
	return p.String()
}

// matches reports whether a package's name matches one of the patterns of path.Match.
func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		if err != nil {
			panic(err)
		}
		return ok
	})
}
