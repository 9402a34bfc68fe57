package cluster

import (
	"hanse/api/metapb"
	"hanse/internal/shard"
)

// FeatureLevel is the newest level of features that this program knows. A level is in force when every member knows it; what it
// brings is used from then on only. It is a variable so that a test can build a program of the future.
var FeatureLevel uint32 = 1

// Health is how a node fares, as observed.
type Health uint8

// The states of health.
const (
	Healthy   Health = iota
	Suspect          // a heartbeat is missing, or only some nodes reach it: nothing follows yet
	Unhealthy        // three are missing, its disk stalls or its clock is off: it is not chosen, and does not lead
	Dead             // silent for long: its replicas are rebuilt after Config.DownAfter
)

// Observed is what a node's peers say of it.
type Observed struct {
	Health Health
	// Since is when it became so, in ms since 1970, by the observer's clock. An observer that has just begun has seen nothing
	// before, so time that nobody watched does not count.
	Since int64
	// Reason says why, for people. That of a healthy node is empty, or a warning: "its clock is 60 ms ahead of the others".
	Reason string
}

// Config bounds what a plan may do at once.
type Config struct {
	// DownAfter is how long a node has to be dead before its replicas are rebuilt elsewhere, in ms. Default 5 min.
	DownAfter int64
	// MaxIncoming and MaxOutgoing bound the moves to and from one node, MaxMoves those of the cluster. Defaults 2, 2, 4.
	MaxIncoming, MaxOutgoing, MaxMoves int
	// GiveUpAfter is how long a move may take before it is given up and planned anew, in ms. Default 10 min.
	GiveUpAfter int64
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{DownAfter: 5 * 60_000, MaxIncoming: 2, MaxOutgoing: 2, MaxMoves: 4, GiveUpAfter: 10 * 60_000}
}

// Actions are commands for the meta shard; any may be absent.
type Actions struct {
	States   []*metapb.SetNodeState
	Moves    []*metapb.PlannedMove
	GiveUp   []*metapb.FinishMove
	Leaders  []*metapb.Preference
	Features uint32 // to be raised to, 0: as it is
	// Blocked says what ought to be done and cannot be, for people, in a fixed order:
	// "order/2 has 2 of 3 replicas, and no node can take another: 3 nodes host order, all have one".
	Blocked []string
}

// Plan says what the meta shard should be told next. Health has an entry for each node that was observed; one without is taken for
// healthy. Now is in ms since 1970. The same input gives the same plan, and a plan that has been carried out gives an empty one.
func Plan(cfg Config, v *metapb.View, health map[uint64]Observed, now int64) Actions {
	panic("cluster: being written")
}

// CheckState reports why a node may not be brought to a state: "decommission of node 3: order/2 would have 2 of 3 replicas ..." or
// "drain of node 2: node 3 is draining already, and order/1 would have no majority among nodes that are up". Nil when it may.
func CheckState(v *metapb.View, health map[uint64]Observed, node uint64, to metapb.NodeState) error {
	panic("cluster: being written")
}

// Member is a member of a group as a replica of it knows it. Active and CaughtUp are known to the leader only.
type Member struct {
	ID, Node         uint64
	Voter, Learner   bool
	Active, CaughtUp bool
}

// Group is what a node knows of its own replica of a shard.
type Group struct {
	// Replica is the number of this node's replica, 0 when it has none.
	Replica uint64
	// Leads says that it leads, Joint that a change of members is under way.
	Leads, Joint bool
	Members      []Member
}

// StepKind is what is to be done.
type StepKind uint8

// The steps.
const (
	Nothing StepKind = iota
	Create           // make an empty replica with number Replica on this node
	Destroy          // remove this node's replica Replica for good; its successor has a number of at least Next
	Change           // change the members: Changes, at once
	HandOver         // give the leadership to node To
	Finish           // tell the meta shard that the move to replica Replica is done
)

// ChangeKind is what happens to a member.
type ChangeKind uint8

// The changes.
const (
	AddLearner ChangeKind = iota + 1
	Promote
	Remove
)

// MemberChange is one change of a Change step.
type MemberChange struct {
	Kind     ChangeKind
	ID, Node uint64
}

// Step is what a node has to do for a shard now. Doing it twice does no harm.
type Step struct {
	Kind          StepKind
	Shard         shard.ID
	Replica, Next uint64
	To            uint64
	Changes       []MemberChange
}

// Next says what node self has to do for a shard, given the plan s (read from the meta shard after this node's start: proof that a
// replica is to go, where silence would be none) and its own facts.
func Next(s *metapb.Shard, self uint64, g Group) Step {
	panic("cluster: being written")
}

// Hosts reports whether a node may host shards of a service by its roles.
func Hosts(n *metapb.Node, s shard.Service) bool {
	panic("cluster: being written")
}

// MoveProgress describes a move for people: "learner is catching up", with the share of the way from 0 to 1. G is of the leader.
func MoveProgress(s *metapb.Shard, g Group) (doing string, share float64) {
	panic("cluster: being written")
}
