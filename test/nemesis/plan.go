package main

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// kind is a kind of fault.
type kind string

const (
	killNode    kind = "kill"
	restartNode kind = "restart"
	pauseNode   kind = "pause"
	partition   kind = "partition"
	oneWay      kind = "one-way"
	bridge      kind = "bridge"
	loss        kind = "loss"
	delay       kind = "delay"
	fullDisk    kind = "full-disk"
	syncError   kind = "sync-error"
	syncStall   kind = "sync-stall"
	syncLie     kind = "sync-lie"
	wrongClock  kind = "clock"
	provider    kind = "provider"
	restartAll  kind = "restart-all"
	killAll     kind = "kill-all"
	providerRow      = 0 // the row of the timeline that belongs to no node
)

// kinds are all faults, with what they do, in the order of the report.
var kinds = []struct {
	kind kind
	what string
}{
	{killNode, "SIGKILL; the node is started again some seconds later"},
	{restartNode, "SIGTERM, an orderly stop; the node is started again some seconds later"},
	{pauseNode, "SIGSTOP, later SIGCONT: the process stands still and does not know it"},
	{partition, "two sides do not hear each other; at times clients and provider are cut off from the smaller one too"},
	{oneWay, "a node is not heard by the others, or does not hear them"},
	{bridge, "two sides do not hear each other, one node hears both"},
	{loss, "packets between nodes are dropped at random"},
	{delay, "traffic between nodes comes late"},
	{fullDisk, "a node's file system has no byte left"},
	{syncError, "fsync fails with EIO"},
	{syncStall, "fsync takes seconds, at times longer than a node waits for its disk"},
	{syncLie, "fsync returns at once and syncs nothing, then SIGKILL"},
	{wrongClock, "a node's wall clock jumps and runs at another speed, at times so far off that the node stops"},
	{provider, "the payment provider is killed and started again"},
	{restartAll, "SIGTERM to all nodes at once"},
	{killAll, "SIGKILL to all nodes at once"},
}

// host is a place in the network: nodes count from 1.
type host int

const (
	anyNode      host = 0 // one of the nodes, where they share a door's address
	clientsHost  host = 100
	providerHost host = 200
)

func (h host) String() string {
	switch h {
	case providerHost:
		return "provider"
	case clientsHost:
		return "clients"
	}
	return fmt.Sprintf("node %d", int(h))
}

// link is the way from one host to another; the way back is another link.
type link struct{ From, To host }

// trouble is what is wrong with a link.
type trouble struct {
	Cut   bool
	Loss  float64 // probability that a packet is lost
	Delay time.Duration
}

func (t trouble) worse(o trouble) trouble {
	return trouble{t.Cut || o.Cut, max(t.Loss, o.Loss), max(t.Delay, o.Delay)}
}

// fault is one fault of a plan.
type fault struct {
	Kind kind
	// At is counted from the beginning of the run, For is how long the fault lasts.
	At, For time.Duration
	// Nodes are those whose row of the timeline it belongs to; none for the provider.
	Nodes []int
	// Text says what is special about this one.
	Text string
	// Links are the links with Trouble.
	Links   []link
	Trouble trouble
	// Clock is what HANSE_TEST_CLOCK takes.
	Clock string
	// Stall is how long each sync takes.
	Stall time.Duration
}

func (f *fault) end() time.Duration { return f.At + f.For }

// hurt is the set of nodes, as bits, that cannot be counted on while the fault lasts. A node whose clock is far off stops.
func (f *fault) hurt() uint {
	switch f.Kind {
	case loss, delay, provider:
		return 0
	}
	return set(f.Nodes)
}

// all reports whether no majority is left alive, on purpose.
func (f *fault) all() bool { return f.Kind == restartAll || f.Kind == killAll }

func (f *fault) String() string {
	var b strings.Builder
	b.WriteString(string(f.Kind))
	if len(f.Nodes) > 0 && !f.all() {
		b.WriteString(" node " + names(f.Nodes))
	}
	if f.Text != "" {
		b.WriteString(": " + f.Text)
	}
	return b.String()
}

func names(nodes []int) string {
	var parts []string
	for _, n := range nodes {
		parts = append(parts, fmt.Sprint(n))
	}
	return strings.Join(parts, ", ")
}

func set(nodes []int) (s uint) {
	for _, n := range nodes {
		s |= 1 << n
	}
	return s
}

// planConfig is what a plan depends on: the same one gives the same plan.
type planConfig struct {
	Seed   uint64
	Nodes  int
	Length time.Duration
	Kinds  []kind
	// SmallDisk is the node whose file system can be filled; 0 for none.
	SmallDisk int
	// AtOnce is how many nodes may be hurt at once; 0 for all but a majority.
	AtOnce int
}

const (
	// The shop opens before the first fault, so that there is something to compare with.
	calmBefore = 6 * time.Second
	// Between faults the cluster comes to rest, or else nobody knows which of them a slow answer is due to.
	minGap, maxGap = 2 * time.Second, 6 * time.Second
	// togetherChance is how often a second fault comes while one lasts.
	togetherChance = 0.35
)

