package cluster

import (
	"cmp"
	"slices"

	"hanse/api/metapb"
)

// preferLeaders spreads the leaders evenly over the nodes that may lead, changing as few preferences as it takes.
func (p *planner) preferLeaders() {
	l := leaders{p: p, counts: make([]int, len(p.hosts)), leads: make([][]*group, len(p.hosts)), now: make(map[*group]*host, len(p.groups))}
	var homeless []*group
	for _, g := range p.groups {
		var present *host
		for _, h := range g.at {
			if h != nil && h.Id == g.Leader && g.mayLead(h) {
				present = h
			}
		}
		if present != nil {
			l.give(g, present)
		} else {
			homeless = append(homeless, g)
		}
	}
	for _, g := range homeless {
		var best *host
		for _, h := range g.at {
			if g.mayLead(h) && (best == nil || l.compare(g, h, best) < 0) {
				best = h
			}
		}
		if best != nil {
			l.give(g, best)
		}
	}
	for l.even() {
	}
	for _, g := range p.groups {
		if h := l.now[g]; h != nil && h.Id != g.Leader {
			p.actions.Leaders = append(p.actions.Leaders, &metapb.Preference{Shard: g.Id, Node: h.Id})
		}
	}
}

// mayLead reports whether a node may lead a group: it has a voter that stays, is to be used, and is well enough.
func (g *group) mayLead(h *host) bool {
	return h != nil && h.State == metapb.NodeState_NODE_ACTIVE && h.health.Health < Unhealthy &&
		slices.ContainsFunc(g.Replicas, func(r *metapb.Replica) bool { return r.Node == h.Id })
}

// leaders is who leads what, as it is being worked out.
type leaders struct {
	p      *planner
	counts []int
	leads  [][]*group
	now    map[*group]*host
}

func (l *leaders) give(g *group, h *host) {
	if old := l.now[g]; old != nil {
		l.counts[old.index]--
		l.leads[old.index] = slices.DeleteFunc(l.leads[old.index], func(o *group) bool { return o == g })
	}
	l.now[g] = h
	l.counts[h.index]++
	l.leads[h.index] = append(l.leads[h.index], g)
}

// compare sorts nodes by how well they would lead a group in addition to what they do.
func (l *leaders) compare(g *group, a, b *host) int {
	return cmp.Or(cmp.Compare(l.counts[a.index], l.counts[b.index]), cmp.Compare(l.ofService(g, a), l.ofService(g, b)), cmp.Compare(g.hash(b), g.hash(a)))
}

func (l *leaders) ofService(g *group, h *host) (n int) {
	for _, o := range l.leads[h.index] {
		if o.service == g.service {
			n++
		}
	}
	return n
}

// even hands one leadership on from a node to another that has at least two fewer, by way of others if need be, and reports whether
// there was such a way.
func (l *leaders) even() bool {
	sources := slices.Clone(l.p.hosts)
	slices.SortStableFunc(sources, func(a, b *host) int { return cmp.Compare(l.counts[b.index], l.counts[a.index]) })
	seen := make([]bool, len(sources))
	via := make([]*group, len(sources))
	for _, source := range sources {
		if seen[source.index] || l.counts[source.index] < 2 {
			continue
		}
		seen[source.index] = true
		for level := []*host{source}; len(level) > 0; {
			var next []*host
			for _, h := range level {
				for _, g := range l.leads[h.index] {
					for _, to := range g.at {
						if to != nil && !seen[to.index] && g.mayLead(to) {
							seen[to.index], via[to.index] = true, g
							next = append(next, to)
						}
					}
				}
			}
			var best *host
			for _, h := range next {
				if l.counts[h.index] <= l.counts[source.index]-2 && (best == nil || l.counts[h.index] < l.counts[best.index]) {
					best = h
				}
			}
			for to := best; to != nil && to != source; {
				from := l.now[via[to.index]]
				l.give(via[to.index], to)
				to = from
			}
			if best != nil {
				return true
			}
			level = next
		}
	}
	return false
}
