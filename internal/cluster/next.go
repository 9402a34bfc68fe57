package cluster

import (
	"fmt"
	"slices"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// Next says what node self has to do for a shard, given the plan s (read from the meta shard after this node's start: proof that a
// replica is to go, where silence would be none), its own facts, and why the move had better be given up, which is what [Hopeless]
// says. A plan that is older than the facts brings nothing about.
func Next(s *metapb.Shard, self uint64, g Group, giveUp string) Step {
	if g.Replica >= s.NextReplica || slices.ContainsFunc(g.Members, func(m Member) bool { return m.ID >= s.NextReplica }) {
		return Step{} // somebody has a number that this plan has not given out yet
	}
	switch to := s.Move.GetTo(); {
	case g.Replica == 0 && to.GetNode() == self:
		return Step{Kind: Create, Shard: shard.ID(s.Id), Replica: to.Id}
	case g.Replica == 0:
		// That the plan has a replica here changes nothing: its disk was lost, and an empty one under its number would vote against
		// what it has promised. The node has to be replaced.
		return Step{}
	case !g.Leads && obsolete(s, self, g):
		next := s.NextReplica
		if to.GetNode() == self {
			next = to.Id
		}
		return Step{Kind: Destroy, Shard: shard.ID(s.Id), Replica: g.Replica, Next: next}
	case !g.Leads || g.Joint:
		return Step{}
	}
	l := leader{s, g}
	if i := slices.IndexFunc(g.Members, func(m Member) bool { return m.Learner && !planned(s, m.ID) }); i >= 0 {
		return l.change(removal(g.Members[i])) // left by a move that was given up
	}
	if s.Move != nil {
		return l.move(giveUp)
	}
	return l.replace(l.stray(), l.missing())
}

// planned reports whether a replica is one of the shard's, or will be.
func planned(s *metapb.Shard, replica uint64) bool {
	return s.Move.GetTo().GetId() == replica || slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Id == replica })
}

// replicaOn returns the number of the replica that the plan has on a node, 0 for none. One that is on its way there does not count.
func replicaOn(s *metapb.Shard, node uint64) uint64 {
	for _, r := range s.Replicas {
		if r.Node == node {
			return r.Id
		}
	}
	return 0
}

// obsolete reports whether the replica on node self is to go.
func obsolete(s *metapb.Shard, self uint64, g Group) bool {
	if planned(s, g.Replica) || replicaOn(s, self) != 0 {
		// When the plan has another one here, this is the survivor of an unsafe recovery, which has not got its new number yet. A move
		// ends here only after the older replica has gone, so there is no other way to this.
		return false
	}
	// A number above all of the plan's never was in it: its move was given up, and it is a learner at most. One that has a vote
	// nevertheless has got it from a leader that did not know yet; the group's next leader replaces it, see stray.
	givenUp := !slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Id > g.Replica })
	return !givenUp || !g.member(g.Replica).Voter
}

// member returns a member, one without number when there is none.
func (g Group) member(id uint64) Member {
	for _, m := range g.Members {
		if m.ID == id && id != 0 {
			return m
		}
	}
	return Member{}
}

// leader is the view of the node that leads a group outside of a joint configuration.
type leader struct {
	s *metapb.Shard
	g Group
}

func (l leader) change(changes ...MemberChange) Step {
	return Step{Kind: Change, Shard: shard.ID(l.s.Id), Changes: changes}
}

func removal(m Member) MemberChange   { return MemberChange{Remove, m.ID, m.Node} }
func promotion(m Member) MemberChange { return MemberChange{Promote, m.ID, m.Node} }

// move does the next step of the planned move.
func (l leader) move(giveUp string) Step {
	to := l.g.member(l.s.Move.To.Id)
	if giveUp != "" && !to.Voter {
		if to.ID != 0 {
			return l.change(removal(to))
		}
		return Step{Kind: GiveUp, Shard: shard.ID(l.s.Id), Replica: l.s.Move.To.Id}
	}
	from, stray, missing := l.g.member(l.s.Move.From.GetId()), l.stray(), l.missing()
	switch {
	case missing != nil || stray.ID != 0 && from.ID != 0:
		return l.replace(stray, missing) // the group is not what the move was planned for
	case from.ID == 0:
		from = stray
	}
	if to.Voter && from.ID == 0 {
		return Step{Kind: Finish, Shard: shard.ID(l.s.Id), Replica: to.ID}
	}
	return l.replace(from, l.s.Move.To)
}

// stray returns a voter that is not in the plan, one without number when there is none. That is so only when a leader that did not know
// yet that a move had been given up has gone on with it. The plan stays right then: the replica that was to be replaced still is on
// its node, under a number that votes as it always did, and takes its place again.
func (l leader) stray() Member {
	for _, m := range l.g.Members {
		if m.Voter && !planned(l.s, m.ID) {
			return m
		}
	}
	return Member{}
}

// missing returns a replica that should have a vote and has none, nil when there is none; those that the move is about are not meant.
func (l leader) missing() *metapb.Replica {
	for _, r := range l.s.Replicas {
		if r.Id != l.s.Move.GetFrom().GetId() && !l.g.member(r.Id).Voter {
			return r
		}
	}
	return nil
}

