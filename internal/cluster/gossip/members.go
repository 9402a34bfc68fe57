package gossip

import (
	"cmp"
	"encoding/json"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// members is who is thought to be alive. The library calls it with its own lock held, so it does not call back; and it changes the nodes
// that it hands out without that lock being ours, so their data is copied.
type members struct {
	self    Member
	linger  time.Duration
	log     *slog.Logger
	changed chan struct{}

	mu    sync.Mutex
	alive map[string]entry // by the library's name: number and boot
	// doubles are members that do not count, for another has their number; by name, and address where the name is the same too.
	doubles map[string]double
}

// entry is a member and where the library finds it.
type entry struct {
	Member
	at netip.AddrPort
}

type double struct {
	Conflict
	since    time.Time // when it was first seen
	seen     time.Time // and last
	reported bool
}

func newMembers(cfg Config) *members {
	return &members{
		self: cfg.Self, linger: cfg.Linger, log: cfg.Log, changed: make(chan struct{}, 1),
		alive: make(map[string]entry), doubles: make(map[string]double),
	}
}

// NotifyJoin takes note of a new member.
func (m *members) NotifyJoin(n *memberlist.Node) { m.set(n, "gossip has a new member") }

// NotifyUpdate takes note of a member that describes itself anew.
func (m *members) NotifyUpdate(n *memberlist.Node) { m.set(n, "gossip has a changed member") }

// NotifyLeave forgets a member that left, or is taken for dead.
func (m *members) NotifyLeave(n *memberlist.Node) {
	m.mu.Lock()
	e, known := m.alive[n.Name]
	delete(m.alive, n.Name)
	m.mu.Unlock()
	if known {
		m.tell("gossip lost a member", e)
	}
}

// NotifyConflict hears of a process that has both number and boot of another.
func (m *members) NotifyConflict(existing, other *memberlist.Node) {
	counts, known := m.read(existing)
	second, readable := m.read(other)
	if !known || !readable {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	name := other.Name + "@" + second.at.String()
	d, again := m.doubles[name]
	if !again {
		d = double{Conflict: Conflict{Counts: counts.Member, Other: second.Member}, since: time.Now()}
	}
	d.seen = time.Now()
	m.doubles[name] = m.report(d)
}

func (m *members) set(n *memberlist.Node, what string) {
	e, readable := m.read(n)
	if !readable {
		return
	}
	m.mu.Lock()
	m.alive[n.Name] = e
	m.mu.Unlock()
	m.tell(what, e)
}

func (m *members) read(n *memberlist.Node) (e entry, readable bool) {
	ip, _ := netip.AddrFromSlice(n.Addr)
	e.at = netip.AddrPortFrom(ip.Unmap(), n.Port)
	if err := json.Unmarshal(n.Meta, &e.Member); err != nil || e.Node == 0 {
		m.log.Warn("a member of the gossip describes itself in a way that is not understood", "name", n.Name, "address", e.at.String(), "err", err)
		return entry{}, false
	}
	return e, true
}

func (m *members) tell(what string, e entry) {
	m.log.Debug("gossip member changed", "what", what, "node", e.Node, "boot", e.Boot, "address", e.at.String())
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// all returns the members that count, by node.
func (m *members) all() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.counting()), func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
}

// counting returns the member of each number with the latest boot. This node is alive, whatever the others say.
func (m *members) counting() map[uint64]Member {
	counts := map[uint64]Member{m.self.Node: m.self}
	for _, e := range m.alive {
		if known, ok := counts[e.Node]; !ok || e.Boot > known.Boot {
			counts[e.Node] = e.Member
		}
	}
	return counts
}

// isAt reports whether a member is at an address.
func (m *members) isAt(at netip.AddrPort) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.alive {
		if e.at == at {
			return true
		}
	}
	return false
}

// lookForDoubles notes who claims the number of another, reports who has done so for long, and forgets who no longer does.
func (m *members) lookForDoubles(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := m.counting()
	for name, e := range m.alive {
		if c := counts[e.Node]; c.Boot != e.Boot {
			d, known := m.doubles[name]
			if !known {
				d.since = now
			}
			d.Conflict, d.seen = Conflict{Counts: c, Other: e.Member}, now
			if now.Sub(d.since) >= m.linger {
				d = m.report(d)
			}
			m.doubles[name] = d
		}
	}
	// One with the same boot is heard of when all is exchanged.
	maps.DeleteFunc(m.doubles, func(_ string, d double) bool { return now.Sub(d.seen) > m.linger })
}

func (m *members) report(d double) double {
	if !d.reported {
		m.log.Warn("two processes take themselves for one node", "node", d.Other.Node, "boot", d.Counts.Boot, "address", d.Counts.Gossip,
			"other_boot", d.Other.Boot, "other_address", d.Other.Gossip)
	}
	d.reported = true
	return d
}

func (m *members) conflicts() []Conflict {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Conflict
	for _, d := range m.doubles {
		if d.reported {
			all = append(all, d.Conflict)
		}
	}
	slices.SortFunc(all, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Other.Node, b.Other.Node), cmp.Compare(a.Other.Boot, b.Other.Boot), cmp.Compare(a.Other.Gossip, b.Other.Gossip))
	})
	return all
}
