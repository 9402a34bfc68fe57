package sim

import (
	"slices"

	"hanse/api/metapb"
	"hanse/internal/cluster"
	"hanse/internal/reject"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/transport"
)

// control is what a node does for the cluster, as in package node: it registers, reads the plan, brings its own replicas after it and,
// where it leads the meta shard, goes on planning. What to do is decided by package cluster, in production as here.
type control struct {
	n          *node
	registered bool
	view       *metapb.View // read since this start
	asked      map[shard.ID]bool
	planned    int64 // when Plan was last asked
	heard      map[transport.NodeID]int64
	began      int64
}

var metaShard = shard.NewID(shard.Meta, 0)

const (
	controlPause = 300 * millisecond
	planPause    = second
	// stepPatience is when a step is tried again of which nothing was heard.
	stepPatience = 5 * second
	// How long a node has to be silent to count as suspect, unhealthy, dead. A minute has to see what days do.
	suspectAfter, unhealthyAfter, deadAfter = 1500 * millisecond, 3 * second, 6 * second
)

// limits are those of production but for the times.
func limits() cluster.Config {
	c := cluster.DefaultConfig()
	c.DownAfter, c.GiveUpAfter = 10_000, 20_000
	return c
}

func newControl(n *node) *control {
	c := &control{n: n, asked: make(map[shard.ID]bool), heard: make(map[transport.NodeID]int64), began: n.w.now}
	n.w.after(n.rng.between(0, controlPause), n, "control", c.round)
	return c
}

func (c *control) round() {
	n := c.n
	n.w.after(controlPause+n.rng.between(0, controlPause), n, "control", c.round)
	for _, other := range n.w.nodes {
		if other != n && other.life != 0 {
			n.w.net.send(frame{from: n, to: other, class: transport.Raft}) // a heartbeat
		}
	}
	// The first starts found the cluster, so there is no plan to be read before them; an old copy of a disk is none of those.
	if !c.registered && (c.view != nil || n.boot == 0 && !n.stale) {
		c.register()
	}
	if c.view == nil || n.rng.chance(0.7) { // others act on a plan that is older
		c.look()
	}
	if c.view == nil {
		return
	}
	if slices.ContainsFunc(c.view.Nodes, func(m *metapb.Node) bool {
		return m.Id == uint64(n.id) && m.State == metapb.NodeState_NODE_DECOMMISSIONED
	}) {
		n.leave()
		return
	}
	for _, s := range c.view.Shards {
		c.serve(s)
	}
	if n.host.Leads(metaShard) && n.w.now >= c.planned+planPause {
		c.planned = n.w.now
		c.plan(cluster.Plan(limits(), c.view, c.health(), n.wall()))
	}
}

// tell proposes a command to the meta shard. Whatever comes of it is seen in the plan.
func (c *control) tell(m *metapb.Command, done replica.Done) {
	c.n.router.propose(metaShard, shard.Command{Kind: shard.KindLogic, Payload: encode(m)}, false, true, c.n.w.now+stepPatience, done)
	c.n.wake()
}

func ignore(shard.Result, error) {}

// register tells the cluster of this start, and counts it before. A start whose number the cluster has seen is refused, and not counted: an
// old copy must not come to a number that is new by being started again and again.
func (c *control) register() {
	n := c.n
	for _, m := range c.view.GetNodes() {
		if m.Id == uint64(n.id) && m.RegisteredAt != 0 && m.Process != n.life && m.Boot >= n.says && n.stale {
			n.refused("the cluster has seen a later start of it")
			return
		}
	}
	n.boot = n.says
	m := &metapb.Command{Body: &metapb.Command_Register{Register: &metapb.Register{Node: &metapb.Node{
		Id: uint64(n.id), Boot: n.says, Process: n.life, Features: cluster.FeatureLevel,
	}}}}
	c.tell(m, n.once(func(r shard.Result, err error) {
		switch {
		case err != nil:
		case r.OK():
			c.registered = true
		case r.Code == reject.StaleNode && n.stale:
			n.refused("the cluster refuses it: " + r.Detail)
		case r.Code == reject.StaleNode && n.w.mutant.or().hearOldBoots:
		case r.Code == reject.NodeRemoved:
			n.leave()
		default:
			n.w.fail("registration", "node %d, boot %d: %s %s", n.id, n.says, r.Code, r.Detail)
		}
	}))
}

