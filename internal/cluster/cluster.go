package cluster

import (
	"fmt"
	"slices"
	"strings"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// Feature levels, by what they bring.
const (
	// AuthorizeAhead is the level from which orders are placed with orderpb.Place.AuthorizeAhead.
	AuthorizeAhead uint32 = 2
	// CallFirst is the level from which orders are placed with orderpb.Place.CallFirst.
	CallFirst uint32 = 3
	// ReserveEarly is the level from which stock is reserved tentatively while an order is being placed.
	ReserveEarly uint32 = 4
	// TellPayment is the level from which stuck steps are resolved with orderpb.ResolveStep.TellPayment, and operations that have ended are not
	// settled once more: paymentpb.RetryOp.RefuseEnded, paymentpb.ResolveOp.RefuseEnded.
	TellPayment uint32 = 5
	// ClaimKeys is the level from which an idempotency key is claimed where it is kept, before a request under it is carried out at another shard.
	ClaimKeys uint32 = 6
	// AwaitTentative is the level from which adjustments and free-standing reservations wait for what is held tentatively: inventorypb.Adjust.AwaitTentative,
	// inventorypb.Reserve.AwaitTentative.
	AwaitTentative uint32 = 7
)

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
	// DownAfter is how long a node has to be dead before its replicas are rebuilt elsewhere, in ms. Default 5 min. The cluster's own
	// setting, where there is one, goes before it.
	DownAfter int64
	// MaxIncoming and MaxOutgoing bound the moves to and from one node, MaxMoves those of the cluster. Defaults 1, 1, 4: what a move
	// costs a node, in copying and in compacting what is gone, it costs the orders there.
	MaxIncoming, MaxOutgoing, MaxMoves int
	// GiveUpAfter is how long a new replica may take to catch up before the move is given up and planned anew, in ms. Default 10 min.
	GiveUpAfter int64
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{DownAfter: 5 * 60_000, MaxIncoming: 1, MaxOutgoing: 1, MaxMoves: 4, GiveUpAfter: 10 * 60_000}
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

// Member is a member of a group as a replica of it knows it. Active, CaughtUp and Match are known to the leader only.
type Member struct {
	ID, Node         uint64
	Voter, Learner   bool
	Active, CaughtUp bool
	// Match is how far its log is known to agree with the leader's; MoveProgress looks at it and nothing else does.
	Match uint64
}

// Group is what a node knows of its own replica of a shard.
type Group struct {
	// Replica is the number of this node's replica, 0 when it has none.
	Replica uint64
	// Leads says that it leads and has applied an entry of its own term, so that no older leader has done anything that Members
	// does not show. Joint says that a change of members is half done: two majorities count, or would after a crash, for
	// too few have it on their disks that only one does.
	Leads, Joint bool
	Members      []Member
	// Commit is the last committed entry, for MoveProgress.
	Commit uint64
}

// StepKind is what is to be done.
type StepKind uint8

// The steps.
const (
	Nothing  StepKind = iota
	Create            // make an empty replica with number Replica on this node
	Destroy           // remove this node's replica Replica for good; its successor has a number of at least Next
	Change            // change the members: Changes, at once
	HandOver          // give the leadership to node To
	Ready             // tell the meta shard that replica Replica has caught up
	Finish            // tell the meta shard that the move to replica Replica is done
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

// String says for people what is to be done: "create replica 4".
func (s Step) String() string {
	switch s.Kind {
	case Nothing:
		return "nothing"
	case Create:
		return fmt.Sprintf("create replica %d", s.Replica)
	case Destroy:
		return fmt.Sprintf("destroy replica %d, next %d", s.Replica, s.Next)
	case Change:
		var all []string
		for _, c := range s.Changes {
			all = append(all, fmt.Sprintf("%s %d on node %d", [...]string{AddLearner: "add learner", Promote: "promote", Remove: "remove"}[c.Kind], c.ID, c.Node))
		}
		return strings.Join(all, " and ")
	case HandOver:
		return fmt.Sprintf("hand the leadership to node %d", s.To)
	case Ready:
		return fmt.Sprintf("let replica %d have its vote", s.Replica)
	case Finish:
		return fmt.Sprintf("finish the move to replica %d", s.Replica)
	}
	return fmt.Sprintf("step %d", s.Kind)
}

// Hosts reports whether a node may host shards of a service by its roles.
func Hosts(n *metapb.Node, s shard.Service) bool {
	return len(n.GetRoles()) == 0 || slices.Contains(n.GetRoles(), uint32(s))
}

// Wanted is how many replicas the shards of a service should have: an odd number, as far as there are nodes.
func Wanted(v *metapb.View, s shard.Service) int {
	members := 0
	for _, n := range v.Nodes {
		if (n.State == metapb.NodeState_NODE_ACTIVE || n.State == metapb.NodeState_NODE_DRAINING) && Hosts(n, s) {
			members++
		}
	}
	return odd(min(members, int(v.GetCluster().GetReplicas())))
}
