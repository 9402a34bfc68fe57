// Package memstore keeps an engine's data in memory and forgets it in a crash as a disk would.
//
//	NewDisk ─▶ Disk ─ Open ─▶ Store ── Apply(sync) ────▶ durable version
//	            ▲               └───── Apply(no sync) ─▶ unsynced versions 1, 2, 3, …
//	            └── Crash(2): the Store dies, versions 1 and 2 turn out to have reached the disk
//
// The data is a treap whose nodes are copied when an older version still needs them, so that every
// version is a pointer: a snapshot, an iterator and a crash cost nothing, and dropping a range of keys costs
// no more than finding its ends. A node's priority is a hash of its key; so the same operations build the
// same tree in every run. There is no goroutine, no clock and no randomness in here: the caller
// decides how much a crash keeps and when the disk fails.
//
// Invariants: a crash keeps a prefix of the applied batches, at least up to the last synced one; a version that
// somebody holds never changes; after a fault the store answers nothing but that fault.
package memstore
