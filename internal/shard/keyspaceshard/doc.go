// Package keyspaceshard keeps the keyspaces of level raft: keys with values and versions, linearizable.
//
// A key's version counts its writes, deletes included, and never goes back: a deleted key leaves a row without value, or
// a compare-and-set by someone who has slept through a delete and a new write would succeed.
package keyspaceshard
