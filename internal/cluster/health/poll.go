package health

import "slices"

// poll is what those who watch a node say of it.
type poll struct {
	by, not []*node // who reaches it and who does not, by number
	unknown int     // voices that are not heard yet and count as reaching it: this node's own, when it has just begun
	// cutSince is since when more do not reach it than do, 0 when it is not so.
	cutSince int64
}

func (p *poll) cut() bool { return p.cutSince != 0 }

func (p *poll) add(who *node, reached bool) {
	if reached {
		p.by = append(p.by, who)
	} else {
		p.not = append(p.not, who)
	}
}

// settle counts. It took as long as a silence has to be for a cut to be noticed.
func (p *poll) settle(cfg Config, now int64) {
	switch {
	case len(p.not) <= len(p.by)+p.unknown:
		p.cutSince = 0
	case p.cutSince == 0:
		p.cutSince = now - int64(cfg.Silence)
	}
}

// doubted reports whether someone does not reach the node who is not cut off himself, or is this node.
func (p *poll) doubted(me *node) bool {
	return slices.ContainsFunc(p.not, func(n *node) bool { return n == me || !n.poll.cut() })
}

// judgeLinks looks at this node's own links.
func (d *Detector) judgeLinks(now int64) {
	reached := 0
	for _, p := range d.peers {
		p.link.judge(d.cfg, now)
		if p.link.reached {
			reached++
		}
	}
	isolated := reached == 0 && len(d.peers) > 0
	if d.isolated && !isolated {
		// It was this node that reached nobody, so the others' silence until now says nothing about them.
		for _, p := range d.peers {
			if !p.link.reached {
				p.link.forgive(d.cfg, now)
			}
		}
	}
	d.isolated = isolated
}

// askAround finds out who is cut off, by this node's links and the rows of the peers that it reaches. Five nodes, seen from node 1:
//
//	to:       1  2  3  4  5
//	row of 1     +  +  +  +    node 5 is cut off for everybody, though node 1 reaches it.
//	row of 2  +     +  +  -    Its own row makes nobody suspect.
//	row of 3  +  +     +  -
//	row of 4  +  +  +     -    Were there but one minus in column 5, node 5 would be suspect, for everybody too.
//	row of 5  +  -  -  -
//
// Those who are not reached have no vote, or two dead nodes of five could keep a third from being found out. A heartbeat is a round
// trip, so the matrix is nearly symmetric, and a link that works one way only counts as none.
func (d *Detector) askAround(now int64) {
	for _, n := range d.nodes() {
		n.poll.by, n.poll.not, n.poll.unknown = n.poll.by[:0], n.poll.not[:0], 0
	}
	for _, n := range d.nodes() {
		switch {
		case n == d.me:
			for _, p := range d.peers {
				if p.link.proven {
					p.poll.add(d.me, p.link.reached)
				} else {
					p.poll.unknown = 1
				}
			}
		case n.link.reached:
			next := 0 // rows are sorted, and mostly of the same nodes
			for _, l := range n.row {
				if next >= len(d.peers) || d.peers[next].id != l.To {
					next, _ = d.find(l.To)
				}
				if next < len(d.peers) && d.peers[next].id == l.To && l.To != n.id {
					d.peers[next].poll.add(n, l.Reached)
					next++
				}
			}
		}
	}
	for _, p := range d.peers {
		if d.isolated {
			p.poll.cutSince = 0 // it is only this node that says so
			continue
		}
		p.poll.settle(d.cfg, now)
	}
	// Those whom this node does not reach cannot tell it so; that others reach them shows that they are there. But the others may not
	// have noticed yet what this node has, and their rows take an interval to get here.
	for _, p := range d.peers {
		if p.link.reached && p.link.proven {
			d.me.poll.add(p, true)
		} else if !p.link.reached && len(p.poll.by) > 0 && !p.poll.cut() && now-p.link.since >= 3*int64(d.cfg.Interval) {
			d.me.poll.add(p, false)
		}
	}
	d.me.poll.settle(d.cfg, now)
}
