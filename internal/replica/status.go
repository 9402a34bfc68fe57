package replica

import (
	"slices"

	"hanse/internal/shard"
	"hanse/internal/transport"

	"go.etcd.io/raft/v3"
)

// Status describes a replica of this node, and on the leader the others.
type Status struct {
	Shard   shard.ID
	Replica uint64
	// Member says that the replica belongs to the group as far as it knows. One that was just made does not know yet, and one
	// that was removed while it was away may not have heard of it.
	Member bool
	// Leads says that it leads and that an entry of its own term is committed, so that no earlier leader has changed members in a
	// way that Replicas does not show.
	Leads bool
	// Joint says that a change of members is half done: two majorities count. Settling says, on the leader, that they would again
	// after a crash, for too few have it on their disks that the change is done.
	Joint, Settling bool
	// Leader is the node that leads, 0 when none is known.
	Leader transport.NodeID
	Term   uint64
	// First and Last are the bounds of the log, LogBytes its size, LastTerm the term of entry Last. Commit is the last committed entry that is
	// known here, Applied the last that was applied, Durable the last that a crash would not undo.
	First, Last, LastTerm, Commit, Applied, Durable uint64
	LogBytes                                        int
	// Queued is the number of commands that wait to be proposed, Reads that of waiting reads.
	Queued, Reads int
	Replicas      []ReplicaStatus
}

// ReplicaStatus is one replica of a shard as its leader sees it; others know its place and its vote only.
type ReplicaStatus struct {
	ID    uint64
	Node  transport.NodeID
	Match uint64
	// Voter and Learner say what the replica is; in a joint configuration, what it will be. Outgoing is a voter of the old
	// half only, which is on its way out and neither of the two, or will be a learner and is not one yet.
	Voter, Learner, Outgoing bool
	// State is "leader", "probe", "replicate" or "snapshot", with "learner" before it for those; "unknown" off the leader.
	State string
	// Active says that it has been heard of within two election timeouts, CaughtUp that it has all but the newest entries too.
	Active, CaughtUp bool
}

// Status returns the status of all groups, in the order of their IDs.
func (h *Host) Status() []Status {
	all := make([]Status, 0, len(h.order))
	for _, g := range h.order {
		last, conf := g.log.last(), g.membership.conf
		s := Status{
			Shard: g.id, Replica: g.replica, Member: g.membership.contains(g.replica), Joint: len(conf.VotersOutgoing) > 0, Settling: g.unsettled,
			Leads: g.leads() && g.termBegun, Leader: g.node(g.leader), Term: g.hard.term,
			First: g.log.trunc.index + 1, Last: last, LastTerm: g.log.term(last), Commit: max(g.hard.commit, g.handed), Applied: g.applied, Durable: g.durable,
			LogBytes: g.log.bytes, Queued: len(g.queue), Reads: len(g.readQueue) + len(g.readAsked) + len(g.readWaiting),
		}
		s.Replicas = make([]ReplicaStatus, 0, len(g.membership.replicas))
		for _, r := range g.membership.replicas {
			voter := slices.Contains(conf.Voters, r.ID)
			s.Replicas = append(s.Replicas, ReplicaStatus{
				ID: r.ID, Node: r.Node, State: "unknown",
				Voter: voter, Learner: slices.Contains(conf.Learners, r.ID), Outgoing: !voter && slices.Contains(conf.VotersOutgoing, r.ID),
			})
		}
		if g.leads() {
			g.raft.WithProgress(func(id uint64, typ raft.ProgressType, p raftProgress) {
				i := slices.IndexFunc(s.Replicas, func(r ReplicaStatus) bool { return r.ID == id })
				if i < 0 {
					return
				}
				r := &s.Replicas[i]
				r.Match, r.Active, r.CaughtUp = p.Match, h.hears(g, id), h.caughtUp(g, id, p)
				switch {
				case id == g.replica:
					r.State = "leader"
				case typ == raft.ProgressTypeLearner:
					r.State = "learner " + progressName(p)
				default:
					r.State = progressName(p)
				}
			})
		}
		all = append(all, s)
	}
	return all
}

func progressName(p raftProgress) string {
	switch p.State.String() {
	case "StateProbe":
		return "probe"
	case "StateReplicate":
		return "replicate"
	}
	return "snapshot"
}
