package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// world is a small model of a cluster in which what is planned is carried out: groups that change members, nodes that die and come
// back, messages that are late or come twice, plans that are old. It checks at each step that nothing is done that could cost data.
type world struct {
	t       *testing.T
	rand    *rand.Rand
	cfg     Config
	view    *metapb.View
	now     int64
	groups  map[uint32]*truth
	nodes   map[uint64]*machine
	history map[uint32][]*metapb.Shard // what the plan was
	queue   []func()                   // messages on their way
	slow    []func()                   // and such as take far longer than others
	trace   []string
	zones   int
	steps   [Finish + 1]int
	given   int // moves given up
}

// machine is a node with its disk.
type machine struct {
	up, lost bool
	since    int64
	replicas map[uint32]*replicaModel
	graves   map[uint32]uint64 // lowest number that a replica may have
	started  map[uint32]int    // place in the history at the start: nothing older is acted upon
}

type replicaModel struct {
	number uint64
	data   bool // all of it
	knows  []Member
	joint  bool
}

// truth is the truth about a group.
type truth struct {
	members []Member
	old     []uint64 // voters of the outgoing half while the configuration is joint
	leader  uint64
}

func newWorld(t *testing.T, seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, 1))
	cfg := DefaultConfig()
	cfg.DownAfter, cfg.GiveUpAfter = 30_000, 60_000
	w := &world{
		t: t, rand: r, cfg: cfg, now: 1_000_000, groups: make(map[uint32]*truth), nodes: make(map[uint64]*machine), history: make(map[uint32][]*metapb.Shard),
		view: &metapb.View{Cluster: &metapb.Cluster{Replicas: []uint32{1, 3, 3, 3, 5}[r.IntN(5)], Features: 1, NextNode: 1}},
	}
	w.zones = []int{0, 0, 2, 3, 4}[r.IntN(5)]
	n := []int{1, 3, 3, 4, 5, 6, 9}[r.IntN(7)]
	for range n {
		w.join()
	}
	for i := range 1 + r.IntN(12) {
		id := shard.NewID([]shard.Service{shard.Meta, shard.Order, shard.Payment}[i%3], i/3)
		s := &metapb.Shard{Id: uint32(id), Version: 1}
		g := &truth{}
		count := min(int(w.view.Cluster.Replicas), n)
		for _, k := range r.Perm(n)[:count-(count+1)%2] {
			number := s.NextReplica + 1
			s.NextReplica++
			node := uint64(k + 1)
			s.Replicas = append(s.Replicas, &metapb.Replica{Id: number, Node: node})
			g.members = append(g.members, Member{ID: number, Node: node, Voter: true})
			w.nodes[node].replicas[s.Id] = &replicaModel{number: number, data: true}
		}
		s.NextReplica++
		w.view.Shards = append(w.view.Shards, s)
		w.groups[s.Id] = g
		w.changed(s)
	}
	slices.SortFunc(w.view.Shards, func(a, b *metapb.Shard) int { return int(a.Id) - int(b.Id) })
	return w
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%6d ", (w.now-1_000_000)/1000)+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	from := max(0, len(w.trace)-80)
	for _, line := range w.trace[from:] {
		w.t.Log(line)
	}
	w.t.Fatalf(format, args...)
}

func (w *world) join() {
	id := w.view.Cluster.NextNode
	w.view.Cluster.NextNode++
	n := &metapb.Node{Id: id, Features: 1}
	if w.zones > 0 {
		n.Zone = string(rune('a' + int(id)%w.zones))
	}
	w.view.Nodes = append(w.view.Nodes, n)
	m := &machine{replicas: make(map[uint32]*replicaModel), graves: make(map[uint32]uint64)}
	w.nodes[id] = m
	w.start(id)
	w.log("node %d joins", id)
}

func (w *world) start(id uint64) {
	m := w.nodes[id]
	m.up, m.since, m.started = true, w.now, make(map[uint32]int)
	for _, s := range w.view.Shards {
		m.started[s.Id] = len(w.history[s.Id]) - 1
	}
}

func (w *world) changed(s *metapb.Shard) { w.history[s.Id] = append(w.history[s.Id], s.CloneVT()) }

