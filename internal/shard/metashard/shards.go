package metashard

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"hanse/api/metapb"
	"hanse/internal/invariant"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

// shardKey sorts shards by ID.
func shardKey(id uint32) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], id)
	return string(b[:])
}

func (l *logic) putShard(s *metapb.Shard) {
	checkShard(s)
	l.shards.Put(shardKey(s.Id), s)
	l.changed()
}

// checkShard stops rather than keep two replicas of a shard on one node, or a number that was given out twice.
func checkShard(s *metapb.Shard) {
	all := s.Replicas
	if s.Move != nil {
		all = append(slices.Clip(all), s.Move.To) // the newest number of all
	}
	nodes := make(map[uint64]bool, len(all))
	last := uint64(0)
	for _, r := range all {
		invariant.Check(r.Id > last && r.Id < s.NextReplica, "shard %s: replica %d after %d, next is %d", shard.ID(s.Id), r.Id, last, s.NextReplica)
		invariant.Check(!nodes[r.Node], "shard %s has two replicas on node %d", shard.ID(s.Id), r.Node)
		nodes[r.Node], last = true, r.Id
	}
	invariant.Check(len(s.Replicas) > 0, "shard %s has no replica", shard.ID(s.Id))
	invariant.Check(s.Leader == 0 || replicaOn(s, s.Leader) != nil, "shard %s is to be led by node %d, which has no replica", shard.ID(s.Id), s.Leader)
}

func sortReplicas(s *metapb.Shard) {
	slices.SortFunc(s.Replicas, func(a, b *metapb.Replica) int { return cmp.Compare(a.Id, b.Id) })
}

// replicaOn returns the shard's replica on a node, nil when there is none.
func replicaOn(s *metapb.Shard, node uint64) *metapb.Replica {
	for _, r := range s.Replicas {
		if r.Node == node {
			return r
		}
	}
	return nil
}

// replica returns the shard's replica of a number, nil when there is none.
func replica(s *metapb.Shard, id uint64) *metapb.Replica {
	for _, r := range s.Replicas {
		if r.Id == id {
			return r
		}
	}
	return nil
}

// holdings is what is placed on a node.
type holdings struct{ replicas, coming int }

func (l *logic) holds(node uint64) (h holdings) {
	l.shards.Scan("", "", func(_ string, s *metapb.Shard) bool {
		if replicaOn(s, node) != nil {
			h.replicas++
		}
		if s.Move != nil && s.Move.To.Node == node {
			h.coming++
		}
		return true
	})
	return h
}

// planMoves begins the moves that still fit. What the plan was made for may have changed since; the rest is planned anew.
func (l *logic) planMoves(tx *shard.Tx, p *metapb.PlanMoves) shard.Result {
	if len(p.Moves) > maxMoves {
		return malformed("%d moves in one command, at most %d are possible", len(p.Moves), maxMoves)
	}
	for _, m := range p.Moves {
		if !fit(m.GetReason()) {
			return malformed("a reason that is not UTF-8 of at most %d bytes", maxTextBytes)
		}
	}
	var begun metapb.View
	for _, m := range p.Moves {
		if s := l.begin(tx, m); s != nil {
			begun.Shards = append(begun.Shards, s)
		}
	}
	slices.SortFunc(begun.Shards, func(a, b *metapb.Shard) int { return cmp.Compare(a.Id, b.Id) })
	return answer(&begun)
}

// begin begins one move and returns its shard, nil when the move does not fit.
func (l *logic) begin(tx *shard.Tx, m *metapb.PlannedMove) *metapb.Shard {
	s, ok := l.shards.Find(shardKey(m.GetShard()))
	if !ok || s.Version != m.Version || s.Move != nil || replicaOn(s, m.To) != nil {
		return nil
	}
	from := replica(s, m.From)
	if m.From != 0 && from == nil {
		return nil
	}
	if to, known := l.nodes.Find(nodeKey(m.To)); !known || to.State != Active {
		return nil
	}
	s.Move = &metapb.Move{From: from.CloneVT(), To: &metapb.Replica{Id: s.NextReplica, Node: m.To}, Reason: m.Reason, StartedAt: tx.Now.Millis()}
	s.NextReplica++
	s.Version++
	l.putShard(s)
	l.recordMove(tx, "move.started", s, s.Move.Reason)
	return s
}

// readyMove lets a move's new replica have its vote.
func (l *logic) readyMove(r *metapb.ReadyMove) shard.Result {
	s, ok := l.shards.Find(shardKey(r.Shard))
	if ok && s.Move != nil && s.Move.To.Id == r.Replica && !s.Move.Ready {
		s.Move.Ready = true
		s.Version++
		l.putShard(s)
	}
	return shard.Result{}
}

