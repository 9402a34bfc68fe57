package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// The rules are only worth something if they find what they forbid and let pass what they allow.
func TestInspect(t *testing.T) {
	deps := compiled(t, "time", "math/rand/v2", "slices", "maps")
	for _, tt := range []struct{ name, body, want string }{
		{"the clock", `_ = time.Now()`, "time.Now"},
		{"the clock as a value", `clock := time.Now; _ = clock`, "time.Now"},
		{"a timer", `<-time.After(time.Second)`, "time.After"},
		{"a random number", `_ = rand.Uint64()`, "rand.Uint64"},
		{"a goroutine", `go func() {}()`, "goroutine"},
		{"a choice", `c := make(chan int); select { case <-c: case c <- 1: }`, "select"},
		{"a float", `x := 3; _ = float64(x) / 2`, "floating point"},
		{"a map's order", `var s []int; for k := range m { s = append(s, k) }; _ = s`, "range over a map"},
		{"a map's last", `var last int; for _, v := range m { last = v }; _ = last`, "range over a map"},
		{"durations and times", `_ = time.UnixMilli(1).Add(time.Second)`, ""},
		{"sorted afterwards", `var s []int; for k := range m { s = append(s, k) }; slices.Sort(s)`, ""},
		{"sorted keys", `for _, k := range slices.Sorted(maps.Keys(m)) { _ = k }`, ""},
		{"another map", `n := map[int]int{}; for k, v := range m { n[k] = v }`, ""},
		{"a reason", "sum := 0\n// in any order: a sum\nfor _, v := range m { sum += v }\n_ = sum", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source := "package p\nimport (\"maps\"; \"math/rand/v2\"; \"slices\"; \"time\")\n" +
				"var _, _, _, _ = maps.Keys[map[int]int], rand.New, slices.Max[[]int], time.Second\n" +
				"func f(m map[int]int) {\n" + tt.body + "\n}\n"
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, "p.go", source, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			info := typed(t, deps, "p", fset, []*ast.File{file})
			var found []string
			for _, finding := range inspect(fset, file, info, true, true) {
				if !strings.Contains(finding, "rand.New") { // of the line that uses the imports
					found = append(found, finding)
				}
			}
			if tt.want == "" && len(found) > 0 || tt.want != "" && (len(found) == 0 || !strings.Contains(found[0], tt.want)) {
				t.Errorf("found %q, want %q", found, tt.want)
			}
		})
	}
}