func (w *world) health() map[uint64]Observed {
	all := make(map[uint64]Observed)
	for id, m := range w.nodes {
		switch silent := w.now - m.since; {
		case m.up:
		case silent >= 5000:
			all[id] = Observed{Dead, m.since + 5000, "silent"}
		default:
			all[id] = Observed{Unhealthy, m.since, "silent"}
		}
	}
	return all
}

func (w *world) shard(id uint32) *metapb.Shard {
	for _, s := range w.view.Shards {
		if s.Id == id {
			return s
		}
	}
	return nil
}

func (w *world) node(id uint64) *metapb.Node {
	for _, n := range w.view.Nodes {
		if n.Id == id {
			return n
		}
	}
	return nil
}

// has reports whether a member's node is up and has its data.
func (w *world) has(id uint32, m Member) bool {
	n := w.nodes[m.Node]
	return n.up && n.replicas[id] != nil && n.replicas[id].number == m.ID
}

// quorum reports whether both halves of a group's configuration have a majority among the members that ok holds for.
func (w *world) quorum(g *truth, ok func(Member) bool) bool {
	var voters, good int
	for _, m := range g.members {
		if m.Voter {
			voters++
			if ok(m) {
				good++
			}
		}
	}
	if good <= voters/2 {
		return false
	}
	good = 0
	for _, id := range g.old {
		i := slices.IndexFunc(g.members, func(m Member) bool { return m.ID == id })
		if i >= 0 && ok(g.members[i]) {
			good++
		}
	}
	return good > len(g.old)/2 || len(g.old) == 0
}

// facts are what a node knows of its replica.
func (w *world) facts(node uint64, id uint32) Group {
	r := w.nodes[node].replicas[id]
	if r == nil {
		return Group{}
	}
	g := w.groups[id]
	if g.leader != r.number {
		return Group{Replica: r.number, Joint: r.joint, Members: slices.Clone(r.knows)}
	}
	all := Group{Replica: r.number, Leads: true, Joint: len(g.old) > 0}
	for _, m := range g.members {
		if m.Voter || m.Learner {
			m.Active = w.has(id, m)
			m.CaughtUp = m.Active && w.nodes[m.Node].replicas[id].data
			all.Members = append(all.Members, m)
		}
	}
	return all
}

// work lets groups elect, replicate and leave joint configurations.
func (w *world) work(certain bool) {
	for _, s := range w.view.Shards {
		g := w.groups[s.Id]
		up := func(m Member) bool { return w.has(s.Id, m) }
		if i := slices.IndexFunc(g.members, func(m Member) bool { return m.ID == g.leader }); i < 0 || !up(g.members[i]) || !w.quorum(g, up) {
			g.leader = 0
		}
		if !w.quorum(g, up) {
			continue
		}
		if g.leader == 0 {
			var can []uint64
			for _, m := range g.members {
				if m.Voter && up(m) && w.nodes[m.Node].replicas[s.Id].data {
					can = append(can, m.ID)
				}
			}
			if len(can) > 0 {
				g.leader = can[w.rand.IntN(len(can))]
			}
		} else if w.rand.IntN(10) == 0 { // back to the one that should lead
			for _, m := range g.members {
				if m.Voter && m.Node == s.Leader && up(m) && w.nodes[m.Node].replicas[s.Id].data && len(g.old) == 0 {
					g.leader = m.ID
				}
			}
		}
		if g.leader == 0 {
			continue
		}
		if len(g.old) > 0 && (certain || w.rand.IntN(6) == 0) {
			g.old = nil
			g.members = slices.DeleteFunc(g.members, func(m Member) bool { return !m.Voter && !m.Learner })
		}
		for _, m := range g.members {
			if up(m) && (certain || w.rand.IntN(3) == 0) {
				r := w.nodes[m.Node].replicas[s.Id]
				r.data, r.joint = true, len(g.old) > 0
				r.knows = slices.Clone(g.members)
			}
		}
	}
}

