package metashard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"hanse/api/metapb"
	"hanse/internal/invariant"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

// nodeKey sorts nodes by number.
func nodeKey(id uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], id)
	return string(b[:])
}

func (l *logic) putNode(n *metapb.Node) {
	l.nodes.Put(nodeKey(n.Id), n)
	l.changed()
}

// count returns the number of members that are not decommissioned.
func (l *logic) count() (n int) {
	l.nodes.Scan("", "", func(_ string, node *metapb.Node) bool {
		if node.State != Decommissioned {
			n++
		}
		return true
	})
	return n
}

// named returns the member of a name, nil when there is none. The names of the decommissioned are free.
func (l *logic) named(name string) (found *metapb.Node) {
	if name == "" {
		return nil
	}
	l.nodes.Scan("", "", func(_ string, n *metapb.Node) bool {
		if n.Name == name && n.State != Decommissioned {
			found = n
		}
		return found == nil
	})
	return found
}

// member returns the node of a number, nil when there is none. A founder that has not registered yet, and may never, is a member
// too: it can be replaced.
func (l *logic) member(id uint64) *metapb.Node {
	n, known := l.nodes.Find(nodeKey(id))
	if !known && l.holds(id) != (holdings{}) {
		n = &metapb.Node{Id: id, State: Joining}
	}
	return n
}

// soundNode reports whether what a node says of itself may be kept.
func soundNode(n *metapb.Node) bool {
	last := uint32(0)
	for _, role := range n.Roles {
		if role <= last || !service(role) {
			return false
		}
		last = role
	}
	return fit(n.Http, n.Peers, n.Version, n.Name, n.Zone, n.Gossip, n.Provider)
}

const unsoundNode = "node with a text that is not UTF-8 of at most %d bytes, or roles that are no services in ascending order"

// register notes a start of a node. The same start may come again: its answer may have been lost.
func (l *logic) register(tx *shard.Tx, n *metapb.Node) shard.Result {
	c := l.cluster()
	switch {
	case n.GetId() == 0 || c == nil && n.Id > maxNumber:
		return malformed("register of node %d", n.GetId())
	case !soundNode(n):
		return malformed(unsoundNode, maxTextBytes)
	}
	old, known := l.nodes.Find(nodeKey(n.Id))
	switch {
	case !known && c != nil && n.Id >= c.NextNode:
		return refuse(reject.UnknownNode, "cluster %s has not given out number %d: the node has to join", c.Id, n.Id)
	case !known && c != nil && n.Id >= c.FirstJoined:
		return refuse(reject.NodeRemoved, "node %d is decommissioned, so long ago that the reason is forgotten", n.Id)
	case !known && l.count() >= maxNodes:
		return refuse(reject.TooManyNodes, "there are %d nodes", maxNodes)
	case old.GetState() == Decommissioned:
		return refuse(reject.NodeRemoved, "node %d is decommissioned: %s", n.Id, reason(old))
	case n.Boot < old.GetBoot():
		return refuse(reject.StaleNode, "node %d says that it has been started %d times, but the cluster has seen %d: "+
			"its directory is an old copy", n.Id, n.Boot, old.Boot)
	case old.GetRegisteredAt() != 0 && n.Boot == old.Boot && n.Process != old.Process:
		return refuse(reject.StaleNode, "start %d of node %d was that of another process: "+
			"its directory is a copy, or used twice", n.Boot, n.Id)
	case n.Features < c.GetFeatures():
		return refuse(reject.FeaturesTooOld, "node %d knows features up to level %d, but level %d is in force", n.Id, n.Features, c.Features)
	}
	n = n.CloneVT()
	if n.Name == "" {
		n.Name = old.GetName()
	}
	if other := l.named(n.Name); other != nil && other.Id != n.Id {
		return exists(other)
	}
	now, event := tx.Now.Millis(), &metapb.Event{Node: n.Id}
	n.State, n.StateSince, n.StateReason, n.Replaces = old.GetState(), old.GetStateSince(), old.GetStateReason(), old.GetReplaces()
	if !known || old.State == Joining {
		n.State, n.StateSince = Active, now
	}
	n.RegisteredAt, n.StartedAt = old.GetRegisteredAt(), now
	switch {
	case n.RegisteredAt == 0:
		n.RegisteredAt = now
		event.Type, event.Detail = "node.registered", describeNode(n)
	case n.Boot == old.Boot:
		n.StartedAt = old.StartedAt
	default:
		event.Type, event.Detail = "node.restarted", fmt.Sprintf("boot %d", n.Boot)
		if old.Version != n.Version {
			event.Detail += ", version " + n.Version
		}
	}
	from := None
	if known {
		from = old.State
	}
	_, ok := transition(from, OnRegister, n.State)
	invariant.Check(ok, "node %d: register led from %s to %s", n.Id, StateName(from), StateName(n.State))
	if !n.EqualVT(old) {
		l.putNode(n)
	}
	if event.Type != "" {
		l.record(tx, event)
	}
	return answer(n)
}