// planner draws a plan.
type planner struct {
	cfg  planConfig
	rng  *rand.Rand
	deck []kind
}

// makePlan draws the faults of a run in the order of their beginning. Kinds come from a shuffled deck, so that a short run too has as many
// of them as it can. While any fault lasts a majority of the nodes, or all but AtOnce, are alive and connected, except during those that hit all.
func makePlan(cfg planConfig) (faults []fault) {
	p := &planner{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0))}
	if len(cfg.Kinds) == 0 {
		return nil
	}
	for at := calmBefore; ; {
		first, ok := p.draw(p.next(), 0)
		if !ok {
			return faults // no kind can be drawn for so few nodes
		}
		first.At = at
		if first.end() > cfg.Length {
			return faults
		}
		faults = append(faults, first)
		at = first.end()
		if !first.all() && p.rng.Float64() < togetherChance {
			kind := p.next()
			if second, ok := p.draw(kind, first.hurt()); ok && !second.all() && !interfere(first.Kind, kind) {
				second.At = first.At + p.between(0, first.For)
				if second.end() <= cfg.Length {
					faults = append(faults, second)
					at = max(at, second.end())
				}
			} else {
				p.deck = append(p.deck, kind) // its turn comes when it is alone
			}
		}
		at += p.between(minGap, maxGap)
	}
}

// interfere reports whether the end of one fault would be the end of the other, too: they write one file, or want to be the one tracer
// that a process can have.
func interfere(a, b kind) bool {
	traced := []kind{syncError, syncStall, syncLie}
	return a == b || slices.Contains(traced, a) && slices.Contains(traced, b)
}

// next takes a kind from the deck.
func (p *planner) next() kind {
	if len(p.deck) == 0 {
		p.deck = slices.Clone(p.cfg.Kinds)
		p.rng.Shuffle(len(p.deck), func(i, j int) { p.deck[i], p.deck[j] = p.deck[j], p.deck[i] })
	}
	k := p.deck[len(p.deck)-1]
	p.deck = p.deck[:len(p.deck)-1]
	return k
}

func (p *planner) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(p.rng.Int64N(int64(hi-lo))).Truncate(10*time.Millisecond)
}

// spare is how many of some nodes may fail at once, atOnce if that is not 0.
func spare(nodes, atOnce int) int {
	if atOnce > 0 {
		return atOnce
	}
	return (nodes - 1) / 2
}

func (p *planner) spare() int { return spare(p.cfg.Nodes, p.cfg.AtOnce) }

