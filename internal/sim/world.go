package sim

import (
	"fmt"
	"runtime/debug"

	"hanse/internal/shard"
	"hanse/internal/transport"
)

// The world counts microseconds from its beginning.
const (
	millisecond = int64(1000)
	second      = 1000 * millisecond
)

// epoch is the beginning in ms since 1970.
const epoch = 1_800_000_000_000

// World is one run: a cluster with its network, disks, clients and provider, stepped by one goroutine.
type World struct {
	plan   Plan
	mutant *Mutant
	now    int64
	queue  eventQueue
	seq    uint64
	hash   uint64
	events int
	// calm says that the liveness phase has begun: no faults any more.
	calm bool

	nodes    []*node
	joining  map[uint64]*node // those in whose place others come, by the numbers of these, until all earlier ones are there
	lives    uint64
	groups   []shard.ID
	net      *network
	provider *provider
	clients  []*client
	orders   []*knownOrder // that clients know of
	history  *history
	checks   *checks
	faults   *random
	ids      *random

	probes  [probes]int
	failure *Failure
	story   []string
	trace   func(string)
}

// Failure is a promise that a run has found broken.
type Failure struct {
	Seed    uint64 `json:"seed"`
	Checker string `json:"checker"`
	Message string `json:"message"`
	At      int64  `json:"at_us"`
}

func (f *Failure) Error() string {
	return fmt.Sprintf("seed %d: %s after %.3f s: %s", f.Seed, f.Checker, float64(f.At)/float64(second), f.Message)
}

// event is something that happens at a time.
type event struct {
	at  int64
	seq uint64
	// node is where it happens, nil for the world; life is the life of its process that it belongs to, 0 for any.
	node *node
	life uint64
	what string
	fn   func()
}

// eventQueue is a heap by time, then number. It is written out, for container/heap would put every event on Go's heap.
type eventQueue []event

func (q eventQueue) less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}

func (q *eventQueue) push(e event) {
	h := append(*q, e)
	*q = h
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (q *eventQueue) pop() event {
	h := *q
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	*q = h
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	return first
}

// after has fn called when delay has passed. What concerns a node's process is dropped when that has died by then.
func (w *World) after(delay int64, n *node, what string, fn func()) {
	e := event{at: w.now + max(delay, 0), node: n, what: what, fn: fn}
	if n != nil {
		if e.life = n.life; e.life == 0 {
			return
		}
	}
	w.push(e)
}

func (w *World) push(e event) {
	w.seq++
	e.seq = w.seq
	w.queue.push(e)
}

// step lets the next event happen.
func (w *World) step() {
	e := w.queue.pop()
	w.now = e.at
	if n := e.node; n != nil {
		if n.life != e.life {
			return // of a process that has died
		}
		if n.pausedUntil > w.now {
			e.at = n.pausedUntil
			w.push(e)
			return
		}
	}
	if w.events++; w.events > maxEvents {
		w.fail("runaway", "more than %d events", maxEvents)
	}
	w.mix(uint64(e.at))
	w.mix(uint64(len(e.what))<<8 | uint64(e.what[0]))
	if n := e.node; n != nil {
		w.mix(uint64(n.id))
		if w.trace != nil {
			w.trace(fmt.Sprintf("%12.6f  node %d  %s", w.seconds(), n.id, e.what))
		}
		n.guard(e.fn)
		return
	}
	if w.trace != nil {
		w.trace(fmt.Sprintf("%12.6f          %s", w.seconds(), e.what))
	}
	e.fn()
}

// mix adds a value to the hash of the trace.
func (w *World) mix(v uint64) { w.hash = mix(w.hash ^ v) }

func (w *World) seconds() float64 { return float64(w.now) / float64(second) }

// tell adds a line to the story.
func (w *World) tell(format string, args ...any) {
	line := fmt.Sprintf("%9.3f s  ", w.seconds()) + fmt.Sprintf(format, args...)
	for i := range len(line) {
		w.hash = (w.hash ^ uint64(line[i])) * 1099511628211
	}
	w.story = append(w.story, line)
	if w.trace != nil {
		w.trace(line)
	}
}

// fail ends the run.
func (w *World) fail(checker, format string, args ...any) {
	if w.failure == nil {
		w.failure = &Failure{w.plan.Seed, checker, fmt.Sprintf(format, args...), w.now}
		w.tell("FAILED: %s: %s", checker, w.failure.Message)
	}
}

// Safety and liveness of a run, in virtual time.
const (
	safetyTime = 60 * second
	// calmTime bounds the liveness phase; it ends as soon as everything has come to rest.
	calmTime  = 300 * second
	calmCheck = second / 2
	// maxEvents is far more than any run needs.
	maxEvents = 20_000_000
)

// run plays both phases.
func (w *World) run() {
	defer func() {
		if p := recover(); p != nil {
			w.fail("panic", "%v\n%s", p, debug.Stack())
			if w.trace != nil {
				panic(p)
			}
		}
	}()
	for w.failure == nil && w.now < safetyTime {
		w.step()
	}
	if w.failure != nil {
		return
	}
	w.heal()
	end, next := w.now+calmTime, w.now+calmCheck
	for w.failure == nil {
		w.step()
		if w.now < next {
			continue
		}
		next = w.now + calmCheck
		why := w.unrest()
		if why == "" {
			break
		}
		if w.now > end {
			w.describe()
			w.fail("liveness", "%d s after the last fault: %s", calmTime/second, why)
		}
	}
	if w.failure == nil {
		w.audit()
	}
}

// newWorld builds the cluster of a plan and has everything begin.
func newWorld(p Plan, m *Mutant, trace func(string)) *World {
	w := &World{
		plan: p, mutant: m, trace: trace, hash: p.Seed, joining: make(map[uint64]*node),
		faults: newRandom(p.Seed, "faults"), ids: newRandom(p.Seed, "ids"),
	}
	w.groups = p.Layout.All()
	w.checks = newChecks(w)
	w.history = newHistory()
	w.net = newNetwork(w)
	w.provider = newProvider(w)
	for i := range p.Nodes {
		w.nodes = append(w.nodes, newNode(w, transport.NodeID(i+1)))
	}
	for _, n := range w.nodes {
		n.format()
		n.start()
	}
	w.found()
	w.startFaults()
	w.startClients()
	return w
}

func (w *World) node(id transport.NodeID) *node { return w.nodes[id-1] }

// millis is the true time in ms since 1970.
func (w *World) millis() int64 { return epoch + w.now/millisecond }
