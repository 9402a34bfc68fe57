package memtransport

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"hanse/internal/transport"
)

// maxFrameMessages is how many messages a handler gets at once from Pump and Run, as on a real stream.
const maxFrameMessages = 1024

// Config adjusts a Network; the zero Config is the usual one.
type Config struct {
	// QueueBytes bounds what one link holds, by class. Zero means [transport.QueueBytes].
	QueueBytes [transport.Classes]int
	// Intercept, when set, takes each message instead of a queue, and reports whether it was accepted. It is called
	// by Send without any lock held. It, or whoever it hands the envelope to, calls [Network.Deliver] any number of times.
	Intercept func(Envelope) bool
}

// Link is one direction between two nodes in one class.
type Link struct {
	From, To transport.NodeID
	Class    transport.Class
}

// Envelope is a message on its way.
type Envelope struct {
	Link
	// Address is where the sender's table had To when it sent.
	Address string
	Message transport.Message
}

// Network connects the transports of one process. All methods may be used concurrently; the order of deliveries is
// determined when Send, Pump and Deliver are called from one goroutine.
type Network struct {
	cfg Config
	// sent holds a token when Run has something to do.
	sent chan struct{}

	mu     sync.Mutex
	nodes  map[string]*Transport // by address
	queues map[Link]*queue
	cut    map[[2]transport.NodeID]bool
}

// queue holds what was sent on a link to one address, oldest first.
type queue struct {
	address  string
	messages []transport.Message
	bytes    int
}

// NewNetwork returns a network without nodes.
func NewNetwork(cfg Config) *Network {
	for class, limit := range transport.QueueBytes {
		if cfg.QueueBytes[class] == 0 {
			cfg.QueueBytes[class] = limit
		}
	}
	return &Network{
		cfg:    cfg,
		sent:   make(chan struct{}, 1),
		nodes:  map[string]*Transport{},
		queues: map[Link]*queue{},
		cut:    map[[2]transport.NodeID]bool{},
	}
}

// Attach puts node id at address; h receives what is delivered there. Whoever was there before, and id wherever it was, is
// detached, as when a process is restarted. Messages on their way to id at this address reach the new one.
func (n *Network) Attach(id transport.NodeID, address string, h transport.Handler) *Transport {
	t := &Transport{network: n, id: id, address: address, handler: h}
	n.mu.Lock()
	defer n.mu.Unlock()
	for at, old := range n.nodes {
		if at == address || old.id == id {
			old.detached = true
			delete(n.nodes, at)
		}
	}
	n.nodes[address] = t
	return t
}

// Cut loses what from sends to to, from now on and what is on its way, until Heal. The other direction is another cut.
func (n *Network) Cut(from, to transport.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]transport.NodeID{from, to}] = true
	for class := range transport.Classes {
		delete(n.queues, Link{From: from, To: to, Class: class})
	}
}

// Heal undoes the Cut of from to to.
func (n *Network) Heal(from, to transport.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, [2]transport.NodeID{from, to})
}

// Links lists the links on which messages wait, in the order of From, To and Class.
func (n *Network) Links() []Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links()
}

func (n *Network) links() []Link {
	links := make([]Link, 0, len(n.queues))
	for l := range n.queues {
		links = append(links, l)
	}
	slices.SortFunc(links, func(a, b Link) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Class, b.Class))
	})
	return links
}

// Waiting returns the number of messages that wait on l.
func (n *Network) Waiting(l Link) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if q := n.queues[l]; q != nil {
		return len(q.messages)
	}
	return 0
}

// Take removes message i of those waiting on l, 0 being the oldest, for the caller to deliver or to forget.
// It reports false when there is no such message.
func (n *Network) Take(l Link, i int) (Envelope, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := n.queues[l]
	if q == nil || i < 0 || i >= len(q.messages) {
		return Envelope{}, false
	}
	m := q.messages[i]
	q.messages = slices.Delete(q.messages, i, i+1)
	q.bytes -= m.SizeBytes()
	if len(q.messages) == 0 {
		delete(n.queues, l)
	}
	return Envelope{Link: l, Address: q.address, Message: m}, true
}

// Deliver hands e to its receiver, as a frame of its own, and reports whether that was there to take it. A message
// may be delivered more than once.
func (n *Network) Deliver(e Envelope) bool {
	return n.deliver(e.Link, e.Address, []transport.Message{e.Message})
}

// deliver finds the receiver now, not when the message was sent: a node that crashed in between gets nothing. The
// sender may be gone; its last words are still on the way.
func (n *Network) deliver(l Link, address string, messages []transport.Message) bool {
	n.mu.Lock()
	to := n.nodes[address]
	lost := to == nil || to.id != l.To || n.cut[[2]transport.NodeID{l.From, l.To}]
	n.mu.Unlock()
	if lost {
		return false
	}
	to.handler(l.From, l.Class, messages)
	return true
}

// Pump delivers what waits on every link at the time of the call, link by link and in order, and returns how many
// messages reached a handler. What the handlers send waits for the next call, so that each call ends.
func (n *Network) Pump() int {
	delivered := 0
	for _, f := range n.takeAll() {
		for frame := range slices.Chunk(f.messages, maxFrameMessages) {
			if n.deliver(f.link, f.address, frame) {
				delivered += len(frame)
			}
		}
	}
	return delivered
}

type linkQueue struct {
	link Link
	*queue
}

func (n *Network) takeAll() []linkQueue {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []linkQueue
	for _, l := range n.links() {
		all = append(all, linkQueue{l, n.queues[l]})
		delete(n.queues, l)
	}
	return all
}

// Run pumps whenever something was sent, until ctx ends. Handlers are called by the goroutine of Run.
func (n *Network) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.sent:
			n.Pump()
		}
	}
}

// enqueue is called with the lock held and reports whether the link has room.
func (n *Network) enqueue(l Link, address string, m transport.Message, size int) bool {
	q := n.queues[l]
	if q == nil {
		q = &queue{address: address}
	}
	if q.bytes+size > n.cfg.QueueBytes[l.Class] {
		return false
	}
	q.messages = append(q.messages, m)
	q.bytes += size
	n.queues[l] = q
	select {
	case n.sent <- struct{}{}:
	default: // Run has not looked yet and will see this message too
	}
	return true
}
