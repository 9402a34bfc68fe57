package notificationshard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"hanse/api/notificationpb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

const (
	// MaxEndpoints bounds the receivers, MaxParked what one may have parked: beyond that it is disabled.
	MaxEndpoints = 100
	MaxParked    = 1000
	// MaxReported bounds what one Advance may park and unpark.
	MaxReported = 4096

	maxTextBytes   = 2048 // of a URL, and of a secret
	maxTypes       = 100
	maxShards      = 4096
	maxReasonBytes = 256 // of an error, which repeats for each parked event
)

type logic struct {
	endpoints *shard.Table[*notificationpb.Endpoint]
}

// New returns the builder that [shard.Open] takes.
func New() func(*shard.State) shard.Logic {
	return func(s *shard.State) shard.Logic {
		return &logic{shard.NewTable(s, 'e', shard.ProtoCodec[notificationpb.Endpoint](), MaxEndpoints)}
	}
}

func (l *logic) Apply(tx *shard.Tx, payload []byte) shard.Result {
	var c notificationpb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return refuse(reject.MalformedCommand, "notification command: %v", err)
	}
	switch c := c.Body.(type) {
	case *notificationpb.Command_Create:
		return l.create(c.Create, tx.Now.Millis())
	case *notificationpb.Command_Delete:
		if _, r := l.find(c.Delete.Id); r != nil {
			return *r
		}
		l.endpoints.Delete(c.Delete.Id)
		return shard.Result{}
	case *notificationpb.Command_Enable: // what is parked is tried at once, and from the start of its schedule
		e, r := l.find(c.Enable.Id)
		if r != nil {
			return *r
		}
		e.Disabled, e.DisabledReason = false, ""
		for _, p := range e.Parked {
			p.Attempts, p.NextTry = 0, 0
		}
		l.endpoints.Put(e.Id, e)
		return shard.Result{Payload: encode(e)}
	case *notificationpb.Command_Advance:
		return l.advance(c.Advance)
	}
	return refuse(reject.MalformedCommand, "notification command without a body")
}

func (l *logic) find(id string) (*notificationpb.Endpoint, *shard.Result) {
	e, ok := l.endpoints.Find(id)
	if !ok {
		r := refuse(reject.EndpointNotFound, "there is no endpoint %.64s", id)
		return nil, &r
	}
	return e, nil
}

// create registers a receiver. The same one again gets the same answer.
func (l *logic) create(c *notificationpb.CreateEndpoint, now int64) shard.Result {
	if c.Id == "" || max(len(c.Id), len(c.Url), len(c.Secret)) > maxTextBytes || len(c.Types) > maxTypes ||
		c.Shards > maxShards || len(c.Cursors) > int(c.Shards) {
		return refuse(reject.MalformedCommand, "endpoint %.64s exceeds a bound", c.Id)
	}
	if e, ok := l.endpoints.Find(c.Id); ok {
		return shard.Result{Payload: encode(e)}
	}
	if len(l.all()) >= MaxEndpoints {
		return refuse(reject.TooManyEndpoints, "there are %d endpoints", MaxEndpoints)
	}
	e := &notificationpb.Endpoint{Id: c.Id, Url: c.Url, Types: c.Types, Secret: c.Secret, CreatedAt: now, Cursors: make([]uint64, c.Shards)}
	copy(e.Cursors, c.Cursors)
	l.endpoints.Put(e.Id, e)
	return shard.Result{Payload: encode(e)}
}

// advance records deliveries. A cursor never goes back: what comes twice changes nothing but the count of deliveries.
func (l *logic) advance(a *notificationpb.Advance) shard.Result {
	e, r := l.find(a.Id)
	if r != nil {
		return *r
	}
	if int(a.Shard) >= len(e.Cursors) {
		return refuse(reject.MalformedCommand, "endpoint %s has no shard %d", e.Id, a.Shard)
	}
	if len(a.Park) > MaxReported || len(a.Unpark) > MaxReported {
		return refuse(reject.MalformedCommand, "%d events parked and %d unparked at once, at most %d are possible", len(a.Park), len(a.Unpark), MaxReported)
	}
	e.Cursors[a.Shard] = max(e.Cursors[a.Shard], a.Cursor)
	e.Delivered += a.Delivered
	for _, position := range a.Unpark {
		if i, found := slices.BinarySearchFunc(e.Parked, place{a.Shard, position}, comparePlace); found {
			e.Parked = slices.Delete(e.Parked, i, i+1)
		}
	}
	grown := false
	for _, p := range a.Park {
		p = p.CloneVT()
		p.Shard, p.Error = a.Shard, clip(p.Error)
		i, found := slices.BinarySearchFunc(e.Parked, place{a.Shard, p.Position}, comparePlace)
		before := uint32(0)
		if found {
			before = e.Parked[i].Attempts
			e.Parked[i] = p
		} else {
			e.Parked, grown = slices.Insert(e.Parked, i, p), true
		}
		if before == 0 && p.Attempts > 0 { // one that only waits behind another has not failed
			e.Failed++
		}
	}
	switch {
	case a.Disable:
		e.Disabled, e.DisabledReason = true, clip(a.Reason)
	case grown && len(e.Parked) > MaxParked: // one that was enabled again may work them off
		e.Disabled, e.DisabledReason = true, fmt.Sprintf("more than %d events wait to be tried again", MaxParked)
	}
	l.endpoints.Put(e.Id, e)
	return shard.Result{}
}

// place is where an event is: parked ones are sorted by it.
type place struct {
	shard    uint32
	position uint64
}

func comparePlace(p *notificationpb.Parked, at place) int {
	return cmp.Or(cmp.Compare(p.Shard, at.shard), cmp.Compare(p.Position, at.position))
}

func clip(s string) string {
	if len(s) <= maxReasonBytes {
		return s
	}
	return strings.ToValidUTF8(s[:maxReasonBytes], "")
}

func (l *logic) all() []*notificationpb.Endpoint {
	var all []*notificationpb.Endpoint
	l.endpoints.Scan("", "", func(_ string, e *notificationpb.Endpoint) bool {
		all = append(all, e)
		return true
	})
	return all
}

// Query answers a read-only question.
func (l *logic) Query(payload []byte) shard.Result {
	var q notificationpb.Query
	if err := q.UnmarshalVT(payload); err != nil {
		return refuse(reject.MalformedCommand, "notification query: %v", err)
	}
	switch q := q.Body.(type) {
	case *notificationpb.Query_List:
		return shard.Result{Payload: encode(&notificationpb.EndpointList{Endpoints: l.all()})}
	case *notificationpb.Query_Find:
		e, r := l.find(q.Find.Id)
		if r != nil {
			return *r
		}
		return shard.Result{Payload: encode(e)}
	}
	return refuse(reject.MalformedCommand, "notification query without a body")
}

// The service sends no messages through the outbox, sets no timers and has nothing that settles later.
func (l *logic) Reply(*shard.Tx, *shard.Message, shard.Result) {}
func (l *logic) Stuck(*shard.Tx, *shard.Message, shard.Stuck)  {}
func (l *logic) Due(*shard.Tx, string)                         {}
func (l *logic) Settled(string) bool                           { return false }
func (l *logic) View(string) shard.Result                      { return shard.Result{} }

func refuse(code, format string, args ...any) shard.Result {
	return shard.Result{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func encode(m interface{ MarshalVT() ([]byte, error) }) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		panic("notificationshard: encode: " + err.Error()) // only a wrong size can fail
	}
	return data
}
