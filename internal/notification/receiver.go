package notification

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"hanse/api/notificationpb"
	"hanse/api/orderpb"
)

const (
	// Parallel is how many deliveries to one receiver are under way at once, of different orders.
	Parallel = 8
	// restAfter is how many failures in a row make a receiver rest, which then gets one delivery at a time, after pauses that
	// double from restPause to maxRestPause.
	restAfter    = 3
	restPause    = time.Second
	maxRestPause = 5 * time.Minute
	// maxThrottle bounds what a receiver may ask for with Retry-After.
	maxThrottle = time.Hour
	// skipPause is when an event is tried again that could not be read.
	skipPause = time.Second
	// windowLow is when more events of a shard are wanted. A page goes on top of it.
	windowLow = 128
	// maxUnrecorded bounds what a receiver gets twice after a crash: beyond it deliveries wait for the record.
	maxUnrecorded = 512
	// maxCauseBytes bounds a cause, which is recorded for each failed event.
	maxCauseBytes = 200
)

// Outcome says how a delivery went.
type Outcome uint8

// The outcomes. Whatever is not Accepted leaves the event to be delivered again.
const (
	Accepted  Outcome = iota
	Failed            // the receiver refused the event, or did not answer
	Throttled         // the receiver, or what stands before it, wants to be left alone for a while
	Gone              // the receiver wants nothing any more
	Skipped           // the delivery was not tried, which is not the receiver's fault
)

// Answer is the outcome of a delivery with its circumstances.
type Answer struct {
	Outcome Outcome
	// Cause tells a person why it was not accepted.
	Cause string
	// After is how long a throttled receiver wants to be left alone; zero for what it did not say.
	After time.Duration
}

// Delivery is one attempt to be made. Its values are not to be changed.
type Delivery struct {
	Shard    int
	Position uint64
	// Event is nil when it has to be read from the feed again.
	Event *orderpb.Event
	line  *line
}

// Receiver decides what one webhook receiver is sent, and when. It is a step machine for one goroutine: it reads no clock and
// makes no delivery. Times are milliseconds since 1970.
//
//	Offer ─▶ window ─┐                 ┌─ accepted: the next one of its order; the cursor moves on
//	                 ├─▶ Take ─▶ Done ─┼─ failed: parked with its order's later events, tried again after Next
//	 parked, and due ┘                 └─ restAfter failed in a row: the receiver rests, nothing more is parked
//
// Events of one order are delivered one after the other: a later one waits until the earlier one is accepted. Orders are
// independent. What has happened is recorded with [Receiver.Reports], in batches.
type Receiver struct {
	id     string
	wanted func(*orderpb.Event) bool
	tracks []*track
	// lines holds the orders that have events to deliver. One that failed goes to the end.
	lines   []*line
	byOrder map[string]*line
	busy    int
	// failures counts the failed deliveries since the last accepted one, rests the pauses made for them.
	failures, rests int
	restUntil       int64
	throttled       int64  // until when the receiver has asked to be left alone
	disabled        string // the reason
}

// track is the progress through one order shard's feed.
type track struct {
	shard  int
	cursor uint64   // all events up to it are delivered, unwanted or parked
	last   uint64   // the last event offered
	window []*event // the wanted ones between
	// What is to be recorded:
	recorded  uint64 // cursor
	delivered uint64
	changed   []*event // parked or tried again
	unpark    []uint64
	reporting bool
}

// line is what an order has to deliver, oldest first.
type line struct {
	order  string
	events []*event
	busy   bool // its first event is under way
}

type event struct {
	track    *track
	order    string
	position uint64
	body     *orderpb.Event // nil for parked ones
	done     bool
	parked   bool
	known    bool // parked on record, as far as we know
	changed  bool
	attempts uint32
	next     int64
	cause    string
	failedAt int64
}

// behind is the cause of what is parked without having been tried.
const behind = "waits behind an earlier event of its order"

// NewReceiver goes on from what is on record. Wanted says which events the receiver gets.
func NewReceiver(e *notificationpb.Endpoint, wanted func(*orderpb.Event) bool) *Receiver {
	r := &Receiver{id: e.Id, wanted: wanted, byOrder: make(map[string]*line)}
	for i, cursor := range e.Cursors {
		r.tracks = append(r.tracks, &track{shard: i, cursor: cursor, last: cursor, recorded: cursor})
	}
	for _, p := range e.Parked {
		if int(p.Shard) >= len(r.tracks) {
			continue
		}
		r.enqueue(&event{
			track: r.tracks[p.Shard], order: p.OrderId, position: p.Position, parked: true, known: true,
			attempts: p.Attempts, next: p.NextTry, cause: p.Error, failedAt: p.FailedAt,
		})
		if p.Attempts > 0 {
			r.failures = 1 // careful until something is accepted
		}
	}
	return r
}

