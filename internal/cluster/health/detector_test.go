package health

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hanse/internal/cluster"
)

// graph is who reaches whom among five nodes, both ways: bit i stands for pairs[i].
type graph uint

var pairs = [][2]uint64{{1, 2}, {1, 3}, {1, 4}, {1, 5}, {2, 3}, {2, 4}, {2, 5}, {3, 4}, {3, 5}, {4, 5}}

func (g graph) reaches(a, b uint64) bool {
	i := slices.Index(pairs, [2]uint64{min(a, b), max(a, b)})
	return g>>i&1 == 1
}

func (g graph) String() string {
	var missing []string
	for i, p := range pairs {
		if g>>i&1 == 0 {
			missing = append(missing, fmt.Sprintf("%d-%d", p[0], p[1]))
		}
	}
	return "without " + strings.Join(missing, " ")
}

// seenFrom is what a node says after some time in which the others told it what is so. It takes a silent node for dead early.
func (g graph) seenFrom(me uint64) map[uint64]cluster.Observed {
	cfg := DefaultConfig()
	cfg.DeadAfter = 1600 * time.Millisecond
	d := New(cfg, me, epoch)
	d.SetPeers([]uint64{1, 2, 3, 4, 5}, epoch)
	for now := epoch; now < epoch+int64(2500*time.Millisecond); now += int64(200 * time.Millisecond) {
		for p := uint64(1); p <= 5; p++ {
			if p == me {
				continue
			}
			if !g.reaches(me, p) {
				d.Missed(p, "", now)
				continue
			}
			h := Heartbeat{Sent: now - 1000, PeerReceived: now - 500, PeerSent: now - 500, Received: now}
			for q := uint64(1); q <= 5; q++ {
				if q != p {
					h.Row = append(h.Row, Link{To: q, Reached: g.reaches(p, q)})
				}
			}
			d.Answered(p, h)
		}
		d.Tick(now)
	}
	return d.Observed()
}

// TestMatrix looks at all 1,024 ways in which five nodes may reach one another, from each of them.
func TestMatrix(t *testing.T) {
	for g := range graph(1 << len(pairs)) {
		degree := make(map[uint64]int)
		for i, p := range pairs {
			degree[p[0]] += int(g >> i & 1)
			degree[p[1]] += int(g >> i & 1)
		}
		for me := uint64(1); me <= 5; me++ {
			observed := g.seenFrom(me)
			say := func(subject uint64, want string) {
				t.Errorf("%s: node %d says of node %d: %+v, want %s", g, me, subject, observed[subject], want)
			}
			for subject := uint64(1); subject <= 5; subject++ {
				o := observed[subject]
				if (o.Health == cluster.Healthy) != (o.Reason == "") {
					say(subject, "a reason unless it is healthy")
				}
				if subject == me {
					switch {
					case degree[me] == 0 && o.Reason != "reaches no other node":
						say(me, "that it reaches no other node")
					case degree[me] >= 3 && o.Health >= cluster.Unhealthy, o.Health == cluster.Dead:
						say(me, "no accusation of one that reaches most others")
					}
					continue
				}
				// Whom this node can ask, itself included, and what they say.
				reach, not := 0, 0
				for v := uint64(1); v <= 5; v++ {
					if v != subject && (v == me || g.reaches(me, v)) {
						if g.reaches(v, subject) {
							reach++
						} else {
							not++
						}
					}
				}
				switch {
				case degree[me] == 0 && o.Health != cluster.Suspect:
					say(subject, "suspect, for node reaches nobody")
				case !g.reaches(me, subject) && o.Health == cluster.Healthy:
					say(subject, "at least suspect, for it is not reached")
				case not == 0 && o.Health != cluster.Healthy:
					say(subject, "healthy, for all reach it")
				case degree[me] > 0 && reach >= not && o.Health >= cluster.Unhealthy:
					say(subject, "nothing worse than suspect, for no majority does not reach it")
				case degree[me] > 0 && not > reach && o.Health != cluster.Dead:
					say(subject, "dead, for most who can be asked do not reach it")
				}
			}
		}
	}
}

