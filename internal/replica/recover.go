package replica

import (
	"fmt"
	"slices"

	"hanse/internal/shard"
	"hanse/internal/store"

	pb "go.etcd.io/raft/v3/raftpb"
)

// recovery is a replica that goes on alone under another number.
type recovery struct {
	id      shard.ID
	replica uint64
	state   appliedState // what the store has, with the new membership
	entries []*pb.Entry  // from there to the end of the log
	hard    hardState
}

// recoveryTerms is how far the term of a recovered group is above all that its replica knew of, so that nothing the lost ones have
// said in terms it has not heard of is taken for newer.
const recoveryTerms = 1 << 20

// Recover makes this node's replica the only voter of its group, under a number above any that was used, after the majority of its
// replicas was lost for good. All that is in its log counts as committed from then on, also what may never have been; what only the
// lost replicas had is lost. Of the survivors the one with the greatest Status.LastTerm and then Last is to be chosen.
//
// Done is called when it is on disk, in one synced write, or with a [RefusedError] or [ErrNoReplica] when nothing was done; asking
// again does no harm. Those who wait for the old replica are answered as when a leader is lost. Replicas of the old group do not
// reach the new one and cannot join it, but a majority of them that came back would go on as before: they have to be destroyed.
func (h *Host) Recover(id shard.ID, number uint64, done func(error)) {
	g := h.groups[id]
	if g == nil {
		done(ErrNoReplica)
		return
	}
	if g.replica == number {
		done(nil)
		return
	}
	lowest, err := tombstone(h.engine, id)
	if err != nil {
		done(err)
		return
	}
	if reason := g.refusesRecovery(number, lowest); reason != "" {
		done(&RefusedError{id, reason})
		return
	}
	h.retire(g, g.notLeader(), func() {
		r, err := h.recovery(g, number)
		if err != nil {
			h.broken = err // the machine is gone, and the replica cannot go on without
			done(err)
			return
		}
		h.next.ops = append(h.next.ops, writeOp{group: g, recover: r, written: func() { done(h.recovered(g, number)) }})
	})
}

func (g *group) refusesRecovery(number, lowest uint64) string {
	known := max(g.replica, lowest-1)
	for _, r := range slices.Concat(g.membership.replicas, g.heard) {
		known = max(known, r.ID)
	}
	switch {
	case number <= known:
		return fmt.Sprintf("number %d may have been used, want one above %d", number, known)
	case g.log.trunc.index == 0:
		return "the replica has never had any state"
	case g.leads(), g.leader != 0 && slices.Contains(g.membership.conf.Voters, g.replica): // a learner never forgets a leader
		return "the group has a leader: its majority is not lost"
	case g.writing():
		return "the replica is writing: try again"
	}
	return ""
}

// recovery gathers what is to be written. Changes of members in the log do not count: they would bring the lost ones back.
func (h *Host) recovery(g *group, number uint64) (*recovery, error) {
	key := appliedKey(g.id)
	v, err := h.engine.Get(key)
	if err != nil {
		return nil, fmt.Errorf("recover %s: %w", g.id, err)
	}
	r := &recovery{id: g.id, replica: number}
	var reason string
	if r.state, reason = decodeApplied(key, v); reason != "" {
		return nil, &CorruptError{g.id, 0, "applied state: " + reason}
	}
	last := g.log.last()
	entries, err := readLog(h.engine, g.id, g.replica, r.state.index+1, last+1)
	if err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
	for i, e := range entries {
		if e.GetType() != pb.EntryNormal {
			entries[i] = &pb.Entry{Index: new(e.GetIndex()), Term: new(e.GetTerm()), Type: pb.EntryNormal.Enum()}
		}
	}
	r.entries = entries
	r.state.membership = membership{&pb.ConfState{Voters: []uint64{number}, AutoLeave: new(false)}, []Replica{{number, h.cfg.Node}}}
	r.hard = hardState{term: max(g.hard.term, g.log.term(last)) + recoveryTerms, commit: last}
	return r, nil
}

// fill puts everything but the state itself into a batch: it stays as it is.
func (r *recovery) fill(b store.Batch) {
	b.DeleteRange(groupKey(r.id, "l/"), groupKey(r.id, "l0"))
	writeNewReplica(b, r.id, r.replica, &r.state)
	setLog(b, r.id, r.replica, r.entries, nil)
	key := hardKey(r.id)
	b.Set(key, encodeHard(key, r.replica, r.hard))
}

// recovered begins with what is on disk now, as a restart would, and leads.
func (h *Host) recovered(old *group, number uint64) error {
	s := &stored{id: old.id, replica: number}
	if err := s.load(h.engine, h.cfg.CacheBytes); err != nil {
		h.broken = err
		return err
	}
	g, err := newGroup(h.cfg, s)
	if err != nil {
		h.broken = err
		return err
	}
	g.worker = old.worker
	h.add(g, s)
	_ = g.raft.Campaign() // refused while what is committed is not applied: the timeout brings the next
	h.touch(g)
	return nil
}

// oldCopy returns an [OldCopyError] for a message which shows that this replica has acknowledged more than it has. A leader tells
// a follower no commit index above what that has acknowledged to it, and what is committed is never cut from a log.
func (g *group) oldCopy(m *pb.Message) error {
	if last := g.log.last(); m.GetType() == pb.MsgHeartbeat && m.GetCommit() > last {
		return &OldCopyError{Shard: g.id, Last: last, Acknowledged: m.GetCommit()}
	}
	return nil
}