// victims draws up to n nodes such that with those that are hurt already a majority is left.
func (p *planner) victims(n int, hurt uint) (nodes []int) {
	for _, i := range p.rng.Perm(p.cfg.Nodes) {
		node := i + 1
		if len(nodes) < n && bits.OnesCount(hurt|1<<node) <= p.spare() {
			hurt |= 1 << node
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

func (p *planner) others(nodes []int) (others []int) {
	for n := 1; n <= p.cfg.Nodes; n++ {
		if !slices.Contains(nodes, n) {
			others = append(others, n)
		}
	}
	return others
}

func (p *planner) everyNode() []int { return p.others(nil) }

// ways are the links from each of one side to each of the other.
func ways(from, to []int) (links []link) {
	for _, a := range from {
		for _, b := range to {
			if a != b {
				links = append(links, link{host(a), host(b)})
			}
		}
	}
	return links
}

func both(a, b []int) []link { return append(ways(a, b), ways(b, a)...) }

// draw draws a fault of a kind while some nodes are hurt already; false when it has to wait for a better moment.
func (p *planner) draw(k kind, hurt uint) (fault, bool) {
	f := fault{Kind: k}
	one := func() bool {
		f.Nodes = p.victims(1, hurt)
		return len(f.Nodes) > 0
	}
	switch k {
	case killNode, restartNode:
		f.For = p.between(300*time.Millisecond, 8*time.Second)
		return f, one()
	case pauseNode:
		f.For = p.between(500*time.Millisecond, 8*time.Second)
		return f, one()
	case syncError:
		f.For = p.between(3*time.Second, 7*time.Second)
		return f, one()
	case syncStall:
		f.For, f.Stall = p.between(4*time.Second, 8*time.Second), p.between(200*time.Millisecond, 1500*time.Millisecond)
		if p.rng.IntN(3) == 0 {
			f.For, f.Stall = 13*time.Second, 12*time.Second
		}
		f.Text = "each takes " + f.Stall.String()
		return f, one()
	case syncLie:
		f.For = p.between(3*time.Second, 8*time.Second)
		return f, one()
	case fullDisk:
		f.For = p.between(3*time.Second, 8*time.Second)
		f.Nodes = []int{p.cfg.SmallDisk}
		return f, p.cfg.SmallDisk > 0 && bits.OnesCount(hurt|f.hurt()) <= p.spare()
	case wrongClock:
		f.For = p.between(4*time.Second, 15*time.Second)
		offset := p.between(50*time.Millisecond, 450*time.Millisecond)
		if p.rng.IntN(2) == 0 { // so far off that the node stops
			offset = p.between(600*time.Millisecond, 5*time.Second)
		}
		if p.rng.IntN(2) == 0 {
			offset = -offset
		}
		drift := (p.rng.IntN(21) - 10) * 1000 // up to a hundredth
		f.Clock = fmt.Sprintf("%+dms,drift=%dppm", offset.Milliseconds(), drift)
		f.Text = f.Clock
		return f, one()
	case provider:
		f.For = p.between(500*time.Millisecond, 4*time.Second)
		return f, true
	case restartAll:
		f.For, f.Nodes = time.Second, p.everyNode()
		return f, hurt == 0
	case killAll:
		f.For, f.Nodes = p.between(100*time.Millisecond, 2*time.Second), p.everyNode()
		return f, hurt == 0
	}
	return f, p.drawNetwork(&f, hurt)
}

func (p *planner) drawNetwork(f *fault, hurt uint) bool {
	f.For = p.between(3*time.Second, 12*time.Second)
	f.Trouble.Cut = true
	switch f.Kind {
	case partition:
		f.Nodes = p.victims(1+p.rng.IntN(max(1, p.spare())), hurt)
		rest := p.others(f.Nodes)
		f.Links = both(f.Nodes, rest)
		f.Text = names(f.Nodes) + " | " + names(rest)
		for _, h := range []host{clientsHost, providerHost} {
			if p.rng.IntN(4) == 0 {
				f.Links = append(f.Links, both(f.Nodes, []int{int(h)})...)
				f.Text += ", " + h.String()
			}
		}
	case oneWay:
		f.Nodes = p.victims(1, hurt)
		rest := p.others(f.Nodes)
		f.Links, f.Text = ways(f.Nodes, rest), "nobody hears it"
		if p.rng.IntN(2) == 0 {
			f.Links, f.Text = ways(rest, f.Nodes), "it hears nobody"
		}
	case bridge: // needs a side of spare nodes, a node between, and the other side
		f.Nodes = p.victims(p.spare(), hurt)
		rest := p.others(f.Nodes)
		if len(f.Nodes) == 0 || len(rest) < 2 {
			return false
		}
		middle := rest[p.rng.IntN(len(rest))]
		far := slices.DeleteFunc(rest, func(n int) bool { return n == middle })
		f.Links = both(f.Nodes, far)
		f.Text = fmt.Sprintf("%s – %d – %s", names(f.Nodes), middle, names(far))
	case loss:
		percent := 5 + p.rng.IntN(26)
		f.Nodes, f.Links, f.Trouble = p.everyNode(), ways(p.everyNode(), p.everyNode()), trouble{Loss: float64(percent) / 100}
		f.Text = fmt.Sprintf("%d %%", percent)
	case delay:
		f.Trouble = trouble{Delay: p.between(20*time.Millisecond, 150*time.Millisecond)}
		f.Nodes, f.Links, f.Text = p.everyNode(), ways(p.everyNode(), p.everyNode()), f.Trouble.Delay.String()
	default:
		panic("nemesis: unknown fault " + string(f.Kind))
	}
	return len(f.Nodes) > 0
}

// keepsEnough checks that at every moment of a plan, except during faults that hit all, enough of the nodes are alive and hear one another:
// all but those that may fail at once. It looks at what the faults do, not at how they were drawn.
func keepsEnough(faults []fault, nodes, atOnce int) error {
	enough := nodes - spare(nodes, atOnce)
	for i := range faults {
		at := faults[i].At // the worst moments are those at which a fault begins
		var dead uint
		cut := make(map[link]bool)
		all := 0
		var active []string
		for j := range faults {
			f := &faults[j]
			if f.At > at || f.end() < at {
				continue
			}
			active = append(active, f.String())
			if f.all() {
				all++
			}
			if f.Trouble.Cut {
				for _, l := range f.Links {
					cut[l] = true
				}
				continue
			}
			dead |= f.hurt()
		}
		if all > 0 {
			if len(active) > 1 {
				return fmt.Errorf("at %v: a fault that hits all is not alone: %s", at, strings.Join(active, "; "))
			}
			continue
		}
		if !connected(nodes, enough, dead, cut) {
			return fmt.Errorf("at %v no %d nodes are alive and connected: %s", at, enough, strings.Join(active, "; "))
		}
	}
	return nil
}

// connected looks for enough living nodes of which each hears each.
func connected(nodes, enough int, dead uint, cut map[link]bool) bool {
	for s := uint(0); s < 1<<(nodes+1); s += 2 {
		if bits.OnesCount(s) < enough || s&dead != 0 {
			continue
		}
		all := true
		for a := 1; a <= nodes; a++ {
			for b := 1; b <= nodes; b++ {
				if s&(1<<a) != 0 && s&(1<<b) != 0 && cut[link{host(a), host(b)}] {
					all = false
				}
			}
		}
		if all {
			return true
		}
	}
	return false
}