// look lets a node do what is to be done for a shard, by a plan that may be old.
func (w *world) look(node uint64, id uint32, late bool) {
	m := w.nodes[node]
	if !m.up || w.node(node).State == metapb.NodeState_NODE_DECOMMISSIONED {
		return
	}
	all := w.history[id]
	at := len(all) - 1
	if late && w.rand.IntN(4) == 0 {
		at -= w.rand.IntN(min(4, at-max(0, m.started[id])+1))
	}
	s, g := all[at], w.facts(node, id)
	step := Next(s, node, g)
	if step.Kind == Nothing {
		return
	}
	w.log("%s: node %d (plan %d of %d): %s", shard.ID(id), node, at+1, len(all), step)
	if step.Kind == Change && at == len(all)-1 {
		w.careful(id, step.Changes)
	}
	w.steps[step.Kind]++
	switch {
	case !late:
		w.do(node, id, step)
	case step.Kind == Finish || step.Kind == Ready:
		w.send(func() { w.do(node, id, step) })
	case w.rand.IntN(10) > 0: // its own host is told
		w.do(node, id, step)
	}
}

// send delivers a message later, or twice, or not.
func (w *world) send(do func()) {
	for range []int{1, 1, 1, 1, 2, 0}[w.rand.IntN(6)] {
		if w.rand.IntN(3) == 0 {
			w.slow = append(w.slow, do)
		} else {
			w.queue = append(w.queue, do)
		}
	}
}

func (w *world) do(node uint64, id uint32, step Step) {
	m, g := w.nodes[node], w.groups[id]
	r := m.replicas[id]
	switch step.Kind {
	case Create:
		if !m.up || r != nil || step.Replica < m.graves[id] {
			return // the host refuses
		}
		if slices.ContainsFunc(g.members, func(o Member) bool { return o.ID == step.Replica && o.Voter }) {
			w.fail("%s: node %d makes replica %d empty, which has a vote", shard.ID(id), node, step.Replica)
		}
		for other, n := range w.nodes {
			if other != node && (n.replicas[id] != nil && n.replicas[id].number == step.Replica) {
				w.fail("%s: replica %d is on nodes %d and %d", shard.ID(id), step.Replica, node, other)
			}
		}
		m.replicas[id] = &replicaModel{number: step.Replica}
	case Destroy:
		if !m.up || r == nil || r.number != step.Replica {
			return
		}
		if slices.ContainsFunc(g.members, func(o Member) bool { return o.ID == r.number && (o.Voter || slices.Contains(g.old, o.ID)) }) {
			w.fail("%s: node %d destroys replica %d, which has a vote", shard.ID(id), node, r.number)
		}
		delete(m.replicas, id)
		m.graves[id] = max(step.Next, r.number+1)
	case Change:
		if m.up && r != nil && g.leader == r.number && len(g.old) == 0 && w.quorum(g, func(m Member) bool { return w.has(id, m) }) {
			w.change(id, step.Changes)
		}
	case HandOver:
		if r == nil || g.leader != r.number {
			return
		}
		for _, o := range g.members {
			if o.Node == step.To && o.Voter && w.has(id, o) && w.nodes[o.Node].replicas[id].data {
				g.leader = o.ID
			}
		}
	case Ready:
		if s := w.shard(id); s.Move.GetTo().GetId() == step.Replica {
			s.Move.Ready = true
			s.Version++
			w.changed(s)
		}
	case Finish:
		w.finish(id, step.Replica, true)
	}
}

// changed returns a group after changes of its members, nil when its host would refuse them.
func (g *truth) changed(changes []MemberChange) *truth {
	next := &truth{members: slices.Clone(g.members), leader: g.leader}
	for _, c := range changes {
		i := slices.IndexFunc(next.members, func(m Member) bool { return m.ID == c.ID })
		switch {
		case c.Kind == AddLearner && i < 0 && !slices.ContainsFunc(next.members, func(m Member) bool { return m.Node == c.Node }):
			next.members = append(next.members, Member{ID: c.ID, Node: c.Node, Learner: true})
		case c.Kind == Promote && i >= 0 && next.members[i].Learner:
			next.members[i].Voter, next.members[i].Learner = true, false
		case c.Kind == Remove && i >= 0:
			next.members[i].Voter, next.members[i].Learner = false, false
		default:
			return nil
		}
	}
	if len(changes) == 1 {
		next.members = slices.DeleteFunc(next.members, func(m Member) bool { return !m.Voter && !m.Learner })
		return next
	}
	for _, m := range g.members {
		if m.Voter {
			next.old = append(next.old, m.ID)
		}
	}
	return next
}

