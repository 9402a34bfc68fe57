package transport

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// MaxRaftBytes bounds what a Raft message carries in entries and snapshot; a larger one is dropped and
// counted by the sender. Twice MaxBodyBytes, because Raft sends one oversized entry rather than none.
const MaxRaftBytes = 2 * MaxBodyBytes

// QueueBytes is the default bound of the queue for one peer, for each class. Raft and snapshots recover from
// a dropped message by themselves, so their queues hold about a second of a fast link; callers of requests would
// see each drop as an error, so theirs is the largest.
var QueueBytes = [Classes]int{Raft: 16 << 20, Call: 64 << 20, Bulk: 16 << 20}

var classNames = [Classes]string{Raft: "raft", Call: "call", Bulk: "bulk"}

// String returns the lower-case name, which labels metrics and status pages.
func (c Class) String() string {
	if c < Classes {
		return classNames[c]
	}
	return fmt.Sprintf("class%d", uint8(c))
}

// SizeBytes estimates what m occupies in a queue: what it carries plus 64 bytes for the rest, so that a
// flood of empty messages is bounded too.
func (m *Message) SizeBytes() int {
	size := 64 + len(m.Body)
	if m.Raft != nil {
		size += len(m.Raft.Context) + len(m.Raft.GetSnapshot().GetData())
		for _, e := range m.Raft.Entries {
			size += 16 + len(e.Data)
		}
	}
	return size
}

// Check reports why m cannot travel. Senders drop what it refuses, and receivers close the stream it came by: the
// peer is broken or is not one of ours. Raft does not check most of this itself. A heartbeat response with 1 to 7 bytes of Context
// makes raft 3.7 panic, and a message for another replica would be taken as its own.
func (m *Message) Check() error {
	switch m.Kind {
	case KindRaft:
		if len(m.Body) > 0 {
			return fmt.Errorf("raft message with a body of %d bytes", len(m.Body))
		}
		return m.checkRaft()
	case KindRequest, KindResponse, KindSnapshot, KindHeartbeat, KindHeartbeatAnswer:
		if m.Raft != nil {
			return fmt.Errorf("message of kind %d carries a raft message", m.Kind)
		}
		if len(m.Body) > MaxBodyBytes {
			return fmt.Errorf("body of %d bytes, the most is %d", len(m.Body), MaxBodyBytes)
		}
		return nil
	}
	return fmt.Errorf("unknown message kind %d", m.Kind)
}

func (m *Message) checkRaft() error {
	r := m.Raft
	if r == nil {
		return fmt.Errorf("raft message of group %d is empty", m.Group)
	}
	if m.Group == 0 || m.FromReplica == 0 || m.ToReplica == 0 {
		return fmt.Errorf("raft message for replica %d of group %d from replica %d: none may be 0",
			m.ToReplica, m.Group, m.FromReplica)
	}
	if r.GetFrom() != m.FromReplica || r.GetTo() != m.ToReplica {
		return fmt.Errorf("raft message from %d to %d in an envelope from %d to %d",
			r.GetFrom(), r.GetTo(), m.FromReplica, m.ToReplica)
	}
	kind := r.GetType()
	if _, known := raftpb.MessageType_name[int32(kind)]; !known || raft.IsLocalMsg(kind) {
		return fmt.Errorf("raft message type %d does not travel between nodes", int32(kind))
	}
	if n := len(r.Context); kind == raftpb.MsgHeartbeatResp && n != 0 && n != 8 {
		return fmt.Errorf("heartbeat response with %d bytes of context, want 0 or 8", n)
	}
	if len(r.Responses) > 0 {
		return fmt.Errorf("raft message with %d local responses", len(r.Responses))
	}
	if size := m.SizeBytes(); size > MaxRaftBytes {
		return fmt.Errorf("raft message of %d bytes, the most is %d", size, MaxRaftBytes)
	}
	return nil
}
