package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// balanced returns a cluster at rest.
func balanced(tb testing.TB, nodes, shards, zones int, roles func(id uint64) []uint32) *metapb.View {
	v := &metapb.View{Cluster: &metapb.Cluster{Replicas: 3, Features: 1, NextNode: 1}}
	for range nodes {
		added(v, zones, roles)
	}
	services := shard.Services()
	for i := range shards {
		service := services[i%len(services)]
		s := &metapb.Shard{Id: uint32(shard.NewID(service, i/len(services))), NextReplica: 1, Version: 1}
		for k := 0; k < len(v.Nodes) && len(s.Replicas) < min(3, nodes-(nodes+1)%2); k++ {
			if n := v.Nodes[(i+k)%len(v.Nodes)]; Hosts(n, service) {
				s.Replicas = append(s.Replicas, &metapb.Replica{Id: s.NextReplica, Node: n.Id})
				s.NextReplica++
			}
		}
		v.Shards = append(v.Shards, s)
	}
	slices.SortFunc(v.Shards, func(a, b *metapb.Shard) int { return int(a.Id) - int(b.Id) })
	rest(tb, v, nil)
	return v
}

func added(v *metapb.View, zones int, roles func(id uint64) []uint32) *metapb.Node {
	n := &metapb.Node{Id: v.Cluster.NextNode, Features: 1}
	v.Cluster.NextNode++
	if zones > 0 {
		n.Zone = string(rune('a' + int(n.Id)%zones))
	}
	if roles != nil {
		n.Roles = roles(n.Id)
	}
	v.Nodes = append(v.Nodes, n)
	return n
}

// rest carries out what is planned until nothing is any more, and returns the number of moves.
func rest(tb testing.TB, v *metapb.View, health map[uint64]Observed) (moves int) {
	tb.Helper()
	cfg := DefaultConfig()
	for range 20_000 {
		a := Plan(cfg, v, health, 1<<40)
		incoming := make(map[uint64]int)
		for _, m := range a.Moves {
			if incoming[m.To]++; incoming[m.To] > cfg.MaxIncoming {
				tb.Fatalf("%d moves to node %d at once", incoming[m.To], m.To)
			}
		}
		if len(a.Moves) > cfg.MaxMoves {
			tb.Fatalf("%d moves at once", len(a.Moves))
		}
		moves += len(a.Moves)
		if !carryOut(v, a) {
			return moves
		}
		distinct(tb, v)
	}
	tb.Fatal("planning does not end")
	return 0
}

// distinct makes sure that no two replicas of a shard are on one node.
func distinct(tb testing.TB, v *metapb.View) {
	tb.Helper()
	for _, s := range v.Shards {
		on := make(map[uint64]bool)
		for _, r := range s.Replicas {
			if on[r.Node] {
				tb.Fatalf("%s: two replicas on node %d", shard.ID(s.Id), r.Node)
			}
			on[r.Node] = true
		}
	}
}

// even makes sure that no node that takes part has two replicas more than another that could have one, and that each leads as much as the mean, give or
// take one.
func even(tb testing.TB, v *metapb.View, among func(*metapb.Node) bool) {
	tb.Helper()
	loads, leads := make(map[uint64]int), make(map[uint64]int)
	for _, s := range v.Shards {
		for _, r := range s.Replicas {
			loads[r.Node]++
		}
		leads[s.Leader]++
	}
	var replicas, leaders []int
	for _, n := range v.Nodes {
		if among(n) {
			replicas, leaders = append(replicas, loads[n.Id]), append(leaders, leads[n.Id])
		}
	}
	if slices.Max(replicas)-slices.Min(replicas) > 1 {
		tb.Fatalf("replicas are not even: %v", replicas)
	}
	total := 0
	for _, n := range leaders {
		total += n
	}
	for _, n := range leaders {
		if !nearMean(n, total, len(leaders)) {
			tb.Fatalf("leaders are not near the mean: %v", leaders)
		}
	}
}

// nearMean reports whether a count is the mean of nodes that have total together, give or take one, and not nothing where each could have something.
func nearMean(n, total, nodes int) bool {
	return (n-1)*nodes <= total && (n+1)*nodes >= total && (n > 0 || total < nodes)
}

