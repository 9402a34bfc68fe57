package notification

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"hanse/api/notificationpb"
	"hanse/api/orderpb"
)

// An order whose name begins with a dash is not wanted.
func wanted(e *orderpb.Event) bool { return !strings.HasPrefix(e.OrderId, "-") }

func eventsOf(orders ...string) []*orderpb.Event {
	events := make([]*orderpb.Event, len(orders))
	for i, o := range orders {
		events[i] = &orderpb.Event{OrderId: o}
	}
	return events
}

func place(d Delivery) string { return fmt.Sprintf("%d/%d", d.Shard, d.Position) }

var outcomes = map[string]Outcome{"accept": Accepted, "fail": Failed, "throttle": Throttled, "gone": Gone, "skip": Skipped}

func describeReport(a *notificationpb.Advance) string {
	var b strings.Builder
	fmt.Fprintf(&b, "shard %d: cursor %d, %d delivered", a.Shard, a.Cursor, a.Delivered)
	for _, p := range a.Park {
		fmt.Fprintf(&b, "\n  park %d of %s after %d attempts, next at %v: %s", p.Position, p.OrderId, p.Attempts, time.Duration(p.NextTry)*time.Millisecond, p.Error)
	}
	if len(a.Unpark) > 0 {
		fmt.Fprintf(&b, "\n  unpark %v", a.Unpark)
	}
	if a.Disable {
		fmt.Fprintf(&b, "\n  disable: %s", a.Reason)
	}
	return b.String() + "\n"
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		var r *Receiver
		var now int64
		under := map[string]Delivery{}
		takeAll := func() string {
			var b strings.Builder
			for {
				d, ok := r.Take(now)
				if !ok {
					break
				}
				under[place(d)] = d
				fmt.Fprintf(&b, "deliver %s of %s", place(d), d.line.order)
				if d.Event == nil {
					b.WriteString(", to be read again")
				}
				b.WriteByte('\n')
			}
			if r.Disabled() != "" {
				fmt.Fprintf(&b, "disabled: %s\n", r.Disabled())
			}
			if r.Resting() {
				b.WriteString("resting\n")
			}
			if at := r.Wake(); at > 0 {
				fmt.Fprintf(&b, "wake at %v\n", time.Duration(at)*time.Millisecond)
			}
			return b.String()
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "new":
				e := &notificationpb.Endpoint{Id: "e"}
				for _, a := range d.CmdArgs {
					for i := range a.Vals {
						switch a.Key {
						case "cursors":
							v := uint64(0)
							a.Scan(t, i, &v)
							e.Cursors = append(e.Cursors, v)
						case "parked": // shard/position/order/attempts/next in seconds
							p := &notificationpb.Parked{}
							if _, err := fmt.Sscanf(strings.ReplaceAll(a.Vals[i], "/", " "), "%d %d %s %d %d", &p.Shard, &p.Position, &p.OrderId, &p.Attempts, &p.NextTry); err != nil {
								t.Fatal(err)
							}
							p.NextTry *= 1000
							e.Parked = append(e.Parked, p)
						}
					}
				}
				r, now = NewReceiver(e, wanted), 0
				clear(under)
				return takeAll()
			case "offer":
				var shard int
				d.ScanArgs(t, "shard", &shard)
				for _, a := range d.CmdArgs {
					if a.Key == "orders" {
						r.Offer(shard, eventsOf(a.Vals...))
					}
				}
				return takeAll()
			case "at":
				v, err := time.ParseDuration(d.CmdArgs[0].Key)
				if err != nil {
					t.Fatal(err)
				}
				now = v.Milliseconds()
				return takeAll()
			case "accept", "fail", "throttle", "gone", "skip":
				var after string
				d.MaybeScanArgs(t, "after", &after)
				a := Answer{Outcome: outcomes[d.Cmd], Cause: "503"}
				if after != "" {
					a.After, _ = time.ParseDuration(after)
				}
				for _, arg := range d.CmdArgs {
					if del, ok := under[arg.Key]; ok {
						delete(under, arg.Key)
						r.Done(del, a, now, 0)
					} else if arg.Key != "after" {
						t.Fatalf("%s is not under way", arg.Key)
					}
				}
				return takeAll()
			case "report":
				var b strings.Builder
				for _, rep := range r.Reports() {
					b.WriteString(describeReport(rep.Advance))
					r.Recorded(rep, !d.HasArg("lost"))
				}
				return b.String() + takeAll()
			case "wants":
				var b strings.Builder
				for i := range r.tracks {
					after, ok := r.Wants(i)
					fmt.Fprintf(&b, "shard %d after %d: %v\n", i, after, ok)
				}
				return b.String()
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
}

// ledger is the notification shard's record of one receiver, in brief.
type ledger struct {
	cursors []uint64
	parked  map[[2]uint64]*notificationpb.Parked
}

func (l *ledger) apply(a *notificationpb.Advance) {
	s := uint64(a.Shard)
	l.cursors[s] = max(l.cursors[s], a.Cursor)
	for _, p := range a.Unpark {
		delete(l.parked, [2]uint64{s, p})
	}
	for _, p := range a.Park {
		l.parked[[2]uint64{s, p.Position}] = p.CloneVT()
	}
}

func (l *ledger) endpoint() *notificationpb.Endpoint {
	e := &notificationpb.Endpoint{Id: "e", Cursors: slices.Clone(l.cursors)}
	for _, p := range l.parked {
		e.Parked = append(e.Parked, p.CloneVT())
	}
	slices.SortFunc(e.Parked, func(a, b *notificationpb.Parked) int {
		return int(a.Shard)<<32 + int(a.Position) - int(b.Shard)<<32 - int(b.Position)
	})
	return e
}

// TestEverythingArrivesInOrder plays random answers, lost reports and crashes, and checks the promises: an event is delivered only
// when the ones before it of its order are accepted, the record never claims more than was accepted or is parked, and at the end,
// when the receiver accepts, it has got everything.
func TestEverythingArrivesInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const shards = 2
		feeds := make([][]string, shards)
		for i := range feeds {
			for range rapid.IntRange(0, 40).Draw(rt, "events") {
				feeds[i] = append(feeds[i], fmt.Sprint(rapid.SampledFrom([]string{"a", "b", "c", "d", "-"}).Draw(rt, "order"), i))
			}
		}
		book := &ledger{cursors: make([]uint64, shards), parked: map[[2]uint64]*notificationpb.Parked{}}
		r := NewReceiver(book.endpoint(), wanted)
		accepted := map[string]bool{}
		var under []Delivery
		now, calm := int64(0), false
		var reports []*Report
		feed := func() {
			for i := range feeds {
				if after, ok := r.Wants(i); ok && after < uint64(len(feeds[i])) {
					page := min(int(after)+rapid.IntRange(1, 10).Draw(rt, "page"), len(feeds[i]))
					r.Offer(i, eventsOf(feeds[i][after:page]...))
				}
			}
		}
		take := func() {
			for {
				d, ok := r.Take(now)
				if !ok {
					return
				}
				order := feeds[d.Shard][d.Position-1]
				if !wanted(&orderpb.Event{OrderId: order}) {
					rt.Fatalf("%s of %s is delivered, which is not wanted", place(d), order)
				}
				for p := range d.Position - 1 {
					if earlier := fmt.Sprintf("%d/%d", d.Shard, p+1); feeds[d.Shard][p] == order && !accepted[earlier] {
						rt.Fatalf("%s is delivered before %s of the same order was accepted", place(d), earlier)
					}
				}
				under = append(under, d)
				if len(under) > Parallel {
					rt.Fatalf("%d deliveries at once, want at most %d", len(under), Parallel)
				}
			}
		}
		done := func() {
			i := 0
			if !calm {
				i = rapid.IntRange(0, len(under)-1).Draw(rt, "which")
			}
			d := under[i]
			under = slices.Delete(under, i, i+1)
			a := Answer{}
			if !calm {
				a = Answer{Outcome: rapid.SampledFrom([]Outcome{Accepted, Accepted, Failed, Throttled, Skipped}).Draw(rt, "outcome"), Cause: "503"}
			}
			if a.Outcome == Accepted {
				accepted[place(d)] = true
			}
			r.Done(d, a, now, rapid.Uint64().Draw(rt, "jitter"))
		}
		check := func() {
			for s, cursor := range book.cursors {
				for p := range cursor {
					at := fmt.Sprintf("%d/%d", s, p+1)
					if _, parked := book.parked[[2]uint64{uint64(s), p + 1}]; wanted(&orderpb.Event{OrderId: feeds[s][p]}) && !accepted[at] && !parked {
						rt.Fatalf("the record is at %d of shard %d, but %s is neither accepted nor parked", cursor, s, at)
					}
				}
			}
		}
		step := func(what string) {
			switch what {
			case "feed":
				feed()
			case "time":
				now += rapid.Int64Range(1, 3_600_000).Draw(rt, "ms")
			case "done":
				if len(under) > 0 {
					done()
				}
			case "report":
				if len(reports) == 0 {
					reports = r.Reports()
				}
			case "recorded", "lost", "in doubt":
				if len(reports) > 0 {
					rep := reports[0]
					reports = reports[1:]
					if what != "lost" {
						book.apply(rep.Advance)
						check()
					}
					r.Recorded(rep, what == "recorded")
				}
			case "crash":
				r, under, reports = NewReceiver(book.endpoint(), wanted), nil, nil
			}
			take()
		}
		for range rapid.IntRange(0, 120).Draw(rt, "steps") {
			if r.Disabled() != "" {
				break
			}
			step(rapid.SampledFrom([]string{"feed", "feed", "time", "done", "done", "done", "report", "recorded", "recorded", "lost", "in doubt", "crash"}).Draw(rt, "step"))
		}
		if r.Disabled() != "" { // enabled again
			for _, p := range book.parked {
				p.Attempts, p.NextTry = 0, 0
			}
			step("crash")
		}
		calm = true
		complete := func() bool {
			for s := range feeds {
				if book.cursors[s] < uint64(len(feeds[s])) {
					return false
				}
			}
			return len(book.parked) == 0
		}
		for range 1000 {
			if complete() {
				break
			}
			for _, what := range []string{"feed", "done", "report", "recorded", "recorded"} {
				step(what)
			}
			now = max(now, r.Wake())
		}
		for s := range feeds {
			for p, order := range feeds[s] {
				if at := fmt.Sprintf("%d/%d", s, p+1); wanted(&orderpb.Event{OrderId: order}) && !accepted[at] {
					rt.Fatalf("%s of %s never arrived; cursors %v, parked %v", at, order, book.cursors, book.parked)
				}
			}
			if book.cursors[s] != uint64(len(feeds[s])) {
				rt.Errorf("shard %d is recorded at %d of %d", s, book.cursors[s], len(feeds[s]))
			}
		}
		if len(book.parked) > 0 {
			rt.Errorf("still parked: %v", book.parked)
		}
	})
}

// Whatever happens, what one report holds is what one command may hold, and the window is bounded.
func TestNothingGrowsWhileNothingIsRecorded(t *testing.T) {
	r := NewReceiver(&notificationpb.Endpoint{Id: "e", Cursors: []uint64{0}}, wanted)
	page := make([]string, 512)
	for i := range page {
		page[i] = "one order"
	}
	longest := 0
	for now := int64(0); now < 10*24*3_600_000; now += 600_000 {
		if _, ok := r.Wants(0); ok {
			r.Offer(0, eventsOf(page...))
		}
		if d, ok := r.Take(now); ok {
			r.Done(d, Answer{Outcome: Failed, Cause: strings.Repeat("é", 4096)}, now, 0)
		}
		for _, rep := range r.Reports() {
			longest = max(longest, len(rep.Advance.Park))
			if size := rep.Advance.SizeVT(); size > 1<<20 {
				t.Fatalf("a report of %d bytes", size)
			}
			r.Recorded(rep, false)
		}
	}
	if longest == 0 || longest > 2048 {
		t.Errorf("a report parks %d events, want some, at most 2048", longest)
	}
}
