package cluster

import (
	"cmp"
	"slices"

	"hanse/api/metapb"
	"hanse/internal/shard"
)

// leaders is who should lead what, as it is being worked out.
type leaders struct {
	hosts []*host
	led   [][]*candidacy // by host
	may   []bool         // by host, whether it may lead anything
}

// candidacy is a group with the nodes that may lead it, and the one that should, nil when none may.
type candidacy struct {
	*group
	may  []*host
	best *host
}

// preferLeaders spreads the leaders over the nodes that may lead, as evenly as the mean, give or take one, and has one node lead what an order passes.
// It changes as few preferences as that takes.
func (p *planner) preferLeaders() {
	l := leaders{hosts: p.hosts, led: make([][]*candidacy, len(p.hosts)), may: make([]bool, len(p.hosts))}
	all := make([]candidacy, len(p.groups))
	for i, g := range p.groups {
		c := &all[i]
		c.group, c.may = g, make([]*host, 0, len(g.at))
		for _, h := range g.at {
			if h != nil && h != g.coming && h.State == metapb.NodeState_NODE_ACTIVE && h.health.Health < Unhealthy {
				c.may, l.may[h.index] = append(c.may, h), true
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
	for !l.fair() && l.even() {
	}
	l.gather(all)
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

// fair reports whether each node that may lead anything leads as many groups as the mean, give or take one, and none leads nothing that could lead one.
func (l *leaders) fair() bool {
	total, nodes := 0, 0
	for _, h := range l.hosts {
		if total += len(l.led[h.index]); l.may[h.index] {
			nodes++
		}
	}
	for _, h := range l.hosts {
		n := len(l.led[h.index])
		if l.may[h.index] && ((n+1)*nodes < total || (n-1)*nodes > total || n == 0 && total >= nodes) {
			return false
		}
	}
	return true
}

// gather has the node that leads order/k lead inventory/k and payment/k too, where it may. The other node gets a group for it that does not belong
// where it is, or none where that is fair.
func (l *leaders) gather(all []candidacy) {
	led := make(map[shard.ID]*candidacy, len(all))
	for i := range all {
		led[all[i].id] = &all[i]
	}
	for i := range all {
		order := &all[i]
		if order.id.Service() != shard.Order || order.best == nil {
			continue
		}
		for _, service := range []shard.Service{shard.Payment, shard.Inventory} {
			if c := led[shard.NewID(service, order.id.Index())]; c != nil && c.best != nil && c.best != order.best && slices.Contains(c.may, order.best) {
				l.join(c, order, led)
			}
		}
	}
}

// join has the node that leads an order's shard lead another group, in exchange for one or as one more.
func (l *leaders) join(c, order *candidacy, led map[shard.ID]*candidacy) {
	h, from := order.best, c.best
	free := func(other *candidacy) bool {
		return other != order && slices.Contains(other.may, from) && !together(other, led)
	}
	if n := slices.IndexFunc(l.led[h.index], free); n >= 0 {
		l.give(l.led[h.index][n], from)
		l.give(c, h)
		return
	}
	if l.give(c, h); l.fair() {
		return
	}
	for _, third := range l.hosts { // one that has enough may make up for it
		if n := slices.IndexFunc(l.led[third.index], free); n >= 0 && third != h && third != from {
			other := l.led[third.index][n]
			if l.give(other, from); l.fair() {
				return
			}
			l.give(other, third)
		}
	}
	l.give(c, from)
}

// together reports whether the node that leads a group leads another that an order of the same number passes.
func together(c *candidacy, led map[shard.ID]*candidacy) bool {
	passed := []shard.Service{shard.Order, shard.Inventory, shard.Payment}
	return slices.Contains(passed, c.id.Service()) && slices.ContainsFunc(passed, func(s shard.Service) bool {
		other := led[shard.NewID(s, c.id.Index())]
		return other != nil && other != c && other.best == c.best
	})
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
