package metashard

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// watch compares what a command has done with what must always hold.
type watch struct {
	t    *rapid.T
	view *metapb.View
	// given has every number of a node that was given out.
	given  map[uint64]bool
	gone   map[uint64]bool
	events uint64
}

func (w *watch) check(m *meta, body any, r shard.Result) {
	v := m.look(0)
	fail := func(format string, args ...any) {
		w.t.Helper()
		w.t.Fatalf("%T %v, answered %q %s: %s", body, body, r.Code, r.Detail, fmt.Sprintf(format, args...))
	}
	for _, e := range m.events(w.events, maxPage) {
		if w.events++; e.Seq != w.events || !r.OK() {
			fail("event %v", e)
		}
	}
	same := v.CloneVT()
	same.Cluster.Version = w.view.Cluster.Version
	switch equal := same.EqualVT(w.view); {
	case v.Cluster.Version < w.view.Cluster.Version || equal != (v.Cluster.Version == w.view.Cluster.Version):
		fail("version %d after %d, changed: %v", v.Cluster.Version, w.view.Cluster.Version, !equal)
	case !r.OK() && !equal:
		fail("it has changed something")
	}
	if again := m.look(v.Cluster.Version); again.Cluster != nil || again.Nodes != nil || again.Shards != nil {
		fail("something is newer than the newest")
	}
	if joined, ok := body.(*metapb.Join); ok && r.OK() {
		id := read[metapb.JoinAnswer](m.T, r).Node
		if w.given[id] && id >= w.view.Cluster.NextNode || !w.given[id] && id < w.view.Cluster.NextNode {
			fail("number %d for %s", id, joined.Node.Name)
		}
	}
	names := make(map[string]uint64)
	for _, n := range v.Nodes {
		if n.Id >= v.Cluster.NextNode || w.gone[n.Id] && n.State != Decommissioned {
			fail("node %v, next is %d", n, v.Cluster.NextNode)
		}
		w.given[n.Id], w.gone[n.Id] = true, n.State == Decommissioned
		if n.State == Decommissioned {
			continue
		}
		if n.Features < v.Cluster.Features {
			fail("node %d knows features up to %d, %d is in force", n.Id, n.Features, v.Cluster.Features)
		}
		if n.Name != "" && names[n.Name] != 0 {
			fail("nodes %d and %d are both called %s", names[n.Name], n.Id, n.Name)
		}
		names[n.Name] = n.Id
	}
	for i, s := range v.Shards {
		old := w.view.Shards[i]
		known, nodes := make(map[uint64]bool), make(map[uint64]bool)
		for _, r := range all(old) {
			known[r.Id] = true
		}
		last := uint64(0)
		for _, r := range all(s) {
			if r.Id <= last || nodes[r.Node] || !w.given[r.Node] && r.Node > 3 || r.Id >= s.NextReplica || !known[r.Id] && r.Id < old.NextReplica {
				fail("replica %v of %v, which was %v", r, s, old)
			}
			last, nodes[r.Node] = r.Id, true
		}
		if s.NextReplica < old.NextReplica || (s.Version > old.Version) == s.EqualVT(old) || s.Version < old.Version {
			fail("%v was %v", s, old)
		}
	}
	w.view = v
}

// all returns the replicas of a shard, the coming one included.
func all(s *metapb.Shard) []*metapb.Replica {
	if s.Move == nil {
		return s.Replicas
	}
	return append(s.Replicas[:len(s.Replicas):len(s.Replicas)], s.Move.To)
}

// randomCommand draws a command that has a chance of being accepted by a cluster that looks like v.
func randomCommand(t *rapid.T, v *metapb.View) any {
	number := func(name string, from, to uint64) uint64 { return rapid.Uint64Range(from, to).Draw(t, name) }
	node := func() uint64 { return number("node", 1, v.Cluster.NextNode) }
	name := func() string { return rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(t, "name") }
	sh := rapid.SampledFrom(v.Shards).Draw(t, "shard")
	replica := func() uint64 { return number("replica", 0, sh.NextReplica) }
	switch rapid.IntRange(0, 15).Draw(t, "kind") {
	case 0, 1:
		return &metapb.Register{Node: &metapb.Node{
			Id: node(), Boot: number("boot", 0, 4), Process: number("process", 1, 3), Name: name(), Features: uint32(number("features", 0, 3)),
		}}
	case 2, 3:
		j := joiner(name())
		j.Node.Process, j.Node.Features = number("process", 1, 3), uint32(number("features", 0, 3))
		if rapid.Bool().Draw(t, "replaces") {
			j.Node.Replaces = node()
		}
		return j
	case 4, 5:
		return &metapb.SetNodeState{Node: node(), State: rapid.SampledFrom(States()).Draw(t, "state"), Lost: rapid.Bool().Draw(t, "lost")}
	case 6, 7, 8, 9:
		p := new(metapb.PlanMoves)
		for range rapid.IntRange(1, 3).Draw(t, "moves") {
			p.Moves = append(p.Moves, &metapb.PlannedMove{Shard: sh.Id, Version: sh.Version - number("behind", 0, 1), From: replica(), To: node()})
		}
		return p
	case 10, 11:
		id := replica()
		if sh.Move != nil && id > 1 {
			id = sh.Move.To.Id
		}
		if rapid.Bool().Draw(t, "ready") {
			return &metapb.ReadyMove{Shard: sh.Id, Replica: id}
		}
		return &metapb.FinishMove{Shard: sh.Id, Replica: id, Done: rapid.Bool().Draw(t, "done")}
	case 12:
		return &metapb.PreferLeaders{Preferences: []*metapb.Preference{{Shard: sh.Id, Node: number("leader", 0, 9)}}}
	case 13:
		return &metapb.RaiseFeatures{Features: uint32(number("features", 0, 3))}
	case 14:
		return &metapb.RecoverShard{Shard: sh.Id, Node: node()}
	}
	return rapid.SampledFrom([]any{
		founding(2), &metapb.SetDownAfter{Ms: 5}, &metapb.Note{Event: &metapb.Event{Type: "node.suspect"}}, &metapb.SetToken{Hash: token("t")},
	}).Draw(t, "other")
}

