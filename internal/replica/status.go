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
	// Leader is the node that leads, 0 when none is known.
	Leader transport.NodeID
	Term   uint64
	// First and Last are the bounds of the log, LogBytes its size. Commit is the last committed entry that is
	// known here, Applied the last that was applied, Durable the last that a crash would not undo.
	First, Last, Commit, Applied, Durable uint64
	LogBytes                              int
	// Queued is the number of commands that wait to be proposed, Reads that of waiting reads.
	Queued, Reads int
	Replicas      []ReplicaStatus
}

// ReplicaStatus is one replica of a shard as its leader sees it; others know its place only.
type ReplicaStatus struct {
	ID    uint64
	Node  transport.NodeID
	Match uint64
	// State is "leader", "probe", "replicate" or "snapshot", with "learner" before it for those; "unknown" off the leader.
	State  string
	Active bool
}

// Status returns the status of all groups, in the order of their IDs.
func (h *Host) Status() []Status {
	all := make([]Status, 0, len(h.order))
	for _, g := range h.order {
		s := Status{
			Shard: g.id, Replica: g.replica, Leader: g.node(g.leader), Term: g.hard.term,
			First: g.log.trunc.index + 1, Last: g.log.last(), Commit: max(g.hard.commit, g.handed), Applied: g.applied, Durable: g.durable,
			LogBytes: g.log.bytes, Queued: len(g.queue), Reads: len(g.readQueue) + len(g.readAsked) + len(g.readWaiting),
		}
		for _, r := range g.membership.replicas {
			s.Replicas = append(s.Replicas, ReplicaStatus{ID: r.ID, Node: r.Node, State: "unknown"})
		}
		if g.leads() {
			g.raft.WithProgress(func(id uint64, typ raft.ProgressType, p raftProgress) {
				i := slices.IndexFunc(s.Replicas, func(r ReplicaStatus) bool { return r.ID == id })
				if i < 0 {
					return
				}
				r := &s.Replicas[i]
				r.Match, r.Active = p.Match, p.RecentActive
				switch {
				case id == g.replica:
					r.State, r.Active = "leader", true
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
