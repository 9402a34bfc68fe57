// Package metashard keeps what all nodes must agree on: who they are, and where the replicas of each shard belong.
//
//	Found ─▶ cluster ─▶ Join ─▶ a number ─▶ Register ─▶ active ◀──▶ draining ──▶ decommissioning ──▶ decommissioned
//
//	shard: replicas ──PlanMoves──▶ a move under way ──ReadyMove──▶ only forward ──FinishMove──▶ replicas with the new one
//	                                              └───given up───▶ replicas as before
//
// The new replica of a move gets its vote once it is ready, and a move that is ready is not given up: so one place decides which of
// the two it is. Only when the new replica's node is gone for good, and its vote with it, a ready move ends as well.
//
// The shard holds the plan; the members that Raft knows of are the fact, which package cluster brings after it. It decides nothing that
// depends on how nodes fare: that is observed by others, and comes in as a command.
//
// A node registers at every start:
//
//	node starts ─▶ counts its starts, on its own disk ─▶ Register(boot, process) ─┬─▶ boot is new: noted
//	                                                                              ├─▶ the same start again: the same answer
//	                                                                              └─▶ stale_node, node_removed, ...: the node stops
//
// A boot number below the known one, or the known one from another process, belongs to an old copy of the node's
// directory, which has forgotten votes and acknowledgements: it is refused, and the node must not serve.
//
// Invariants: a number of a node, or of a replica within its shard, is given out once. No two replicas of a shard, coming ones
// included, are on one node. The cluster's version rises with every change of cluster, nodes or shards, so whoever has seen a version
// has seen all of it.
//
// Known flaw: a copy taken since the node's last start, and put back, counts on to a number that nobody has seen. That it is old
// is then only found out by Raft, when its leader knows of entries that it does not have.
package metashard
