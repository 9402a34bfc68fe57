package replica

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"hanse/internal/shard"
	"hanse/internal/transport"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// ChangeKind is what happens to a member.
type ChangeKind uint8

// The changes. A replica joins as a learner, which is sent the log but has no vote, and is promoted when it has caught
// up: so the group never waits for an empty replica. Several changes at once go through joint consensus.
const (
	AddLearner ChangeKind = iota + 1
	Promote
	Demote
	Remove
)

// MemberChange is one change to a group's members.
type MemberChange struct {
	Kind ChangeKind
	// Replica names the member; Node matters for AddLearner only.
	Replica Replica
}

// pendingChange is a membership change that this process has proposed.
type pendingChange struct {
	tag      uint64
	deadline int64
	done     func(error)
}

// ChangeMembers proposes changes to the members of a group, on its leader. Done is called once: with nil when they are in
// force on this replica, a [RefusedError] or [NotLeaderError] when they were not begun, ErrOutcomeUnknown when they may
// have been. Numbers of replicas are never used again.
func (h *Host) ChangeMembers(id shard.ID, changes []MemberChange, deadline int64, done func(error)) {
	g := h.groups[id]
	if g == nil {
		done(ErrNoReplica)
		return
	}
	if !g.leads() {
		done(g.notLeader())
		return
	}
	if reason := g.refuses(changes); reason != "" {
		done(&RefusedError{id, reason})
		return
	}
	h.tags++
	context := binary.AppendUvarint(nil, h.cfg.Process)
	context = binary.AppendUvarint(context, h.tags)
	var added []Replica
	cc := &pb.ConfChangeV2{Transition: pb.ConfChangeTransitionAuto.Enum()}
	for _, c := range changes {
		kind := pb.ConfChangeAddNode
		switch c.Kind {
		case AddLearner:
			kind = pb.ConfChangeAddLearnerNode
			added = append(added, c.Replica)
		case Demote:
			kind = pb.ConfChangeAddLearnerNode
		case Remove:
			kind = pb.ConfChangeRemoveNode
		}
		cc.Changes = append(cc.Changes, &pb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(c.Replica.ID)})
	}
	context = binary.AppendUvarint(context, uint64(len(added)))
	for _, r := range added {
		context = binary.AppendUvarint(context, r.ID)
		context = binary.AppendUvarint(context, uint64(r.Node))
	}
	cc.Context = context
	if err := g.raft.ProposeConfChange(cc); err != nil {
		done(&RefusedError{id, "the group is handing over its leadership or has too much to commit: try again"})
		return
	}
	g.changes = append(g.changes, pendingChange{h.tags, deadline, done})
	h.touch(g)
}

// refuses says why changes make no sense; Raft itself would turn them into an empty entry, or panic.
func (g *group) refuses(changes []MemberChange) string {
	conf := g.membership.conf
	switch {
	case len(changes) == 0:
		return "no change is asked for"
	case len(conf.VotersOutgoing) > 0 || len(g.changes) > 0:
		return "another change of members is under way"
	}
	voters := len(conf.Voters)
	for _, c := range changes {
		isVoter, isLearner := slices.Contains(conf.Voters, c.Replica.ID), slices.Contains(conf.Learners, c.Replica.ID)
		switch c.Kind {
		case AddLearner:
			if c.Replica.ID == 0 || c.Replica.Node == 0 || isVoter || isLearner {
				return fmt.Sprintf("replica %d is a member or has no node", c.Replica.ID)
			}
			for _, r := range g.membership.replicas {
				if r.Node == c.Replica.Node {
					return fmt.Sprintf("node %d has replica %d of it already", r.Node, r.ID)
				}
			}
		case Promote:
			if !isLearner {
				return fmt.Sprintf("replica %d is no learner", c.Replica.ID)
			}
			voters++
		case Demote:
			if !isVoter {
				return fmt.Sprintf("replica %d is no voter", c.Replica.ID)
			}
			voters--
		case Remove:
			if !isVoter && !isLearner {
				return fmt.Sprintf("replica %d is no member", c.Replica.ID)
			}
			if isVoter {
				voters--
			}
		default:
			return fmt.Sprintf("change %d is unknown", c.Kind)
		}
	}
	if voters == 0 {
		return "no voter would be left"
	}
	return ""
}

