package replica

import (
	"slices"

	"hanse/internal/shard"
	"hanse/internal/transport"

	pb "go.etcd.io/raft/v3/raftpb"
)

// SnapshotWindow is how many chunks of a snapshot may be on their way.
const SnapshotWindow = snapshotWindow

// Entries returns the committed entries that a task applies, nil for other tasks and for those that the applier reads
// from the log when it comes to them.
func (t *Task) Entries() []*pb.Entry { return t.entries }

// Members calls yield for each membership that a task brings into force, with the index of its entry and its encoding, which is
// the same on all replicas.
func (t *Task) Members(yield func(index uint64, encoded []byte)) {
	for _, m := range t.members {
		a := appliedState{membership: m.membership}
		yield(m.index, a.content())
	}
}

// Machine returns the state machine of a group that this applier runs and the index it stands at; nil when it has none, or
// when its state is being replaced. It is to be looked at between two calls of the applier.
func (a *Applier) Machine(id shard.ID) (m shard.Machine, index uint64) {
	r := a.replicas[id]
	if r == nil {
		return nil, 0
	}
	return r.machine, r.state.index
}

// Leader returns the node that leads a group as far as the replica here knows, 0 for none.
func (h *Host) Leader(id shard.ID) transport.NodeID {
	g := h.groups[id]
	if g == nil {
		return 0
	}
	return g.node(g.leader)
}

// Leads reports whether the replica here leads its group.
func (h *Host) Leads(id shard.ID) bool {
	g := h.groups[id]
	return g != nil && g.leads()
}

// IsSnapshotAnswer tells an answer to a chunk of a snapshot from a chunk.
func IsSnapshotAnswer(m *transport.Message) bool {
	return len(m.Body) > 0 && (m.Body[0] == chunkAck || m.Body[0] == chunkNo)
}

// IsLastChunk tells the piece of a snapshot that says where its state stands from those with rows.
func IsLastChunk(m *transport.Message) bool { return len(m.Body) > 0 && m.Body[0] == chunkLast }

// Members returns the members of a group as this node's replica knows them, nil when it has none.
func (h *Host) Members(id shard.ID) []Replica {
	g := h.groups[id]
	if g == nil {
		return nil
	}
	return g.membership.replicas
}

// IsLearner reports whether a member has no vote.
func (h *Host) IsLearner(id shard.ID, replica uint64) bool {
	g := h.groups[id]
	return g != nil && slices.Contains(g.membership.conf.Learners, replica)
}

// Replica returns the number of this node's replica of a group, 0 when it has none.
func (h *Host) Replica(id shard.ID) uint64 {
	g := h.groups[id]
	if g == nil {
		return 0
	}
	return g.replica
}
