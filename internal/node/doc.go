// Package node wires one Hanse node and runs it.
//
//	rest ──▶ Client ──▶ router ──▶ replica.Node (leader here) ──▶ log, state
//	                      │  ▲                        │ applied entries
//	                      ▼  │ requests               ▼
//	                   transport ◀──▶ other nodes   reactor ──▶ router, provider
//
// The router brings a command or a read to the leader of its shard, here or on another node, and
// follows leader changes. The Client gives it types: an order in, an order out. The reactor's
// deliveries take the same way as everyone's commands.
//
// Parts start in the order store, transport, replica, reactor, doors and stop in reverse: refuse new
// work, finish what is under way, hand over leaderships, close the store.
package node