// reconfigure takes a committed change of the membership into force.
func (g *group) reconfigure(e *pb.Entry, process uint64) {
	change := new(pb.ConfChangeV2)
	if err := proto.Unmarshal(e.Data, change); err != nil {
		panic(&CorruptError{g.id, e.GetIndex(), "membership change does not decode: " + err.Error()})
	}
	conf := g.raft.ApplyConfChange(change)
	m := membership{conf: proto.Clone(conf).(*pb.ConfState), replicas: slices.Clone(g.membership.replicas)}
	var proposer, tag uint64
	if len(change.Context) > 0 { // Raft leaves a joint configuration by itself, with an empty change
		d := fields{rest: change.Context}
		proposer, tag = d.uvarint(), d.uvarint()
		for range d.count() {
			m.replicas = append(m.replicas, Replica{ID: d.uvarint(), Node: transport.NodeID(d.uvarint())})
		}
		if !d.end() {
			panic(&CorruptError{g.id, e.GetIndex(), "membership change is malformed"})
		}
	}
	m.replicas = slices.DeleteFunc(m.replicas, func(r Replica) bool { return !m.contains(r.ID) })
	g.setMembership(m)
	g.changes = slices.DeleteFunc(g.changes, func(c pendingChange) bool {
		if proposer != process || c.tag != tag {
			return false
		}
		c.done(nil)
		return true
	})
}

// expireChanges gives up changes of members that did not come into force: Raft may have dropped them, or not.
func (g *group) expireChanges(now int64) {
	g.changes = slices.DeleteFunc(g.changes, func(c pendingChange) bool {
		if c.deadline > now {
			return false
		}
		c.done(ErrOutcomeUnknown)
		return true
	})
}

// Create makes an empty replica on this node. It waits for the group's leader to send it a snapshot, which
// brings state and membership. Done is called when it is on disk; a number below the tombstone's is refused.
func (h *Host) Create(id shard.ID, replica uint64, done func(error)) {
	switch {
	case h.groups[id] != nil:
		done(&RefusedError{id, "this node has a replica of it already"})
		return
	case h.pending[id] != nil:
		done(&RefusedError{id, "a replica of it is being made or removed: try again"})
		return
	}
	lowest, err := tombstone(h.engine, id)
	if err != nil {
		done(err)
		return
	}
	if replica < lowest {
		done(&RefusedError{id, fmt.Sprintf("replica %d was on this node and is gone for good, want a number from %d on", replica, lowest)})
		return
	}
	s := &stored{id: id, replica: replica}
	s.applied.conf = &pb.ConfState{AutoLeave: new(false)}
	s.log = &groupLog{id: id, replica: replica, reader: h.engine, limit: h.cfg.CacheBytes, initialConf: s.applied.conf}
	g, err := newGroup(h.cfg, s)
	if err != nil {
		done(err)
		return
	}
	g.worker = int(id) % h.cfg.ApplyWorkers
	h.pending[id] = func() {}
	h.next.Sync = true
	h.next.ops = append(h.next.ops, writeOp{group: g, create: s, written: func() {
		h.add(g, s)
		done(nil)
	}})
}

// add begins with a replica whose records are on disk.
func (h *Host) add(g *group, s *stored) {
	delete(h.pending, g.id)
	g.preferred = h.prefer[g.id]
	h.groups[g.id] = g
	h.order = append(h.order, g)
	slices.SortFunc(h.order, func(a, b *group) int { return cmp.Compare(a.id, b.id) })
	h.task(g, &Task{kind: taskAdd, stored: s})
}