// careful checks a change at the time when it is decided on: whatever majority there is stays.
func (w *world) careful(id uint32, changes []MemberChange) {
	g := w.groups[id]
	next := g.changed(changes)
	if next == nil || len(g.old) > 0 {
		w.fail("%s: %v is refused by %v", shard.ID(id), changes, g.members)
	}
	if slices.ContainsFunc(changes, func(c MemberChange) bool { return c.Kind == Remove && c.ID == g.leader }) {
		w.fail("%s: the leader removes itself", shard.ID(id))
	}
	if changes[0].Kind == AddLearner || memberOf(g, changes[0].ID).Learner && changes[0].Kind == Remove {
		return
	}
	if !w.quorum(next, func(m Member) bool { return w.has(id, m) }) {
		w.fail("%s: no majority is left after %v of %v", shard.ID(id), changes, g.members)
	}
	count := func(g *truth) (n int) {
		for _, m := range g.members {
			if m.Voter && w.has(id, m) && w.nodes[m.Node].replicas[id].data {
				n++
			}
		}
		return n
	}
	if changes[0].Kind == Promote && w.has(id, memberOf(g, changes[0].ID)) && count(next) < count(g) {
		w.fail("%s: %v of %v leaves fewer live voters", shard.ID(id), changes, g.members)
	}
}

func (w *world) change(id uint32, changes []MemberChange) {
	next := w.groups[id].changed(changes)
	if next == nil {
		return
	}
	if !w.quorum(next, func(m Member) bool { return !w.nodes[m.Node].lost }) {
		return // a node was lost while the message was on its way, which takes far less time than losing one
	}
	*w.groups[id] = *next
}

func memberOf(g *truth, id uint64) Member {
	for _, m := range g.members {
		if m.ID == id {
			return m
		}
	}
	return Member{}
}

// finish is the meta shard's part in a move's end.
func (w *world) finish(id uint32, replica uint64, done bool) {
	if s := w.shard(id); s.Move.GetTo().GetId() == replica && (done || !s.Move.Ready) {
		w.end(s, done)
	}
}

func (w *world) end(s *metapb.Shard, done bool) {
	if done {
		s.Replicas = slices.DeleteFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Id == s.Move.From.GetId() })
		s.Replicas = append(s.Replicas, s.Move.To)
	}
	s.Move = nil
	s.Version++
	w.changed(s)
}

// plan lets the meta shard's leader plan, and the meta shard do it.
func (w *world) plan(late bool) bool {
	a := Plan(w.cfg, w.view, w.health(), w.now)
	if b := Plan(w.cfg, w.view, w.health(), w.now); a.String() != b.String() {
		w.fail("two plans of one situation:\n%s\n%s", a, b)
	}
	if a.String() != "nothing\n" {
		w.log("plan: %s", a)
	}
	for _, m := range a.Moves {
		s := w.shard(m.Shard)
		to := w.node(m.To)
		if s.Move != nil || to == nil || to.State != metapb.NodeState_NODE_ACTIVE || slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Node == m.To }) {
			w.fail("move %v does not fit %v", m, s)
		}
		s.Move = &metapb.Move{To: &metapb.Replica{Id: s.NextReplica, Node: m.To}, Reason: m.Reason, StartedAt: w.now}
		for _, r := range s.Replicas {
			if r.Id == m.From {
				s.Move.From = r.CloneVT()
			}
		}
		s.NextReplica++
		s.Version++
		w.changed(s)
	}
	for _, f := range a.GiveUp {
		if late {
			w.send(func() { w.finish(f.Shard, f.Replica, false) })
		} else {
			w.finish(f.Shard, f.Replica, false)
		}
		w.given++
	}
	for _, l := range a.Leaders {
		s := w.shard(l.Shard)
		s.Leader = l.Node
		s.Version++
		w.changed(s)
	}
	for _, st := range a.States {
		w.node(st.Node).State = st.State
	}
	return len(a.Moves)+len(a.GiveUp)+len(a.Leaders)+len(a.States) > 0
}

