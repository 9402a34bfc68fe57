package pebblestore

import (
	"bytes"

	"github.com/cockroachdb/pebble/v2"

	"hanse/internal/invariant"
	"hanse/internal/store"
)

// batch adds checks to a Pebble batch. Keys and values are copied once, into the form that the log gets.
type batch struct {
	// b is nil once the batch is closed: Pebble reuses it, and closing it twice would take it from its next user.
	b *pebble.Batch
}

func (b *batch) Set(key, value []byte) {
	invariant.Check(len(key) > 0 && len(key) <= store.MaxKeyBytes, "store: key of %d bytes, want 1 to %d", len(key), store.MaxKeyBytes)
	invariant.Check(len(value) <= store.MaxValueBytes, "store: value of %d bytes, want at most %d", len(value), store.MaxValueBytes)
	must(b.b.Set(key, value, nil))
}

func (b *batch) Delete(key []byte) { must(b.b.Delete(key, nil)) }

func (b *batch) DeleteRange(lo, hi []byte) {
	c := bytes.Compare(lo, hi)
	invariant.Check(c <= 0, "store: delete of the range [%q, %q)", lo, hi)
	if c < 0 {
		must(b.b.DeleteRange(lo, hi, nil))
	}
}

// must checks an error that Pebble's signature has and its code never returns.
func must(err error) { invariant.Check(err == nil, "pebblestore: change of a batch: %v", err) }

func (b *batch) Len() int    { return b.b.Len() }
func (b *batch) Empty() bool { return b.b.Empty() }

func (b *batch) Close() {
	if b.b != nil {
		must(b.b.Close())
		b.b = nil
	}
}