// Destroy removes this node's replica for good, if it has that number: a late order does not reach a newer one. The caller has
// made sure that the group has gone on without it. Later replicas on this node have numbers from next on, so that what is still on
// its way to the old one is never taken for the new one's. Done is called when it is gone from the disk, with [ErrNoReplica] when
// there is none, with a [RefusedError] when nothing was done.
func (h *Host) Destroy(id shard.ID, replica, next uint64, done func(error)) {
	g := h.groups[id]
	switch {
	case g == nil:
		done(ErrNoReplica)
		return
	case g.replica != replica:
		done(&RefusedError{id, fmt.Sprintf("this node has replica %d, not %d", g.replica, replica)})
		return
	case g.membership.contains(g.replica) && len(g.membership.conf.Voters) == 1:
		done(&RefusedError{id, "this is the only replica"})
		return
	case g.writing():
		done(&RefusedError{id, "the replica is writing: try again"})
		return
	}
	h.retire(g, ErrStopped, func() {
		h.next.ops = append(h.next.ops, writeOp{group: g, destroy: max(next, g.replica+1), written: func() {
			delete(h.pending, id)
			done(nil)
		}})
	})
}

// writing reports whether something is on its way from or to the disk that a replica cannot be taken away under.
func (g *group) writing() bool {
	return g.held || g.sending != nil || g.receiving != nil || g.truncating
}

// retire ends a replica, answering those who wait with err, and calls then when its machine is gone and its data at rest.
func (h *Host) retire(g *group, err error, then func()) {
	g.fail(err)
	g.retired = true
	delete(h.groups, g.id)
	h.order = slices.DeleteFunc(h.order, func(o *group) bool { return o == g })
	h.active = slices.DeleteFunc(h.active, func(o *group) bool { return o == g })
	h.pending[g.id] = func() {
		h.next.Sync = true
		then()
	}
	h.task(g, &Task{kind: taskRemove})
}

// fail answers all who wait for something of the group.
func (g *group) fail(err error) {
	for _, p := range g.queue {
		p.done(shard.Result{}, err)
	}
	for _, b := range append(g.proposed, g.logged...) {
		b.fail(ErrOutcomeUnknown)
	}
	for _, r := range slices.Concat(g.readQueue, g.readAsked, g.readWaiting) {
		r.done(shard.Result{}, err)
	}
	for _, c := range g.changes {
		c.done(ErrOutcomeUnknown)
	}
	if g.receiving != nil {
		g.receiving.staged.Abort()
		g.receiving = nil
	}
	g.queue, g.queueBytes, g.proposed, g.logged, g.readQueue, g.readAsked, g.readWaiting, g.changes = nil, 0, nil, nil, nil, nil, nil, nil
	g.isLeader, g.leadTerm = false, 0
}

// CaughtUp reports whether a member has all but the newest entries, as far as the leader knows; false off the leader.
func (h *Host) CaughtUp(id shard.ID, replica uint64) bool {
	g := h.groups[id]
	if g == nil || !g.leads() {
		return false
	}
	caughtUp := false
	g.raft.WithProgress(func(rid uint64, _ raft.ProgressType, p raftProgress) {
		if rid == replica {
			caughtUp = h.caughtUp(g, rid, p)
		}
	})
	return caughtUp
}

func (h *Host) caughtUp(g *group, replica uint64, p raftProgress) bool {
	return replica == g.replica || h.hears(g, replica) && p.State == tracker.StateReplicate && p.Match+caughtUpEntries >= g.handed
}

// caughtUpEntries is how far behind a learner may be and count as caught up: a few rounds.
const caughtUpEntries = 64

// hears reports whether a member has been heard of within two election timeouts. Raft's own Progress.RecentActive is no answer:
// it is set back for all at each check of the quorum, and says nothing in the moment after.
func (h *Host) hears(g *group, replica uint64) bool {
	at, ok := g.heardAt[replica]
	return replica == g.replica || ok && h.ticks < at+2*uint64(h.cfg.ElectionTicks)
}
