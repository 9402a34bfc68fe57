package sim

import (
	"fmt"
	"slices"

	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/store/memstore"
	"hanse/internal/transport"
)

// move brings a replica from a node to another, or to the same node under another number when its disk was lost. It is what
// a placement driver does: look what is the case, do the next step, look again.
type move struct {
	w        *World
	group    shard.ID
	old      replica.Replica
	next     replica.Replica
	lost     bool // the old one is gone: remove it first
	asked    bool
	created  bool
	given    bool // up
	finished bool
}

const moveStep = 300 * millisecond

// placement returns the replicas that a group begins with.
func (w *World) placement(id shard.ID) (replicas []replica.Replica) {
	first := int(id.Service()) + id.Index()
	for k := range w.plan.Replicas {
		n := transport.NodeID((first+k)%w.plan.Nodes + 1)
		replicas = append(replicas, replica.Replica{ID: uint64(n), Node: n})
	}
	return replicas
}

// number returns a number that no replica of a group has had.
func (w *World) number(id shard.ID) uint64 {
	g := w.checks.groups[id]
	g.numbers++
	return uint64(w.plan.Nodes) + g.numbers
}

func (w *World) moving(id shard.ID) bool {
	return slices.ContainsFunc(w.moves, func(m *move) bool { return m.group == id && !m.finished })
}

// moveAny moves a replica of some group to a node that has none.
func (w *World) moveAny() {
	id := w.groups[w.faults.below(len(w.groups))]
	leader := w.leader(id)
	if leader == nil || w.moving(id) || w.repairing() {
		return
	}
	members := leader.host.Members(id)
	var free []transport.NodeID
	for _, n := range w.nodes {
		if !slices.ContainsFunc(members, func(r replica.Replica) bool { return r.Node == n.id }) {
			free = append(free, n.id)
		}
	}
	if len(free) == 0 || len(members) == 0 {
		return
	}
	m := &move{w: w, group: id, old: pick(w.faults, members), next: replica.Replica{ID: w.number(id), Node: pick(w.faults, free)}}
	w.tell("%s moves from node %d to node %d, as replica %d", id, m.old.Node, m.next.Node, m.next.ID)
	w.moves = append(w.moves, m)
	m.look()
}

// repairing reports whether a node's replicas are being made anew, or have to be.
func (w *World) repairing() bool {
	return slices.ContainsFunc(w.moves, func(m *move) bool { return m.lost && !m.finished }) || slices.ContainsFunc(w.nodes, func(n *node) bool { return n.stale })
}

// replacements returns the moves that bring new replicas to a node that has lost what it had; false when who has replicas of some
// group cannot be known just now.
func (w *World) replacements(n *node) (moves []*move, known bool) {
	for _, id := range w.groups {
		leader := w.leader(id)
		if leader == nil {
			return nil, false
		}
		for _, r := range leader.host.Members(id) {
			if r.Node == n.id {
				moves = append(moves, &move{w: w, group: id, old: r, lost: true})
			}
		}
	}
	for _, m := range moves {
		m.next = replica.Replica{ID: w.number(m.group), Node: n.id}
	}
	return moves, true
}

func (w *World) begin(moves []*move) {
	w.moves = append(w.moves, moves...)
	for _, m := range moves {
		m.look()
	}
}

// loseDisk takes a node's disk away for good. One at a time: two lost disks of a group of three are more than it promises to bear.
func (w *World) loseDisk() {
	n := w.anyNode()
	if w.repairing() || slices.ContainsFunc(w.moves, func(m *move) bool { return !m.finished }) || int(n.id) == w.plan.LeaveOut {
		return
	}
	moves, known := w.replacements(n)
	if !known {
		return
	}
	n.crash("its disk is lost")
	n.disk = memstore.NewDisk()
	w.hit(probeLostDisk)
	if w.mutant.or().reuseNumbers {
		n.format()
		return
	}
	w.begin(moves)
}

