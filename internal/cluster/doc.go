// Package cluster decides where the replicas of a cluster belong, and what each node has to do to bring them there.
//
//	meta shard: nodes, shards, moves (the plan) ──┬─▶ Plan, on the meta shard's leader ─▶ commands for the meta shard
//	what is observed: health of nodes ────────────┘
//	meta shard + facts of this node's replicas ─────▶ Next, on every node ─▶ one step: create, add, promote, destroy, finish
//
// The meta shard holds the plan, each group's own membership is the fact, and both functions only ever look at the two and say
// the next step. Nothing is remembered in between, so any node may die at any point, and a new leader of the meta shard, or of a
// shard that is being moved, goes on where the old one stopped.
//
// Rules that hold at every step: never two replicas of a shard on one node, nor in one zone while another is free; at most one move
// a shard; repair goes before balance; a voter is replaced by joint consensus once its successor has caught up, never removed first.
//
// The package is pure: it knows neither clock nor network, and a simulator drives the same functions.
package cluster