// All who are not cut off themselves come to the same result, whichever node is reached by none or by one of the others.
func TestMajorityAgrees(t *testing.T) {
	for cut := uint64(1); cut <= 5; cut++ {
		for friend := uint64(1); friend <= 5; friend++ {
			var g graph
			for i, p := range pairs {
				if p[0] != cut && p[1] != cut || friend != cut && (p[0] == friend || p[1] == friend) {
					g |= 1 << i
				}
			}
			for me := uint64(1); me <= 5; me++ {
				o := g.seenFrom(me)
				for subject := uint64(1); subject <= 5; subject++ {
					want := cluster.Healthy
					switch {
					case me == cut && subject == cut:
						want = cluster.Unhealthy
					case me == cut && (subject != friend):
						want = cluster.Suspect
					case subject == cut && me != cut:
						want = cluster.Dead
					}
					if o[subject].Health != want {
						t.Errorf("%s: node %d says of node %d: %+v, want %d", g, me, subject, o[subject], want)
					}
				}
			}
		}
	}
}

// TestLoss is ten minutes in which every fifth message gets lost. The comment at Config.Misses has the arithmetic.
func TestLoss(t *testing.T) {
	for _, test := range []struct {
		nodes, runs, most int // transitions to unhealthy, of any node by any node, in all runs
	}{
		{nodes: 3, runs: 2, most: 3},
		{nodes: 5, runs: 1, most: 0},
	} {
		unhealthy, dead := 0, 0
		for seed := range test.runs {
			w := newWorld(test.nodes, uint64(seed))
			w.loss = 0.2
			w.run(10 * time.Minute)
			for _, s := range w.seen {
				switch {
				case s.To == cluster.Unhealthy && s.From < cluster.Unhealthy:
					unhealthy++
				case s.To == cluster.Dead:
					dead++
				}
			}
		}
		t.Logf("%d nodes, %d times ten minutes: %d times unhealthy", test.nodes, test.runs, unhealthy)
		if unhealthy > test.most || dead > 0 {
			t.Errorf("%d nodes, %d times ten minutes: %d times unhealthy, %d times dead, want at most %d and none", test.nodes, test.runs, unhealthy, dead, test.most)
		}
	}
}

// A node is cut off for two of every six seconds, for five minutes. It is let in ever more rarely.
func TestFlappingIsDamped(t *testing.T) {
	w := newWorld(3, 1)
	w.run(5 * time.Second)
	for range 50 {
		for _, p := range []uint64{1, 2} {
			w.cut[[2]uint64{3, p}] = true
		}
		w.run(2 * time.Second)
		clear(w.cut)
		w.run(4 * time.Second)
	}
	back := 0
	for _, s := range w.seen {
		if s.by == 1 && s.Node == 3 && s.From >= cluster.Unhealthy && s.To < cluster.Unhealthy {
			back++
		}
	}
	// After 3, 6 and 12 answers, which fit into four seconds; 24 take 4.8 s.
	if back != 3 {
		t.Errorf("node 3 came back %d times for node 1, want 3:\n%s", back, w.changes())
	}
	w.run(10 * time.Second)
	if o := w.host(1).d.Observed()[3]; o.Health != cluster.Healthy {
		t.Errorf("ten quiet seconds later it is %+v, want healthy", o)
	}
}

// Whoever stood still accuses nobody, however long it was and whatever it is told first afterwards.
func TestOwnPauseAccusesNobody(t *testing.T) {
	for pause, seeds := range map[time.Duration]uint64{
		100 * time.Millisecond: 20, 300 * time.Millisecond: 20, 500 * time.Millisecond: 20, 800 * time.Millisecond: 20,
		2 * time.Second: 20, 10 * time.Second: 5, time.Minute: 2,
	} {
		for seed := range seeds {
			w := newWorld(4, seed)
			w.run(5 * time.Second)
			w.host(1).frozen = true
			w.run(pause)
			w.seen = nil
			w.host(1).thaw()
			w.run(5 * time.Second)
			for _, s := range w.seen {
				if s.by == 1 {
					t.Errorf("after %s, seed %d: node 1 says %+v", pause, seed, s.Change)
				}
			}
		}
	}
}

