package replica

import (
	"hanse/internal/cluster"
	"hanse/internal/transport"
)

// Group says what the replica knows in the planner's words.
func (s *Status) Group() cluster.Group {
	g := cluster.Group{Replica: s.Replica, Leads: s.Leads, Joint: s.Joint || s.Settling, Commit: s.Commit}
	for _, r := range s.Replicas {
		g.Members = append(g.Members, cluster.Member{
			ID: r.ID, Node: uint64(r.Node), Voter: r.Voter, Learner: r.Learner, Active: r.Active, CaughtUp: r.CaughtUp, Match: r.Match,
		})
	}
	return g
}

// PlannedChanges translates the changes of a planner's step.
func PlannedChanges(planned []cluster.MemberChange) []MemberChange {
	kinds := [...]ChangeKind{cluster.AddLearner: AddLearner, cluster.Promote: Promote, cluster.Remove: Remove}
	changes := make([]MemberChange, len(planned))
	for i, c := range planned {
		changes[i] = MemberChange{Kind: kinds[c.Kind], Replica: Replica{ID: c.ID, Node: transport.NodeID(c.Node)}}
	}
	return changes
}