// look does the next step of a move, and comes back until there is none.
func (m *move) look() {
	w := m.w
	if w.failure == nil && !m.finished {
		m.step()
	}
	if !m.finished {
		w.after(moveStep+w.faults.between(0, moveStep), nil, "move", m.look)
	} else {
		w.tell("%s: the move to node %d is over", m.group, m.next.Node)
		w.moves = slices.DeleteFunc(w.moves, func(o *move) bool { return o == m })
	}
}

func (m *move) step() {
	w := m.w
	leader := w.leader(m.group)
	if leader == nil || m.asked || leader.pausedUntil > w.now {
		return
	}
	members := leader.host.Members(m.group)
	has := func(id uint64) bool {
		return slices.ContainsFunc(members, func(r replica.Replica) bool { return r.ID == id })
	}
	to := w.node(m.next.Node)
	if w.calm && int(to.id) == w.plan.LeaveOut {
		m.given = true
	}
	switch {
	case m.given && !has(m.next.ID):
		m.finished = true
	case m.given && has(m.old.ID):
		m.change(leader, replica.MemberChange{Kind: replica.Remove, Replica: m.next})
	case m.given:
		m.finished = true // the new one has taken over: its node is dead like any other may be
	case m.lost && has(m.old.ID):
		m.change(leader, replica.MemberChange{Kind: replica.Remove, Replica: m.old})
	case !has(m.next.ID) && !m.created:
		m.create(to)
	case !has(m.next.ID):
		m.change(leader, replica.MemberChange{Kind: replica.AddLearner, Replica: m.next})
	case has(m.old.ID) && leader.host.CaughtUp(m.group, m.next.ID):
		w.hit(probeMoved)
		m.change(leader, replica.MemberChange{Kind: replica.Promote, Replica: m.next}, replica.MemberChange{Kind: replica.Remove, Replica: m.old})
	case has(m.old.ID):
	case m.lost:
		if leader.host.IsLearner(m.group, m.next.ID) {
			if leader.host.CaughtUp(m.group, m.next.ID) {
				m.change(leader, replica.MemberChange{Kind: replica.Promote, Replica: m.next})
			}
			return
		}
		m.finished = true
	default:
		m.destroy(w.node(m.old.Node), m.old.ID)
	}
}

// change asks the leader for a change of members. Whatever comes of it is seen at the next look.
func (m *move) change(leader *node, changes ...replica.MemberChange) {
	m.asked = true
	m.w.after(5*second, nil, "move forgets", func() { m.asked = false }) // the process that was asked may be dead
	leader.host.ChangeMembers(m.group, changes, leader.mono(m.w.now+3*second), func(error) { m.asked = false })
	leader.wake()
}

func (m *move) create(to *node) {
	if to.life == 0 || to.pausedUntil > m.w.now {
		return
	}
	switch to.host.Replica(m.group) {
	case 0:
	case m.next.ID: // it was, and the node died before it could say so
		m.created = true
		return
	default: // an older replica that has been removed has to go first
		m.destroy(to, to.host.Replica(m.group))
		return
	}
	m.asked = true
	m.w.after(5*second, nil, "move forgets", func() { m.asked = false })
	to.host.Create(m.group, m.next.ID, func(err error) {
		m.asked = false
		if m.created = err == nil; err != nil {
			m.w.tell("%s: replica %d is not created on node %d: %v", m.group, m.next.ID, to.id, err)
		}
	})
	to.wake()
}

// destroy removes a replica for good, once its group has gone on without it.
func (m *move) destroy(from *node, number uint64) {
	if from.life == 0 || from.pausedUntil > m.w.now {
		if m.w.calm && int(from.id) == m.w.plan.LeaveOut {
			m.finished = true
		}
		return
	}
	if from.host.Replica(m.group) != number {
		m.finished = m.finished || number == m.old.ID
		return
	}
	from.host.Destroy(m.group, number, number+1, func(err error) {
		if err == nil { // whatever else it says is seen at the next look
			m.w.tell("replica %d of %s is gone from node %d", number, m.group, from.id)
		}
	})
	from.wake()
}

func (m *move) String() string {
	return fmt.Sprintf("%s moves from node %d to node %d", m.group, m.old.Node, m.next.Node)
}
