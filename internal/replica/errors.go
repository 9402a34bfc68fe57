package replica

import (
	"errors"
	"fmt"

	"hanse/internal/shard"
	"hanse/internal/transport"
)

var (
	// ErrBusy says that a bounded queue was full. Nothing happened; retry later.
	ErrBusy = errors.New("replica: queue full")
	// ErrTimeout says that the deadline passed before the request was proposed or read. Nothing happened.
	ErrTimeout = errors.New("replica: deadline passed before the request was taken up")
	// ErrOutcomeUnknown says that the command was proposed and may or may not be applied, now or
	// later. Retry it with the same idempotency key.
	ErrOutcomeUnknown = errors.New("replica: outcome unknown")
	// ErrTooLarge says that a command exceeds shard.MaxCommandBytes. Nothing happened, and never will.
	ErrTooLarge = errors.New("replica: command too large")
	// ErrStopped says that the node or the replica has stopped. Nothing happened.
	ErrStopped = errors.New("replica: stopped")
	// ErrNoReplica says that this node has no replica of the shard. Nothing happened.
	ErrNoReplica = errors.New("replica: shard not on this node")
)

// NotLeaderError says that this replica cannot serve because it does not lead. The command is not in the
// log, or will never be applied; a retry elsewhere is safe.
type NotLeaderError struct {
	Shard shard.ID
	// Leader is the node that leads as far as this replica knows, 0 when it knows none.
	Leader transport.NodeID
	// Term is the term of this knowledge.
	Term uint64
}

func (e *NotLeaderError) Error() string {
	if e.Leader == 0 {
		return fmt.Sprintf("replica: shard %s has no known leader in term %d", e.Shard, e.Term)
	}
	return fmt.Sprintf("replica: shard %s is led by node %d in term %d", e.Shard, e.Leader, e.Term)
}

// RefusedError says why a change of membership or leadership was not begun. Nothing happened.
type RefusedError struct {
	Shard  shard.ID
	Reason string
}

func (e *RefusedError) Error() string { return fmt.Sprintf("replica: shard %s: %s", e.Shard, e.Reason) }

// OldCopyError says that a replica's log ends before what it has acknowledged: the node's directory is an old copy, or its disk
// loses what it has synced. The node has forgotten votes as well, so it must not take part any more; it has to be replaced.
type OldCopyError struct {
	Shard shard.ID
	// Last is the end of the log, Acknowledged an entry that the leader knows this replica to have had.
	Last, Acknowledged uint64
}

func (e *OldCopyError) Error() string {
	return fmt.Sprintf("replica: shard %s: the log ends at %d and has been acknowledged up to %d: the data directory is an old copy, replace the node", e.Shard, e.Last, e.Acknowledged)
}

// CorruptError says that a group's stored data contradicts itself. The replica has to be rebuilt
// under a new number; its data is left as it is.
type CorruptError struct {
	Shard shard.ID
	// Index is the log index where the contradiction showed, 0 when it is not about an entry.
	Index  uint64
	Reason string
}

func (e *CorruptError) Error() string {
	if e.Index == 0 {
		return fmt.Sprintf("replica: shard %s is corrupt: %s", e.Shard, e.Reason)
	}
	return fmt.Sprintf("replica: shard %s is corrupt at log index %d: %s", e.Shard, e.Index, e.Reason)
}