// check looks at what has to hold always.
func (w *world) check() {
	for id, g := range w.groups {
		on := make(map[uint64]uint64)
		for _, m := range g.members {
			if !m.Voter && !m.Learner {
				continue // on its way out
			}
			if other := on[m.Node]; other != 0 {
				w.fail("%s: replicas %d and %d are on node %d", shard.ID(id), other, m.ID, m.Node)
			}
			on[m.Node] = m.ID
		}
		if !w.quorum(g, func(m Member) bool {
			n := w.nodes[m.Node]
			return !n.lost && n.replicas[id] != nil && n.replicas[id].number == m.ID
		}) {
			w.fail("%s has lost its majority for good: %v, old %v", shard.ID(id), g.members, g.old)
		}
	}
}

// trouble does something to the cluster.
func (w *world) trouble() {
	ids := slices.Sorted(maps.Keys(w.nodes))
	id := ids[w.rand.IntN(len(ids))]
	m, n := w.nodes[id], w.node(id)
	switch w.rand.IntN(8) {
	case 0, 1:
		if m.up && n.State != metapb.NodeState_NODE_DECOMMISSIONED {
			m.up, m.since = false, w.now
			w.log("node %d dies", id)
		}
	case 2, 3, 4:
		if !m.up && !m.lost {
			w.start(id)
			w.log("node %d is back", id)
		}
	case 5:
		if len(ids) < 12 {
			w.join()
		}
	case 6:
		w.lose(id)
	case 7:
		to := []metapb.NodeState{metapb.NodeState_NODE_ACTIVE, metapb.NodeState_NODE_ACTIVE, metapb.NodeState_NODE_DRAINING, metapb.NodeState_NODE_DECOMMISSIONING}[w.rand.IntN(4)]
		if m.up && CheckState(w.view, w.health(), id, to) == nil {
			n.State = to
			w.log("node %d: %s", id, stateName(to))
		}
	}
}

// lose takes a node away for good, if each group can bear it once the others are back.
func (w *world) lose(id uint64) {
	m := w.nodes[id]
	if m.lost || w.node(id).State == metapb.NodeState_NODE_DECOMMISSIONED {
		return
	}
	m.lost = true
	for _, s := range w.view.Shards {
		if !w.quorum(w.groups[s.Id], func(o Member) bool {
			n := w.nodes[o.Node]
			return !n.lost && n.replicas[s.Id] != nil && n.replicas[s.Id].number == o.ID
		}) {
			m.lost = false
			return
		}
	}
	m.up, m.since = false, w.now
	w.log("node %d is lost", id)
	if w.rand.IntN(2) == 0 {
		w.decommissioned(id)
	}
}

// decommissioned tells the meta shard that a node is gone for good.
func (w *world) decommissioned(id uint64) {
	w.node(id).State = metapb.NodeState_NODE_DECOMMISSIONED
	for _, s := range w.view.Shards {
		if s.Move.GetTo().GetNode() == id {
			w.end(s, false)
		}
	}
}

func (w *world) deliver(queue *[]func()) {
	if n := len(*queue); n > 0 {
		i := w.rand.IntN(n)
		do := (*queue)[i]
		*queue = slices.Delete(*queue, i, i+1)
		do()
	}
}

// run does as much at random.
func (w *world) run(steps int) {
	ids := slices.Sorted(maps.Keys(w.groups))
	for range steps {
		w.now += int64(w.rand.IntN(1000))
		switch k := w.rand.IntN(40); {
		case k == 0:
			w.trouble()
		case k < 4:
			w.plan(true)
		case k < 14:
			w.work(false)
		case k < 24:
			w.deliver(&w.queue)
		case k == 24 && w.rand.IntN(3) == 0:
			w.deliver(&w.slow)
		default:
			nodes := slices.Sorted(maps.Keys(w.nodes))
			w.look(nodes[w.rand.IntN(len(nodes))], ids[w.rand.IntN(len(ids))], true)
		}
		w.check()
	}
}

