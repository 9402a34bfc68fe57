package memstore

import (
	"bytes"
	"fmt"

	"hanse/internal/invariant"
	"hanse/internal/store"
)

// operation is one change of a batch; its bytes go into the tree as they are.
type operation struct {
	kind operationKind
	// key and value of a set, key of a delete, key and end of a range in key and value.
	key, value []byte
}

type operationKind uint8

const (
	opSet operationKind = iota
	opDelete
	opDeleteRange
)

// operationBytes is what an operation costs in a batch besides its key and value; about Pebble's figure.
const operationBytes = 8

type batch struct {
	operations []operation
	bytes      int
}

func (b *batch) Set(key, value []byte) {
	invariant.Check(len(key) > 0 && len(key) <= store.MaxKeyBytes, "store: key of %d bytes, want 1 to %d", len(key), store.MaxKeyBytes)
	invariant.Check(len(value) <= store.MaxValueBytes, "store: value of %d bytes, want at most %d", len(value), store.MaxValueBytes)
	b.add(opSet, key, value)
}

func (b *batch) Delete(key []byte) { b.add(opDelete, key, nil) }

func (b *batch) DeleteRange(lo, hi []byte) {
	invariant.Check(bytes.Compare(lo, hi) <= 0, "store: delete of the range [%q, %q)", lo, hi)
	b.add(opDeleteRange, lo, hi)
}

func (b *batch) add(kind operationKind, key, value []byte) {
	// One allocation holds both; neither can grow into the other.
	both := make([]byte, len(key)+len(value))
	n := copy(both, key)
	copy(both[n:], value)
	b.operations = append(b.operations, operation{kind, both[:n:n], both[n:]})
	b.bytes += len(both) + operationBytes
}

func (b *batch) Len() int    { return b.bytes }
func (b *batch) Empty() bool { return len(b.operations) == 0 }
func (b *batch) Close()      { *b = batch{} }

func (b *batch) applyTo(t *tree) {
	for _, op := range b.operations {
		switch op.kind {
		case opSet:
			t.set(op.key, op.value)
		case opDelete:
			t.delete(op.key)
		case opDeleteRange:
			t.replace(op.key, op.value, nil)
		}
	}
}

// replacement collects the new content of a span in a tree of its own.
type replacement struct {
	store  *Store
	lo, hi []byte
	pairs  batch
	done   bool
}

func (r *replacement) Add(key, value []byte) error {
	switch n := len(r.pairs.operations); {
	case r.done:
		return fmt.Errorf("memstore: replacement of [%q, %q) is over", r.lo, r.hi)
	case bytes.Compare(key, r.lo) < 0 || bytes.Compare(key, r.hi) >= 0:
		return fmt.Errorf("memstore: replacement of [%q, %q): key %q is outside", r.lo, r.hi, key)
	case n > 0 && bytes.Compare(key, r.pairs.operations[n-1].key) <= 0:
		return fmt.Errorf("memstore: replacement of [%q, %q): key %q does not follow %q", r.lo, r.hi, key, r.pairs.operations[n-1].key)
	case len(key) == 0 || len(key) > store.MaxKeyBytes || len(value) > store.MaxValueBytes:
		return fmt.Errorf("memstore: replacement of [%q, %q): key of %d bytes, value of %d, want 1 to %d and at most %d",
			r.lo, r.hi, len(key), len(value), store.MaxKeyBytes, store.MaxValueBytes)
	}
	r.pairs.add(opSet, key, value)
	return nil
}

func (r *replacement) Commit() error {
	if r.done {
		return fmt.Errorf("memstore: replacement of [%q, %q) is over", r.lo, r.hi)
	}
	r.done = true
	return r.store.write("replace", true, func(t *tree) {
		t.replace(r.lo, r.hi, nil)
		r.pairs.applyTo(t)
	})
}

func (r *replacement) Abort() { r.done, r.pairs = true, batch{} }
