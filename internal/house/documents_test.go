package house

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hanse/internal/inventory"
	"hanse/internal/order"
	"hanse/internal/payment"
	"hanse/internal/reject"
	"hanse/internal/saga"
	"hanse/internal/shard"
	"hanse/internal/shard/metashard"
)

var update = flag.Bool("update", false, "write the tables into docs/tables.md")

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tables is docs/tables.md as the code has it.
func tables() string {
	var b strings.Builder
	b.WriteString(`# State machines

Printed from the code by ` + "`make docs`" + `; a test fails when they differ. The code looks transitions up in these very tables and stops rather than
make one that is not here.

## Orders

A row: in state *From*, what stands under *On* may bring about *Event*, which leads to *To*. An order is the fold of its events.
The second table says which commands are looked at in which state, and with which code the others are refused.

`)
	b.WriteString(order.Table())
	b.WriteString(`
## Sagas

What an event of an order makes its shard send to other services, and what takes that back while the order is being undone. Steps are undone
in reverse: money is voided before stock is released.

`)
	b.WriteString(saga.Table())
	b.WriteString(`
## Holds

What an operation does to a hold in each state, what is answered, and what happens to the counters of its SKUs
(q: the quantity asked for, n: the quantity of this operation, rest: what is left of the hold).

`)
	b.WriteString(inventory.Table())
	b.WriteString(`
## Payments

A payment's state is derived from its amounts and from the operation that is under way. The first half of the table is about commands, the
second about what the provider says to the call of that operation. *Unknown* means that the provider is asked by the operation's key what
became of it. Operations run one after the other, in the order of request.

`)
	b.WriteString(payment.Table())
	b.WriteString(`
## Nodes

What is wanted of a node, as the meta shard keeps it; how it fares is observed, not stored. The state that a node has already is never an
error: nothing changes. Everything that has no row is refused.

`)
	b.WriteString(metashard.Table())
	return b.String()
}

func TestTablesInDocs(t *testing.T) {
	const name = "docs/tables.md"
	want := tables()
	if *update {
		if err := os.WriteFile(filepath.Join(root, name), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := strings.Split(read(t, name), "\n")
	for i, line := range strings.Split(want, "\n") {
		if i >= len(got) || got[i] != line {
			t.Fatalf("%s differs from the code at line %d, want %q: run make docs", name, i+1, line)
		}
	}
	if n := strings.Count(want, "\n") + 1; len(got) != n {
		t.Fatalf("%s has %d lines, want %d: run make docs", name, len(got), n)
	}
}

func TestEveryCodeIsInTheDocuments(t *testing.T) {
	doc := read(t, "docs/errors.md")
	for _, c := range reject.Codes() {
		if !strings.Contains(doc, "`"+c.Code+"`") {
			t.Errorf("docs/errors.md does not list %q", c.Code)
		}
	}
}

// The runtime of shards stands below the codes and spells two of them itself.
func TestCodesOfTheRuntime(t *testing.T) {
	if shard.CodeKeyReused != reject.KeyReused || shard.CodeMalformed != reject.MalformedCommand {
		t.Errorf("shard's codes are %q and %q, want %q and %q", shard.CodeKeyReused, shard.CodeMalformed, reject.KeyReused, reject.MalformedCommand)
	}
}

// decisions lists the ADRs: name to text.
func decisions(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "adr", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("docs/adr: %d files, %v", len(files), err)
	}
	all := make(map[string]string, len(files))
	for _, f := range files {
		all[filepath.Base(f)] = read(t, "docs/adr/"+filepath.Base(f))
	}
	return all
}

func TestDecisionsHaveTheirParts(t *testing.T) {
	all := decisions(t)
	numbers := make([]string, 0, len(all))
	for name, text := range all {
		if !regexp.MustCompile(`^\d{4}-[a-z0-9-]+\.md$`).MatchString(name) {
			t.Errorf("docs/adr/%s: want NNNN-title.md", name)
			continue
		}
		numbers = append(numbers, name[:4])
		if !strings.HasPrefix(text, "# "+strings.TrimLeft(name[:4], "0")+". ") {
			t.Errorf("docs/adr/%s: the title does not begin with its number", name)
		}
		for _, part := range []string{"\nStatus: ", "\n## Context\n", "\n## Decision\n", "\n## Alternatives\n", "\n## Consequences\n"} {
			if !strings.Contains(text, part) {
				t.Errorf("docs/adr/%s has no %q", name, strings.TrimSpace(part))
			}
		}
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != fmt.Sprintf("%04d", i+1) {
			t.Fatalf("docs/adr: number %s stands where %04d is due", n, i+1)
		}
	}
}

// requirements lists the modules that go.mod requires directly.
func requirements(t *testing.T) []string {
	t.Helper()
	var direct []string
	for line := range strings.Lines(read(t, "go.mod")) {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) == 2 && strings.Contains(fields[0], ".") && strings.HasPrefix(fields[1], "v") { // indirect ones have a comment
			direct = append(direct, fields[0])
		}
	}
	if len(direct) == 0 {
		t.Fatal("found no direct requirement in go.mod")
	}
	return direct
}

// A dependency is a standing promise: each has its reason in a decision.
func TestEveryDependencyHasItsReason(t *testing.T) {
	all := decisions(t)
	for _, required := range requirements(t) {
		found := false
		for _, text := range all {
			found = found || strings.Contains(text, "`"+required+"`")
		}
		if !found {
			t.Errorf("go.mod requires %s, which no decision in docs/adr names", required)
		}
	}
}

// One that nothing imports any more goes.
func TestEveryDependencyIsUsed(t *testing.T) {
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	var imported []string
	for _, p := range all {
		imported = slices.Concat(imported, p.Imports, p.TestImports, p.XTestImports)
	}
	for _, required := range requirements(t) {
		if !slices.ContainsFunc(imported, func(path string) bool { return path == required || strings.HasPrefix(path, required+"/") }) {
			t.Errorf("go.mod requires %s, which nothing imports: go mod tidy", required)
		}
	}
}

var links = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksInDocumentsLead(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range links.FindAllStringSubmatch(string(text), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			linked := file
			if target != "" {
				linked = filepath.Join(filepath.Dir(file), target)
			}
			body, err := os.ReadFile(linked)
			if info, statErr := os.Stat(linked); statErr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s links to %s, which is not there", filepath.Base(file), m[1])
			} else if anchor != "" && !slices.Contains(anchors(string(body)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", filepath.Base(file), m[1])
			}
		}
	}
}

// anchors lists the headings of a Markdown file as links spell them.
func anchors(text string) (all []string) {
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			heading = regexp.MustCompile("[^a-z0-9 _-]").ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
			all = append(all, strings.ReplaceAll(heading, " ", "-"))
		}
	}
	return all
}
