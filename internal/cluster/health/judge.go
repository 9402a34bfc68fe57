package health

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"hanse/internal/cluster"
)

// finding is what the evidence of this moment says about a node.
type finding struct {
	health cluster.Health
	reason string
}

// examine looks at the evidence on a peer, the worst first.
func (d *Detector) examine(p *node, now int64) finding {
	switch {
	case p.poll.cut():
		return finding{cutHealth(d.cfg, p, now), unreached(p)}
	case now < p.disk.until:
		return finding{cluster.Unhealthy, p.disk.String()}
	case p.pace.slowSince != 0 && now-p.pace.slowSince >= int64(d.cfg.SlowFor):
		return finding{cluster.Unhealthy, fmt.Sprintf("answers take %s, others %s", spoken(p.pace.rtt), spoken(p.pace.others))}
	}
	clock := d.examineClock(p)
	switch {
	case clock.health >= cluster.Unhealthy:
		return clock
	case d.isolated:
		return finding{cluster.Suspect, fmt.Sprintf("not reached from node %d, which reaches no other node", d.me.id)}
	case p.poll.doubted(d.me):
		return finding{cluster.Suspect, unreached(p)}
	case p.link.misses == 1:
		return finding{cluster.Suspect, "a heartbeat is missing" + because(p)}
	case p.link.misses > 1:
		return finding{cluster.Suspect, fmt.Sprintf("%d heartbeats are missing", p.link.misses) + because(p)}
	}
	return clock
}

// examineSelf looks at the evidence on this node. It is never dead, as it judges.
func (d *Detector) examineSelf(now int64) finding {
	switch {
	case d.isolated:
		return finding{cluster.Unhealthy, "reaches no other node"}
	case d.me.poll.cut():
		return finding{cluster.Unhealthy, "reaches node " + list(d.me.poll.by) + ", not " + list(d.me.poll.not)}
	case now < d.me.disk.until:
		return finding{cluster.Unhealthy, d.me.disk.String()}
	}
	clock := d.examineClock(d.me)
	if clock.health < cluster.Unhealthy && len(d.me.poll.not) > 0 {
		return finding{cluster.Suspect, "reaches node " + list(d.me.poll.by) + ", not " + list(d.me.poll.not)}
	}
	return clock
}

// examineClock compares a node's clock with the median, or with this node's own while there is none.
func (d *Detector) examineClock(n *node) finding {
	c, doubt := clock{}, d.clocks.median.doubt // of this node the offset is certain, and the median is not
	if n != d.me {
		var known bool
		if c, known = n.link.clock(); !known || !n.link.reached {
			return finding{}
		}
		doubt = c.doubt
	}
	off := max(0, (c.offset-d.clocks.median.offset).Abs()-doubt)
	side := "ahead of"
	if c.offset < d.clocks.median.offset {
		side = "behind"
	}
	switch amount := spoken((c.offset - d.clocks.median.offset).Abs()); {
	case off <= d.cfg.WarnOffset:
		return finding{}
	case !d.clocks.known:
		return finding{cluster.Healthy, "its clock is " + amount + " " + side + " this node's, and no majority of clocks agrees"}
	case off > d.cfg.YieldOffset:
		return finding{cluster.Unhealthy, "its clock is " + amount + " " + side + " the others"}
	default:
		return finding{cluster.Healthy, "its clock is " + amount + " " + side + " the others"}
	}
}

func cutHealth(cfg Config, p *node, now int64) cluster.Health {
	if now-p.poll.cutSince >= int64(cfg.DeadAfter) {
		return cluster.Dead
	}
	return cluster.Unhealthy
}

// unreached says from where a node is not reached.
func unreached(p *node) string {
	switch by := list(p.poll.by); {
	case p.poll.cut() && by != "":
		return "reached from node " + by + " only"
	case p.poll.cut() && !p.link.reached:
		return "does not answer" + because(p)
	case by == "":
		return "not reached from node " + list(p.poll.not)
	default:
		return "not reached from node " + list(p.poll.not) + "; reached from " + by
	}
}

func because(p *node) string {
	if p.link.why == "" {
		return ""
	}
	return ": " + p.link.why
}

func list(nodes []*node) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = strconv.FormatUint(n.id, 10)
	}
	return strings.Join(names, ", ")
}

func (k *disk) String() string {
	if k.hangs {
		return "its disk has not finished a write for " + spoken(k.stalled)
	}
	return "its disk took " + spoken(k.stalled) + " for a write"
}

// spoken writes a duration for people: 8 ms, 1.2 s, 1h0m0s.
func spoken(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(d.Seconds()*1000, 'g', 2, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return d.Round(time.Second).String()
}

// standing is the judgement of a node. It follows bad evidence at once and good evidence only when there is enough of it.
type standing struct {
	health cluster.Health
	since  int64
	reason string
	// well counts the answers in a row since there was evidence against it, need is how many make it healthy again.
	well, need int
	troubled   int64  // when there last was such evidence
	cause      string // which
	recovered  int64  // when it last became healthy again, 0 never
}

func newStanding(cfg Config, now int64) standing {
	return standing{since: now, troubled: now, need: cfg.Well}
}

// settle takes the evidence of this moment; well is how much good there was since the last against it.
func (s *standing) settle(cfg Config, f finding, well int, now int64) {
	out := s.health >= cluster.Unhealthy
	switch {
	case f.health >= cluster.Unhealthy:
		if !out {
			if s.recovered != 0 && now-s.recovered < int64(relapse) {
				s.need = min(2*s.need, cfg.MaxWell)
			} else {
				s.need = cfg.Well
			}
		}
		s.well, s.troubled, s.cause = 0, now, f.reason
	case out && well < s.need:
		f = finding{cluster.Unhealthy, fmt.Sprintf("%d of %d good answers since: %s", well, s.need, s.cause)}
	case out:
		s.recovered = now
	}
	if f.health != s.health {
		s.health, s.since = f.health, now
	}
	s.reason = f.reason
}

// relapse is how soon after its recovery a node's trouble is taken for the old one.
const relapse = time.Minute

// quiet is how many heartbeats' time has gone by since there was evidence against this node, which does not answer itself.
func (s *standing) quiet(cfg Config, now int64) int {
	return int((now - s.troubled) / int64(cfg.Interval))
}

func (s *standing) shift(gap int64) {
	s.since += gap
	s.troubled += gap
	if s.recovered != 0 {
		s.recovered += gap
	}
}
