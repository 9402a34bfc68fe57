package replica

import (
	"hanse/internal/shard"
	"hanse/internal/store"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Write is a round: what all groups have to write, as one batch. At most one is in flight.
type Write struct {
	// Sync says that something in it must not be lost once messages have been sent.
	Sync bool
	ops  []writeOp
	// flushed is, by group, the state that the store had when the round was handed out: a sync makes it durable.
	flushed []flushedState
}

type flushedState struct {
	group *group
	index uint64
}

// writeOp is one group's part of a round.
type writeOp struct {
	group *group
	// ready says that the group's Ready is released when the round is written.
	ready bool
	// entries follow the log or replace its end; what lies above them up to oldLast goes.
	entries []*pb.Entry
	oldLast uint64
	// hard is written when writeHard is set.
	hard      hardState
	writeHard bool
	// The entries from truncFrom to trunc.index go, unless truncFrom is 0.
	truncFrom uint64
	trunc     position
	// install, when set, replaces everything that the replica has; it is not part of the batch. The entries follow it.
	install *Received
	// create is a new replica, destroy removes one for good: later ones have numbers from destroy on. Recover gives one another
	// number.
	create  *stored
	destroy uint64
	recover *recovery
	// written is called when it is.
	written func()
}

// Execute applies the round to the engine. A failure is final: the page that was not written may be lost
// even if a retry says otherwise.
func (w *Write) Execute(e store.Engine) error {
	b := e.NewBatch()
	defer b.Close()
	w.fill(b)
	if !b.Empty() {
		if err := e.Apply(b, w.Sync); err != nil {
			return err
		}
	}
	for i := range w.ops {
		if op := &w.ops[i]; op.install != nil {
			if err := op.installOn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// installOn replaces the replica, and then writes the entries that the leader has sent after the snapshot.
func (op *writeOp) installOn(e store.Engine) error {
	hard := op.hard
	hard.commit = min(hard.commit, op.install.state.index) // until the entries are there
	if err := op.install.commit(hard); err != nil || len(op.entries) == 0 {
		return err
	}
	b := e.NewBatch()
	defer b.Close()
	setLog(b, op.group.id, op.group.replica, op.entries, nil)
	key := hardKey(op.group.id)
	b.Set(key, encodeHard(key, op.group.replica, op.hard))
	return e.Apply(b, true)
}

func (w *Write) fill(b store.Batch) {
	var record []byte
	for i := range w.ops {
		op := &w.ops[i]
		id, replica := op.group.id, op.group.replica
		if op.destroy > 0 {
			lo, hi := groupSpan(id)
			b.DeleteRange(lo, hi)
			b.Delete(nodeKey(replicaPrefix, id))
			key := nodeKey(tombstonePrefix, id)
			b.Set(key, encodeNumber(key, op.destroy))
			continue
		}
		if op.recover != nil {
			op.recover.fill(b)
			continue
		}
		if op.create != nil {
			lo, hi := groupSpan(id)
			b.DeleteRange(lo, hi)
			writeNewReplica(b, id, replica, &op.create.applied)
		}
		if op.truncFrom > 0 {
			b.DeleteRange(logKey(id, op.truncFrom), logKey(id, op.trunc.index+1))
			key := truncKey(id)
			b.Set(key, encodePosition(key, op.trunc))
		}
		if op.install != nil {
			continue
		}
		record = setLog(b, id, replica, op.entries, record)
		// Left behind, entries of a beaten leader would follow the new ones after a restart.
		if n := len(op.entries); n > 0 {
			if last := op.entries[n-1].GetIndex(); last < op.oldLast {
				b.DeleteRange(logKey(id, last+1), logKey(id, op.oldLast+1))
			}
		}
		if op.writeHard {
			key := hardKey(id)
			b.Set(key, encodeHard(key, replica, op.hard))
		}
	}
}

// setLog adds log entries of a replica to a batch. Record is scratch.
func setLog(b store.Batch, id shard.ID, replica uint64, entries []*pb.Entry, record []byte) []byte {
	for _, e := range entries {
		key := logKey(id, e.GetIndex())
		record = encodeEntry(record[:0], key, replica, e)
		b.Set(key, record)
	}
	return record
}

// Groups returns the number of parts, Entries the number of log entries in the round.
func (w *Write) Groups() int { return len(w.ops) }

// Entries returns the number of log entries in the round.
func (w *Write) Entries() (n int) {
	for i := range w.ops {
		n += len(w.ops[i].entries)
	}
	return n
}
