// Package notificationshard keeps the webhook receivers and how far each is through the feeds of the order shards.
//
// Deliveries are not in it: a receiver's cursor says what it has, and the feed has the rest. What failed and is tried again is
// parked beside the cursor, so that one event that a receiver cannot take does not hold up the others.
package notificationshard

import (
	"fmt"
	"slices"

	"hanse/api/notificationpb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

const (
	// MaxEndpoints bounds the receivers, MaxParked what one may have parked: beyond that it is disabled.
	MaxEndpoints = 100
	MaxParked    = 1000
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
	case *notificationpb.Command_Enable:
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

func (l *logic) create(c *notificationpb.CreateEndpoint, now int64) shard.Result {
	if e, ok := l.endpoints.Find(c.Id); ok {
		return shard.Result{Payload: encode(e)}
	}
	if len(l.all()) >= MaxEndpoints {
		return refuse(reject.TooManyEndpoints, "there are %d endpoints", MaxEndpoints)
	}
	e := &notificationpb.Endpoint{Id: c.Id, Url: c.Url, Types: c.Types, Secret: c.Secret, CreatedAt: now, Cursors: make([]uint64, c.Shards)}
	copy(e.Cursors, c.Cursors)
	l.endpoints.Insert(e.Id, e)
	return shard.Result{Payload: encode(e)}
}

// advance records deliveries. A cursor never goes back: what comes twice changes nothing.
func (l *logic) advance(a *notificationpb.Advance) shard.Result {
	e, r := l.find(a.Id)
	if r != nil {
		return *r
	}
	if int(a.Shard) >= len(e.Cursors) {
		return refuse(reject.MalformedCommand, "endpoint %s has no shard %d", e.Id, a.Shard)
	}
	e.Cursors[a.Shard] = max(e.Cursors[a.Shard], a.Cursor)
	e.Delivered += a.Delivered
	e.Parked = slices.DeleteFunc(e.Parked, func(p *notificationpb.Parked) bool {
		return p.Shard == a.Shard && slices.Contains(a.Unpark, p.Position)
	})
	for _, p := range a.Park {
		i := slices.IndexFunc(e.Parked, func(o *notificationpb.Parked) bool { return o.Shard == p.Shard && o.Position == p.Position })
		if i >= 0 {
			e.Parked[i] = p.CloneVT()
			continue
		}
		e.Failed++
		e.Parked = append(e.Parked, p.CloneVT())
	}
	if a.Disable {
		e.Disabled, e.DisabledReason = true, a.Reason
	}
	if len(e.Parked) > MaxParked {
		e.Disabled, e.DisabledReason = true, fmt.Sprintf("more than %d deliveries have failed", MaxParked)
	}
	l.endpoints.Put(e.Id, e)
	return shard.Result{}
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
func (l *logic) View(string) (shard.Result, bool)              { return shard.Result{}, false }

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
