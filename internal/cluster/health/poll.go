package health

// poll is what those who watch a node say of it.
type poll struct {
	by, not []*node // who reaches it and who does not, by number
	// outcast says that most do not reach it: what it says of others has no weight.
	outcast bool
	// cutSince is since when most of those whose word has weight do not reach it, 0 when they do.
	cutSince int64
}

func (p *poll) cut() bool { return p.cutSince != 0 }

// lost reports whether more of those who have a say do not reach the node than do.
func (p *poll) lost() bool { return votes(p.not) > votes(p.by) }

func votes(nodes []*node) (n int) {
	for _, v := range nodes {
		if !v.poll.outcast {
			n++
		}
	}
	return n
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
//	row of 2  +     +  +  -    Its own row, by which 2, 3 and 4 would be suspect, has no weight.
//	row of 3  +  +     +  -
//	row of 4  +  +  +     -    Were there but one minus in column 5, node 5 would be suspect, for everybody too.
//	row of 5  +  -  -  -
//
// A heartbeat is a round trip, so the matrix is nearly symmetric, and a link that works one way only counts as none.
func (d *Detector) askAround(now int64) {
	nodes := d.nodes()
	d.collect(nodes)
	lost := make([]bool, len(nodes))
	for i, n := range nodes {
		lost[i] = n.poll.lost() || n == d.me && d.isolated
	}
	for i, n := range nodes {
		n.poll.outcast = lost[i]
	}
	for _, n := range nodes {
		switch {
		case !n.poll.lost():
			n.poll.cutSince = 0
		case n.poll.cutSince == 0:
			n.poll.cutSince = now - int64(d.cfg.Silence) // it took that long to be noticed
		}
	}
}

// collect fills the polls with what is said, by everybody and about everybody.
func (d *Detector) collect(nodes []*node) {
	for _, n := range nodes {
		n.poll.by, n.poll.not, n.poll.outcast = n.poll.by[:0], n.poll.not[:0], false
	}
	say := func(who, of *node, reached bool) {
		if reached {
			of.poll.by = append(of.poll.by, who)
		} else {
			of.poll.not = append(of.poll.not, who)
		}
	}
	for _, n := range nodes {
		switch {
		case n == d.me:
			for _, p := range d.peers {
				say(d.me, p, p.link.reached)
			}
		case n.link.reached:
			for _, l := range n.row {
				if p := d.peer(l.To); p != nil && p != n {
					say(n, p, l.Reached)
				}
			}
		}
	}
	// Those whom this node does not reach do not tell it so. That others reach them shows that they are there.
	for _, p := range d.peers {
		if p.link.reached {
			say(p, d.me, true)
		} else if len(p.poll.by) > 0 {
			say(p, d.me, false)
		}
	}
}
