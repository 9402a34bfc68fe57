// Package keyspaceshard keeps the keyspaces of level raft: keys with values and versions, linearizable.
//
//	put, compare-and-set ──▶ version + 1, value
//	delete ────────────────▶ version + 1, no value      (the row stays)
//
// A key's version counts its writes, deletes included, and never goes back: a deleted key leaves a row without value, or
// a compare-and-set by someone who has slept through a delete and a new write would succeed.
//
// Known flaw: these rows are kept for ever, and a list steps over them. A keyspace whose keys are written once,
// deleted and never used again grows by some 50 bytes a key.
package keyspaceshard