// One node leads all that an order passes, wherever that is fair, and whoever led what before.
func TestWhatAnOrderPassesIsLedByOneNode(t *testing.T) {
	together := func(v *metapb.View) (n int) {
		leader := make(map[shard.ID]uint64)
		for _, s := range v.Shards {
			leader[shard.ID(s.Id)] = s.Leader
		}
		for id, l := range leader {
			if id.Service() != shard.Order {
				continue
			}
			for _, s := range []shard.Service{shard.Inventory, shard.Payment} {
				if leader[shard.NewID(s, id.Index())] == l {
					n++
				}
			}
		}
		return n
	}
	for _, layout := range []shard.Layout{
		{shard.Meta: 1, shard.Order: 1, shard.Inventory: 1, shard.Payment: 1, shard.Notification: 1, shard.Keyspace: 1},
		shard.DefaultLayout(),
		{shard.Meta: 1, shard.Order: 6, shard.Inventory: 6, shard.Payment: 6, shard.Notification: 1, shard.Keyspace: 1},
		{shard.Meta: 1, shard.Order: 60, shard.Inventory: 60, shard.Payment: 60, shard.Notification: 1, shard.Keyspace: 8},
	} {
		for nodes := 3; nodes <= 12; nodes += 3 {
			for seed := range uint64(30) {
				r := rand.New(rand.NewPCG(seed, 5))
				v := &metapb.View{Cluster: &metapb.Cluster{Replicas: 3, Features: 1, NextNode: 1}}
				for range nodes {
					added(v, 0, nil)
				}
				for i, id := range layout.All() {
					s := &metapb.Shard{Id: uint32(id), NextReplica: 4, Version: 1}
					for k := range 3 {
						s.Replicas = append(s.Replicas, &metapb.Replica{Id: uint64(k) + 1, Node: uint64((i+k)%nodes) + 1})
					}
					if seed > 0 { // else nobody leads anything yet
						s.Leader = s.Replicas[r.IntN(3)].Node
					}
					v.Shards = append(v.Shards, s)
				}
				rest(t, v, nil)
				even(t, v, active)
				// On three nodes each may lead everything. On more, what an order passes has other replicas than the order.
				if got, all := together(v), 2*layout[shard.Order]; nodes == 3 && got < all {
					t.Fatalf("%v on %d nodes, seed %d: %d of %d are led with their order", layout, nodes, seed, got, all)
				}
				if a := Plan(DefaultConfig(), v, nil, 1<<40); len(a.Leaders) > 0 {
					t.Fatalf("%v on %d nodes, seed %d: carried out, and yet %v should change", layout, nodes, seed, a.Leaders)
				}
			}
		}
	}
}

func active(n *metapb.Node) bool { return n.State == metapb.NodeState_NODE_ACTIVE }

// Wherever replicas are, one plan is enough for the leaders, and they are near the mean; where roles and places do not allow that, they are
// as even as can be.
func TestLeadersNeedOnePlan(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxMoves = 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 6))
		v := scattered(r)
		health := make(map[uint64]Observed)
		if sick := r.Uint64N(uint64(2*len(v.Nodes))) + 1; sick <= uint64(len(v.Nodes)) {
			health[sick] = Observed{Health: Unhealthy, Since: 1}
		}
		carryOut(v, Actions{Leaders: Plan(cfg, v, health, 1<<40).Leaders})
		if a := Plan(cfg, v, health, 1<<40); len(a.Leaders) > 0 {
			t.Fatalf("seed %d: carried out, and yet %v should change", seed, a.Leaders)
		}
		if leads, total := leadersOf(v, health); !allNearMean(leads, total) {
			if from, to := handedOn(v, leads); from != 0 {
				t.Fatalf("seed %d: nodes lead %v, and node %d could have one fewer and node %d one more", seed, leads, from, to)
			}
		}
	}
}

// scattered returns a cluster of 3 to 12 nodes, some with roles, with replicas and leaders anywhere.
func scattered(r *rand.Rand) *metapb.View {
	v := &metapb.View{Cluster: &metapb.Cluster{Replicas: 3, Features: 1, NextNode: 1}}
	roles := r.IntN(3) == 0
	for id := range 3 + r.IntN(10) {
		switch n := added(v, 0, nil); {
		case !roles || id < 3:
		case id == 3: // which leaves it too little for a share
			n.Roles = []uint32{uint32(shard.Keyspace)}
		case id%2 == 0:
			n.Roles = []uint32{uint32(shard.Order), uint32(shard.Payment)}
		}
	}
	layout := shard.Layout{shard.Meta: 1, shard.Notification: 1 + r.IntN(3), shard.Keyspace: 1, shard.Order: 1 + r.IntN(20)}
	layout[shard.Inventory], layout[shard.Payment] = layout[shard.Order], layout[shard.Order]
	if r.IntN(4) == 0 {
		layout[shard.Payment] = 1 + r.IntN(20)
	}
	for _, id := range layout.All() {
		s := &metapb.Shard{Id: uint32(id), NextReplica: 4, Version: 1}
		for _, k := range r.Perm(len(v.Nodes)) {
			if len(s.Replicas) < 3 && Hosts(v.Nodes[k], id.Service()) {
				s.Replicas = append(s.Replicas, &metapb.Replica{Id: uint64(len(s.Replicas)) + 1, Node: v.Nodes[k].Id})
			}
		}
		s.Leader = s.Replicas[r.IntN(3)].Node
		v.Shards = append(v.Shards, s)
	}
	return v
}

