package cluster

import (
	"cmp"
	"slices"

	"hanse/internal/shard"
)

// suite is the groups that an order passes: that of the orders, those of their payments, which have the same slots, and one of the stock if there is
// one of the same number: SKUs lie anywhere. What one node leads of them needs no network for the commands between them, and shares the syncs of one log.
type suite struct {
	order  *candidacy
	groups []*candidacy // the order first
}

// suitesOf makes suites of the groups that are led.
func suitesOf(all []candidacy) (suites []*suite) {
	byIndex := make(map[int]*suite)
	orders, payments := 0, 0
	for i := range all {
		switch c := &all[i]; c.id.Service() {
		case shard.Payment:
			payments++
		case shard.Order:
			orders++
			if c.best != nil {
				c.suite = &suite{order: c, groups: []*candidacy{c}}
				byIndex[c.id.Index()] = c.suite
				suites = append(suites, c.suite)
			}
		}
	}
	for i := range all {
		c := &all[i]
		if c.best == nil {
			continue
		}
		switch c.id.Service() {
		case shard.Payment: // shards cut the slots into ranges of one size
			c.suite = byIndex[c.id.Index()*orders/payments]
		case shard.Inventory:
			c.suite = byIndex[c.id.Index()]
		default:
			continue
		}
		if c.suite != nil {
			c.suite.groups = append(c.suite.groups, c)
		}
	}
	return suites
}

// together counts the groups that are led where the order is. That payment and stock are in one place, without it, is worth nothing:
// they speak to the order only.
func (s *suite) together() (n int) {
	for _, c := range s.groups {
		if c.best == s.order.best {
			n++
		}
	}
	return n
}

// possible counts the groups that a node may lead, there those that it leads.
func (s *suite) possible(h *host) (possible, there int) {
	for _, c := range s.groups {
		if slices.Contains(c.may, h) {
			possible++
		}
		if c.best == h {
			there++
		}
	}
	return possible, there
}

// gathered reports whether a group is led where it should be for the sake of others of its suite.
func (c *candidacy) gathered() bool {
	return c.suite != nil && c.best == c.suite.order.best && c.suite.together() > 1
}

// gather brings the groups of suites together as far as the numbers allow. No step takes from one suite what it gives to another, so
// there is an end, and at the end a step that would be found when this is planned anew would have been found now.
func (l *leaders) gather(suites []*suite) {
	for more := true; more; {
		more = false
		for _, s := range suites {
			more = l.unite(s) || more
		}
	}
}

// unite brings more of a suite together, and reports whether it could: where most of it may be, with the fewest changes, rather
// where the order is.
func (l *leaders) unite(s *suite) bool {
	together := s.together()
	if together == len(s.groups) {
		return false
	}
	type place struct {
		*host
		possible, there int
	}
	var places []place
	for _, h := range s.order.may {
		if possible, there := s.possible(h); possible > together {
			places = append(places, place{h, possible, there})
		}
	}
	slices.SortStableFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(b.possible, a.possible), cmp.Compare(b.there, a.there),
			compareBool(a.host != s.order.best, b.host != s.order.best), cmp.Compare(l.count(a.host), l.count(b.host)))
	})
	return slices.ContainsFunc(places, func(p place) bool { return l.uniteAt(s, p.host) })
}

// uniteAt gives a node as much of a suite as it can take, and takes that back unless more is together than before.
func (l *leaders) uniteAt(s *suite, h *host) bool {
	before, mark := s.together(), len(l.given)
	for _, c := range s.groups {
		if slices.Contains(c.may, h) && l.movable(c) {
			l.bring(c, h)
		}
	}
	if s.together() > before {
		return true
	}
	l.takeBack(mark)
	return false
}

// bring has a node lead a group of a suite. When it has too many then, or who gave it too few, others are handed on for it that need not be
// where they are. When that cannot be, nothing is changed.
func (l *leaders) bring(c *candidacy, h *host) {
	mark, from := len(l.given), c.best
	if from == h {
		return
	}
	l.give(c, h)
	free := func(o *candidacy) bool { return l.movable(o) && !o.gathered() && (o.suite != c.suite || o.best != h) }
	if !l.fair(h) {
		l.handOn([]*host{h}, make([]bool, len(l.hosts)), free, func(to *host) bool { return l.count(to) < l.most[to.index] })
	}
	if !l.fair(from) {
		var spare []*host
		for _, o := range l.hosts {
			if l.count(o) > l.least[o.index] {
				spare = append(spare, o)
			}
		}
		l.handOn(spare, make([]bool, len(l.hosts)), free, func(to *host) bool { return to == from })
	}
	if !l.fair(h) || !l.fair(from) {
		l.takeBack(mark)
	}
}