// What is told as missed right after a pause was sent before it.
func TestMissesOfAPauseDoNotCount(t *testing.T) {
	now := epoch
	d := New(DefaultConfig(), 1, now)
	d.SetPeers([]uint64{2, 3}, now)
	for range 20 {
		now += int64(tickTime)
		d.Tick(now)
	}
	now += int64(2 * time.Second)
	for range 5 {
		d.Missed(2, "timeout", now)
	}
	now += int64(d.cfg.Interval) - 1
	d.Missed(2, "timeout", now)
	if changes := d.Tick(now); len(changes) > 0 {
		t.Errorf("misses within an interval after a pause: %+v, want no change", changes)
	}
	now++
	d.Missed(2, "timeout", now)
	if changes := d.Tick(now); len(changes) != 1 || changes[0].Reason != "a heartbeat is missing: timeout" {
		t.Errorf("a miss an interval after a pause: %+v, want node 2 suspect", changes)
	}
}

// It takes misses as well as time: a silence in which nothing was asked is none.
func TestUnreached(t *testing.T) {
	for _, test := range []struct {
		misses  int
		silence time.Duration
		reached bool
	}{
		{misses: 3, silence: 1200 * time.Millisecond, reached: false},
		{misses: 3, silence: 1199 * time.Millisecond, reached: true},
		{misses: 2, silence: time.Hour, reached: true},
		{misses: 100, silence: time.Second, reached: true},
	} {
		l := newLink(DefaultConfig(), epoch)
		for range test.misses {
			l.missed("", epoch+int64(time.Second))
		}
		if l.judge(DefaultConfig(), epoch+int64(test.silence)); l.reached != test.reached {
			t.Errorf("after %d misses and %s: reached is %t, want %t", test.misses, test.silence, l.reached, test.reached)
		}
	}
}

// What one peer says of another, whom this node has not yet asked, is one voice.
func TestOneVoiceIsNotEnough(t *testing.T) {
	d := New(DefaultConfig(), 1, epoch)
	d.SetPeers([]uint64{2, 3, 4}, epoch)
	says := func(peer uint64) {
		d.Answered(peer, Heartbeat{Sent: epoch, PeerReceived: epoch + 1, PeerSent: epoch + 1, Received: epoch + 2, Row: []Link{{To: 4}}})
		d.Tick(epoch + 2)
	}
	says(2)
	if o := d.Observed()[4]; o.Health != cluster.Suspect || o.Reason != "not reached from node 2" {
		t.Errorf("one peer does not reach node 4: %+v, want suspect", o)
	}
	says(3)
	if o := d.Observed()[4]; o.Health != cluster.Unhealthy || o.Reason != "not reached from node 2, 3" {
		t.Errorf("two peers do not reach node 4: %+v, want unhealthy", o)
	}
}

// The time in which nobody watched does not count towards how long a node has been dead, and a dead node is not alive because of it.
func TestPauseMovesSince(t *testing.T) {
	w := newWorld(3, 1)
	w.run(time.Second)
	w.host(3).kill()
	w.run(10 * time.Second)
	before := w.host(1).d.Observed()[3]
	w.host(1).frozen = true
	w.run(5 * time.Minute)
	w.host(1).thaw()
	w.run(time.Second)
	after := w.host(1).d.Observed()[3]
	moved := time.Duration(after.Since-before.Since) * time.Millisecond
	if after.Health != cluster.Dead || moved < 5*time.Minute-2*tickTime || moved > 5*time.Minute+2*tickTime {
		t.Errorf("after five minutes of standing still node 3 is %+v, before %+v; want it dead, since five minutes later", after, before)
	}
}

// Nor does a node that starts speak for one that is dead.
func TestStartLeavesTheDeadDead(t *testing.T) {
	w := newWorld(3, 1)
	w.run(time.Second)
	w.host(3).kill()
	w.run(8 * time.Second)
	w.host(2).kill()
	w.run(500 * time.Millisecond)
	before := w.host(1).d.Observed()[3]
	w.host(2).start()
	for range 120 {
		w.run(50 * time.Millisecond)
		if o := w.host(1).d.Observed()[3]; o.Health != cluster.Dead || o.Since != before.Since {
			t.Fatalf("after node 2 has started anew, node 3 is %+v, before %+v", o, before)
		}
	}
	if o := w.host(2).d.Observed()[3]; o.Health != cluster.Dead {
		t.Errorf("to node 2, node 3 is %+v six seconds after it started, want dead", o)
	}
}

