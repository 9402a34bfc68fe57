package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"hanse/internal/invariant"
	"hanse/internal/store"
)

// Store is an open directory, a store.Engine.
type Store struct {
	cfg      Config
	dir      string
	fs       vfs.FS
	incoming string
	db       *pebble.DB
	// acquired is released last to first, after db.
	acquired []io.Closer
	// writerOptions make tables that db can ingest.
	writerOptions sstable.WriterOptions
	// incomingFiles numbers the files of replacements.
	incomingFiles atomic.Uint64

	// mu is held for reading by every use of db and for writing by Close, for Pebble panics when used after it.
	mu     sync.RWMutex
	closed bool

	fault   atomic.Pointer[error]
	stalled atomic.Bool
	stalls  atomic.Uint64
	syncs   syncTimes
}

var _ store.Engine = (*Store)(nil)

// use returns what ends a use of db, or why db cannot be used.
func (s *Store) use() error {
	s.mu.RLock()
	err := s.faulted()
	if s.closed {
		err = store.ErrClosed
	}
	if err != nil {
		s.mu.RUnlock()
	}
	return err
}

// Get returns a copy of key's value, or store.ErrNotFound.
func (s *Store) Get(key []byte) ([]byte, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	return s.copyValue(key, s.db.Get)
}

// copyValue returns a copy of the value that get gives for key; it is not nil, even when it is empty.
func (s *Store) copyValue(key []byte, get func([]byte) ([]byte, io.Closer, error)) ([]byte, error) {
	value, closer, err := get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("store %s: get key %q: %w", s.dir, key, err)
	}
	v := append(make([]byte, 0, len(value)), value...)
	if err := closer.Close(); err != nil {
		return nil, fmt.Errorf("store %s: get key %q: %w", s.dir, key, err)
	}
	return v, nil
}

// Iter returns an iterator over the present state.
func (s *Store) Iter(lo, hi []byte) (store.Iterator, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	return s.newIterator(lo, hi, s.db.NewIter)
}

func (s *Store) newIterator(lo, hi []byte, newIter func(*pebble.IterOptions) (*pebble.Iterator, error)) (store.Iterator, error) {
	// With the race detector Pebble checks itself, and wants bounds that have a byte and are in order.
	if len(lo) == 0 {
		lo = nil
	}
	if len(hi) == 0 {
		hi = nil
	}
	if hi != nil && bytes.Compare(lo, hi) > 0 {
		hi = lo
	}
	it, err := newIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return nil, fmt.Errorf("store %s: iterate over [%q, %q): %w", s.dir, lo, hi, err)
	}
	return &iterator{Iterator: it, store: s}, nil
}

// NewBatch returns an empty batch.
func (s *Store) NewBatch() store.Batch { return &batch{s.db.NewBatch()} }

// Apply makes all of b visible at once, and with sync durable along with everything before it. An error other than store.ErrClosed is a fault.
func (s *Store) Apply(b store.Batch, sync bool) error {
	if err := s.use(); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	own, ok := b.(*batch)
	invariant.Check(ok, "pebblestore: Apply of a %T from another engine", b)
	if !sync {
		s.commit(func() error { return s.db.Apply(own.b, pebble.NoSync) })
		return s.faulted()
	}
	if own.Empty() {
		return s.syncLog()
	}
	watch := s.watchSync()
	s.commit(func() error { return s.db.Apply(own.b, pebble.Sync) })
	s.syncs.add(watch.stop())
	return s.faulted()
}

// syncLog makes everything before it durable.
func (s *Store) syncLog() error {
	watch := s.watchSync()
	s.commit(func() error { return s.db.LogData(nil, pebble.Sync) })
	s.syncs.add(watch.stop())
	return s.faulted()
}

// commit runs a write to the log, all of whose failures are faults.
func (s *Store) commit(write func() error) {
	if err := s.guard(write); err != nil {
		s.fail(fmt.Errorf("write: %w", err))
	}
}

// guard runs a write. Pebble reports some failures through its logger, some by a panic, some as an error. A panic
// may leave its locks held, so it is a fault.
func (s *Store) guard(write func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			cause, ok := p.(error)
			if !ok {
				cause = fmt.Errorf("%v", p)
			}
			s.fail(fmt.Errorf("write: %w", cause))
			err = s.faulted()
		}
	}()
	return write()
}

// Snapshot freezes the present state.
func (s *Store) Snapshot() store.Snapshot {
	if err := s.use(); err != nil {
		return &snapshot{store: s}
	}
	defer s.mu.RUnlock()
	// A plain snapshot would lose what a replacement excises. This kind holds on to the files instead, and so does
	// not make compactions keep old versions either, once the memtables of its time are flushed.
	return &snapshot{store: s, view: s.db.NewEventuallyFileOnlySnapshot([]pebble.KeyRange{{Start: []byte{}, End: pastEnd}})}
}

// pastEnd is greater than any key.
var pastEnd = bytes.Repeat([]byte{0xff}, store.MaxKeyBytes+1)

// SizeBytes estimates the bytes of the tables' parts in [lo, hi). It does not know what is still in the memtables.
func (s *Store) SizeBytes(lo, hi []byte) (uint64, error) {
	if err := s.use(); err != nil {
		return 0, err
	}
	defer s.mu.RUnlock()
	if len(hi) == 0 {
		hi = pastEnd
	}
	if bytes.Compare(lo, hi) >= 0 {
		return 0, nil
	}
	n, err := s.db.EstimateDiskUsage(lo, hi)
	if err != nil {
		return 0, fmt.Errorf("store %s: estimate the size of [%q, %q): %w", s.dir, lo, hi, err)
	}
	return n, nil
}

// Replace begins the replacement of everything in [lo, hi), which must not be empty.
func (s *Store) Replace(lo, hi []byte) (store.Replacement, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	if bytes.Compare(lo, hi) >= 0 {
		return nil, fmt.Errorf("store %s: replace of the empty span [%q, %q)", s.dir, lo, hi)
	}
	return &replacement{store: s, lo: bytes.Clone(lo), hi: bytes.Clone(hi)}, nil
}

// Close syncs what is unsynced, waits for the background jobs and releases the directory. After a fault it
// returns the fault and releases nothing: Pebble may be stuck where the fault struck it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	if err := s.faulted(); err != nil {
		return err
	}
	if err := s.syncLog(); err != nil {
		return err
	}
	s.closed = true
	if err := s.release(); err != nil {
		return fmt.Errorf("close store %s: %w", s.dir, err)
	}
	return s.faulted()
}

// release closes db and gives back what Open acquired.
func (s *Store) release() error {
	var problems []error
	if s.db != nil {
		problems = append(problems, s.db.Close())
	}
	for len(s.acquired) > 0 {
		last := len(s.acquired) - 1
		problems = append(problems, s.acquired[last].Close())
		s.acquired = s.acquired[:last]
	}
	return errors.Join(problems...)
}

// excise replaces the span by the tables at paths, in one step that is durable when it returns.
func (s *Store) excise(lo, hi []byte, paths []string) error {
	span := pebble.KeyRange{Start: lo, End: hi}
	return s.guard(func() error {
		if len(paths) == 0 {
			return s.db.Excise(context.Background(), span)
		}
		_, err := s.db.IngestAndExcise(context.Background(), paths, nil, nil, span)
		return err
	})
}