// replace does the next step of replacing member from, if it has a number, by replica to, if there is one.
func (l leader) replace(from Member, to *metapb.Replica) Step {
	added := l.g.member(to.GetId())
	switch {
	case to == nil && from.ID == 0:
		return Step{}
	case to != nil && added.ID == 0:
		return l.change(MemberChange{AddLearner, to.Id, to.Node})
	case added.Learner && !added.CaughtUp:
		return Step{}
	case from.ID == l.g.Replica && l.others() > 0:
		return l.handOver()
	case from.ID == l.g.Replica && added.Learner:
		from = Member{} // the only voter: the new one has to get a vote before it can be handed the leadership
	}
	var changes []MemberChange
	if added.Learner {
		changes = append(changes, promotion(added))
	}
	if from.ID != 0 {
		changes = append(changes, removal(from))
	}
	if !l.carried(added, from) {
		return Step{}
	}
	return l.change(changes...)
}

// others counts the voters beside the leader.
func (l leader) others() (n int) {
	for _, m := range l.g.Members {
		if m.Voter && m.ID != l.g.Replica {
			n++
		}
	}
	return n
}

// handOver gives the leadership to another voter that is ready for it, the preferred one if it is.
func (l leader) handOver() Step {
	var best Member
	for _, m := range l.g.Members {
		if m.Voter && m.ID != l.g.Replica && m.Active && m.CaughtUp && (best.ID == 0 || m.Node == l.s.Leader || m.ID < best.ID && best.Node != l.s.Leader) {
			best = m
		}
	}
	if best.ID == 0 {
		return Step{}
	}
	return Step{Kind: HandOver, Shard: shard.ID(l.s.Id), To: best.Node}
}

// carried reports whether both halves of a change have a majority among the replicas that are there: the voters now are heard of,
// and those that will be have the log as well, for one that waits for a snapshot acknowledges nothing for a while.
func (l leader) carried(added, from Member) bool {
	var voters, heard, next, ready int
	for _, m := range l.g.Members {
		leads := m.ID == l.g.Replica
		if m.Voter {
			voters++
			if m.Active || leads {
				heard++
			}
		}
		if (m.Voter || m.ID == added.ID) && m.ID != from.ID {
			next++
			if m.Active && m.CaughtUp || leads {
				ready++
			}
		}
	}
	return heard > voters/2 && ready > next/2
}

// Hopeless says why the move of a shard had better be given up: its target cannot take the replica or takes too long, or there is
// no need for it any more. It is empty when the move should go on, when there is none, and off the shard's leader. Only the leader
// knows whether a move can still be given up, so the planner has no say in it: Next goes forward once the new replica has a vote.
func Hopeless(cfg Config, v *metapb.View, s *metapb.Shard, g Group, health map[uint64]Observed, now int64) string {
	if s.Move == nil || !g.Leads {
		return ""
	}
	if to := s.Move.To.GetNode(); node(v, to) == nil {
		return fmt.Sprintf("node %d is unknown", to)
	} else if n := node(v, to); n.State != metapb.NodeState_NODE_ACTIVE {
		return fmt.Sprintf("node %d is %s", to, stateName(n.State))
	} else if health[to].Health == Dead {
		return fmt.Sprintf("node %d is dead", to)
	}
	if from := s.Move.From; from != nil {
		n := node(v, from.Node)
		switch {
		case s.Move.Reason == "repair" && isActive(n) && health[from.Node].Health == Healthy && g.member(from.Id).Active:
			return fmt.Sprintf("node %d is back", from.Node)
		case s.Move.Reason == "decommission" && isActive(n):
			return fmt.Sprintf("node %d stays", from.Node)
		}
	}
	if ready := g.member(s.Move.To.Id).CaughtUp && (leader{s, g}).missing() == nil; !ready && now-s.Move.StartedAt > cfg.GiveUpAfter {
		return fmt.Sprintf("node %d has not caught up after %d s", s.Move.To.Node, (now-s.Move.StartedAt)/1000)
	}
	return ""
}

func isActive(n *metapb.Node) bool { return n != nil && n.State == metapb.NodeState_NODE_ACTIVE }

// node returns a node of a view, nil when it is unknown.
func node(v *metapb.View, id uint64) *metapb.Node {
	for _, n := range v.GetNodes() {
		if n.Id == id {
			return n
		}
	}
	return nil
}

// MoveProgress describes a move for people: "learner is catching up", with how much of the way is done in percent. G is of the leader.
func MoveProgress(s *metapb.Shard, g Group) (doing string, percent int) {
	if s.Move == nil {
		return "", 0
	}
	to, from := g.member(s.Move.To.Id), g.member(s.Move.From.GetId())
	switch {
	case !g.Leads:
		return "is under way", 0
	case g.Joint:
		return "members are being changed", 95
	case to.Voter && from.ID == 0:
		return "is done", 100
	case to.Voter:
		return "the old replica is being removed", 97
	case to.CaughtUp && from.ID == g.Replica:
		return "leadership is being handed over", 90
	case to.CaughtUp:
		return "learner waits for its vote", 92
	case to.Learner && g.Commit > 0:
		return "learner is catching up", 5 + int(min(to.Match, g.Commit)*84/g.Commit)
	case to.Learner:
		return "learner is catching up", 5
	}
	return fmt.Sprintf("node %d makes a replica", s.Move.To.Node), 0
}
