// Package cluster decides where the replicas of a cluster belong, and what each node has to do to bring them there.
//
//	meta shard: nodes, shards, moves (the plan) ──┬─▶ Plan, on the meta shard's leader ─▶ commands for the meta shard
//	what is observed: health of nodes ────────────┘
//	meta shard + facts of this node's replicas ─────▶ Next, on every node ─▶ one step of a move:
//
//	planned ─▶ replica made ─▶ learner ─▶ caught up ─▶ ready ─▶ joint: one gets its vote, one loses it ─▶ finished ─▶ replica destroyed
//	   └───────────┴────────────┴─── given up ───────────┘   the meta shard has noted it: from here only forward
//
// The meta shard holds the plan, each group's own membership is the fact, and both functions only ever look at the two and say
// the next step. Nothing is remembered in between, so any node may die at any point, and a new leader of the meta shard, or of a
// shard that is being moved, goes on where the old one stopped.
//
// Rules that hold at every step: never two replicas of a shard on one node, nor in one zone while another is free; at most one move
// a shard; repair goes before balance; a voter is replaced by joint consensus once its successor has caught up, never removed first,
// and only while a majority of both halves is there.
//
// Plan and facts can be of different times: the leader of a shard may act on a plan that was changed since, or be none any more. So one
// place decides what cannot be taken back. A replica gets a vote only after the meta shard has noted that it is ready, and a move that is
// ready is not given up: a replica that is not in the plan has no vote, and may go. A number that a plan has not given out yet shows that
// the plan is too old to be acted on.
//
// What counts as even: no node has two replicas more than another that could have one of them, and each leads as many shards as the mean, give or take
// one. A node that joins gets its share and no other replica moves. Within that, when all is at rest, one node leads what an order passes: order/k,
// inventory/k and the payments of its slots.
//
// The package is pure: it knows neither clock nor network, and a simulator drives the same functions.
package cluster
