// Package replica hosts all Raft replicas of a node.
//
//	Propose, Read ──▶ ┌──────┐ ── messages (before the sync) ──────────▶ transport
//	ticks ──────────▶ │ Host │ ── Write: one batch, one sync for all ──▶ store
//	messages ───────▶ │      │ ── Task: committed entries, reads ──────▶ appliers ──▶ shard.Machine
//	                  └──────┘ ◀─ Written, Reported ───────────────────────┘
//
// The [Host] is a step machine: inputs are method calls, Turn returns what is to be done, and nothing in it
// reads a clock, does I/O or starts a goroutine. [Node] drives it with goroutines in production; a simulator drives the
// same Host with a seed. An applier runs the state machines of its groups and answers those who wait.
//
// What each step promises:
//   - Commands that wait while a write is away share the next entry: batches follow the load, without a timer.
//   - A leader's appends leave before its own sync. Messages that acknowledge (append, vote and pre-vote responses)
//     leave after it, so what others count on survives a crash.
//   - Entries are applied when they are committed and on disk here. State and applied index go to the store in one
//     unsynced batch, many entries at a time; the log rebuilds what a crash loses, and is cut only below what is durable.
//   - An answer is given once: a result after the entry was applied, [NotLeaderError], ErrBusy or ErrTimeout when it
//     certainly was not and never will be, ErrOutcomeUnknown otherwise.
//   - Reads confirm the leadership with one round of heartbeats for all that wait (ReadIndex).
//
// A failed write ends the node: after a failed sync nothing is certain about the pages it was to write.
package replica
