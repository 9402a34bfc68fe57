package metashard

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"hanse/api/metapb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

var long = strings.Repeat("x", maxTextBytes+1)

func TestMalformedCommands(t *testing.T) {
	m := newCluster(t)
	before, events := m.look(0), m.events(0, maxPage)
	join := func(change func(*metapb.Node)) *metapb.Join {
		j := joiner("d")
		change(j.Node)
		return j
	}
	node := func(n *metapb.Node) *metapb.Register {
		n.Id, n.Boot, n.Process, n.Features = 1, 2, 11, 1
		return &metapb.Register{Node: n}
	}
	for name, body := range map[string]any{
		"node 0":               &metapb.Register{Node: &metapb.Node{Boot: 2}},
		"no node":              &metapb.Register{},
		"long address":         node(&metapb.Node{Http: long}),
		"long peer address":    node(&metapb.Node{Peers: long}),
		"long gossip address":  node(&metapb.Node{Gossip: long}),
		"long provider":        node(&metapb.Node{Provider: long}),
		"long version":         node(&metapb.Node{Version: long}),
		"long name":            node(&metapb.Node{Name: long}),
		"long zone":            node(&metapb.Node{Zone: long}),
		"a zone not of UTF-8":  node(&metapb.Node{Zone: "\xff"}),
		"unsorted roles":       node(&metapb.Node{Roles: []uint32{3, 2}}),
		"a role twice":         node(&metapb.Node{Roles: []uint32{2, 2}}),
		"role 0":               node(&metapb.Node{Roles: []uint32{0}}),
		"an unknown role":      node(&metapb.Node{Roles: []uint32{7}}),
		"a role out of bytes":  node(&metapb.Node{Roles: []uint32{0x101}}),
		"join of nobody":       &metapb.Join{},
		"join without a name":  join(func(n *metapb.Node) { n.Name = "" }),
		"join without process": join(func(n *metapb.Node) { n.Process = 0 }),
		"join of a long zone":  join(func(n *metapb.Node) { n.Zone = long }),
		"join of a bad role":   join(func(n *metapb.Node) { n.Roles = []uint32{9} }),
		"short token":          &metapb.SetToken{Hash: []byte{1}},
		"negative down-after":  &metapb.SetDownAfter{Ms: -1},
		"long state reason":    &metapb.SetNodeState{Node: 1, State: Draining, Reason: long},
		"lost, and active":     &metapb.SetNodeState{Node: 1, State: Active, Lost: true},
		"too many moves":       &metapb.PlanMoves{Moves: make([]*metapb.PlannedMove, maxMoves+1)},
		"long move reason":     &metapb.PlanMoves{Moves: []*metapb.PlannedMove{{Reason: long}}},
		"long finish reason":   &metapb.FinishMove{Reason: long},
		"too many preferences": &metapb.PreferLeaders{Preferences: make([]*metapb.Preference, maxShards+1)},
		"long recovery detail": &metapb.RecoverShard{Detail: long},
		"note of nothing":      &metapb.Note{},
		"note of a long type":  &metapb.Note{Event: &metapb.Event{Type: "node." + long}},
		"note of a detail":     &metapb.Note{Event: &metapb.Event{Type: "node.x", Detail: long}},
	} {
		if r := m.do(body); r.Code != reject.MalformedCommand {
			t.Errorf("%s: code %q (%s), want %q", name, r.Code, r.Detail, reject.MalformedCommand)
		}
	}
	for name, r := range map[string]shard.Result{
		"nothing": m.apply(nil), "garbage": m.apply([]byte{0xff}), "garbage query": m.Query([]byte{0xff}), "no query": m.Query(nil),
	} {
		if r.Code != reject.MalformedCommand {
			t.Errorf("%s: code %q (%s), want %q", name, r.Code, r.Detail, reject.MalformedCommand)
		}
	}
	if !m.look(0).EqualVT(before) || len(m.events(0, maxPage)) != len(events) {
		t.Error("a refused command has changed something")
	}
}

