package cluster

import (
	"cmp"
	"slices"

	"hanse/api/metapb"
)

// leaders is who should lead what, as it is being worked out.
type leaders struct {
	hosts []*host
	led   [][]*candidacy // by host
}

// candidacy is a group with the nodes that may lead it, and the one that should, nil when none may.
type candidacy struct {
	*group
	may  []*host
	best *host
}

// preferLeaders spreads the leaders evenly over the nodes that may lead, changing as few preferences as it takes.
func (p *planner) preferLeaders() {
	l := leaders{hosts: p.hosts, led: make([][]*candidacy, len(p.hosts))}
	all := make([]candidacy, len(p.groups))
	for i, g := range p.groups {
		c := &all[i]
		c.group, c.may = g, make([]*host, 0, len(g.at))
		for _, h := range g.at {
			if h != nil && h != g.coming && h.State == metapb.NodeState_NODE_ACTIVE && h.health.Health < Unhealthy {
				c.may = append(c.may, h)
			}
		}
		for _, h := range c.may {
			if h.Id == g.Leader {
				l.give(c, h)
			}
		}
	}
	for i := range all {
		if c := &all[i]; c.best == nil && len(c.may) > 0 {
			l.give(c, slices.MinFunc(c.may, func(a, b *host) int {
				return cmp.Or(cmp.Compare(len(l.led[a.index]), len(l.led[b.index])), cmp.Compare(l.ofService(c, a), l.ofService(c, b)), cmp.Compare(c.hash(b), c.hash(a)))
			}))
		}
	}
	for l.even() {
	}
	for i := range all {
		if c := &all[i]; c.best != nil && c.best.Id != c.Leader {
			p.actions.Leaders = append(p.actions.Leaders, &metapb.Preference{Shard: c.Id, Node: c.best.Id})
		}
	}
}

// give lets a node lead a group.
func (l *leaders) give(c *candidacy, h *host) {
	if old := c.best; old != nil {
		i := slices.Index(l.led[old.index], c)
		l.led[old.index] = slices.Delete(l.led[old.index], i, i+1)
	}
	c.best = h
	l.led[h.index] = append(l.led[h.index], c)
}

// ofService counts what a node leads of a group's service.
func (l *leaders) ofService(c *candidacy, h *host) (n int) {
	for _, o := range l.led[h.index] {
		if o.service == c.service {
			n++
		}
	}
	return n
}

// even hands one leadership on from a node to another that has at least two fewer, by way of others if need be, and reports whether
// there was such a way. Nodes that were reached from one with more, in vain, are not looked at again, see shift.
func (l *leaders) even() bool {
	count := func(h *host) int { return len(l.led[h.index]) }
	sources := slices.Clone(l.hosts)
	slices.SortStableFunc(sources, func(a, b *host) int { return cmp.Compare(count(b), count(a)) })
	seen, via := make([]bool, len(sources)), make([]*candidacy, len(sources))
	for _, source := range sources {
		if seen[source.index] || count(source) < 2 {
			continue
		}
		seen[source.index] = true
		for level := []*host{source}; len(level) > 0; {
			var next []*host
			for _, h := range level {
				for _, c := range l.led[h.index] {
					for _, to := range c.may {
						if !seen[to.index] {
							seen[to.index], via[to.index] = true, c
							next = append(next, to)
						}
					}
				}
			}
			var best *host
			for _, h := range next {
				if count(h) <= count(source)-2 && (best == nil || count(h) < count(best)) {
					best = h
				}
			}
			if best == nil {
				level = next
				continue
			}
			for to := best; to != source; {
				c := via[to.index]
				from := c.best
				l.give(c, to)
				to = from
			}
			return true
		}
	}
	return false
}
