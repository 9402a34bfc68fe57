package sim

import (
	"fmt"
	"hash/fnv"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/internal/inventory"
	"hanse/internal/reject"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/transport"

	pb "go.etcd.io/raft/v3/raftpb"
)

// checks compares, while a run goes on, what must be equal on all replicas.
type checks struct {
	w      *World
	groups map[shard.ID]*groupChecks
	// placed has the order of each place that was begun, empty until it is known; moved what was put on the shelves and taken off again.
	placed map[string]string
	moved  map[string]int64
	// reused has the keys that were used for two requests, carried what was carried out under each key.
	reused  map[string]bool
	carried map[string]string
}

// groupChecks is what is known of a Raft group.
type groupChecks struct {
	leaders map[uint64]transport.NodeID // by term
	term    uint64                      // the latest seen with a leader
	leader  transport.NodeID
	first   uint64 // index of entries[0]
	entries []committed
	hashes  map[uint64]uint64 // of the state, by index
	members map[uint64]uint64 // hash of the membership, by index of the change
	leading map[transport.NodeID]uint64
	// proposed has the term of what leaders have sent, by index.
	proposed map[uint64]uint64
	applied  map[transport.NodeID]uint64
}

type committed struct {
	term, hash uint64
}

// hashEvery is how many entries lie between two that have their state compared.
const hashEvery = 16

func newChecks(w *World) *checks {
	c := &checks{w: w, groups: make(map[shard.ID]*groupChecks), placed: make(map[string]string), moved: make(map[string]int64), reused: make(map[string]bool), carried: make(map[string]string)}
	for _, id := range w.groups {
		c.groups[id] = &groupChecks{leaders: make(map[uint64]transport.NodeID), hashes: make(map[uint64]uint64), members: make(map[uint64]uint64), leading: make(map[transport.NodeID]uint64), applied: make(map[transport.NodeID]uint64), proposed: make(map[uint64]uint64)}
	}
	return c
}

// messages looks at what a node sends: who appends in a term leads in it, and nobody else does.
func (c *checks) messages(n *node, messages []replica.Outgoing) {
	for i := range messages {
		m := &messages[i].Message
		if m.Kind != transport.KindRaft {
			continue
		}
		if t := m.Raft.GetType(); t != pb.MsgApp && t != pb.MsgHeartbeat {
			continue
		}
		c.leader(n, shard.ID(m.Group), m.Raft.GetTerm())
		g := c.groups[shard.ID(m.Group)]
		for _, e := range m.Raft.GetEntries() {
			if was := g.proposed[e.GetIndex()]; was != e.GetTerm() {
				if g.proposed[e.GetIndex()] = e.GetTerm(); was != 0 {
					c.w.hit(probeLogOverwritten)
				}
			}
		}
	}
}

func (c *checks) leader(n *node, id shard.ID, term uint64) {
	g := c.groups[id]
	if g.term == term && g.leader == n.id {
		return
	}
	if other, ok := g.leaders[term]; ok && other != n.id {
		c.w.fail("one leader", "nodes %d and %d both lead %s in term %d", other, n.id, id, term)
	}
	g.leaders[term] = n.id
	if term > g.term {
		if g.leader != 0 && g.leader != n.id {
			c.w.hit(probeLeaderChange)
		}
		g.term, g.leader = term, n.id
	}
}

// leads takes what a node's observer hears of leaderships.
func (c *checks) leads(n *node, id shard.ID, term uint64, leader bool) {
	g := c.groups[id]
	if !leader {
		delete(g.leading, n.id)
		return
	}
	c.leader(n, id, term)
	if len(g.leading) > 0 {
		c.w.hit(probeTwoLeaders)
	}
	g.leading[n.id] = term
	if c.w.trace != nil {
		c.w.trace("                       node leads " + id.String())
	}
}

// died forgets what a process believed.
func (c *checks) died(n *node) {
	for _, id := range c.w.groups {
		delete(c.groups[id].leading, n.id)
	}
}

// task compares committed entries with those that other replicas, or this one in an earlier life, saw at their places.
func (c *checks) task(n *node, t *replica.Task) {
	entries := t.Entries()
	if len(entries) == 0 {
		return
	}
	g := c.groups[t.Group]
	t.Members(func(index uint64, encoded []byte) {
		h := fnv.New64a()
		h.Write(encoded)
		if was, ok := g.members[index]; ok && was != h.Sum64() {
			c.w.fail("membership", "%s: the change of members at index %d makes other members on node %d than on one before it", t.Group, index, n.id)
		}
		g.members[index] = h.Sum64()
	})
	for _, e := range entries {
		h := fnv.New64a()
		h.Write(e.Data)
		is := committed{e.GetTerm(), h.Sum64()}
		index := e.GetIndex()
		if g.first == 0 {
			g.first = index
		}
		if index < g.first {
			c.w.fail("log matching", "%s: node %d commits entry %d before the first", t.Group, n.id, index)
			return
		}
		at := int(index - g.first)
		for len(g.entries) <= at { // an applier that is far behind has its entries from the log: they are not seen here
			g.entries = append(g.entries, committed{})
		}
		switch was := g.entries[at]; {
		case was.term == 0:
			g.entries[at] = is
		case was != is:
			c.w.fail("log matching", "%s: node %d has committed entry %d of term %d where one of term %d was committed before", t.Group, n.id, index, is.term, was.term)
		}
	}
}

