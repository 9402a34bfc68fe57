// Command nemesis starts a cluster of real hanse processes, sells with it, breaks machines, disks, clocks and the network under it, and
// proves afterwards that nothing was lost.
//
//	plan ── faults, drawn from a seed ──▶ cluster: node 1 … node n, provider      network: namespaces and iptables,
//	                                         ▲            ▲                                 or a proxy of our own
//	shop ── orders, cancels, shipments ──────┤            │
//	keys ── get, put, compare-and-set ───────┘            │ terms, applied indexes
//	  │                                               observer
//	  ▼                                                   ▼
//	history ─▶ settle: heal, answer what is open ─▶ checks ─▶ report (HTML, JSON)
//
// The simulator (internal/sim) runs the same replicas a thousand times faster, in one goroutine and under a virtual clock. What it cannot
// see is what only real processes have: a kernel that drops packets, an fsync that fails, a process that stands still, the shells around
// the core. docs/nemesis.md says how to read a report.
//
// With "scenario NAME" it does one thing again and again instead, and measures what that costs the customers: kill the leader, let
// nodes join and leave. Figures are measured; only the checks can fail.
package main