// Wants returns after which position the receiver wants events of a shard, and false when it has enough.
func (r *Receiver) Wants(shard int) (after uint64, ok bool) {
	t := r.tracks[shard]
	room := len(t.window) < windowLow
	if r.Resting() { // one event is enough to find out when it is back; the others had better wait in the feed
		room = !slices.ContainsFunc(r.tracks, func(t *track) bool { return len(t.window) > 0 })
	}
	return t.last, room && r.disabled == "" && r.Unrecorded() < maxUnrecorded
}

// Offer adds the events of a shard that follow on what Wants returned.
func (r *Receiver) Offer(shard int, events []*orderpb.Event) {
	t := r.tracks[shard]
	for _, body := range events {
		t.last++
		if !r.wanted(body) {
			continue
		}
		e := &event{track: t, order: body.OrderId, position: t.last, body: body}
		t.window = append(t.window, e)
		if r.enqueue(e).events[0].parked {
			e.park(0, behind)
		}
	}
	t.settle()
}

func (r *Receiver) enqueue(e *event) *line {
	l := r.byOrder[e.order]
	if l == nil {
		l = &line{order: e.order}
		r.byOrder[e.order] = l
		r.lines = append(r.lines, l)
	}
	l.events = append(l.events, e)
	return l
}

// Take returns the next delivery to make at now. False means that there is none until something is done, offered or recorded, or
// the time of Wake comes.
func (r *Receiver) Take(now int64) (Delivery, bool) {
	if r.full() || now < max(r.restUntil, r.throttled) {
		return Delivery{}, false
	}
	// What is parked and due goes first: the window may be long.
	for _, parked := range [...]bool{true, false} {
		for _, l := range r.lines {
			e := l.events[0]
			if l.busy || e.parked != parked || e.next > now {
				continue
			}
			l.busy = true
			r.busy++
			return Delivery{Shard: e.track.shard, Position: e.position, Event: e.body, line: l}, true
		}
	}
	return Delivery{}, false
}

// full reports whether no delivery may begin before something is done or recorded.
func (r *Receiver) full() bool {
	limit := Parallel
	if r.failures > 0 {
		limit = 1
	}
	return r.disabled != "" || r.busy >= limit || r.Unrecorded() >= maxUnrecorded
}

// Wake returns when Take may have a delivery although nothing else happens; 0 when it will not.
func (r *Receiver) Wake() int64 {
	if r.full() {
		return 0
	}
	first := int64(math.MaxInt64)
	for _, l := range r.lines {
		if !l.busy {
			first = min(first, l.events[0].next)
		}
	}
	if first == math.MaxInt64 {
		return 0
	}
	return max(first, r.restUntil, r.throttled, 1)
}

// Done takes the answer to a delivery, with a random number for the jitter of pauses.
func (r *Receiver) Done(d Delivery, a Answer, now int64, random uint64) {
	l := d.line
	e := l.events[0]
	l.busy = false
	r.busy--
	switch a.Outcome {
	case Accepted:
		r.accepted(l, e, now)
	case Skipped:
		e.next = now + skipPause.Milliseconds()
		r.toEnd(l)
	case Gone:
		r.disable("the receiver answered 410 Gone")
	case Failed, Throttled:
		resting := r.Resting()
		r.failures++
		if a.Outcome == Throttled {
			r.failures = max(r.failures, restAfter)
			r.throttled = max(r.throttled, now+min(a.After, maxThrottle).Milliseconds())
		}
		if r.Resting() && now >= r.restUntil { // else this is one of those that were under way when the rest began
			r.restUntil = now + restFor(r.rests, random).Milliseconds()
			r.rests++
		}
		r.toEnd(l)
		// While nothing gets through, it is not the event's fault: only what had failed before goes on with its schedule, at
		// whose end the receiver is given up.
		if !resting || e.parked {
			r.park(l, e, strings.ToValidUTF8(a.Cause[:min(len(a.Cause), maxCauseBytes)], ""), now, random)
		}
	}
	e.track.settle()
}

func (r *Receiver) accepted(l *line, e *event, now int64) {
	if r.Resting() {
		for _, other := range r.lines { // it is back: what failed meanwhile need not wait
			other.events[0].next = min(other.events[0].next, now)
		}
	}
	r.failures, r.rests, r.restUntil = 0, 0, 0
	e.done = true
	e.track.delivered++
	if e.parked && e.known {
		e.track.unpark = append(e.track.unpark, e.position)
	}
	e.parked = false
	l.events = l.events[1:]
	if len(l.events) == 0 {
		delete(r.byOrder, l.order)
		r.lines = slices.DeleteFunc(r.lines, func(o *line) bool { return o == l })
	}
}

