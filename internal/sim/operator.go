package sim

import (
	"fmt"
	"slices"

	"hanse/api/metapb"
	"hanse/internal/cluster"
	"hanse/internal/reject"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/store/memstore"
	"hanse/internal/transport"
)

// placement returns the replicas that a group begins with.
func (w *World) placement(id shard.ID) (replicas []replica.Replica) {
	first := int(id.Service()) + id.Index()
	for k := range w.plan.Replicas {
		n := transport.NodeID((first+k)%w.plan.Nodes + 1)
		replicas = append(replicas, replica.Replica{ID: uint64(n), Node: n})
	}
	return replicas
}

// instruct has some node bring a command to the meta shard, as the request of an operator would.
func (w *World) instruct(m *metapb.Command, done replica.Done) {
	live := w.live()
	if len(live) == 0 {
		done(shard.Result{}, errUnavailable)
		return
	}
	n := pick(w.faults, live)
	n.router.propose(metaShard, shard.Command{Kind: shard.KindLogic, Payload: encode(m)}, false, true, w.now+stepPatience, done)
	n.wake()
}

// found has the first nodes write down who they are, until that has happened.
func (w *World) found() {
	f := &metapb.Found{Cluster: &metapb.Cluster{
		Id: "sim", Replicas: uint32(w.plan.Replicas), Secret: make([]byte, 32), TokenHash: make([]byte, 32), NextNode: uint64(w.plan.Nodes) + 1,
	}}
	for _, s := range shard.Services() {
		f.Cluster.Layout = append(f.Cluster.Layout, &metapb.ServiceShards{Service: uint32(s), Shards: uint32(w.plan.Layout[s])})
	}
	for _, id := range w.groups {
		row := &metapb.Shard{Id: uint32(id)}
		for _, r := range w.placement(id) {
			row.Replicas = append(row.Replicas, &metapb.Replica{Id: r.ID, Node: uint64(r.Node)})
		}
		f.Shards = append(f.Shards, row)
	}
	founded := false
	var again func()
	again = func() {
		if founded || w.failure != nil {
			return
		}
		w.instruct(&metapb.Command{Body: &metapb.Command_Found{Found: f}}, func(r shard.Result, err error) {
			if founded = founded || err == nil && r.OK(); err == nil && !r.OK() {
				w.fail("operator", "the cluster cannot be founded: %s %s", r.Code, r.Detail)
			}
		})
		w.after(stepPatience+second, nil, "found", again)
	}
	again()
}

// view returns what the meta shard says on its leader, nil when that cannot be known just now.
func (w *World) view() *metapb.View {
	leader := w.leader(metaShard)
	if leader == nil {
		return nil
	}
	m, _ := leader.machine(metaShard)
	if m == nil {
		return nil
	}
	var v *metapb.View
	leader.guard(func() { v = ask[metapb.View](m, &metapb.Query{Body: &metapb.Query_Look{Look: &metapb.Look{}}}) })
	if v.GetCluster() == nil { // not founded yet, or the disk failed just now
		return nil
	}
	return v
}

// repairing reports whether a node that was lost may still have replicas in the plan. Two lost disks of a group of three are more
// than it promises to bear.
func (w *World) repairing() bool {
	if slices.ContainsFunc(w.nodes, func(n *node) bool { return n.stale || n.waiting }) {
		return true
	}
	v := w.view()
	if v == nil {
		return true
	}
	return slices.ContainsFunc(v.Shards, func(s *metapb.Shard) bool {
		return slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return w.node(transport.NodeID(r.Node)).gone })
	})
}

// moveAny asks for a move of a replica of some group to a node that has none.
func (w *World) moveAny() {
	v := w.view()
	if v == nil {
		return
	}
	s := pick(w.faults, v.Shards)
	var free []uint64
	for _, n := range v.Nodes {
		if n.State == metapb.NodeState_NODE_ACTIVE && !slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Node == n.Id }) {
			free = append(free, n.Id)
		}
	}
	if len(free) == 0 || s.Move != nil {
		return
	}
	m := &metapb.PlannedMove{Shard: s.Id, Version: s.Version, From: pick(w.faults, s.Replicas).Id, To: pick(w.faults, free), Reason: "asked for"}
	w.tell("%s: replica %d is to move to node %d", shard.ID(s.Id), m.From, m.To)
	w.instruct(&metapb.Command{Body: &metapb.Command_PlanMoves{PlanMoves: &metapb.PlanMoves{Moves: []*metapb.PlannedMove{m}}}}, ignore)
}

// operatorActs drains a node, has its replicas moved away, takes it back, or wants another node to lead a shard.
func (w *World) operatorActs() {
	v := w.view()
	if len(v.GetNodes()) == 0 { // none has registered yet
		return
	}
	if w.faults.chance(0.4) {
		s := pick(w.faults, v.Shards)
		p := &metapb.Preference{Shard: s.Id, Node: pick(w.faults, s.Replicas).Node}
		w.tell("%s is to be led by node %d", shard.ID(s.Id), p.Node)
		w.instruct(&metapb.Command{Body: &metapb.Command_PreferLeaders{PreferLeaders: &metapb.PreferLeaders{Preferences: []*metapb.Preference{p}}}}, ignore)
		return
	}
	n := pick(w.faults, v.Nodes)
	to := pick(w.faults, []metapb.NodeState{metapb.NodeState_NODE_DRAINING, metapb.NodeState_NODE_DECOMMISSIONING, metapb.NodeState_NODE_ACTIVE})
	// A node that is joining, which its machine need not have heard of yet, is refused before the machine is looked for.
	if n.State == to || cluster.CheckState(v, nil, n.Id, to) != nil || w.node(transport.NodeID(n.Id)).gone {
		return
	}
	w.hit(probeDrained)
	w.setState(n.Id, to)
}