// settle heals what can be healed and lets everything come to rest.
func (w *world) settle() {
	for len(w.queue)+len(w.slow) > 0 {
		w.deliver(&w.queue)
		w.deliver(&w.slow)
	}
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		switch m, n := w.nodes[id], w.node(id); {
		case m.lost:
			w.decommissioned(id)
		case n.State == metapb.NodeState_NODE_DECOMMISSIONED:
		default:
			if !m.up {
				w.start(id)
			}
			if n.State == metapb.NodeState_NODE_DRAINING {
				n.State = metapb.NodeState_NODE_ACTIVE
			}
		}
	}
	w.log("healed")
	for round := range 2000 {
		w.now += 1000
		busy := w.plan(false)
		w.work(true)
		before := len(w.trace)
		for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
			for _, s := range w.view.Shards {
				w.look(id, s.Id, false)
				w.check()
			}
		}
		moving := slices.ContainsFunc(w.view.Shards, func(s *metapb.Shard) bool { return s.Move != nil })
		if !busy && !moving && len(w.trace) == before && round > 2 {
			w.settled()
			return
		}
	}
	w.fail("the cluster does not come to rest")
}

// settled checks that the cluster is what was planned, and as even as it can be.
func (w *world) settled() {
	loads, leads := make(map[uint64]int), make(map[uint64]int)
	var active []uint64
	for _, n := range w.view.Nodes {
		if n.State == metapb.NodeState_NODE_ACTIVE {
			active = append(active, n.Id)
		}
	}
	full := true
	wanted := odd(min(len(active), int(w.view.Cluster.Replicas)))
	for _, s := range w.view.Shards {
		g := w.groups[s.Id]
		var planned, real []Member
		for _, r := range s.Replicas {
			planned = append(planned, Member{ID: r.Id, Node: r.Node, Voter: true})
			loads[r.Node]++
		}
		leads[s.Leader]++
		real = slices.SortedFunc(slices.Values(g.members), func(a, b Member) int { return int(a.ID) - int(b.ID) })
		slices.SortFunc(planned, func(a, b Member) int { return int(a.ID) - int(b.ID) })
		stranded := slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return w.nodes[r.Node].lost })
		if stranded && len(active) > len(s.Replicas) {
			w.fail("%s has a replica on a lost node: %v", shard.ID(s.Id), s)
		}
		if !slices.Equal(planned, real) && !stranded { // there may be nowhere to go
			w.fail("%s: planned are %v, there are %v", shard.ID(s.Id), planned, real)
		}
		for id, m := range w.nodes {
			if r := m.replicas[s.Id]; r != nil && m.up && w.node(id).State != metapb.NodeState_NODE_DECOMMISSIONED && !slices.ContainsFunc(planned, func(m Member) bool { return m.ID == r.number && m.Node == id }) {
				w.fail("%s: replica %d is left on node %d", shard.ID(s.Id), r.number, id)
			}
		}
		if len(s.Replicas) < wanted {
			w.fail("%s has %d replicas, want %d of %d nodes", shard.ID(s.Id), len(s.Replicas), wanted, len(active))
		}
		full = full && !slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return w.node(r.Node).State != metapb.NodeState_NODE_ACTIVE })
	}
	if w.zones > 0 || !full { // zones may stand in the way, and when there is no place to go to nothing is balanced
		return
	}
	low, high := 1<<30, 0
	for _, id := range active {
		low, high = min(low, loads[id]), max(high, loads[id])
	}
	if high-low > 1 {
		w.fail("loads are %v", loads)
	}
	for _, id := range active {
		if !nearMean(leads[id], len(w.view.Shards), len(active)) {
			w.fail("nodes lead %v of %d shards", leads, len(w.view.Shards))
		}
	}
}

// Whatever happens in between, nothing is done that costs a vote or data, and when the trouble is over the cluster comes to be as planned.
func TestNothingIsLostWhateverHappens(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 50
	}
	var all [Finish + 1]int
	given := 0
	for seed := range uint64(seeds) {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			w.run(1500)
			w.settle()
			for kind, n := range w.steps {
				all[kind] += n
			}
			given += w.given
		}) {
			return
		}
	}
	t.Logf("%d created, %d destroyed, %d changes, %d handed over, %d ready, %d finished, %d given up", all[Create], all[Destroy], all[Change], all[HandOver], all[Ready], all[Finish], given)
}
