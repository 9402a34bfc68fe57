package house

import (
	"slices"
	"strings"
	"testing"
)

// levels is the architecture, bottom up. A package may import what stands on lower levels, and nothing of its own: domains
// do not know one another, contracts do not know their implementations, doors do not know the replicas.
var levels = [][]string{
	{"api/*"},
	{"internal/clock", "internal/dirlock", "internal/freeport", "internal/golden", "internal/hlc", "internal/invariant", "internal/money", "internal/proptest", "internal/reject", "internal/slot", "internal/trace"},
	// The public client knows the words and nothing of the inside.
	{"internal/id", "client"},
	// The domains, pure; and the contract of storage, which they do not know.
	{"internal/order", "internal/inventory", "internal/payment", "internal/notification", "internal/keyspace", "internal/meta", "internal/store"},
	// The runtime of a shard; and the contract of the network, which it does not know.
	{"internal/shard", "internal/transport"},
	{"internal/saga", "internal/cluster"},
	// The services as shards, and the door that only knows their words.
	{"internal/shard/*", "internal/rest"},
	{"internal/reactor", "internal/replica", "internal/store/*", "internal/transport/*", "internal/psp", "internal/cluster/*"},
	{"internal/psp/*", "internal/shardtest"},
	{"internal/node", "internal/sim"},
	{"internal/replay", "internal/audit", "internal/bench", "internal/dev"},
	{"internal/cli"},
	{"cmd/*", "test/*"},
}

func level(name string) int {
	return slices.IndexFunc(levels, func(patterns []string) bool { return matches(name, patterns) })
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range ours(t) {
		if p.name() == "internal/house" {
			continue
		}
		from := level(p.name())
		if from < 0 {
			t.Errorf("%s has no place in the levels of this test: add it where it belongs", p.name())
			continue
		}
		for _, imported := range p.Imports {
			name, own := strings.CutPrefix(imported, module)
			if !own {
				continue
			}
			switch to := level(name); {
			case to < 0:
				t.Errorf("%s imports %s, which has no place in the levels", p.name(), name)
			case to >= from:
				t.Errorf("%s (level %d) imports %s (level %d): imports point down", p.name(), from, name, to)
			}
		}
	}
}

// A program is signals, an exit code and one call.
func TestProgramsOnlyCallTheCommandLine(t *testing.T) {
	for _, p := range ours(t) {
		if !strings.HasPrefix(p.name(), "cmd/") {
			continue
		}
		for _, imported := range p.Imports {
			// The simulator takes over its process's randomness, so it has a program of its own.
			want := "internal/cli"
			if p.name() == "cmd/hanse-sim" {
				want = "internal/sim"
			}
			if name, own := strings.CutPrefix(imported, module); own && name != want {
				t.Errorf("%s imports %s, want %s alone", p.name(), name, want)
			}
		}
	}
}

// Names that say nothing collect everything.
func TestPackagesNameAnIdea(t *testing.T) {
	vague := []string{"util", "utils", "common", "types", "helpers", "misc", "base", "shared"}
	for _, p := range ours(t) {
		if name := p.ImportPath[strings.LastIndexByte(p.ImportPath, '/')+1:]; slices.Contains(vague, name) {
			t.Errorf("package %s: name the idea, or keep the code where it is used", p.name())
		}
	}
}
