// Package sim plays whole clusters in one goroutine, in virtual time, and checks that they keep their promises.
//
//	seed ──▶ Plan: cluster, load, a random subset of the faults at random rates
//	           │
//	           ▼                  ┌───────────── node ─────────────┐
//	World: queue of events ──────▶│ replica.Host ─ appliers ─ disk │──▶ network ──▶ other nodes
//	  (time, number)              │ reactor ─ router               │──▶ provider
//	           ▲                  └────────────────────────────────┘◀── clients
//	           └── faults: cut, crash, stall, skew, kill, move, ...
//
// The replicas, the reactor, the state machines and the decisions about where replicas belong are those of production; this package
// is their executor, in the place of package node's goroutines. The router follows package node's rules. Clock, network, disks (memstore), provider and randomness are
// simulated, elections included: a run takes over crypto/rand's reader, from which Raft draws its timeouts.
//
// A run has two phases. For a minute anything may fail (safety). Then the faults end, and within five minutes everything has
// to come to rest (liveness): every request answered, every outbox empty, every order at an end, all replicas equal. Checkers
// watch all the time ([checks]: one leader a term, the same committed entries, the same states) and audit the books at the end
// (orders, money, stock, keys).
//
// The same plan gives the same run: [Result.Hash] is of every step. A [Mutant] is a deliberate bug that shows that the checkers see.
// docs/simulator.md says how to use it and lists which mutant is found how.
package sim
