package replica

import (
	"errors"
	"fmt"
	"slices"

	"hanse/internal/invariant"
	"hanse/internal/shard"
	"hanse/internal/store"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// groupLog is the synced log of one replica: its shape in memory, its newest entries in a cache, the rest in the store.
// It is Raft's Storage. Its content changes only after the store's has: appended when a round is written.
//
//	first ─────────────── in the store ───────────────────── last
//	                              cached ────────────────────  (bounded by bytes, immutable entries)
type groupLog struct {
	id      shard.ID
	replica uint64
	reader  store.Reader
	limit   int // bytes of the cache

	// trunc is the last entry that is not in the log any more; its term is still needed for matching.
	trunc position
	// spans are the runs of equal terms, ascending: terms only go up with the index.
	spans []position
	// sizes holds each entry's bytes, sizes[0] of entry trunc.index+1; bytes is their sum.
	sizes []uint32
	bytes int
	// cache is the newest part of the log. Raft may hold slices of it, so what is in the array is never overwritten.
	cache      []*pb.Entry
	cacheBytes int

	// initial is what Raft is told once, at the start.
	initialHard hardState
	initialConf *pb.ConfState
	// snapshot answers Raft's wish for a snapshot.
	snapshot func() (*pb.Snapshot, error)
}

func (l *groupLog) last() uint64 { return l.trunc.index + uint64(len(l.sizes)) }

func entryBytes(e *pb.Entry) int { return len(e.Data) + entryOverhead }

// append takes entries that have been written. They follow the last entry, or replace everything from their first on.
func (l *groupLog) append(entries []*pb.Entry) {
	if len(entries) == 0 {
		return
	}
	first := entries[0].GetIndex()
	invariant.Check(first > l.trunc.index && first <= l.last()+1,
		"replica %s: appending entry %d to a log of %d..%d", l.id, first, l.trunc.index+1, l.last())
	if first <= l.last() {
		l.cut(first)
	}
	for _, e := range entries {
		term, n := e.GetTerm(), entryBytes(e)
		if k := len(l.spans); k == 0 || l.spans[k-1].term != term {
			l.spans = append(l.spans, position{e.GetIndex(), term})
		}
		l.sizes = append(l.sizes, uint32(n))
		l.bytes += n
		l.cacheBytes += n
	}
	l.cache = append(l.cache, entries...)
	l.evict()
}

// cut forgets the entries from index on.
func (l *groupLog) cut(index uint64) {
	keep := int(index - l.trunc.index - 1)
	for i, n := range l.sizes[keep:] {
		l.bytes -= int(n)
		if keep+i >= len(l.sizes)-len(l.cache) {
			l.cacheBytes -= int(n)
		}
	}
	drop := min(len(l.sizes)-keep, len(l.cache))
	l.sizes = l.sizes[:keep]
	n := len(l.cache) - drop
	l.cache = l.cache[:n:n] // the next append moves to another array
	for k := len(l.spans); k > 0 && l.spans[k-1].index >= index; k-- {
		l.spans = l.spans[:k-1]
	}
}

// evict drops the oldest entries of an overfull cache. The newest stays, however large.
func (l *groupLog) evict() {
	for len(l.cache) > 1 && l.cacheBytes > l.limit {
		l.cacheBytes -= entryBytes(l.cache[0])
		l.cache = l.cache[1:]
	}
}

// truncate forgets the entries up to index. The caller has seen to it that nobody needs them.
func (l *groupLog) truncate(index uint64) {
	term := l.term(index)
	n := int(index - l.trunc.index)
	for _, size := range l.sizes[:n] {
		l.bytes -= int(size)
	}
	l.sizes = l.sizes[n:]
	if 2*len(l.sizes) < cap(l.sizes) {
		l.sizes = slices.Clone(l.sizes)
	}
	l.trunc = position{index, term}
	for len(l.cache) > len(l.sizes) {
		l.cacheBytes -= entryBytes(l.cache[0])
		l.cache = l.cache[1:]
	}
	k := 0
	for k+1 < len(l.spans) && l.spans[k+1].index <= index+1 {
		k++
	}
	l.spans = slices.Clone(l.spans[k:])
}

// reset makes the log empty behind p, as after a snapshot.
func (l *groupLog) reset(p position) {
	l.trunc, l.spans, l.sizes, l.bytes, l.cache, l.cacheBytes = p, nil, nil, 0, nil, 0
}

// suffix returns the lowest index after which the log holds at most the given entries and bytes.
func (l *groupLog) suffix(entries, bytes int) uint64 {
	i := len(l.sizes)
	for i > 0 && len(l.sizes)-i < entries {
		bytes -= int(l.sizes[i-1])
		if bytes < 0 {
			break
		}
		i--
	}
	return l.trunc.index + uint64(i)
}

// bytesTo returns the size of the entries up to index.
func (l *groupLog) bytesTo(index uint64) (sum int) {
	for _, n := range l.sizes[:index-l.trunc.index] {
		sum += int(n)
	}
	return sum
}

// term returns the term of an entry from trunc to last.
func (l *groupLog) term(index uint64) uint64 {
	if index == l.trunc.index {
		return l.trunc.term
	}
	k, found := slices.BinarySearchFunc(l.spans, index, func(s position, i uint64) int {
		switch {
		case s.index < i:
			return -1
		case s.index > i:
			return 1
		}
		return 0
	})
	if !found {
		k--
	}
	invariant.Check(k >= 0 && index <= l.last(), "replica %s: no term of entry %d in a log of %d..%d", l.id, index, l.trunc.index+1, l.last())
	return l.spans[k].term
}

// InitialState implements raft.Storage.
func (l *groupLog) InitialState() (*pb.HardState, *pb.ConfState, error) {
	return l.initialHard.proto(), l.initialConf, nil
}

// FirstIndex implements raft.Storage.
func (l *groupLog) FirstIndex() (uint64, error) { return l.trunc.index + 1, nil }

// LastIndex implements raft.Storage.
func (l *groupLog) LastIndex() (uint64, error) { return l.last(), nil }

// Term implements raft.Storage.
func (l *groupLog) Term(index uint64) (uint64, error) {
	switch {
	case index < l.trunc.index:
		return 0, raft.ErrCompacted
	case index > l.last():
		return 0, raft.ErrUnavailable
	}
	return l.term(index), nil
}

// Snapshot implements raft.Storage.
func (l *groupLog) Snapshot() (*pb.Snapshot, error) { return l.snapshot() }

// Entries implements raft.Storage: entries [lo, hi) of at most maxSize bytes, but at least one.
func (l *groupLog) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	switch {
	case lo <= l.trunc.index:
		return nil, raft.ErrCompacted
	case hi > l.last()+1:
		return nil, raft.ErrUnavailable
	}
	n, bytes := uint64(0), uint64(0)
	for i := lo; i < hi; i++ {
		bytes += uint64(l.sizes[i-l.trunc.index-1])
		if n > 0 && bytes > maxSize {
			break
		}
		n++
	}
	oldest := l.last() + 1 - uint64(len(l.cache))
	if lo < oldest {
		return readLog(l.reader, l.id, l.replica, lo, lo+n)
	}
	return l.cache[lo-oldest : lo-oldest+n : lo-oldest+n], nil
}

// readLog reads the entries [lo, hi), all of which have to be there.
func readLog(r store.Reader, id shard.ID, replica, lo, hi uint64) ([]*pb.Entry, error) {
	it, err := r.Iter(logKey(id, lo), logKey(id, hi))
	if err != nil {
		return nil, fmt.Errorf("read log of %s, entries %d..%d: %w", id, lo, hi-1, err)
	}
	entries := make([]*pb.Entry, 0, hi-lo)
	var bad error
	for index := lo; index < hi; index++ {
		key := logKey(id, index)
		if !it.Next() || string(it.Key()) != string(key) {
			bad = &CorruptError{id, index, "entry is missing"}
			break
		}
		e, reason := decodeEntry(key, index, replica, slices.Clone(it.Value()))
		if reason != "" {
			bad = &CorruptError{id, index, reason}
			break
		}
		entries = append(entries, e)
	}
	if err := errors.Join(it.Close(), bad); err != nil {
		return nil, fmt.Errorf("read log of %s, entries %d..%d: %w", id, lo, hi-1, err)
	}
	return entries, nil
}
