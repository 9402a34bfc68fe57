package memtransport

import (
	"maps"
	"slices"

	"hanse/internal/transport"
)

// Transport is one node's access to a [Network].
type Transport struct {
	network *Network
	id      transport.NodeID
	address string
	handler transport.Handler

	// The following are guarded by network.mu.
	detached bool
	peers    map[transport.NodeID]string
	counters map[transport.NodeID]*counters
}

type counters struct{ sentBytes, dropped uint64 }

var _ transport.Transport = (*Transport)(nil)

// Send implements [transport.Transport]. A message sent into a cut is accepted and lost.
func (t *Transport) Send(to transport.NodeID, class transport.Class, m transport.Message) bool {
	n := t.network
	n.mu.Lock()
	address, known := t.peers[to]
	if !known || t.detached || class >= transport.Classes {
		n.mu.Unlock()
		return false
	}
	c := t.counters[to]
	if m.Check() != nil {
		c.dropped++
		n.mu.Unlock()
		return false
	}
	l, size := Link{From: t.id, To: to, Class: class}, m.SizeBytes()
	cut := n.cut[[2]transport.NodeID{t.id, to}]
	accepted := cut || n.cfg.Intercept == nil && n.enqueue(l, address, m, size)
	n.mu.Unlock()

	if !cut && n.cfg.Intercept != nil {
		// The owner of the network may look at it, or deliver at once, so no lock is held.
		accepted = n.cfg.Intercept(Envelope{Link: l, Address: address, Message: m})
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	if !accepted {
		c.dropped++
		return false
	}
	c.sentBytes += uint64(size)
	return true
}

// SetPeers implements [transport.Transport]. What waits for peers that are gone or moved is lost. The node's own number is ignored.
func (t *Transport) SetPeers(addresses map[transport.NodeID]string) {
	n := t.network
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, address := range t.peers {
		if addresses[id] == address {
			continue
		}
		for class := range transport.Classes {
			delete(n.queues, Link{From: t.id, To: id, Class: class})
		}
	}
	t.peers = maps.Clone(addresses)
	delete(t.peers, t.id)
	kept := map[transport.NodeID]*counters{}
	for id := range t.peers {
		if kept[id] = t.counters[id]; kept[id] == nil {
			kept[id] = &counters{}
		}
	}
	t.counters = kept
}

// Connected reports whether a peer is attached where it should be and the way to it is not cut.
func (t *Transport) Connected(to transport.NodeID) bool {
	n := t.network
	n.mu.Lock()
	defer n.mu.Unlock()
	return t.away(to) == ""
}

// away says why a peer is not connected; empty when it is. The network must be locked.
func (t *Transport) away(to transport.NodeID) string {
	address, known := t.peers[to]
	if !known {
		return "not in the table"
	}
	switch at := t.network.nodes[address]; {
	case at == nil:
		return "nobody at " + address
	case at.id != to:
		return "another node at " + address
	case t.network.cut[[2]transport.NodeID{t.id, to}]:
		return "cut"
	}
	return ""
}

// Peers tells how each peer fares, by ID.
func (t *Transport) Peers() []transport.Peer {
	n := t.network
	n.mu.Lock()
	defer n.mu.Unlock()
	var peers []transport.Peer
	for _, id := range slices.Sorted(maps.Keys(t.peers)) {
		c := t.counters[id]
		p := transport.Peer{ID: id, Err: t.away(id), SentBytes: c.sentBytes, Dropped: c.dropped}
		p.Connected = p.Err == ""
		for class := range transport.Classes {
			if q := n.queues[Link{From: t.id, To: id, Class: class}]; q != nil {
				p.Queued += uint64(q.bytes)
			}
		}
		peers = append(peers, p)
	}
	return peers
}

// Detach removes the node from the network, as a crash does: it sends and receives nothing more. What it has sent is on its way.
func (t *Transport) Detach() {
	n := t.network
	n.mu.Lock()
	defer n.mu.Unlock()
	t.detached = true
	if n.nodes[t.address] == t {
		delete(n.nodes, t.address)
	}
}
