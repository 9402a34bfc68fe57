// Package gossip tells the nodes of a cluster who exists and where, without the help of the meta shard.
//
// It wraps hashicorp/memberlist (SWIM with Lifeguard) and adds what that lacks: a loop that joins again whom it has lost. What it says is
// used to find addresses and to show who is there; it never moves ownership, for its verdicts are slow when calm and wrong when fast.
// Messages are encrypted with a key made of the cluster's secret, so a stranger, or a node of another cluster, is not heard.
package gossip