func TestRandomCommands(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m, twin := newMeta(t), newMeta(t) // the twin starts anew at other times
		first := founding(2)
		if rapid.Bool().Draw(rt, "addresses") {
			first.Nodes = []*metapb.Node{{Id: 1, Http: "a"}, {Id: 2, Http: "b"}, {Id: 3, Http: "c"}}
		}
		m.must(first)
		twin.must(first)
		w := &watch{t: rt, view: m.look(0), given: make(map[uint64]bool), gone: make(map[uint64]bool), events: 1}
		for range rapid.IntRange(1, 60).Draw(rt, "commands") {
			body := randomCommand(rt, w.view)
			payload := encode(command(body))
			r := m.apply(payload)
			if other := twin.apply(payload); other.Code != r.Code || other.Detail != r.Detail || string(other.Payload) != string(r.Payload) {
				rt.Fatalf("%T %v: answered %q %s, by the twin %q %s", body, body, r.Code, r.Detail, other.Code, other.Detail)
			}
			w.check(m, body, r)
			switch rapid.IntRange(0, 9).Draw(rt, "restart") {
			case 0:
				m.Restart()
			case 1:
				twin.Restart()
			}
			if a, b := m.Hash(), twin.Hash(); a != b {
				rt.Fatalf("after %T %v: hashes %x and %x", body, body, a, b)
			}
		}
	})
}

// Whatever comes, it is answered, and what is kept can be read again.
func FuzzApply(f *testing.F) {
	for _, body := range []any{
		&metapb.Register{Node: &metapb.Node{Id: 1, Boot: 2, Name: "a", Zone: "z", Roles: []uint32{1, 6}, Features: 1}},
		founding(1), joiner("d"), &metapb.SetToken{Hash: token("u")},
		&metapb.SetNodeState{Node: 3, State: Decommissioned, Reason: "r", Lost: true},
		&metapb.PlanMoves{Moves: []*metapb.PlannedMove{{Shard: uint32(shard.NewID(shard.Meta, 0)), Version: 1, From: 1, To: 4}}},
		&metapb.ReadyMove{Shard: uint32(shard.NewID(shard.Keyspace, 0)), Replica: 4},
		&metapb.FinishMove{Shard: uint32(shard.NewID(shard.Keyspace, 0)), Replica: 4, Done: true},
		&metapb.PreferLeaders{Preferences: []*metapb.Preference{{Shard: uint32(shard.NewID(shard.Meta, 0)), Node: 2}}},
		&metapb.RaiseFeatures{Features: 1}, &metapb.RecoverShard{Shard: uint32(shard.NewID(shard.Meta, 0)), Node: 1, Detail: "d"},
		&metapb.Note{Event: &metapb.Event{Type: "node.dead", Node: 2}}, &metapb.SetDownAfter{Ms: 7},
	} {
		f.Add(encode(command(body)))
	}
	for _, q := range []*metapb.Query{
		{Body: &metapb.Query_ListNodes{ListNodes: &metapb.ListNodes{}}}, {Body: &metapb.Query_Look{Look: &metapb.Look{NewerThan: 1}}},
		{Body: &metapb.Query_ListEvents{ListEvents: &metapb.ListEvents{After: 1, Limit: 3}}},
	} {
		f.Add(encode(q))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []*meta{newMeta(t), newCluster(t)} {
			if m.look(0).Cluster != nil { // node 4 has joined, and a replica is on its way to it
				m.must(joiner("x"))
				m.must(&metapb.Register{Node: &metapb.Node{Id: 4, Boot: 1, Process: 99, Features: 1}})
				m.must(&metapb.PlanMoves{Moves: []*metapb.PlannedMove{{Shard: uint32(shard.NewID(shard.Keyspace, 0)), Version: 1, From: 1, To: 4}}})
			}
			m.apply(data)
			m.apply(data)
			m.Query(data)
			m.Restart()
			m.look(0)
		}
	})
}