// park keeps a failed event for later, and with it those of its order that have to wait for it.
func (r *Receiver) park(l *line, e *event, cause string, now int64, random uint64) {
	e.attempts++
	pause, ok := Next(int(e.attempts), random)
	if !ok {
		r.disable(fmt.Sprintf("event %d of order %s was tried %d times: %s", e.position, l.order, e.attempts, cause))
	}
	e.failedAt = now
	e.park(now+pause.Milliseconds(), cause)
	for _, later := range l.events[1:] {
		if !later.parked {
			later.park(0, behind)
		}
	}
}

func (e *event) park(next int64, cause string) {
	e.parked, e.next, e.cause, e.body = true, next, cause, nil
	if !e.changed {
		e.changed = true
		e.track.changed = append(e.track.changed, e)
	}
}

func (r *Receiver) toEnd(l *line) {
	r.lines = append(slices.DeleteFunc(r.lines, func(o *line) bool { return o == l }), l)
}

func (r *Receiver) disable(reason string) {
	if r.disabled == "" {
		r.disabled = reason
	}
}

// restFor is how long a receiver rests after so many rests in a row.
func restFor(rests int, random uint64) time.Duration {
	pause := min(restPause<<min(rests, 20), maxRestPause)
	return pause + time.Duration(random%uint64(pause/10))
}

// settle moves the cursor over what needs no more attention.
func (t *track) settle() {
	n := 0
	for n < len(t.window) && (t.window[n].done || t.window[n].parked) {
		n++
	}
	t.window = slices.Delete(t.window, 0, n)
	t.cursor = t.last
	if len(t.window) > 0 {
		t.cursor = t.window[0].position - 1
	}
}

// Resting reports whether nothing has been accepted for a while.
func (r *Receiver) Resting() bool { return r.failures >= restAfter }

// Unrecorded counts what has happened since the last record: deliveries, and events parked or tried again.
func (r *Receiver) Unrecorded() int {
	n := 0
	for _, t := range r.tracks {
		n += int(t.delivered) + len(t.changed) + len(t.unpark)
	}
	return n
}

// Report is a part of what is to be recorded: a command for the notification shard.
type Report struct {
	Advance *notificationpb.Advance
	track   *track
	events  []*event
}

// Reports returns what is to be recorded, by shard. Each has to come back with Recorded, until when its shard has no other.
func (r *Receiver) Reports() []*Report {
	var reports []*Report
	for _, t := range r.tracks {
		disable := r.disabled != "" && t.shard == 0
		if t.reporting || t.cursor == t.recorded && t.delivered == 0 && len(t.changed) == 0 && len(t.unpark) == 0 && !disable {
			continue
		}
		rep := &Report{track: t, events: t.changed, Advance: &notificationpb.Advance{
			Id: r.id, Shard: uint32(t.shard), Cursor: t.cursor, Delivered: t.delivered, Unpark: t.unpark, Disable: disable,
		}}
		if disable {
			rep.Advance.Reason = r.disabled
		}
		for _, e := range t.changed {
			e.changed = false
			if e.parked { // else it was delivered meanwhile
				e.known = true
				rep.Advance.Park = append(rep.Advance.Park, &notificationpb.Parked{
					Shard: uint32(t.shard), Position: e.position, Attempts: e.attempts, NextTry: e.next, Error: e.cause, OrderId: e.order, FailedAt: e.failedAt,
				})
			}
		}
		t.reporting, t.delivered, t.changed, t.unpark = true, 0, nil, nil
		reports = append(reports, rep)
	}
	return reports
}

// Recorded ends a report. One that is not certainly recorded is part of the next one; a delivery may then be counted twice.
func (r *Receiver) Recorded(rep *Report, ok bool) {
	t := rep.track
	t.reporting = false
	if ok {
		t.recorded = rep.Advance.Cursor
		return
	}
	t.delivered += rep.Advance.Delivered
	t.unpark = append(rep.Advance.Unpark, t.unpark...)
	for _, e := range rep.events {
		if e.parked && !e.changed {
			e.changed = true
			t.changed = append(t.changed, e)
		}
	}
}

// LastFailure says why the last attempt failed among the deliveries that are tried again, and when, in ms since 1970. Time 0 is unknown, no cause that
// nothing failed.
func LastFailure(e *notificationpb.Endpoint) (cause string, at int64) {
	for _, p := range e.Parked {
		if p.Attempts > 0 && (cause == "" || p.FailedAt > at) {
			cause, at = p.Error, p.FailedAt
		}
	}
	return cause, at
}

// Disabled returns why the receiver is to be given up, empty while it is not. It ends once that is recorded.
func (r *Receiver) Disabled() string { return r.disabled }
