package health

import (
	"cmp"
	"slices"
	"time"
)

// clock is a clock as seen from here: how far it is ahead of this node's own, and by how much that may be wrong. All of a round trip may
// have been spent on one way.
type clock struct{ offset, doubt time.Duration }

// off is by how much a clock surely differs from another.
func (c clock) off(from time.Duration) time.Duration { return max(0, (c.offset-from).Abs()-c.doubt) }

// consensus is what the clocks of a cluster agree on; while it is not known, this node's own clock stands for it.
type consensus struct {
	median clock
	known  bool
}

// compareClocks finds the median. It takes the clocks of all peers that are reached, also of those that are unhealthy: were a
// clock left out once it is found wrong, two of three would be left, and nobody could say which of them is right.
func (d *Detector) compareClocks() consensus {
	clocks := []clock{{}} // this node's own
	for _, p := range d.peers {
		if c, known := p.link.clock(); known && p.link.reached {
			clocks = append(clocks, c)
		}
	}
	if len(clocks) < 3 {
		return consensus{}
	}
	slices.SortFunc(clocks, func(a, b clock) int { return cmp.Compare(a.offset, b.offset) })
	lower, upper := clocks[(len(clocks)-1)/2], clocks[len(clocks)/2]
	m := clock{offset: lower.offset/2 + upper.offset/2 + (lower.offset%2+upper.offset%2)/2, doubt: max(lower.doubt, upper.doubt)}
	agree := 0
	for _, c := range clocks {
		if c.off(m.offset) <= d.cfg.YieldOffset {
			agree++
		}
	}
	if agree <= len(clocks)/2 {
		return consensus{}
	}
	return consensus{median: m, known: true}
}

// pace is how long a slow peer's answers take, those of the other peers, and since when most find that too much; 0 for what is not so.
type pace struct {
	rtt, others time.Duration
	slow, fair  int // those who find it slow, and those who do not
	slowSince   int64
}

// compareAnswers notes whose round trips take much longer than the others', by the measure of most of those who are reached and measure it.
// One alone cannot tell a slow node from a slow way to it: where one link loses packets, both its ends would find the other slow and
// hand their leaderships to and fro. A node that is slow itself finds all of them long.
func (d *Detector) compareAnswers(now int64) {
	own := make([]Link, 0, len(d.peers))
	for _, p := range d.peers {
		l := Link{To: p.id}
		if rtt, known := p.link.roundTrip(); known && p.link.reached {
			l.Reached, l.RTT = true, rtt
		}
		own = append(own, l)
	}
	for _, p := range d.peers {
		p.pace.slow, p.pace.fair = 0, 0
	}
	d.vote(own, d.me.id)
	for _, p := range d.peers {
		if p.link.reached {
			d.vote(p.row, p.id)
		}
	}
	for _, p := range d.peers {
		switch {
		case p.pace.slow <= p.pace.fair:
			p.pace.slowSince = 0
		case p.pace.slowSince == 0:
			p.pace.slowSince = now
		}
	}
}

// vote takes one node's measurements: whom of its peers it finds slow, and whom not.
func (d *Detector) vote(row []Link, from uint64) {
	all := make([]time.Duration, 0, len(row))
	for _, l := range row {
		if l.Reached && l.RTT > 0 && l.To != from {
			all = append(all, l.RTT)
		}
	}
	slices.Sort(all)
	for _, l := range row {
		i, is := d.find(l.To)
		if !is || l.To == from {
			continue
		}
		p := &d.peers[i].pace
		others := time.Duration(0)
		if at, measured := slices.BinarySearch(all, l.RTT); measured && l.Reached && len(all) > 1 {
			middle := (len(all) - 2) / 2 // of the others, the lower of two
			if middle >= at {
				middle++
			}
			others = all[middle]
		}
		switch {
		case others == 0: // nothing to compare with
		case l.RTT > d.cfg.SlowFloor && float64(l.RTT) > d.cfg.SlowFactor*float64(others):
			if p.slow == 0 { // what this node measures itself, if it can say so
				p.rtt, p.others = l.RTT, others
			}
			p.slow++
		default:
			p.fair++
		}
	}
}