func TestUnsoundFoundings(t *testing.T) {
	meta0 := &metapb.ServiceShards{Service: uint32(shard.Meta), Shards: 1}
	for name, spoil := range map[string]func(*metapb.Found){
		"nothing":               func(f *metapb.Found) { *f = metapb.Found{} },
		"no ID":                 func(f *metapb.Found) { f.Cluster.Id = "" },
		"a long ID":             func(f *metapb.Found) { f.Cluster.Id = long },
		"no replicas":           func(f *metapb.Found) { f.Cluster.Replicas = 0 },
		"too many replicas":     func(f *metapb.Found) { f.Cluster.Replicas = maxNodes + 1 },
		"no secret":             func(f *metapb.Found) { f.Cluster.Secret = nil },
		"a short token":         func(f *metapb.Found) { f.Cluster.TokenHash = []byte{1} },
		"no layout":             func(f *metapb.Found) { f.Cluster.Layout = nil },
		"neither":               func(f *metapb.Found) { f.Cluster.Layout, f.Shards = nil, nil },
		"a service twice":       func(f *metapb.Found) { f.Cluster.Layout[1] = meta0 },
		"an unknown service":    func(f *metapb.Found) { f.Cluster.Layout[1].Service = 99 },
		"no shards of one":      func(f *metapb.Found) { f.Cluster.Layout[1].Shards = 0 },
		"too many of one":       func(f *metapb.Found) { f.Cluster.Layout[1].Shards = maxShardsOfService + 1 },
		"an absent service":     func(f *metapb.Found) { f.Cluster.Layout[1] = nil },
		"more in the layout":    func(f *metapb.Found) { f.Cluster.Layout[1].Shards = 3 },
		"fewer in the layout":   func(f *metapb.Found) { f.Cluster.Layout[1].Shards = 1 },
		"another shard":         func(f *metapb.Found) { f.Shards[2].Id++ },
		"an absent shard":       func(f *metapb.Found) { f.Shards[2] = nil },
		"a shard nowhere":       func(f *metapb.Found) { f.Shards[2].Replicas = nil },
		"an absent replica":     func(f *metapb.Found) { f.Shards[2].Replicas[1] = nil },
		"a replica twice":       func(f *metapb.Found) { f.Shards[2].Replicas[1].Id = 1 },
		"two on a node":         func(f *metapb.Found) { f.Shards[2].Replicas[1].Node = 1 },
		"replica 0":             func(f *metapb.Found) { f.Shards[2].Replicas[1].Id = 0 },
		"node 0":                func(f *metapb.Found) { f.Shards[2].Replicas[1].Node = 0 },
		"founder 0":             func(f *metapb.Found) { f.Nodes = []*metapb.Node{{}} },
		"an absent founder":     func(f *metapb.Found) { f.Nodes = []*metapb.Node{{Id: 1}, nil} },
		"a founder twice":       func(f *metapb.Found) { f.Nodes = []*metapb.Node{{Id: 1}, {Id: 1}} },
		"a founder of long":     func(f *metapb.Found) { f.Nodes = []*metapb.Node{{Id: 1, Http: long}} },
		"the last founder":      func(f *metapb.Found) { f.Nodes = []*metapb.Node{{Id: math.MaxUint64}} },
		"the last node number":  func(f *metapb.Found) { f.Shards[2].Replicas[1].Node = math.MaxUint64 },
		"the last replica ever": func(f *metapb.Found) { f.Shards[2].Replicas[1].Id = math.MaxUint64 },
	} {
		m := newMeta(t)
		f := founding(2)
		spoil(f)
		if r := m.do(f); r.Code != reject.MalformedCommand {
			t.Errorf("%s: code %q (%s), want %q", name, r.Code, r.Detail, reject.MalformedCommand)
		}
		if v := m.look(0); v.Cluster != nil || len(v.Shards) > 0 || len(m.events(0, 0)) > 0 {
			t.Errorf("%s: a refused founding has left something", name)
		}
		m.must(founding(2))
	}
}

func TestAsManyNodesAsThereMayBe(t *testing.T) {
	m := newMeta(t)
	for id := range uint64(maxNodes) {
		m.must(&metapb.Register{Node: &metapb.Node{Id: id + 1, Boot: 1, Features: 1}})
	}
	refused := func(what string, body any) {
		t.Helper()
		if r := m.do(body); r.Code != reject.TooManyNodes {
			t.Errorf("%s: code %q (%s), want %q", what, r.Code, r.Detail, reject.TooManyNodes)
		}
	}
	refused("one too many", &metapb.Register{Node: &metapb.Node{Id: maxNodes + 1, Boot: 1}})
	m.must(&metapb.Register{Node: &metapb.Node{Id: maxNodes, Boot: 2, Features: 1}})
	f := founding(1)
	f.Shards[0].Replicas[0].Node = maxNodes + 1
	refused("a founding with one more", f)
	m.must(founding(1))
	refused("a join", joiner("d"))
	j := joiner("d")
	j.Node.Replaces = 7
	m.must(j)
	m.must(&metapb.SetNodeState{Node: 8, State: Decommissioned, Lost: true})
	j = joiner("e")
	j.Node.Replaces = 8 // its place is free already
	m.must(j)
	j = joiner("f")
	j.Node.Replaces = 8
	refused("a second one in its place", j)
	if got := len(m.nodes()); got != maxNodes+2 {
		t.Errorf("%d nodes, want %d", got, maxNodes+2)
	}
}

