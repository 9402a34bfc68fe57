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

// pace is how long a peer's answers take, those of the other peers, and since when that is too much; 0 for what is not known or not so.
type pace struct {
	rtt, others time.Duration
	slowSince   int64
}

// compareAnswers notes whose round trips take much longer than the others'. A node that is slow itself finds all of them long.
func (d *Detector) compareAnswers(now int64) {
	all := make([]time.Duration, 0, len(d.peers))
	for _, p := range d.peers {
		p.pace.rtt, p.pace.others = 0, 0
		if rtt, known := p.link.roundTrip(); known && p.link.reached {
			p.pace.rtt = rtt
			all = append(all, rtt)
		}
	}
	slices.Sort(all)
	for _, p := range d.peers {
		if i, measured := slices.BinarySearch(all, p.pace.rtt); measured && len(all) > 1 {
			middle := (len(all) - 2) / 2 // of the others, the lower of two
			if middle >= i {
				middle++
			}
			p.pace.others = all[middle]
		}
		slow := p.pace.others > 0 && p.pace.rtt > d.cfg.SlowFloor && float64(p.pace.rtt) > d.cfg.SlowFactor*float64(p.pace.others)
		switch {
		case !slow:
			p.pace.slowSince = 0
		case p.pace.slowSince == 0:
			p.pace.slowSince = now
		}
	}
}
