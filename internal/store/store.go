// Package store is the contract of a node's storage engine: an ordered map of bytes with atomic
// batches, of which a synced one makes everything before it durable too.
//
//	        batch (not synced)   batch (synced)
//	───────────●───────────────────●──────────────▶ one write-ahead log
//	                               └── from here both survive a crash
//
// One engine serves all replicas of a node: their Raft logs, hard states and applied state lie side by
// side under disjoint key prefixes, so that one sync covers them all and a replica is one key span.
// store/pebblestore is for production, store/memstore for tests and the simulator; both
// pass store/storetest.
//
// Keys compare bytewise. No key is longer than MaxKeyBytes, no value than MaxValueBytes. Slices passed
// in are copied, slices handed out belong to the caller unless a method says otherwise.
package store

import "errors"

const (
	// MaxKeyBytes bounds a key.
	MaxKeyBytes = 4 << 10
	// MaxValueBytes bounds a value; the largest is a Raft entry.
	MaxValueBytes = 8 << 20
)

// ErrNotFound says that a key has no value.
var ErrNotFound = errors.New("store: not found")

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("store: closed")

// Reader reads a consistent state. An error other than [ErrNotFound] and [ErrClosed] is a fault of the disk or of its
// contents: the node has to stop.
type Reader interface {
	// Get returns a copy of key's value, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Iter returns an iterator over the keys in [lo, hi), positioned before the first. A nil hi means
	// no upper bound. It sees the state at its creation, whatever is written later.
	Iter(lo, hi []byte) (Iterator, error)
}

// Iterator walks over a key range. It is used by one goroutine and must be closed.
//
//	for it.Next() { use(it.Key(), it.Value()) }
//	err := it.Close()
type Iterator interface {
	// Next moves to the next key in ascending order, first to the first, and reports whether there is one.
	Next() bool
	// SeekLT moves to the last key below key that lies in the range, and reports whether there is one.
	SeekLT(key []byte) bool
	// SeekGE moves to the first key at or after key that lies in the range, and reports whether there is one.
	SeekGE(key []byte) bool
	// Key returns the current key; it is valid until the next move.
	Key() []byte
	// Value returns the current value; it is valid until the next move.
	Value() []byte
	// Close releases the iterator and returns the fault, if any, that ended it early.
	Close() error
}

// Batch collects changes that are applied together, later ones overriding earlier ones. Not for concurrent use.
type Batch interface {
	Set(key, value []byte)
	Delete(key []byte)
	// DeleteRange deletes all keys in [lo, hi).
	DeleteRange(lo, hi []byte)
	// Len returns the batch's size in bytes, for bounding it.
	Len() int
	// Empty reports whether the batch holds no change.
	Empty() bool
	// Close releases the batch. A batch may be closed after Apply, or instead of it.
	Close()
}

// Snapshot is a frozen view. It must be closed soon: it keeps deleted data on disk.
type Snapshot interface {
	Reader
	Close() error
}

// Engine is one node's storage. All methods may be used concurrently.
type Engine interface {
	Reader
	// NewBatch returns an empty batch of this engine.
	NewBatch() Batch
	// Apply makes all of b visible at once. With sync it returns only when b, and every batch applied
	// before it, is on disk. Without sync b may be lost in a crash, but never a part of it, and
	// never an earlier batch while a later one is kept. After an error the
	// engine must not be used any more: a failed sync may have lost data even if a retry succeeds.
	Apply(b Batch, sync bool) error
	// Snapshot freezes the present state.
	Snapshot() Snapshot
	// Replace begins the replacement of everything in [lo, hi) by new content, of any size.
	Replace(lo, hi []byte) (Replacement, error)
	// SizeBytes estimates the bytes on disk of [lo, hi).
	SizeBytes(lo, hi []byte) (uint64, error)
	// Close flushes what is unsynced and releases the engine. Open iterators and snapshots must be closed before.
	Close() error
}

// Replacement collects the new content of a span. Nothing of it is visible before Commit; abandoned
// ones leave nothing behind, not even after a crash and reopening. Not for concurrent use.
type Replacement interface {
	// Add adds a pair; keys must be in the span and strictly ascending.
	Add(key, value []byte) error
	// Commit atomically and durably replaces the span: after a crash it is wholly old or wholly new.
	Commit() error
	// Abort discards what was added. It may be called after Commit, and then does nothing.
	Abort()
}