// A cluster may go on for ever with nodes that come and go. Those that are long gone are forgotten, but not that they are gone.
func TestOldNodesAreForgotten(t *testing.T) {
	m := newCluster(t)
	m.must(&metapb.SetNodeState{Node: 3, State: Decommissioned, Lost: true})
	for i := range uint64(maxRemoved + 10) {
		j := joiner("n")
		j.Node.Process = i + 1
		id := read[metapb.JoinAnswer](t, m.must(j)).Node
		m.must(&metapb.Register{Node: &metapb.Node{Id: id, Boot: 1, Process: i + 1, Features: 1}})
		if i == 0 { // the first has the founder's replicas, so it stays in the books, as the founder does without any
			for _, s := range m.look(0).Shards {
				m.must(&metapb.PlanMoves{Moves: []*metapb.PlannedMove{{Shard: s.Id, Version: 1, From: 3, To: id}}})
				m.must(&metapb.FinishMove{Shard: s.Id, Replica: 4, Done: true})
			}
		}
		m.must(&metapb.SetNodeState{Node: id, State: Decommissioned, Lost: true})
	}
	m.Restart()
	known := make(map[uint64]bool)
	for _, n := range m.nodes() {
		known[n.Id] = true
	}
	if len(known) > 3+maxRemoved+1 || !known[3] || !known[4] || known[5] {
		t.Errorf("%d nodes are known, 3: %v, 4: %v, 5: %v", len(known), known[3], known[4], known[5])
	}
	for _, id := range []uint64{3, 4, 5, maxRemoved + 13} {
		if r := m.register(&metapb.Node{Id: id, Boot: 9, Features: 1}); r.Code != reject.NodeRemoved {
			t.Errorf("register of node %d: code %q (%s), want %q", id, r.Code, r.Detail, reject.NodeRemoved)
		}
	}
	if r := m.register(&metapb.Node{Id: maxRemoved + 14, Boot: 9, Features: 1}); r.Code != reject.UnknownNode {
		t.Errorf("register of the next node: code %q (%s), want %q", r.Code, r.Detail, reject.UnknownNode)
	}
}

// The largest cluster: every shard that a layout may have, and a whole command of moves.
func TestAsManyShardsAsThereMayBe(t *testing.T) {
	largest := func(sizes ...uint32) *metapb.Found {
		f := founding(1)
		f.Cluster.Layout, f.Shards = nil, nil
		for i, n := range sizes {
			service := shard.Service(i + 1)
			f.Cluster.Layout = append(f.Cluster.Layout, &metapb.ServiceShards{Service: uint32(service), Shards: n})
			for index := range n {
				f.Shards = append(f.Shards, &metapb.Shard{
					Id: uint32(shard.NewID(service, int(index))), Replicas: []*metapb.Replica{{Id: 2, Node: 2}, {Id: 1, Node: 1}},
				})
			}
		}
		return f
	}
	m := newMeta(t)
	if r := m.do(largest(1, 4096, 4096, 4096, 4096)); r.Code != reject.MalformedCommand {
		t.Errorf("one too many: code %q (%s)", r.Code, r.Detail)
	}
	f := largest(1, 4096, 4096, 4096, 4095)
	m.must(f)
	m.must(&metapb.Register{Node: &metapb.Node{Id: 1, Boot: 1}})
	id := read[metapb.JoinAnswer](t, m.must(joiner("d"))).Node
	m.must(&metapb.Register{Node: &metapb.Node{Id: id, Boot: 1, Process: 99}})
	m.Restart()
	p := new(metapb.PlanMoves)
	for _, s := range f.Shards[:maxMoves] {
		p.Moves = append(p.Moves, &metapb.PlannedMove{Shard: s.Id, Version: 1, From: 2, To: id, Reason: "balance"})
	}
	if v := read[metapb.View](t, m.must(p)); len(v.Shards) != maxMoves {
		t.Errorf("%d moves began, want %d", len(v.Shards), maxMoves)
	}
	m.must(&metapb.SetNodeState{Node: id, State: Decommissioned, Lost: true})
	m.Restart()
	v := m.look(0)
	if len(v.Shards) != maxShards {
		t.Errorf("%d shards, want %d", len(v.Shards), maxShards)
	}
	for _, s := range v.Shards {
		if s.Move != nil || s.Replicas[0].Id != 1 || s.Replicas[1].Id != 2 {
			t.Fatalf("shard %v, want no move to a lost node", s)
		}
	}
}