func (w *World) setState(id uint64, to metapb.NodeState) {
	w.tell("node %d is to be %v", id, to)
	w.instruct(&metapb.Command{Body: &metapb.Command_SetNodeState{SetNodeState: &metapb.SetNodeState{Node: id, State: to, Reason: "asked for"}}}, ignore)
}

// takeBack makes all nodes active again.
func (w *World) takeBack() {
	for _, n := range w.view().GetNodes() {
		if n.State == metapb.NodeState_NODE_DRAINING || n.State == metapb.NodeState_NODE_DECOMMISSIONING {
			w.setState(n.Id, metapb.NodeState_NODE_ACTIVE)
		}
	}
}

// loseDisk takes a node's disk away for good.
func (w *World) loseDisk() {
	n := w.anyNode()
	if w.repairing() || !w.room() || n.gone || int(n.id) == w.plan.LeaveOut {
		return
	}
	n.crash("its disk is lost")
	w.hit(probeLostDisk)
	if w.mutant.or().reuseNumbers {
		n.disk = memstore.NewDisk()
		n.format()
		return
	}
	w.replace(n)
}

// leave is the end of a node that was decommissioned. Another machine comes, so that clusters do not shrink.
func (n *node) leave() {
	n.crash("it is decommissioned")
	n.gone = true
	if n.w.room() {
		n.w.replace(n)
	}
}

// maxReplacements bounds the machines that take the place of others.
const maxReplacements = 8

func (w *World) room() bool {
	coming := 0
	for _, n := range w.nodes {
		if n.stale || n.waiting {
			coming++
		}
	}
	return len(w.nodes)+len(w.joining)+coming < w.plan.Nodes+maxReplacements
}

// replace has a new machine join in the place of one that is lost for good.
func (w *World) replace(n *node) {
	n.gone, n.stale, n.waiting = true, false, true
	w.lives++
	newcomer := &metapb.Node{Name: fmt.Sprintf("in the place of %d", n.id), Process: w.lives, Replaces: uint64(n.id), Features: cluster.FeatureLevel}
	var again func()
	again = func() {
		if !n.waiting || w.failure != nil {
			return
		}
		m := &metapb.Join{Node: newcomer.CloneVT(), TokenHash: make([]byte, 32)}
		w.instruct(&metapb.Command{Body: &metapb.Command_Join{Join: m}}, func(r shard.Result, err error) {
			switch {
			case !n.waiting || err != nil:
			case r.OK():
				n.waiting = false
				w.admit(n, r)
			case r.Code == reject.NodeNotFound: // it was lost before it could register
				newcomer.Replaces = 0
			default:
				w.fail("operator", "a machine in the place of node %d cannot join: %s %s", n.id, r.Code, r.Detail)
			}
		})
		w.after(stepPatience+second, nil, "join", again)
	}
	again()
}

// admit starts a machine that has been given a number, and those with later numbers that were told theirs before.
func (w *World) admit(old *node, r shard.Result) {
	a := new(metapb.JoinAnswer)
	if err := a.UnmarshalVT(r.Payload); err != nil || a.Node <= uint64(len(w.nodes)) || w.joining[a.Node] != nil {
		w.fail("operator", "a machine in the place of node %d has number %d: %v", old.id, a.Node, err)
		return
	}
	w.joining[a.Node] = old
	for {
		number := uint64(len(w.nodes) + 1)
		old := w.joining[number]
		if old == nil {
			return
		}
		delete(w.joining, number)
		n := newNode(w, transport.NodeID(number))
		w.nodes = append(w.nodes, n)
		w.tell("node %d joins in the place of node %d", number, old.id)
		n.start()
	}
}

// unsettled says what of the plan has not been carried out; empty when all has, and the planner wants no more.
func (w *World) unsettled() string {
	v := w.view()
	if v == nil {
		return "the cluster has not been founded, or its plan cannot be read"
	}
	for _, n := range w.nodes {
		if n.stale || n.waiting {
			return fmt.Sprintf("node %d has to be replaced", n.id)
		}
	}
	for _, n := range v.Nodes {
		if s := n.State; s != metapb.NodeState_NODE_ACTIVE && s != metapb.NodeState_NODE_DECOMMISSIONED {
			return fmt.Sprintf("node %d is %v", n.Id, s)
		}
	}
	for _, s := range v.Shards {
		id := shard.ID(s.Id)
		if s.Move != nil {
			return fmt.Sprintf("%s moves to replica %d on node %d", id, s.Move.To.Id, s.Move.To.Node)
		}
		leader := w.leader(id)
		if leader == nil {
			return fmt.Sprintf("%s has no leader", id)
		}
		g := leader.facts(id)
		if g.Joint || len(g.Members) != len(s.Replicas) {
			return fmt.Sprintf("%s has members %v, its plan is %v", id, g.Members, s.Replicas)
		}
		for _, m := range g.Members {
			if !m.Voter || !slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Id == m.ID && r.Node == m.Node }) {
				return fmt.Sprintf("%s has members %v, its plan is %v", id, g.Members, s.Replicas)
			}
		}
		for _, n := range w.live() {
			number := n.host.Replica(id)
			if number != 0 && !slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Id == number && r.Node == uint64(n.id) }) {
				return fmt.Sprintf("%s: node %d has replica %d, which is not in the plan", id, n.id, number)
			}
		}
	}
	meta := w.leader(metaShard)
	if c := meta.control; c.view != nil {
		if a := cluster.Plan(limits(), v, c.health(), meta.wall()); len(a.Moves) > 0 {
			return fmt.Sprintf("the planner wants %v", a.Moves)
		}
	}
	return ""
}