// leadersOf counts what is led by each node that is well and has something to lead, and by all of them.
func leadersOf(v *metapb.View, health map[uint64]Observed) (leads map[uint64]int, total int) {
	leads = make(map[uint64]int)
	for _, s := range v.Shards {
		for _, r := range s.Replicas {
			if health[r.Node].Health < Unhealthy {
				leads[r.Node] += 0
			}
		}
		leads[s.Leader]++
	}
	return leads, len(v.Shards)
}

func allNearMean(leads map[uint64]int, total int) bool {
	for _, n := range leads {
		if !nearMean(n, total, len(leads)) {
			return false
		}
	}
	return true
}

// handedOn looks for a node that could, by way of others, hand a leadership on to one that leads at least two fewer, 0 for none.
func handedOn(v *metapb.View, leads map[uint64]int) (from, to uint64) {
	for source, n := range leads {
		reached := []uint64{source}
		for i := 0; i < len(reached); i++ {
			if leads[reached[i]] <= n-2 {
				return source, reached[i]
			}
			for _, s := range v.Shards {
				for _, r := range s.Replicas {
					if _, may := leads[r.Node]; may && s.Leader == reached[i] && !slices.Contains(reached, r.Node) {
						reached = append(reached, r.Node)
					}
				}
			}
		}
	}
	return 0, 0
}

// A node that joins gets its share, and nothing else moves. One that leaves gives what it has, and little else moves.
func TestFewestMoves(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		nodes, shards := 3+r.IntN(37), 1+r.IntN(60)
		v := balanced(t, nodes, shards, 0, nil)
		even(t, v, active)
		if again := rest(t, v, nil); again != 0 {
			t.Fatalf("seed %d: %d moves in a cluster at rest", seed, again)
		}

		n := added(v, 0, nil)
		share := shards * 3 / (nodes + 1)
		if moves := rest(t, v, nil); moves != share {
			t.Errorf("seed %d: %d moves for a node that joins %d with %d shards, want %d", seed, moves, nodes, shards, share)
		}
		even(t, v, active)

		has := 0
		for _, s := range v.Shards {
			has += len(s.Replicas) - len(slices.DeleteFunc(slices.Clone(s.Replicas), func(r *metapb.Replica) bool { return r.Node == n.Id }))
		}
		n.State = metapb.NodeState_NODE_DECOMMISSIONING
		if moves := rest(t, v, nil); moves < has || moves > has+1+has/10 {
			t.Errorf("seed %d: %d moves for a node with %d replicas that leaves %d", seed, moves, has, nodes)
		}
		if n.State != metapb.NodeState_NODE_DECOMMISSIONED {
			t.Errorf("seed %d: the node is %s in the end", seed, stateName(n.State))
		}
		even(t, v, active)

		// One dies. Repair does not wait for the best node, so that some may move twice.
		if nodes < 4 {
			continue
		}
		lost, had := v.Nodes[r.IntN(nodes)], 0
		for _, s := range v.Shards {
			if slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Node == lost.Id }) {
				had++
			}
		}
		health := map[uint64]Observed{lost.Id: {Health: Dead, Since: 1}}
		if moves := rest(t, v, health); moves != had {
			t.Errorf("seed %d: %d moves for a dead node with %d replicas", seed, moves, had)
		}
		lost.State = metapb.NodeState_NODE_DECOMMISSIONED
		if moves := rest(t, v, nil); moves > 1+had/2 {
			t.Errorf("seed %d: %d more moves after the repair of %d", seed, moves, had)
		}
		even(t, v, active)
	}
}