func TestJournalForgetsTheOldest(t *testing.T) {
	m := newMeta(t)
	const more = 25
	for i := range maxEvents + more {
		if i == more/2 || i == maxEvents+more/2 {
			m.Restart()
		}
		m.must(&metapb.Note{Event: &metapb.Event{Type: "node.suspect", Detail: fmt.Sprint(i + 1)}})
	}
	check := func(events []*metapb.Event, first, n uint64) {
		t.Helper()
		if uint64(len(events)) != n {
			t.Fatalf("%d events, want %d", len(events), n)
		}
		for i, e := range events {
			if want := first + uint64(i); e.Seq != want || e.Detail != fmt.Sprint(want) || e.At != int64(want)*1000 {
				t.Fatalf("event %v, want number %d", e, want)
			}
		}
	}
	for range 2 {
		check(m.events(0, maxPage), more+1, maxEvents)
		check(m.events(0, 0), more+1, defaultPage)
		check(m.events(0, 5000), more+1, maxPage)
		check(m.events(500, 7), 501, 7)
		check(m.events(maxEvents+more-1, 7), maxEvents+more, 1)
		check(m.events(maxEvents+more, 7), 0, 0)
		check(m.events(math.MaxUint64, 7), 0, 0)
		m.Restart()
	}
}

// Details that the shard writes itself are made of texts that may each be as long as they may be.
func TestOwnDetailsAreCut(t *testing.T) {
	m := newCluster(t)
	j := joiner(strings.Repeat("ö", maxTextBytes/2))
	j.Node.Zone, j.Node.Version = strings.Repeat("z", maxTextBytes), strings.Repeat("v", maxTextBytes)
	m.must(j)
	events := m.events(0, 0)
	if e := events[len(events)-1]; e.Type != "node.joined" || len(e.Detail) > maxTextBytes || !fit(e.Detail) {
		t.Errorf("event %v", e)
	}
}

// What the shard knows of a node is not the node's to say.
func TestWhatIsTheShardsToSay(t *testing.T) {
	m := newMeta(t)
	claims := func() *metapb.Node {
		return &metapb.Node{Id: 1, Boot: 1, State: 7, RegisteredAt: 9, StartedAt: 9, StateSince: 9, StateReason: "mine", Replaces: 4}
	}
	m.register(claims())
	if n := m.nodes()[0]; n.State != Active || n.RegisteredAt != 1000 || n.StartedAt != 1000 || n.StateSince != 1000 || n.StateReason != "" || n.Replaces != 0 {
		t.Errorf("registered as %v, want the entry's times and no claims", n)
	}
	f := founding(1)
	f.Cluster.Features, f.Cluster.NextNode, f.Cluster.Version, f.Cluster.FoundedAt, f.Cluster.DownAfter, f.Cluster.FirstJoined = 9, 1, 9, 9, 9, 1
	f.Shards[0].Version, f.Shards[0].NextReplica, f.Shards[0].Leader, f.Shards[0].Recoveries = 9, 1, 9, 9
	f.Shards[0].Move = &metapb.Move{To: &metapb.Replica{Id: 9, Node: 9}}
	m.must(f)
	v := m.look(0)
	if c := v.Cluster; c.Features != 0 || c.NextNode != 4 || c.Version != 1 || c.FoundedAt != 2000 || c.DownAfter != 0 || c.FirstJoined != 4 {
		t.Errorf("founded as %v", c)
	}
	if s := v.Shards[0]; s.Version != 1 || s.NextReplica != 4 || s.Leader != 0 || s.Recoveries != 0 || s.Move != nil {
		t.Errorf("shard founded as %v", s)
	}
	j := &metapb.Join{TokenHash: token("t"), Node: claims()}
	j.Node.Name, j.Node.Process, j.Node.Replaces = "d", 99, 0
	m.must(j)
	n := m.nodes()[1]
	if n.Id != 4 || n.State != Joining || n.Boot != 0 || n.RegisteredAt != 0 || n.StartedAt != 0 || n.StateSince != 3000 || n.StateReason != "" {
		t.Errorf("joined as %v", n)
	}
	if !bytes.Equal(v.Cluster.TokenHash, token("t")) {
		t.Error("the founders have no token to hand on")
	}
}
