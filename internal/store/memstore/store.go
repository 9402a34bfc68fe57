package memstore

import (
	"bytes"
	"errors"
	"fmt"

	"hanse/internal/invariant"
	"hanse/internal/store"
)

// Store is an open [Disk], a store.Engine.
type Store struct {
	disk *Disk
	// fault is the first injected error that struck; the store answers nothing else after it.
	fault error
}

var _ store.Engine = (*Store)(nil)

// usable returns why the store cannot be used. The caller holds disk.mu.
func (s *Store) usable() error {
	if s.disk.open != s {
		return store.ErrClosed
	}
	return s.fault
}

// readable is usable, and lets an injected read error strike. The caller holds disk.mu.
func (s *Store) readable() error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.disk.failRead; err != nil {
		s.disk.failRead = nil
		s.fault = fmt.Errorf("memstore: read: %w", err)
	}
	return s.fault
}

// write changes the data by edit; whatever error comes of it stays.
func (s *Store) write(act string, sync bool, edit func(*tree)) error {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.disk.write(sync, edit); err != nil {
		s.fault = fmt.Errorf("memstore: %s: %w", act, err)
	}
	return s.fault
}

// Get returns a copy of key's value, or store.ErrNotFound.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if err := s.readable(); err != nil {
		return nil, err
	}
	return valueOf(find(s.disk.tree.root, key))
}

// valueOf returns a copy of what n holds; it is not nil, even when it is empty.
func valueOf(n *node) ([]byte, error) {
	if n == nil {
		return nil, store.ErrNotFound
	}
	return append([]byte{}, n.value...), nil
}

// Iter returns an iterator over the present state.
func (s *Store) Iter(lo, hi []byte) (store.Iterator, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if err := s.readable(); err != nil {
		return nil, err
	}
	return newIterator(s.disk.tree.retain(), lo, hi), nil
}

// NewBatch returns an empty batch.
func (s *Store) NewBatch() store.Batch { return &batch{} }

// Apply makes all of b visible at once, and with sync durable along with everything before it. An error is store.ErrClosed or an injected one.
func (s *Store) Apply(b store.Batch, sync bool) error {
	own, ok := b.(*batch)
	invariant.Check(ok, "memstore: Apply of a %T from another engine", b)
	return s.write("apply", sync, own.applyTo)
}

// Snapshot freezes the present state.
func (s *Store) Snapshot() store.Snapshot {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return &snapshot{store: s, root: s.disk.tree.retain()}
}

// Replace begins the replacement of everything in [lo, hi), which must not be empty.
func (s *Store) Replace(lo, hi []byte) (store.Replacement, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	if bytes.Compare(lo, hi) >= 0 {
		return nil, fmt.Errorf("memstore: replace of the empty span [%q, %q)", lo, hi)
	}
	return &replacement{store: s, lo: bytes.Clone(lo), hi: bytes.Clone(hi)}, nil
}

// SizeBytes returns the sum of the keys' and values' lengths in [lo, hi). It visits every one of them.
func (s *Store) SizeBytes(lo, hi []byte) (uint64, error) {
	it, err := s.Iter(lo, hi)
	if err != nil {
		return 0, err
	}
	var size uint64
	for it.Next() {
		size += uint64(len(it.Key()) + len(it.Value()))
	}
	return size, it.Close()
}

// Close makes everything durable and releases the disk, which can then be opened again. After a fault it returns the
// fault, and only [Disk.Crash] releases the disk.
func (s *Store) Close() error {
	err := s.write("sync at close", true, func(*tree) {})
	if errors.Is(err, store.ErrClosed) {
		return err
	}
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if err == nil {
		s.disk.open = nil
	}
	return err
}

// snapshot is one version of the data.
type snapshot struct {
	store  *Store
	root   *node
	closed bool
}

// readable returns why the snapshot cannot be read. The caller holds disk.mu.
func (s *snapshot) readable() error {
	if s.closed {
		return store.ErrClosed
	}
	return s.store.readable()
}

func (s *snapshot) Get(key []byte) ([]byte, error) {
	s.store.disk.mu.Lock()
	defer s.store.disk.mu.Unlock()
	if err := s.readable(); err != nil {
		return nil, err
	}
	return valueOf(find(s.root, key))
}

func (s *snapshot) Iter(lo, hi []byte) (store.Iterator, error) {
	s.store.disk.mu.Lock()
	defer s.store.disk.mu.Unlock()
	if err := s.readable(); err != nil {
		return nil, err
	}
	return newIterator(s.root, lo, hi), nil
}

func (s *snapshot) Close() error {
	s.store.disk.mu.Lock()
	defer s.store.disk.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	s.closed, s.root = true, nil
	return nil
}
