package rest

import (
	"context"
	"time"
)

// NodeInfo describes a node for those who run the cluster.
type NodeInfo struct {
	ID   uint64
	Name string
	// REST, Peers and Gossip are its addresses, host:port.
	REST, Peers, Gossip string
	Zone                string
	// Roles are the services it hosts; none: all.
	Roles   []string
	Version string
	// Features is the newest feature level it knows.
	Features uint32
	Self     bool
	// State is what is wanted of it: joining, active, draining, decommissioning or decommissioned. Since in ms since 1970.
	State       string
	StateSince  int64
	StateReason string
	// Health is how it fares as the answering node sees it: healthy, suspect, unhealthy or dead.
	Health      string
	HealthSince int64
	Reason      string // why it is not healthy
	// RTT and Offset are measured by the answering node; the clock's offset is that node's minus this one's.
	RTT, Offset time.Duration
	// Replicas and Leaders count what it has and leads, as far as the answering node knows.
	Replicas, Leaders int
	StartedAt         int64
	Boot              uint64
}

// LinkInfo is one direction between two nodes.
type LinkInfo struct {
	From, To    uint64
	Reached     bool
	RTT, Offset time.Duration
	Since       int64 // ms since 1970
}

// ClusterInfo describes the cluster as the answering node sees it.
type ClusterInfo struct {
	ID string
	// Features is the feature level in force.
	Features  uint32
	Replicas  int
	DownAfter time.Duration
	Version   uint64
	Nodes     []NodeInfo
	Links     []LinkInfo
	// Blocked says what ought to be done and cannot be.
	Blocked []string
}

// ReplicaInfo is one replica of a shard as its leader sees it.
type ReplicaInfo struct {
	ID    uint64
	Node  uint64
	Match uint64
	State string
}

// MoveInfo is a replica on its way.
type MoveInfo struct {
	From, To uint64 // nodes; From 0: a replica is added
	Reason   string
	Doing    string
	// Share is how much of the way is done, 0 to 1; Left is an estimate of the rest, 0 when there is none.
	Share   float64
	Left    time.Duration
	Started int64 // ms since 1970
}

// ShardInfo describes one shard.
type ShardInfo struct {
	ID        string
	Leader    uint64 // node, 0 when there is none
	Preferred uint64 // node that should lead, 0: any
	Term      uint64
	Applied   uint64
	Commit    uint64
	// State is "ok", "under_replicated" (fewer live voters than wanted), "moving" or "unavailable" (no majority).
	State    string
	Replicas []ReplicaInfo
	Move     *MoveInfo
}

// JoinRequest is a node that wants to be admitted.
type JoinRequest struct {
	Token string
	// Cluster is the ID that it expects, empty: any.
	Cluster             string
	Name                string
	HTTP, Peers, Gossip string
	Zone                string
	Roles               []string
	Version             string
	Format, Features    uint32
	// Process is a number drawn by the joining process: a repeated request of it gets the same answer.
	Process uint64
	// Replaces is the node whose place it takes, which is gone for good; 0 for none.
	Replaces uint64
	// Clock is the joining node's clock, ns since 1970, when it sent the request.
	Clock int64
}

// JoinAnswer admits a node. View is a metapb.View: all that the node has to know.
type JoinAnswer struct {
	Node    uint64
	Cluster string
	View    []byte
	PSP     string
}

// Recovery is what an unsafe recovery of a shard would do, or has done.
type Recovery struct {
	Shard string
	// Node has the survivor that goes on, at Term and Index.
	Node, Term, Index uint64
	Survivors         []uint64 // nodes with a replica that answered
	Missing           []uint64 // nodes with a voter that did not
	// Confirm is what has to be sent to do it; Done says that it has been.
	Confirm string
	Warning string
	Done    bool
}

// ClusterEvent is an entry of the cluster's journal.
type ClusterEvent struct {
	Seq    uint64
	At     int64 // ms since 1970
	Type   string
	Node   uint64 // 0: about none
	Shard  string // empty: about none
	Detail string
}

// Operator is what those who run a cluster look at and do.
type Operator interface {
	Cluster() ClusterInfo
	Shards() []ShardInfo
	// ShardCounts returns the number of shards of each service by name.
	ShardCounts() map[string]int
	// Ready returns nil when every shard hosted here has a leader, and otherwise says what is missing.
	Ready() error
	// Join admits a node.
	Join(ctx context.Context, r JoinRequest) (JoinAnswer, error)
	// CreateJoinToken makes a new token; the one before is worth nothing from then on.
	CreateJoinToken(ctx context.Context) (string, error)
	// SetNodeState brings a node to draining, decommissioning, active or decommissioned (which says that it is gone for good). With
	// dry nothing is done but the checks.
	SetNodeState(ctx context.Context, node uint64, state, reason string, dry bool) (NodeInfo, error)
	// MoveReplica moves a shard's replica between nodes.
	MoveReplica(ctx context.Context, shard string, from, to uint64) error
	// RecoverShard says what an unsafe recovery would do, and with the right confirmation does it.
	RecoverShard(ctx context.Context, shard, confirm string) (Recovery, error)
	// SetDownAfter sets how long a node has to be dead before its replicas are rebuilt; 0 for the default.
	SetDownAfter(ctx context.Context, d time.Duration) error
	// ClusterEvents reads the journal after a sequence number.
	ClusterEvents(ctx context.Context, after uint64, limit int) ([]ClusterEvent, error)
}