// state compares a state with that of other replicas at the same index.
func (c *checks) state(n *node, id shard.ID, index, hash uint64) {
	g := c.groups[id]
	if was, ok := g.hashes[index]; ok && was != hash {
		c.w.fail("replica equality", "%s: node %d has another state at index %d than a replica before it", id, n.id, index)
	}
	g.hashes[index] = hash
}

// accepted notes what an accepted command on an order says about it.
func (c *checks) accepted(w *World, o *knownOrder, r shard.Result) {
	receipt := new(orderpb.Receipt)
	if err := receipt.UnmarshalVT(r.Payload); err != nil {
		w.fail("answer", "receipt does not decode: %v", err)
		return
	}
	o.revision = max(o.revision, receipt.Revision)
	o.position = max(o.position, r.Position)
}

// underKey looks at the answer to a request under a key of one caller.
func (c *checks) underKey(key, what string, r shard.Result) {
	switch {
	case r.Code == reject.KeyReused:
		c.w.hit(probeKeyReused)
		if !c.reused[key] {
			c.w.fail("idempotency", "%s was refused as the second request under key %s: it was the only one", what, key)
		}
	case r.OK() && r.Pending == "":
		if before := c.carried[key]; before != "" && before != what {
			c.w.fail("idempotency", "%s and %s were both carried out under key %s", before, what, key)
		}
		c.carried[key] = what
	}
}

// patient is the logic of an inventory shard: it must not refuse for what is held tentatively who waits for that.
type patient struct {
	shard.Logic
	w *World
}

func (l *patient) Apply(tx *shard.Tx, payload []byte) shard.Result {
	c := inventoryCommand(payload)
	reserve, adjust := c.GetReserve(), c.GetAdjust()
	waits := reserve != nil && reserve.Tentative == 0 && (!reserve.FreeStanding || reserve.AwaitTentative)
	refusedBefore := waits && l.hold(reserve.HoldId) != nil // it repeats the answer of then
	r := l.Logic.Apply(tx, payload)
	switch {
	case r.Code == reject.StockNegative && adjust.GetAwaitTentative():
		l.check(adjust.Sku, -adjust.Quantity, r)
	case r.Code == reject.OutOfStock && waits && !refusedBefore:
		for _, line := range l.hold(reserve.HoldId).GetLines() { // the demands, summed by SKU
			if line.Line == 0 || r.Field == fmt.Sprintf("/lines/%d/quantity", line.Line-1) {
				l.check(line.Sku, line.Quantity, r)
			}
		}
	}
	return r
}

func (l *patient) hold(id string) *inventorypb.Hold {
	h := new(inventorypb.Hold)
	r := l.Query(encode(&inventorypb.Query{Body: &inventorypb.Query_Hold{Hold: &inventorypb.FindHold{Id: id}}}))
	if !r.OK() || h.UnmarshalVT(r.Payload) != nil {
		return nil
	}
	return h
}

func (l *patient) check(sku string, quantity int64, refusal shard.Result) {
	list := new(inventorypb.ItemList)
	r := l.Query(encode(&inventorypb.Query{Body: &inventorypb.Query_Find{Find: &inventorypb.FindItem{Sku: sku}}}))
	if !r.OK() || list.UnmarshalVT(r.Payload) != nil {
		return
	}
	if i := list.Items[0]; inventory.Available(i)+i.Tentative >= quantity {
		l.w.fail("patience", "%d of %s are refused (%s), of which %d are available and %d tentatively held", quantity, sku, refusal.Code, inventory.Available(i), i.Tentative)
	}
}

// watched is a state machine whose states are compared.
type watched struct {
	shard.Machine
	id   shard.ID
	node *node
	last uint64
}

func (m *watched) Apply(e shard.Entry) shard.Applied {
	if e.Index <= m.last {
		m.node.w.fail("apply", "%s: node %d applies entry %d after %d", m.id, m.node.id, e.Index, m.last)
	}
	m.last = e.Index
	g := m.node.w.checks.groups[m.id]
	if e.Index <= g.applied[m.node.id] {
		m.node.w.hit(probeReplayedEntry)
	}
	g.applied[m.node.id] = max(g.applied[m.node.id], e.Index)
	a := m.Machine.Apply(e)
	if e.Index%hashEvery == 0 {
		m.node.w.checks.state(m.node, m.id, e.Index, m.Hash())
	}
	return a
}

// bounds checks that no queue of a node is longer than it may be. The host's own tick may come on top.
func (c *checks) bounds(n *node) {
	for _, s := range n.host.Status() {
		if s.Queued > n.queueBound+1 || s.Reads > n.readBound+1 {
			c.w.fail("bounded queues", "node %d has %d commands and %d reads waiting for %s, at most %d and %d are allowed", n.id, s.Queued, s.Reads, s.Shard, n.queueBound, n.readBound)
		}
	}
	if calls := len(n.router.calls); calls > maxCalls {
		c.w.fail("bounded queues", "node %d waits for %d calls", n.id, calls)
	}
}
