package health

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"hanse/internal/cluster"
)

// world is a cluster of detectors under virtual time, with a network and clocks that can be made to fail. A heartbeat takes 1 ms.
type world struct {
	now    int64 // ns since the beginning
	seq    int
	events events
	hosts  []*host // by number, from 1
	cut    map[[2]uint64]bool
	late   map[[2]uint64]time.Duration // by how much round trips between two take longer
	loss   float64                     // of each message
	random *rand.Rand
	seen   []sighting
}

// host is a node: its detector, and what it suffers.
type host struct {
	w       *world
	id      uint64
	d       *Detector
	life    int // grows when it is killed: what was under way then is lost
	down    bool
	frozen  bool
	waiting []func() // what happened to it while it was frozen
	clock   time.Duration
	delay   time.Duration
	stalled time.Duration
}

// sighting is a change that a node reported.
type sighting struct {
	at time.Duration
	by uint64
	Change
}

const (
	epoch    = int64(1_700_000_000) * int64(time.Second)
	oneWay   = 500 * time.Microsecond
	tickTime = 50 * time.Millisecond
)

func newWorld(nodes int, seed uint64) *world {
	w := &world{cut: make(map[[2]uint64]bool), late: make(map[[2]uint64]time.Duration), random: rand.New(rand.NewPCG(seed, seed))}
	for i := range nodes {
		w.hosts = append(w.hosts, &host{w: w, id: uint64(i + 1), down: true})
	}
	for _, h := range w.hosts {
		h.start()
	}
	return w
}

func (w *world) host(id uint64) *host { return w.hosts[id-1] }

func (w *world) run(d time.Duration) {
	end := w.now + int64(d)
	for len(w.events) > 0 && w.events[0].at <= end {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{at: w.now + int64(d), seq: w.seq, do: do})
}

func (h *host) time() int64 { return epoch + h.w.now + int64(h.clock) }

// after does something on this host, when it runs and lives still.
func (h *host) after(d time.Duration, do func()) {
	life := h.life
	h.w.after(d, func() {
		alive := func() {
			if h.life == life {
				do()
			}
		}
		if h.frozen {
			h.waiting = append(h.waiting, alive)
			return
		}
		alive()
	})
}

func (h *host) start() {
	h.down = false
	h.d = New(DefaultConfig(), h.id, h.time())
	var all []uint64
	for _, p := range h.w.hosts {
		all = append(all, p.id)
	}
	h.d.SetPeers(all, h.time())
	h.after(time.Duration(h.w.random.Int64N(int64(tickTime))), h.tick)
	for _, p := range h.w.hosts {
		if p != h {
			h.after(time.Duration(h.w.random.Int64N(int64(h.d.cfg.Interval))), func() { h.beat(p) })
		}
	}
}

func (h *host) kill() { h.down, h.life = true, h.life+1 }

func (h *host) thaw() {
	waiting := h.waiting
	h.frozen, h.waiting = false, nil
	for _, do := range waiting {
		do()
	}
}

func (h *host) tick() {
	h.d.Self(h.stalled, h.time())
	for _, c := range h.d.Tick(h.time()) {
		h.w.seen = append(h.w.seen, sighting{time.Duration(h.w.now), h.id, c})
	}
	h.after(tickTime, h.tick)
}

// beat sends a heartbeat, and the next one an interval later.
func (h *host) beat(p *host) {
	h.after(h.d.cfg.Interval, func() { h.beat(p) })
	sent, answered := h.time(), false
	h.after(h.d.cfg.Interval, func() {
		if !answered {
			why := ""
			if p.down {
				why = "connection refused"
			}
			h.d.Missed(p.id, why, h.time())
		}
	})
	if p.down || !h.w.delivers(h.id, p.id) {
		return
	}
	p.after(oneWay, func() {
		received := p.time()
		delay := p.delay + h.w.late[[2]uint64{h.id, p.id}]
		p.after(delay, func() {
			a := Heartbeat{Sent: sent, PeerReceived: received, PeerSent: p.time(), Stalled: p.stalled, Row: p.d.Row()}
			if delay > 0 {
				a.PeerSent = received // it is the network that is slow
			}
			if !h.w.delivers(p.id, h.id) {
				return
			}
			h.after(oneWay, func() {
				answered = true
				a.Received = h.time()
				h.d.Answered(p.id, a)
			})
		})
	})
}

func (w *world) delivers(from, to uint64) bool {
	return !w.cut[[2]uint64{from, to}] && w.random.Float64() >= w.loss
}

// changes says what was reported since it was last asked, nearly simultaneous reports of one thing in one line.
func (w *world) changes() string {
	type line struct {
		first, last time.Duration
		by          []uint64
		what        string
	}
	var lines []*line
	for _, s := range w.seen {
		what := fmt.Sprintf("%d %s -> %s: %s", s.Node, name(s.From), name(s.To), s.Reason)
		if s.Reason == "" {
			what = fmt.Sprintf("%d %s -> %s", s.Node, name(s.From), name(s.To))
		}
		i := slices.IndexFunc(lines, func(l *line) bool { return l.what == what && s.at-l.last < 500*time.Millisecond })
		if i < 0 {
			lines = append(lines, &line{first: s.at, what: what})
			i = len(lines) - 1
		}
		lines[i].last = s.at
		lines[i].by = append(lines[i].by, s.by)
	}
	w.seen = nil
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%5.1f s by %s: node %s\n", l.first.Seconds(), numbers(l.by), l.what)
	}
	return b.String()
}

// judgements says what the nodes say of each.
func (w *world) judgements() string {
	var b strings.Builder
	for _, subject := range w.hosts {
		by := make(map[string][]uint64)
		for _, h := range w.hosts {
			if h.down {
				continue
			}
			o := h.d.Observed()[subject.id]
			what := name(o.Health)
			if o.Reason != "" {
				what += ": " + o.Reason
			}
			by[what] = append(by[what], h.id)
		}
		var lines []string
		for what, who := range by {
			lines = append(lines, fmt.Sprintf("by %s: node %d %s\n", numbers(who), subject.id, what))
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	return b.String()
}

func name(h cluster.Health) string {
	return [...]string{"healthy", "suspect", "unhealthy", "dead"}[h]
}

func numbers(ids []uint64) string {
	slices.Sort(ids)
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(slices.Compact(ids)), " ", ","), "[]")
}

type event struct {
	at  int64
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