func TestOffset(t *testing.T) {
	w := newWorld(5, 1)
	w.host(1).clock = 300 * time.Millisecond
	w.host(2).clock = 20 * time.Millisecond
	w.run(5 * time.Second)
	for id, want := range map[uint64]time.Duration{1: 300 * time.Millisecond, 2: 20 * time.Millisecond, 3: 0} {
		if got, known := w.host(id).d.Offset(); got != want || !known {
			t.Errorf("node %d: Offset() = %s, %t, want %s", id, got, known, want)
		}
	}
	two := newWorld(2, 1)
	two.host(1).clock = time.Hour
	two.run(5 * time.Second)
	if got, known := two.host(1).d.Offset(); known {
		t.Errorf("of two clocks Offset() = %s, known, want unknown", got)
	}
}

func TestRowsAndMatrix(t *testing.T) {
	w := newWorld(3, 1)
	w.host(2).clock = 20 * time.Millisecond
	w.run(5 * time.Second)
	w.host(3).kill()
	w.run(3 * time.Second)
	d := w.host(1).d
	row := d.Row()
	if len(row) != 2 || row[0].To != 2 || !row[0].Reached || row[0].RTT != 2*oneWay || row[0].Offset != 20*time.Millisecond || row[1].To != 3 || row[1].Reached {
		t.Errorf("Row() = %+v, want node 2 at 1 ms with a clock 20 ms ahead, and node 3 not reached", row)
	}
	if down := w.now/1e6 - (row[1].Since - epoch/1e6); down < 1500 || down > 2000 {
		t.Errorf("node 3 was killed 3 s ago and is not reached for %d ms, want 1.5 to 2 s", down)
	}
	if m := d.Matrix(); len(m) != 3 || !slices.Equal(m[1], row) || len(m[2]) != 2 || m[2][1].Reached {
		t.Errorf("Matrix() = %+v, want three rows, node 3 not reached from 2", m)
	}
	w.run(5 * time.Second)
	if m := d.Matrix(); len(m) != 2 || m[3] != nil {
		t.Errorf("Matrix() = %+v, want no row of node 3, which is silent for 8 s", m)
	}
	d.SetPeers([]uint64{1, 2, 2}, w.host(1).time())
	if o := d.Observed(); len(o) != 2 {
		t.Errorf("after SetPeers(1, 2) Observed() = %+v, want two nodes", o)
	}
}

func TestSpoken(t *testing.T) {
	for d, want := range map[time.Duration]string{
		350 * time.Microsecond: "0.35 ms", 8 * time.Millisecond: "8 ms", 240 * time.Millisecond: "240 ms", 1234 * time.Millisecond: "1.2 s", time.Hour: "1h0m0s", 90*time.Second + 1: "1m30s",
	} {
		if got := spoken(d); got != want {
			t.Errorf("spoken(%d) = %q, want %q", d, got, want)
		}
	}
}

