package cluster

import (
	"fmt"
	"slices"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// Next says what node self has to do for a shard, given the plan s (read from the meta shard after this node's start: proof that a
// replica is to go, where silence would be none) and its own facts. A plan that is older than the facts brings nothing about, and one
// that is merely old nothing that could not be undone: a replica gets a vote when the meta shard has said so, and never else.
func Next(s *metapb.Shard, self uint64, g Group) Step {
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
	case !planned(s, g.Replica) && replicaOn(s, self) == 0 && !g.Leads:
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
	if s.Move == nil {
		return l.settle()
	}
	return l.move()
}

// planned reports whether a replica is one of the shard's, or will be.
func planned(s *metapb.Shard, replica uint64) bool {
	return s.Move.GetTo().GetId() == replica || slices.ContainsFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Id == replica })
}

// replicaOn returns the number of the replica that the plan has on a node, 0 for none; one that is on its way there does not count. Where
// it is another one than the node has, that is the survivor of an unsafe recovery, which has yet to get its new number: a move ends
// on a node only after the older replica has gone from there.
func replicaOn(s *metapb.Shard, node uint64) uint64 {
	for _, r := range s.Replicas {
		if r.Node == node {
			return r.Id
		}
	}
	return 0
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
func (l leader) move() Step {
	to, from := l.g.member(l.s.Move.To.Id), l.g.member(l.s.Move.From.GetId())
	if stray := l.stray(); stray.ID != 0 && !from.Voter {
		from = stray
	}
	switch {
	case to.ID == 0:
		return l.change(MemberChange{AddLearner, l.s.Move.To.Id, l.s.Move.To.Node})
	case to.Voter && from.ID == 0:
		return Step{Kind: Finish, Shard: shard.ID(l.s.Id), Replica: to.ID}
	case to.Learner && !to.CaughtUp && (to.Active || !l.s.Move.Ready):
		return Step{} // one that was ready and died does not hold the others up: it is replaced like any dead voter
	case to.Learner && !l.s.Move.Ready:
		if !l.carried(to, from) {
			return Step{}
		}
		return Step{Kind: Ready, Shard: shard.ID(l.s.Id), Replica: to.ID}
	}
	return l.swap(to, from)
}

// settle brings a group to the plan when there is no move. They differ only where a node was gone for good in the moment in which its replica
// got its vote, and the move was given up because of that: then the one that should have been replaced takes its place again, under
// the number and with the votes that it has.
func (l leader) settle() Step {
	stray := l.stray()
	for _, r := range l.s.Replicas {
		switch m := l.g.member(r.Id); {
		case m.ID == 0:
			return l.change(MemberChange{AddLearner, r.Id, r.Node})
		case m.Learner && !m.CaughtUp:
			return Step{}
		case m.Learner:
			return l.swap(m, stray)
		}
	}
	if stray.ID == 0 {
		return Step{}
	}
	return l.swap(Member{}, stray)
}

// stray returns a voter that is not in the plan, one without number when there is none.
func (l leader) stray() Member {
	for _, m := range l.g.Members {
		if m.Voter && !planned(l.s, m.ID) {
			return m
		}
	}
	return Member{}
}

// swap gives one member its vote and removes another, both at once; either may be without number.
func (l leader) swap(to, from Member) Step {
	switch {
	case from.ID == l.g.Replica && l.others() > 0:
		return l.handOver()
	case from.ID == l.g.Replica:
		from = Member{} // the only voter: the new one has to get its vote before it can be handed the leadership
	}
	if !l.carried(to, from) {
		return Step{}
	}
	var changes []MemberChange
	if to.Learner {
		changes = append(changes, promotion(to))
	}
	if from.ID != 0 {
		changes = append(changes, removal(from))
	}
	if len(changes) == 0 {
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
