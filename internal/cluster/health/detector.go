package health

import (
	"cmp"
	"slices"
	"time"

	"hanse/internal/cluster"
)

// Detector watches the peers of one node. It has one caller at a time, who calls [Detector.Tick] every 50 ms or so.
type Detector struct {
	cfg      Config
	me       *node
	peers    []*node // by number
	last     int64   // the latest time told
	isolated bool    // no peer is reached
	clocks   consensus
}

// node is what is known of a peer, or of this node itself, which has no link and no row.
type node struct {
	id       uint64
	link     link
	row      []Link // as it said last
	rowAt    int64
	poll     poll
	disk     disk
	pace     pace
	standing standing
}

// disk is what a node says about its disk.
type disk struct {
	stalled time.Duration // the longest write of those that count
	hangs   bool          // one is away
	until   int64         // they are held against the node until then
}

// New returns a detector of node self that has seen nothing. Now is in ns since 1970, as all times are that it is told; they may be of a
// clock that is set at times.
func New(cfg Config, self uint64, now int64) *Detector {
	return &Detector{cfg: cfg, me: newNode(cfg, self, now), last: now}
}

func newNode(cfg Config, id uint64, now int64) *node {
	return &node{id: id, link: newLink(cfg, now), standing: newStanding(cfg, now)}
}

// SetPeers says whom to watch; a new one begins as healthy, seen now. This node's own number is left out.
func (d *Detector) SetPeers(nodes []uint64, now int64) {
	now = d.advance(now)
	nodes = slices.Compact(slices.Sorted(slices.Values(nodes)))
	peers := make([]*node, 0, len(nodes))
	for _, id := range nodes {
		if id == d.me.id {
			continue
		}
		p := d.peer(id)
		if p == nil {
			p = newNode(d.cfg, id, now)
		}
		peers = append(peers, p)
	}
	d.peers = peers
}

// Answered takes a heartbeat's answer; now is Received. One that comes after its heartbeat was told as missed counts all the same.
func (d *Detector) Answered(peer uint64, h Heartbeat) {
	now := d.advance(h.Received)
	p := d.peer(peer)
	if p == nil {
		return
	}
	p.link.answered(h, now)
	p.row, p.rowAt = h.Row, now
	p.disk.observe(d.cfg, h.Stalled, now)
	if h.Received-h.Sent <= int64(d.cfg.Interval) {
		p.standing.well++
	}
}

// Missed says that a heartbeat was not answered within Interval, or could not be sent. The reason may be empty.
func (d *Detector) Missed(peer uint64, reason string, now int64) {
	now = d.advance(now)
	if p := d.peer(peer); p != nil && p.link.missed(reason, now) {
		p.standing.well = 0
	}
}

// Self tells about this node: how long its current write has been away.
func (d *Detector) Self(stalled time.Duration, now int64) {
	d.me.disk.observe(d.cfg, stalled, d.advance(now))
}

// Tick judges, and returns what changed since the last one, by node.
func (d *Detector) Tick(now int64) []Change {
	now = d.advance(now)
	d.judgeLinks(now)
	d.askAround(now)
	d.clocks = d.compareClocks()
	d.compareAnswers(now)

	var changes []Change
	for _, n := range d.nodes() {
		before := n.standing.health
		if n == d.me {
			n.standing.settle(d.cfg, d.examineSelf(now), n.standing.quiet(d.cfg, now), now)
		} else {
			n.standing.settle(d.cfg, d.examine(n, now), n.standing.well, now)
		}
		if n.standing.health != before {
			changes = append(changes, Change{Node: n.id, From: before, To: n.standing.health, Reason: n.standing.reason})
		}
	}
	return changes
}

// Observed returns the judgement of every node, self included, as of the last Tick: from this node's own heartbeats and the rows of the
// others. A node that this one does not reach but a majority of the healthy others does is suspect, and the reason names who does not
// reach it. The reason of a healthy one is a warning.
func (d *Detector) Observed() map[uint64]cluster.Observed {
	all := make(map[uint64]cluster.Observed, len(d.peers)+1)
	for _, n := range d.nodes() {
		all[n.id] = cluster.Observed{Health: n.standing.health, Since: ms(n.standing.since), Reason: n.standing.reason}
	}
	return all
}

// Row is this node's own row of the matrix, by node; it goes into its answers to heartbeats. Peers of which it has no experience yet are
// left out: a node that has just started must not speak for one that is dead.
func (d *Detector) Row() []Link {
	row := make([]Link, 0, len(d.peers))
	for _, p := range d.peers {
		if !p.link.proven {
			continue
		}
		l := Link{To: p.id, Reached: p.link.reached, Since: ms(p.link.since)}
		l.RTT, _ = p.link.roundTrip()
		if c, known := p.link.clock(); known {
			l.Offset = c.offset
		}
		row = append(row, l)
	}
	return row
}

// Matrix returns all rows known, by node, this node's among them; each was heard within the last DeadAfter. Rows are not to be changed.
func (d *Detector) Matrix() map[uint64][]Link {
	rows := map[uint64][]Link{d.me.id: d.Row()}
	for _, p := range d.peers {
		if p.row != nil && d.last-p.rowAt <= int64(d.cfg.DeadAfter) {
			rows[p.id] = p.row
		}
	}
	return rows
}

// Offset is this node's clock minus the median of its own and the clocks of the peers it reaches. It is not known with fewer than three
// clocks, or while no majority of them agrees within YieldOffset: of two clocks nobody can say which is wrong.
func (d *Detector) Offset() (offset time.Duration, known bool) {
	return -d.clocks.median.offset, d.clocks.known
}

// advance takes note of the time. A gap says nothing of the peers: while this process stood still it heard nobody, and when its clock was
// set nothing happened at all. So everything remembered moves along, and what was measured across the gap is forgotten. Told times
// need not come in order, so a small step back is none.
func (d *Detector) advance(now int64) int64 {
	gap := now - d.last
	if gap > int64(d.cfg.Pause) || gap < -int64(d.cfg.Pause) {
		d.last = now
		for _, n := range d.nodes() {
			n.shift(gap)
			// Heartbeats that were away during the gap are told as missed right after it; those that are sent now, an interval later.
			n.link.deafUntil = now + int64(d.cfg.Interval)
			n.link.forgetTimes()
			n.pace.slowSince = 0
		}
	}
	d.last = max(d.last, now)
	return d.last
}

func (n *node) shift(gap int64) {
	n.link.shift(gap)
	n.standing.shift(gap)
	n.rowAt += gap
	n.disk.until += gap
	if n.poll.cut() {
		n.poll.cutSince += gap
	}
}

// observe takes a report. While a stall counts, the longest is the one to name.
func (k *disk) observe(cfg Config, stalled time.Duration, now int64) {
	if now >= k.until {
		k.stalled = 0
	}
	k.hangs = stalled > cfg.SlowDisk
	if k.hangs {
		k.stalled = max(k.stalled, stalled)
		k.until = now + int64(cfg.DiskSticky)
	}
}

func (d *Detector) peer(id uint64) *node {
	if i, found := d.find(id); found {
		return d.peers[i]
	}
	return nil
}

// find returns where a peer is, or would be.
func (d *Detector) find(id uint64) (i int, found bool) {
	return slices.BinarySearchFunc(d.peers, id, func(p *node, id uint64) int { return cmp.Compare(p.id, id) })
}

// nodes returns this node and its peers, by number.
func (d *Detector) nodes() []*node {
	i, _ := d.find(d.me.id)
	return slices.Insert(slices.Clone(d.peers), i, d.me)
}

func ms(ns int64) int64 { return ns / int64(time.Millisecond) }