func (c *control) look() {
	n := c.n
	q := &metapb.Query{Body: &metapb.Query_Look{Look: &metapb.Look{NewerThan: c.view.GetCluster().GetVersion()}}}
	n.router.read(metaShard, replica.Linearizable, 0, encode(q), n.w.now+stepPatience, n.once(func(r shard.Result, err error) {
		if err != nil || !r.OK() {
			return
		}
		v := new(metapb.View)
		if err := v.UnmarshalVT(r.Payload); err != nil {
			n.w.fail("plan", "view does not decode: %v", err)
			return
		}
		if v.Cluster != nil && v.Cluster.Version >= c.view.GetCluster().GetVersion() {
			c.view = v
		}
		n.w.net.learn(v.Nodes)
	}))
	n.wake()
}

// health is what the node has observed of the others, by its own clock.
func (c *control) health() map[uint64]cluster.Observed {
	all := make(map[uint64]cluster.Observed)
	for _, m := range c.view.Nodes {
		since := max(c.began, c.heard[transport.NodeID(m.Id)])
		o := cluster.Observed{}
		for _, stage := range []struct {
			after  int64
			health cluster.Health
		}{{suspectAfter, cluster.Suspect}, {unhealthyAfter, cluster.Unhealthy}, {deadAfter, cluster.Dead}} {
			if m.Id != uint64(c.n.id) && c.n.w.now-since >= stage.after {
				o = cluster.Observed{Health: stage.health, Since: c.n.wall() - (c.n.w.now-since-stage.after)/millisecond, Reason: "silent"}
			}
		}
		all[m.Id] = o
	}
	return all
}

// facts is what the node knows of its own replica of a shard.
func (n *node) facts(id shard.ID) (g cluster.Group) {
	all := n.host.Status()
	i := slices.IndexFunc(all, func(s replica.Status) bool { return s.Shard == id })
	if i < 0 {
		return g
	}
	return all[i].Group()
}

// serve does what the plan of a shard asks of this node now.
func (c *control) serve(s *metapb.Shard) {
	n, id := c.n, shard.ID(s.Id)
	n.host.Prefer(id, transport.NodeID(s.Leader))
	if c.asked[id] {
		return
	}
	step := cluster.Next(s, uint64(n.id), n.facts(id))
	if step.Kind == cluster.Nothing {
		return
	}
	n.w.tell("%s: node %d does %s", id, n.id, step)
	c.asked[id] = true
	done := func(error) { delete(c.asked, id) } // whatever it says is seen at the next look
	n.w.after(stepPatience, n, "step forgotten", func() { done(nil) })
	switch step.Kind {
	case cluster.Create:
		n.host.Create(id, step.Replica, done)
	case cluster.Destroy:
		n.host.Destroy(id, step.Replica, step.Next, done)
	case cluster.Change:
		n.host.ChangeMembers(id, replica.PlannedChanges(step.Changes), n.mono(n.w.now+3*second), done)
	case cluster.HandOver:
		done(n.host.TransferLeader(id, transport.NodeID(step.To)))
	case cluster.Ready:
		ready := &metapb.ReadyMove{Shard: s.Id, Replica: step.Replica}
		c.tell(&metapb.Command{Body: &metapb.Command_ReadyMove{ReadyMove: ready}}, func(_ shard.Result, err error) { done(err) })
	case cluster.Finish:
		n.w.hit(probeMoved)
		finish := &metapb.FinishMove{Shard: s.Id, Replica: step.Replica, Done: true}
		c.tell(&metapb.Command{Body: &metapb.Command_FinishMove{FinishMove: finish}}, func(_ shard.Result, err error) { done(err) })
	}
	n.wake()
}

// plan tells the meta shard what the planner wants.
func (c *control) plan(a cluster.Actions) {
	for _, s := range a.States {
		c.tell(&metapb.Command{Body: &metapb.Command_SetNodeState{SetNodeState: s}}, ignore)
	}
	if len(a.Moves) > 0 {
		c.tell(&metapb.Command{Body: &metapb.Command_PlanMoves{PlanMoves: &metapb.PlanMoves{Moves: a.Moves}}}, ignore)
	}
	for _, f := range a.GiveUp {
		c.n.w.hit(probeGivenUp)
		c.n.w.tell("%s: the move to replica %d is given up: %s", shard.ID(f.Shard), f.Replica, f.Reason)
		c.tell(&metapb.Command{Body: &metapb.Command_FinishMove{FinishMove: f}}, ignore)
	}
	if len(a.Leaders) > 0 {
		c.tell(&metapb.Command{Body: &metapb.Command_PreferLeaders{PreferLeaders: &metapb.PreferLeaders{Preferences: a.Leaders}}}, ignore)
	}
	if a.Features > 0 {
		c.tell(&metapb.Command{Body: &metapb.Command_RaiseFeatures{RaiseFeatures: &metapb.RaiseFeatures{Features: a.Features}}}, ignore)
	}
}