// Where all zones have as many nodes and there are at least as many as replicas, no two replicas share one and all is even.
func TestZonesAreKept(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 3))
		zones := 3 + r.IntN(3)
		v := balanced(t, zones*(1+r.IntN(5)), 1+r.IntN(60), zones, nil)
		for range zones {
			added(v, zones, nil)
		}
		rest(t, v, nil)
		even(t, v, active)
		zone := make(map[uint64]string)
		for _, n := range v.Nodes {
			zone[n.Id] = n.Zone
		}
		for _, s := range v.Shards {
			seen := make(map[string]bool)
			for _, r := range s.Replicas {
				if seen[zone[r.Node]] {
					t.Fatalf("seed %d: %s has two replicas in zone %s", seed, shard.ID(s.Id), zone[r.Node])
				}
				seen[zone[r.Node]] = true
			}
		}
	}
}

// Nodes that host some services only are as even as they can be: no sequence of moves makes them more so. Where each service has its own
// nodes that is within each.
func TestRoles(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 4))
		nodes := 8 + r.IntN(12)
		v := balanced(t, nodes, 1+r.IntN(60), 0, func(id uint64) []uint32 {
			if id%2 == 0 {
				return []uint32{uint32(shard.Order), uint32(shard.Payment)}
			}
			return []uint32{uint32(shard.Meta), uint32(shard.Inventory), uint32(shard.Notification), uint32(shard.Keyspace)}
		})
		for _, s := range v.Shards {
			for _, rep := range s.Replicas {
				if !Hosts(v.Nodes[rep.Node-1], shard.ID(s.Id).Service()) {
					t.Fatalf("seed %d: node %d does not host %s", seed, rep.Node, shard.ID(s.Id))
				}
			}
		}
		even(t, v, func(n *metapb.Node) bool { return n.Id%2 == 0 })
		even(t, v, func(n *metapb.Node) bool { return n.Id%2 == 1 })
	}
}

// What cannot be done is told, but not without end.
func TestBlockedIsBounded(t *testing.T) {
	v := balanced(t, 3, 100, 0, nil)
	v.Nodes[2].State = metapb.NodeState_NODE_DECOMMISSIONED
	a := Plan(DefaultConfig(), v, nil, 0)
	if len(a.Blocked) != maxBlocked+1 || a.Blocked[maxBlocked] != "and 81 more" {
		t.Errorf("blocked are %d:\n%s", len(a.Blocked), strings.Join(a.Blocked, "\n"))
	}
}

func TestNothingIsPlannedBeforeTheClusterIsFounded(t *testing.T) {
	for _, v := range []*metapb.View{nil, {}, {Nodes: []*metapb.Node{{Id: 1}}}} {
		if a := Plan(DefaultConfig(), v, nil, 0); a.String() != "nothing\n" {
			t.Errorf("%v: %s", v, a)
		}
	}
	if err := CheckState(&metapb.View{}, nil, 1, metapb.NodeState_NODE_DRAINING); err == nil {
		t.Error("an unknown node may be drained")
	}
}

// The plan is made twice a second on the meta shard's leader.
func BenchmarkPlan(b *testing.B) {
	const nodes, shards = 100, 1000
	lost := map[uint64]Observed{7: {Health: Dead, Since: 1}}
	for _, c := range []struct {
		name   string
		zones  int
		change func(v *metapb.View)
		health map[uint64]Observed
	}{
		{"at rest", 0, func(*metapb.View) {}, nil},
		{"a node joins", 0, func(v *metapb.View) { added(v, 0, nil) }, nil},
		{"a node is dead", 0, func(*metapb.View) {}, lost},
		{"a node is dead, 5 zones", 5, func(*metapb.View) {}, lost},
		{"uneven zones", 3, func(v *metapb.View) {
			for _, n := range v.Nodes[:30] {
				n.Zone = "a"
			}
			rest(b, v, nil)
		}, nil},
		{"a tenth is dead", 0, func(v *metapb.View) {
			for _, n := range v.Nodes[:10] {
				n.State = metapb.NodeState_NODE_DECOMMISSIONED
			}
		}, nil},
		{"no leaders yet", 0, func(v *metapb.View) {
			for _, s := range v.Shards {
				s.Leader = 0
			}
		}, nil},
		{"one leads all it can", 0, func(v *metapb.View) {
			for _, s := range v.Shards {
				s.Leader = slices.MinFunc(s.Replicas, func(a, b *metapb.Replica) int { return int(a.Node) - int(b.Node) }).Node
			}
		}, nil},
	} {
		b.Run(fmt.Sprint(strings.ReplaceAll(c.name, " ", "_")), func(b *testing.B) {
			v := balanced(b, nodes, shards, c.zones, nil)
			c.change(v)
			b.ReportAllocs()
			for b.Loop() {
				Plan(DefaultConfig(), v, c.health, 1<<40)
			}
		})
	}
}
