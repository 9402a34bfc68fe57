// Package shard is the contract of a replicated service and the runtime that its state machines share.
//
//	committed entry            ┌──────────────── Machine ────────────────┐
//	(time, commands) ─ Apply ─▶│ idempotency ▶ Logic (order, stock, ...) │─▶ results, settled keys
//	                           │     tables        outbox        feed    │─▶ messages to deliver
//	                           └────────│──────────────│───────────│─────┘
//	                                    └── Flush ─────┴───────────┴──▶ one batch with the applied index
//
// A shard is a function: state + command → state, result, events, outbox. The same entries give the same state
// on every replica and in every replay: time comes with the entry, identifiers come with the
// command, and nothing here reads a clock, draws a random number, blocks or starts a goroutine.
//
// State lives as objects in memory, loaded from the store on first use. What entries change is written
// back later, many entries in one batch together with the applied index (write-behind), so an object that is touched
// a thousand times a second is written once. The synced Raft log rebuilds what a crash loses.
//
// Invariants: an outbox message exists from the entry that emitted it until the entry that took its
// reply; feed positions are dense; an idempotency key is recorded in the entry of its effect.
package shard