// TestNothingWithoutACause tells a detector anything, and holds each accusation against what it was told.
func TestNothingWithoutACause(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type peer struct {
			misses   int
			answered int64 // when it last was heard, or begun to be watched
			stalled  int64 // when a stall was last told
			skewed   bool  // an answer came that was not of an exact clock and 1 ms
		}
		cfg := DefaultConfig()
		now := epoch
		d := New(cfg, 1, now)
		d.SetPeers([]uint64{2, 3, 4}, now)
		told := map[uint64]*peer{}
		for id := uint64(1); id <= 4; id++ {
			told[id] = &peer{answered: now}
		}
		doubted := false // a row said that somebody is not reached
		t.Repeat(map[string]func(*rapid.T){
			"answered": func(t *rapid.T) {
				id := rapid.Uint64Range(2, 4).Draw(t, "peer")
				off := rapid.SampledFrom([]int64{0, 0, 0, int64(100 * time.Millisecond), -int64(time.Hour)}).Draw(t, "offset")
				rtt := rapid.SampledFrom([]int64{int64(time.Millisecond), int64(time.Millisecond), int64(300 * time.Millisecond), -5}).Draw(t, "rtt")
				h := Heartbeat{Sent: now - rtt, PeerReceived: now - rtt/2 + off, PeerSent: now - rtt/2 + off, Received: now}
				for to := uint64(1); to <= 4; to++ {
					if to != id {
						h.Row = append(h.Row, Link{To: to, Reached: rapid.SampledFrom([]bool{true, true, false}).Draw(t, "reached")})
						doubted = doubted || !h.Row[len(h.Row)-1].Reached
					}
				}
				h.Stalled = rapid.SampledFrom([]time.Duration{0, 0, time.Second}).Draw(t, "stalled")
				p := told[id]
				if h.Stalled > 0 {
					p.stalled = now
				}
				p.misses, p.answered, p.skewed = 0, now, p.skewed || off != 0 || rtt != int64(time.Millisecond)
				d.Answered(id, h)
			},
			"missed": func(t *rapid.T) {
				id := rapid.Uint64Range(2, 4).Draw(t, "peer")
				told[id].misses++
				d.Missed(id, "lost", now)
			},
			"self": func(t *rapid.T) {
				stalled := rapid.SampledFrom([]time.Duration{0, 0, time.Second}).Draw(t, "stalled")
				if stalled > 0 {
					told[1].stalled = now
				}
				d.Self(stalled, now)
			},
			"time": func(t *rapid.T) {
				now += int64(rapid.SampledFrom([]time.Duration{10, 50, 100, 200, 200, 200, 400}).Draw(t, "step")) * int64(time.Millisecond)
			},
			"": func(t *rapid.T) {
				skewed := false
				for id := uint64(2); id <= 4; id++ {
					skewed = skewed || told[id].skewed
				}
				changes := d.Tick(now)
				if !slices.IsSortedFunc(changes, func(a, b Change) int { return int(a.Node) - int(b.Node) }) {
					t.Fatalf("changes are not by node: %+v", changes)
				}
				for _, c := range changes {
					o := d.Observed()[c.Node]
					if c.From == c.To || o.Health != c.To || o.Reason != c.Reason || c.To != cluster.Healthy && c.Reason == "" {
						t.Fatalf("change %+v, observed %+v", c, o)
					}
					if c.From >= cluster.Unhealthy || c.To < cluster.Unhealthy {
						continue
					}
					p := told[c.Node]
					silent := func(p *peer) bool { return p.misses >= 3 && now-p.answered >= int64(cfg.Silence) }
					stated := false
					switch says := func(claim string) bool { return strings.HasPrefix(c.Reason, claim) }; {
					case says("does not answer"):
						stated = c.Node != 1 && silent(p)
					case says("reached from node"), says("not reached from node"):
						stated = c.Node != 1 && doubted
					case says("reaches no other node"):
						stated = c.Node == 1 && silent(told[2]) && silent(told[3]) && silent(told[4])
					case says("reaches node"):
						stated = c.Node == 1 && (silent(told[2]) || silent(told[3]) || silent(told[4]))
					case says("its disk"):
						stated = p.stalled > 0 && now-p.stalled < int64(cfg.DiskSticky)
					case says("its clock"):
						stated = skewed
					case says("answers take"):
						stated = c.Node != 1 && p.skewed
					}
					if !stated {
						t.Fatalf("%+v, of which the evidence is %+v", c, *p)
					}
				}
			},
		})
	})
}

func BenchmarkTick(b *testing.B) {
	for _, n := range []uint64{5, 100} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			now := epoch
			d := New(DefaultConfig(), 1, now)
			var row []Link
			var all []uint64
			for id := uint64(1); id <= n; id++ {
				all = append(all, id)
				row = append(row, Link{To: id, Reached: true})
			}
			d.SetPeers(all, now)
			b.ReportAllocs()
			for b.Loop() {
				now += int64(50 * time.Millisecond)
				if d.last/int64(200*time.Millisecond) != now/int64(200*time.Millisecond) {
					for _, id := range all[1:] {
						d.Answered(id, Heartbeat{Sent: now - 1000, PeerReceived: now - 500, PeerSent: now - 500, Received: now, Row: row})
					}
				}
				d.Tick(now)
			}
		})
	}
}
