package metashard

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"hanse/api/metapb"
	"hanse/internal/hlc"
	"hanse/internal/reject"
	"hanse/internal/shard"
	"hanse/internal/store/memstore"
)

// meta is a shard with its store.
type meta struct {
	shard.Machine
	tb    testing.TB
	store *memstore.Store
	index uint64
}

func newMeta(tb testing.TB) *meta {
	m := &meta{tb: tb, store: memstore.NewDisk().Open()}
	m.open()
	return m
}

func (m *meta) open() {
	var err error
	if m.Machine, err = shard.Open(m.store, []byte("s/"), New()); err != nil {
		m.tb.Fatal(err)
	}
}

// restart writes everything back and opens the shard anew.
func (m *meta) restart() {
	before := m.Hash()
	b := m.store.NewBatch()
	m.Flush(b)
	if err := m.store.Apply(b, true); err != nil {
		m.tb.Fatal(err)
	}
	m.open()
	if after := m.Hash(); after != before {
		m.tb.Fatalf("hash %x after the restart, %x before", after, before)
	}
}

func (m *meta) apply(payload []byte) shard.Result {
	m.index++
	e := shard.Entry{Index: m.index, Time: hlc.FromMillis(int64(m.index) * 1000), Commands: []shard.Command{{Kind: shard.KindLogic, Payload: payload}}}
	return m.Apply(e).Results[0]
}

func (m *meta) register(n *metapb.Node) shard.Result {
	return m.apply(encode(&metapb.Command{Body: &metapb.Command_Register{Register: &metapb.Register{Node: n}}}))
}

func (m *meta) nodes() []*metapb.Node {
	r := m.Query(encode(&metapb.Query{Body: &metapb.Query_ListNodes{ListNodes: &metapb.ListNodes{}}}))
	list := new(metapb.NodeList)
	if err := list.UnmarshalVT(r.Payload); err != nil || !r.OK() {
		m.tb.Fatalf("list: %s %s %v", r.Code, r.Detail, err)
	}
	return list.Nodes
}

func describe(n *metapb.Node) string {
	return fmt.Sprintf("node %d %s %s %s boot %d process %d registered %d s started %d s\n",
		n.Id, n.Http, n.Peers, n.Version, n.Boot, n.Process, n.RegisteredAt/1000, n.StartedAt/1000)
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		m := newMeta(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "register":
				n := &metapb.Node{Version: "v1"}
				d.ScanArgs(t, "node", &n.Id)
				d.ScanArgs(t, "boot", &n.Boot)
				d.ScanArgs(t, "process", &n.Process)
				d.MaybeScanArgs(t, "version", &n.Version)
				n.Http, n.Peers = fmt.Sprintf("h%d:7400", n.Id), fmt.Sprintf("h%d:7402", n.Id)
				r := m.register(n)
				if !r.OK() {
					return r.Code + ": " + r.Detail
				}
				known := new(metapb.Node)
				if err := known.UnmarshalVT(r.Payload); err != nil {
					t.Fatal(err)
				}
				return describe(known)
			case "list":
				var b strings.Builder
				for _, n := range m.nodes() {
					b.WriteString(describe(n))
				}
				return b.String()
			case "restart":
				m.restart()
				return "same state"
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
}

func TestRefusals(t *testing.T) {
	m := newMeta(t)
	for id := range uint64(maxNodes) {
		if r := m.register(&metapb.Node{Id: id + 1, Boot: 1}); !r.OK() {
			t.Fatalf("node %d: %s %s", id+1, r.Code, r.Detail)
		}
	}
	long := strings.Repeat("x", maxTextBytes+1)
	for name, c := range map[string]struct {
		got  shard.Result
		want string
	}{
		"one too many":      {m.register(&metapb.Node{Id: maxNodes + 1, Boot: 1}), reject.TooManyNodes},
		"a known one":       {m.register(&metapb.Node{Id: maxNodes, Boot: 2}), ""},
		"long address":      {m.register(&metapb.Node{Id: 1, Boot: 2, Http: long}), reject.MalformedCommand},
		"long peer address": {m.register(&metapb.Node{Id: 1, Boot: 2, Peers: long}), reject.MalformedCommand},
		"long version":      {m.register(&metapb.Node{Id: 1, Boot: 2, Version: long}), reject.MalformedCommand},
		"node 0":            {m.register(&metapb.Node{Boot: 2}), reject.MalformedCommand},
		"no node":           {m.register(nil), reject.MalformedCommand},
		"nothing":           {m.apply(nil), reject.MalformedCommand},
		"garbage":           {m.apply([]byte{0xff}), reject.MalformedCommand},
		"garbage query":     {m.Query([]byte{0xff}), reject.MalformedCommand},
		"no query":          {m.Query(nil), reject.MalformedCommand},
	} {
		if c.got.Code != c.want {
			t.Errorf("%s: code %q (%s), want %q", name, c.got.Code, c.got.Detail, c.want)
		}
	}
	if got := len(m.nodes()); got != maxNodes {
		t.Errorf("%d nodes, want %d", got, maxNodes)
	}
}

// What the shard knows of a node is not the node's to say.
func TestStateAndTimesAreTheShards(t *testing.T) {
	m := newMeta(t)
	m.register(&metapb.Node{Id: 1, Boot: 1, State: 7, RegisteredAt: 9, StartedAt: 9})
	n := m.nodes()[0]
	if n.State != 0 || n.RegisteredAt != 1000 || n.StartedAt != 1000 {
		t.Errorf("registered as %v, want state 0 and the entry's time", n)
	}
}

func FuzzApply(f *testing.F) {
	f.Add(encode(&metapb.Command{Body: &metapb.Command_Register{Register: &metapb.Register{Node: &metapb.Node{Id: 1, Boot: 1}}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMeta(t)
		m.apply(data)
		m.apply(data)
		m.Query(data)
		m.restart()
	})
}
