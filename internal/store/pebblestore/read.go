package pebblestore

import (
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"hanse/internal/store"
)

// iterator is a Pebble iterator whose first Next goes to the first key.
type iterator struct {
	*pebble.Iterator
	store   *Store
	started bool
}

func (it *iterator) Next() bool {
	if !it.started {
		it.started = true
		return it.First()
	}
	return it.Iterator.Next()
}

func (it *iterator) SeekGE(key []byte) bool {
	it.started = true
	if len(key) == 0 {
		return it.First()
	}
	return it.Iterator.SeekGE(key)
}

func (it *iterator) SeekLT(key []byte) bool {
	it.started = true
	return it.Iterator.SeekLT(key)
}

func (it *iterator) Close() error {
	if err := it.Iterator.Close(); err != nil {
		return fmt.Errorf("store %s: iterate: %w", it.store.dir, err)
	}
	return nil
}

// snapshot is a frozen view; after Close, and when the store was closed at its creation, view is nil.
type snapshot struct {
	store *Store
	mu    sync.RWMutex
	view  *pebble.EventuallyFileOnlySnapshot
}

// use returns why the view cannot be used, or nil; then both locks are held for reading until unuse.
func (s *snapshot) use() error {
	if err := s.store.use(); err != nil {
		return err
	}
	s.mu.RLock()
	if s.view == nil {
		s.unuse()
		return store.ErrClosed
	}
	return nil
}

func (s *snapshot) unuse() {
	s.mu.RUnlock()
	s.store.mu.RUnlock()
}

func (s *snapshot) Get(key []byte) ([]byte, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.unuse()
	return s.store.copyValue(key, s.view.Get)
}

func (s *snapshot) Iter(lo, hi []byte) (store.Iterator, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	defer s.unuse()
	return s.store.newIterator(lo, hi, s.view.NewIter)
}

func (s *snapshot) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		return store.ErrClosed
	}
	view := s.view
	s.view = nil
	if err := view.Close(); err != nil {
		return fmt.Errorf("store %s: close snapshot: %w", s.store.dir, err)
	}
	return nil
}