// finishMove ends a move. A move that is not under way any more has ended before, and one whose new replica may have a vote is not given up.
func (l *logic) finishMove(tx *shard.Tx, f *metapb.FinishMove) shard.Result {
	if !fit(f.Reason) {
		return malformed("a reason that is not UTF-8 of at most %d bytes", maxTextBytes)
	}
	s, ok := l.shards.Find(shardKey(f.Shard))
	switch {
	case !ok || s.Move == nil || s.Move.To.Id != f.Replica:
	case f.Done:
		l.complete(tx, s)
	case !s.Move.Ready:
		l.giveUp(tx, s, f.Reason)
	}
	return shard.Result{}
}

func (l *logic) complete(tx *shard.Tx, s *metapb.Shard) {
	l.recordMove(tx, "move.finished", s, s.Move.Reason)
	if from := s.Move.From; from != nil {
		s.Replicas = slices.DeleteFunc(s.Replicas, func(r *metapb.Replica) bool { return r.Id == from.Id })
		if s.Leader == from.Node {
			s.Leader = 0
		}
	}
	s.Replicas = append(s.Replicas, s.Move.To)
	sortReplicas(s)
	s.Move = nil
	s.Version++
	l.putShard(s)
}

func (l *logic) giveUp(tx *shard.Tx, s *metapb.Shard, why string) {
	l.recordMove(tx, "move.given_up", s, why)
	s.Move = nil
	s.Version++
	l.putShard(s)
}

// dropMovesTo gives up the moves to a node that is gone for good, ready or not: if it has got its vote, it will never use it, and the
// shard's leader puts the replica that is planned in its place.
func (l *logic) dropMovesTo(tx *shard.Tx, node uint64) {
	var moving []*metapb.Shard
	l.shards.Scan("", "", func(_ string, s *metapb.Shard) bool {
		if s.Move != nil && s.Move.To.Node == node {
			moving = append(moving, s)
		}
		return true
	})
	for _, s := range moving {
		l.giveUp(tx, s, fmt.Sprintf("node %d is decommissioned", node))
	}
}

// preferLeaders takes the wishes that can be fulfilled: a node without a replica cannot lead.
func (l *logic) preferLeaders(p *metapb.PreferLeaders) shard.Result {
	if len(p.Preferences) > maxShards {
		return malformed("%d preferences in one command, at most %d are possible", len(p.Preferences), maxShards)
	}
	for _, want := range p.Preferences {
		s, ok := l.shards.Find(shardKey(want.GetShard()))
		if !ok || s.Leader == want.Node || want.Node != 0 && replicaOn(s, want.Node) == nil {
			continue
		}
		s.Leader = want.Node
		s.Version++
		l.putShard(s)
	}
	return shard.Result{}
}

// recoverShard makes one replica all that there is of a shard. Its new number sets it apart from what it was: whatever the lost
// replicas still send is not meant for it.
func (l *logic) recoverShard(tx *shard.Tx, r *metapb.RecoverShard) shard.Result {
	if !fit(r.Detail) {
		return malformed("a detail that is not UTF-8 of at most %d bytes", maxTextBytes)
	}
	s, ok := l.shards.Find(shardKey(r.Shard))
	n, known := l.nodes.Find(nodeKey(r.Node))
	switch {
	case !ok:
		return refuse(reject.ShardNotFound, "there is no shard %s", shard.ID(r.Shard))
	case !known:
		return refuse(reject.NodeNotFound, "there is no node %d", r.Node)
	case n.State == Decommissioned:
		return refuse(reject.NodeState, "node %d is decommissioned", r.Node)
	case r.Replica != 0 && len(s.Replicas) == 1 && replica(s, r.Replica) == replicaOn(s, r.Node) && replicaOn(s, r.Node) != nil:
		return answer(&metapb.View{Shards: []*metapb.Shard{s}}) // the request again: its answer was lost
	case r.Replica != 0 && r.Replica != s.NextReplica:
		return refuse(reject.ReplicaNotFound, "the next replica of shard %s has number %d, not %d", shard.ID(r.Shard), s.NextReplica, r.Replica)
	case replicaOn(s, r.Node) == nil && (s.Move == nil || s.Move.To.Node != r.Node):
		return refuse(reject.ReplicaNotFound, "node %d has no replica of shard %s", r.Node, shard.ID(r.Shard))
	}
	s.Replicas = []*metapb.Replica{{Id: s.NextReplica, Node: r.Node}}
	s.NextReplica++
	s.Move, s.Leader = nil, 0
	s.Recoveries++
	s.Version++
	l.putShard(s)
	l.record(tx, &metapb.Event{Type: "shard.recovered", Node: r.Node, Shard: s.Id, Detail: r.Detail})
	return answer(&metapb.View{Shards: []*metapb.Shard{s}})
}