func (l *logic) join(tx *shard.Tx, j *metapb.Join) shard.Result {
	n, c := j.GetNode(), l.cluster()
	switch {
	case n.GetName() == "" || n.Process == 0:
		return malformed("join of a node without a name, or a process number")
	case !soundNode(n):
		return malformed(unsoundNode, maxTextBytes)
	case c == nil:
		return notFounded()
	case j.Cluster != "" && j.Cluster != c.Id:
		return refuse(reject.OtherCluster, "this is cluster %s, not %s", c.Id, j.Cluster)
	case len(c.TokenHash) == 0:
		return refuse(reject.JoinClosed, "cluster %s has no join token: nobody can join", c.Id)
	case !bytes.Equal(c.TokenHash, j.TokenHash):
		return refuse(reject.JoinTokenWrong, "the token is not the present one of cluster %s", c.Id)
	}
	same := l.named(n.Name)
	if same != nil && same.Process == n.Process {
		return l.admitted(same.Id) // the request again: its answer was lost
	}
	var replaced *metapb.Node
	if n.Replaces != 0 {
		replaced = l.member(n.Replaces)
	}
	switch {
	case n.Features < c.Features:
		return refuse(reject.FeaturesTooOld, "node %s knows features up to level %d, but level %d is in force", n.Name, n.Features, c.Features)
	case n.Replaces != 0 && replaced == nil:
		return refuse(reject.NodeNotFound, "there is no node %d to be replaced", n.Replaces)
	case same != nil && same.Id != n.Replaces:
		return exists(same)
	case l.count() >= maxNodes && (replaced == nil || replaced.State == Decommissioned):
		return refuse(reject.TooManyNodes, "there are %d nodes", maxNodes)
	}
	id := c.NextNode
	c.NextNode++
	if replaced != nil && replaced.State != Decommissioned {
		l.lose(tx, replaced, OnReplace, fmt.Sprintf("replaced by node %d", id))
	}
	l.forget()
	n = n.CloneVT()
	n.Id, n.State, n.StateSince, n.StateReason = id, Joining, tx.Now.Millis(), ""
	n.Boot, n.RegisteredAt, n.StartedAt = 0, 0, 0
	l.putNode(n)
	l.record(tx, &metapb.Event{Type: "node.joined", Node: id, Detail: describeNode(n)})
	return l.admitted(id)
}

// forget drops the record of a node that is long gone when there are as many as are kept. Its number tells enough: it was given out by a
// join, and has no record. A founder's number would not, and where replicas are still placed, who reads the plan looks for the node.
func (l *logic) forget() {
	var removed []*metapb.Node
	for _, n := range l.allNodes() {
		if n.State == Decommissioned && n.Id >= l.cluster().FirstJoined {
			removed = append(removed, n)
		}
	}
	if len(removed) <= maxRemoved {
		return
	}
	for _, n := range removed {
		if l.holds(n.Id) == (holdings{}) {
			l.nodes.Delete(nodeKey(n.Id))
			return
		}
	}
}

// admitted tells a node all that it has to know, which is not the token: the next node needs it from a person.
func (l *logic) admitted(id uint64) shard.Result {
	v := l.view()
	v.Cluster = v.Cluster.CloneVT()
	v.Cluster.TokenHash = nil
	return answer(&metapb.JoinAnswer{Node: id, View: v})
}

func exists(n *metapb.Node) shard.Result {
	return refuse(reject.NodeExists, "node %d is called %s already, and is %s: choose another name, or replace node %d when it is lost",
		n.Id, n.Name, StateName(n.State), n.Id)
}

// setNodeState moves a node along the table of states. The state that it has already is no change.
func (l *logic) setNodeState(tx *shard.Tx, s *metapb.SetNodeState) shard.Result {
	switch {
	case !fit(s.Reason):
		return malformed("a reason that is not UTF-8 of at most %d bytes", maxTextBytes)
	case s.Lost && s.State != Decommissioned:
		return malformed("a lost node is decommissioned, not %s", StateName(s.State))
	}
	n := l.member(s.Node)
	switch {
	case n == nil:
		return refuse(reject.NodeNotFound, "there is no node %d", s.Node)
	case n.State == s.State:
		return answer(n)
	}
	on := OnSet
	if s.Lost {
		on = OnLost
	}
	t, ok := transition(n.State, on, s.State)
	if !ok {
		return refuse(reject.NodeState, "node %d is %s and cannot become %s", n.Id, StateName(n.State), StateName(s.State))
	}
	if h := l.holds(n.Id); t.Empty && h != (holdings{}) {
		return refuse(reject.NodeState, "node %d is not empty: replicas on it: %d, on their way to it: %d", n.Id, h.replicas, h.coming)
	}
	if s.Lost {
		l.lose(tx, n, on, s.Reason)
	} else {
		l.become(tx, n, on, s.State, s.Reason)
	}
	return answer(n)
}

func (l *logic) become(tx *shard.Tx, n *metapb.Node, on Input, to State, why string) {
	_, ok := transition(n.State, on, to)
	invariant.Check(ok, "node %d: %s led from %s to %s", n.Id, on, StateName(n.State), StateName(to))
	n.State, n.StateSince, n.StateReason = to, tx.Now.Millis(), why
	l.putNode(n)
	l.record(tx, &metapb.Event{Type: "node." + StateName(to), Node: n.Id, Detail: why})
}

// lose gives a node up that is gone for good. Nothing arrives there any more.
func (l *logic) lose(tx *shard.Tx, n *metapb.Node, on Input, why string) {
	l.become(tx, n, on, Decommissioned, why)
	l.dropMovesTo(tx, n.Id)
}

func reason(n *metapb.Node) string {
	if n.StateReason == "" {
		return "no reason was given"
	}
	return n.StateReason
}

func describeNode(n *metapb.Node) string {
	var parts []string
	if n.Name != "" {
		parts = append(parts, n.Name)
	}
	if n.Version != "" {
		parts = append(parts, "version "+n.Version)
	}
	if n.Zone != "" {
		parts = append(parts, "zone "+n.Zone)
	}
	if n.Replaces != 0 {
		parts = append(parts, fmt.Sprintf("replaces node %d", n.Replaces))
	}
	return strings.Join(parts, ", ")
}
