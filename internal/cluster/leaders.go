package cluster

import (
	"cmp"
	"slices"

	"hanse/api/metapb"
)

// leaders is who should lead what, as it is being worked out.
type leaders struct {
	hosts       []*host
	led         [][]*candidacy // by host, in the order of their shards: what comes of it does not depend on how it came to be
	least, most []int          // by host: how many it should lead
	given       []handover
	rest        bool // no replica moves, and no node is ill
}

// candidacy is a group with the nodes that may lead it, and the one that should, nil when none may.
type candidacy struct {
	*group
	may   []*host
	best  *host
	suite *suite // nil for none
	stays bool   // who leads it may go on
}

// handover is a leadership that was given away, so that it can be taken back.
type handover struct {
	*candidacy
	from *host
}

// preferLeaders spreads the leaders over the nodes that may lead, and gathers those that an order needs, changing as few preferences
// as it takes. While replicas move or a node is ill, which is not rest, only those are gathered that need another leader in any case: what
// is brought together now may have to part again in a moment.
func (p *planner) preferLeaders(rest bool) {
	l := leaders{rest: rest, hosts: p.hosts, led: make([][]*candidacy, len(p.hosts)), least: make([]int, len(p.hosts)), most: make([]int, len(p.hosts))}
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
				c.stays = true
				l.give(c, h)
			}
		}
	}
	for i := range all {
		if c := &all[i]; c.best == nil && len(c.may) > 0 {
			l.give(c, slices.MinFunc(c.may, func(a, b *host) int {
				return cmp.Or(cmp.Compare(l.count(a), l.count(b)), cmp.Compare(l.ofService(c, a), l.ofService(c, b)), cmp.Compare(c.hash(b), c.hash(a)))
			}))
		}
	}
	suites := suitesOf(all)
	l.share(all)
	l.spread()
	l.gather(suites)
	for i := range all {
		if c := &all[i]; c.best != nil && c.best.Id != c.Leader {
			p.actions.Leaders = append(p.actions.Leaders, &metapb.Preference{Shard: c.Id, Node: c.best.Id})
		}
	}
}

// count is how many groups a node leads.
func (l *leaders) count(h *host) int { return len(l.led[h.index]) }

// give lets a node lead a group.
func (l *leaders) give(c *candidacy, h *host) {
	byID := func(a, b *candidacy) int { return cmp.Compare(a.id, b.id) }
	if c.best != nil {
		led := &l.led[c.best.index]
		i, _ := slices.BinarySearchFunc(*led, c, byID)
		*led = slices.Delete(*led, i, i+1)
		l.given = append(l.given, handover{c, c.best})
	}
	c.best = h
	led := &l.led[h.index]
	i, _ := slices.BinarySearchFunc(*led, c, byID)
	*led = slices.Insert(*led, i, c)
}

// movable reports whether a group may be given to another node to gather its suite.
func (l *leaders) movable(c *candidacy) bool { return l.rest || !c.stays }

// takeBack undoes all but the first handovers.
func (l *leaders) takeBack(to int) {
	for i := len(l.given) - 1; i >= to; i-- {
		l.give(l.given[i].candidacy, l.given[i].from)
	}
	l.given = l.given[:to]
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

// FairShare returns how many of some groups a node should lead at least and at most: as many as the mean, give or take one, and not
// none when there is one for each node. With less room, three nodes could not gather what one order passes.
func FairShare(groups, nodes int) (least, most int) {
	least, most = max(0, (groups+nodes-1)/nodes-1), groups/nodes+1
	if groups >= nodes {
		least = max(1, least)
	}
	return least, most
}

// share gives each node that may lead something a fair share.
func (l *leaders) share(all []candidacy) {
	groups, nodes := 0, 0
	able := make([]bool, len(l.hosts))
	for i := range all {
		if c := &all[i]; c.best != nil {
			groups++
		}
		for _, h := range all[i].may {
			if !able[h.index] {
				able[h.index] = true
				nodes++
			}
		}
	}
	for i := range l.hosts {
		if able[i] {
			l.least[i], l.most[i] = FairShare(groups, nodes)
		}
	}
}

// fair reports whether a node leads its share.
func (l *leaders) fair(h *host) bool {
	return l.least[h.index] <= l.count(h) && l.count(h) <= l.most[h.index]
}

// spread makes the numbers fair. Where that cannot be, because roles and places leave a node too little or too much, it makes them as
// even as they can be, and has every node keep its number: as long as that is so, no other numbers would be as even.
func (l *leaders) spread() {
	unfair := func() bool { return slices.ContainsFunc(l.hosts, func(h *host) bool { return !l.fair(h) }) }
	free, all := func(c *candidacy) bool { return !c.gathered() }, func(*candidacy) bool { return true }
	for unfair() && (l.even(free) || l.even(all)) {
	}
	if unfair() {
		for i, h := range l.hosts {
			l.least[i], l.most[i] = l.count(h), l.count(h)
		}
	}
}

// even hands one leadership on, of those that may be, from a node to another that has at least two fewer, and reports whether there was
// a way. Nodes that were reached from one with more, in vain, are not looked at again, see shift.
func (l *leaders) even(free func(*candidacy) bool) bool {
	sources := slices.Clone(l.hosts)
	slices.SortStableFunc(sources, func(a, b *host) int { return cmp.Compare(l.count(b), l.count(a)) })
	seen := make([]bool, len(sources))
	for _, source := range sources {
		if seen[source.index] || l.count(source) < 2 {
			continue
		}
		fewer := func(h *host) bool { return l.count(h) <= l.count(source)-2 }
		if l.handOn([]*host{source}, seen, free, fewer) {
			return true
		}
	}
	return false
}

// handOn hands one leadership on, of those that are free, from one of some nodes to one that accepts it, by way of others if need be,
// and reports whether there was a way. The shortest is taken, and of the nodes at its end that which leads least. Nodes that were seen
// are not looked at, and all that are become so.
func (l *leaders) handOn(from []*host, seen []bool, free func(*candidacy) bool, accepts func(*host) bool) bool {
	via := make([]*candidacy, len(l.hosts))
	for _, h := range from {
		seen[h.index] = true
	}
	for level := from; len(level) > 0; {
		var next []*host
		for _, h := range level {
			for _, c := range l.led[h.index] {
				if !free(c) {
					continue
				}
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
			if accepts(h) && (best == nil || l.count(h) < l.count(best)) {
				best = h
			}
		}
		if best == nil {
			level = next
			continue
		}
		for to := best; via[to.index] != nil; {
			c := via[to.index]
			from := c.best
			l.give(c, to)
			to = from
		}
		return true
	}
	return false
}
