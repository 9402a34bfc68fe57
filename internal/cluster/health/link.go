package health

import (
	"cmp"
	"slices"
	"time"
)

// link is this node's own experience with a peer.
type link struct {
	heard     int64  // when it last answered, or was begun to be watched
	misses    int    // in a row
	why       string // of the last miss
	deafUntil int64  // misses told earlier do not count
	reached   bool
	since     int64 // of reached
	proven    bool  // by an answer or by silence; until then the peer is taken to be reached, and nobody is told so
	samples   [window]sample
	count     int // of samples taken, ever
}

// window is how many round trips are looked at: 3.2 s at the default interval. Of the latest 8 the shortest gives the offset.
const window = 16

type sample struct{ rtt, offset time.Duration }

func newLink(cfg Config, now int64) link {
	return link{heard: now, reached: true, since: now, deafUntil: now + int64(cfg.Interval)}
}

func (l *link) answered(h Heartbeat, now int64) {
	l.heard, l.misses, l.why, l.proven = now, 0, "", true
	if !l.reached {
		l.reached, l.since = true, now
	}
	away, inside := h.Received-h.Sent, h.PeerSent-h.PeerReceived
	if inside < 0 || inside >= away {
		return // a clock was set in between
	}
	// RFC 5905, section 8; halved before the sum, which may be large when a clock is far off.
	offset := (h.PeerReceived-h.Sent)/2 + (h.PeerSent-h.Received)/2
	l.samples[l.count%window] = sample{rtt: time.Duration(away - inside), offset: time.Duration(offset)}
	l.count++
}

// missed reports whether the miss counts.
func (l *link) missed(why string, now int64) bool {
	if now < l.deafUntil {
		return false
	}
	l.misses++
	l.why = why
	return true
}

// judge notices that the peer is not reached any more.
func (l *link) judge(cfg Config, now int64) {
	if l.reached && l.misses >= cfg.Misses && now-l.heard >= int64(cfg.Silence) {
		l.reached, l.since, l.proven = false, now, true
	}
}

// forgive begins anew with a peer that is not reached.
func (l *link) forgive(cfg Config, now int64) {
	fresh := newLink(cfg, now)
	fresh.samples, fresh.count = l.samples, l.count
	*l = fresh
}

func (l *link) shift(gap int64) {
	l.heard += gap
	l.since += gap
}

func (l *link) forgetTimes() { l.count = 0 }

// latest returns up to n samples, in no order.
func (l *link) latest(n int) []sample {
	taken := make([]sample, 0, n)
	for i := max(0, l.count-n); i < l.count; i++ {
		taken = append(taken, l.samples[i%window])
	}
	return taken
}

// roundTrip is what nine of ten of the latest round trips stayed below: with a full window, all but the longest.
// It is not yet known before 8 of them.
func (l *link) roundTrip() (rtt time.Duration, known bool) {
	taken := l.latest(window)
	if len(taken) < window/2 {
		return 0, false
	}
	slices.SortFunc(taken, func(a, b sample) int { return cmp.Compare(a.rtt, b.rtt) })
	return taken[len(taken)*9/10].rtt, true
}

// clock returns the peer's clock by the quickest of the latest round trips, the one that waited least.
func (l *link) clock() (c clock, known bool) {
	taken := l.latest(window / 2)
	if len(taken) == 0 {
		return clock{}, false
	}
	best := slices.MinFunc(taken, func(a, b sample) int { return cmp.Compare(a.rtt, b.rtt) })
	return clock{offset: best.offset, doubt: best.rtt / 2}, true
}
