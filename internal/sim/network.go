package sim

import (
	"hanse/internal/transport"
)

// frame is what travels from one node to another in one piece: messages of the transport, or a request or response between routers.
type frame struct {
	from, to *node
	start    start // of the sender
	class    transport.Class
	messages []transport.Message
	request  *request
	response *response
}

// network carries frames. Like the streams of the real transport it keeps the order on each link, unless the run has
// reordering.
type network struct {
	w    *World
	rng  *random
	base [][]int64                    // of each link, permanent
	last [transport.Classes][][]int64 // arrival of the latest frame
	cut  [][]bool
	// known has the newest start of each node that another has read of in the plan.
	known []start
}

func newNetwork(w *World) *network {
	n := &network{w: w, rng: newRandom(w.plan.Seed, "network")}
	size := w.plan.Nodes + 1 + maxReplacements
	n.known = make([]start, size)
	for range size {
		base := make([]int64, size)
		for i := range base {
			base[i] = n.rng.between(50, 1000)
		}
		n.base = append(n.base, base)
		for class := range n.last {
			n.last[class] = append(n.last[class], make([]int64, size))
		}
		n.cut = append(n.cut, make([]bool, size))
	}
	return n
}

// connected says whether a stream between two nodes is up: both processes live and neither direction is cut.
func (n *network) connected(a, b transport.NodeID) bool {
	from := n.w.node(a)
	return !n.refuses(a, start{from.says, from.life}) && n.w.node(b).life != 0 && !n.cut[a][b] && !n.cut[b][a]
}

func (n *network) heal() {
	for _, row := range n.cut {
		clear(row)
	}
}

// send sends messages in one frame, apart from those that faults strike.
func (n *network) send(f frame) {
	p := &n.w.plan
	f.start = start{f.from.says, f.from.life}
	loss, dup, reorder := 0.0, 0.0, 0.0
	if !n.w.calm {
		loss, dup, reorder = p.rate(Loss), p.rate(Duplicate), p.rate(Reorder)
	}
	if f.class != transport.Raft {
		// A stream loses nothing from its middle: it breaks. Raft's own messages are to bear everything.
		loss, dup, reorder = loss/4, 0, 0
	}
	if loss == 0 && dup == 0 && reorder == 0 || len(f.messages) == 0 {
		if !n.rng.chance(loss) {
			n.carry(f, n.rng.chance(reorder))
			if n.rng.chance(dup) {
				n.carry(f, true)
			}
		}
		return
	}
	kept := make([]transport.Message, 0, len(f.messages))
	for _, m := range f.messages {
		alone := f
		alone.messages = []transport.Message{m}
		if n.rng.chance(loss) {
			continue
		}
		if n.rng.chance(dup) {
			n.carry(alone, true)
		}
		if n.rng.chance(reorder) {
			n.carry(alone, true)
			continue
		}
		kept = append(kept, m)
	}
	if f.messages = kept; len(kept) > 0 {
		n.carry(f, false)
	}
}

// carry has a frame arrive.
func (n *network) carry(f frame, overtakes bool) {
	from, to := f.from.id, f.to.id
	delay := n.base[from][to] + n.rng.between(0, 300)
	if n.w.plan.On[Delay] && !n.w.calm {
		delay += n.rng.exponential(int64(n.w.plan.Rate[Delay] * float64(millisecond)))
		if n.rng.chance(0.001) {
			delay += n.rng.between(0, 2*second)
		}
		if f.class == transport.Call && n.rng.chance(0.03) { // longer than routers and reactors wait: it comes after its repetition
			delay += n.rng.between(0, 12*second)
			overtakes = true
		}
	}
	at := n.w.now + delay
	if overtakes {
		at += n.rng.between(0, 50*millisecond)
	} else {
		last := &n.last[f.class][from][to]
		at = max(at, *last)
		*last = at
	}
	what := "frame"
	switch {
	case f.request != nil:
		what = "request"
	case f.response != nil:
		what = "response"
	}
	n.w.push(event{at: at, node: nil, what: what, fn: func() { n.arrive(f, what) }})
}

func (n *network) arrive(f frame, what string) {
	to := f.to
	if to.life == 0 || n.cut[f.from.id][to.id] {
		return
	}
	if from := f.from; n.refuses(from.id, f.start) {
		if from.life == f.start.life {
			n.w.after(n.w.faults.between(0, refusalTakes), from, "refusal", func() { from.refused("the others refuse it: its disk is an old copy") })
		}
		return
	}
	to.control.heard[f.from.id] = n.w.now
	if to.pausedUntil > n.w.now {
		n.w.push(event{at: to.pausedUntil, node: to, life: to.life, what: what, fn: func() { to.receive(f) }})
		return
	}
	n.w.mix(uint64(f.from.id)<<8 | uint64(to.id))
	to.guard(func() { to.receive(f) })
}
