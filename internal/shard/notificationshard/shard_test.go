package notificationshard

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"hanse/api/notificationpb"
	"hanse/internal/reject"
	"hanse/internal/shard"
	"hanse/internal/shardtest"
)

// receivers is a shard with its store.
type receivers struct{ *shardtest.Machine }

func newReceivers(tb testing.TB) *receivers { return &receivers{shardtest.New(tb, New())} }

// apply applies one command. The log is as many seconds old as it has entries.
func (s *receivers) apply(payload []byte) shard.Result {
	return s.Enter(int64(s.Index+1)*1000, shard.Command{Kind: shard.KindLogic, Payload: payload}).Results[0]
}

func (s *receivers) create(c *notificationpb.CreateEndpoint) shard.Result {
	return s.apply(encode(&notificationpb.Command{Body: &notificationpb.Command_Create{Create: c}}))
}

func (s *receivers) advance(a *notificationpb.Advance) shard.Result {
	return s.apply(encode(&notificationpb.Command{Body: &notificationpb.Command_Advance{Advance: a}}))
}

func (s *receivers) find(id string) (*notificationpb.Endpoint, shard.Result) {
	r := s.Query(encode(&notificationpb.Query{Body: &notificationpb.Query_Find{Find: &notificationpb.FindEndpoint{Id: id}}}))
	e := new(notificationpb.Endpoint)
	if err := e.UnmarshalVT(r.Payload); err != nil {
		s.T.Fatal(err)
	}
	return e, r
}

func (s *receivers) list() []*notificationpb.Endpoint {
	r := s.Query(encode(&notificationpb.Query{Body: &notificationpb.Query_List{List: &notificationpb.ListEndpoints{}}}))
	l := new(notificationpb.EndpointList)
	if err := l.UnmarshalVT(r.Payload); err != nil || !r.OK() {
		s.T.Fatalf("list: %s %s %v", r.Code, r.Detail, err)
	}
	return l.Endpoints
}

func describe(e *notificationpb.Endpoint) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s types %v cursors %v delivered %d failed %d", e.Id, e.Url, e.Types, e.Cursors, e.Delivered, e.Failed)
	if e.Disabled {
		fmt.Fprintf(&b, " disabled: %s", e.DisabledReason)
	}
	b.WriteByte('\n')
	for _, p := range e.Parked {
		fmt.Fprintf(&b, "  parked %d/%d of %s after %d attempts, next at %d: %s\n", p.Shard, p.Position, p.OrderId, p.Attempts, p.NextTry, p.Error)
	}
	return b.String()
}

// parkedArg reads "position:order:attempts:next".
func parkedArg(t testing.TB, s string) *notificationpb.Parked {
	f := strings.Split(s, ":")
	n := func(i int) uint64 {
		v, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	return &notificationpb.Parked{Position: n(0), OrderId: f[1], Attempts: uint32(n(2)), NextTry: int64(n(3)), Error: "500"}
}

func TestScripts(t *testing.T) {
	shardtest.Scripts(t, "testdata/scripts", func(t testing.TB) shardtest.Desk { return newReceivers(t) })
}

// Do implements shardtest.Desk.
func (s *receivers) Do(d *datadriven.TestData) string {
	var id string
	d.MaybeScanArgs(s.T, "id", &id)
	var r shard.Result
	switch d.Cmd {
	case "create":
		c := &notificationpb.CreateEndpoint{Id: id, Url: "http://" + id, Secret: "whsec_eA=="}
		for _, a := range d.CmdArgs {
			switch a.Key {
			case "types":
				c.Types = a.Vals
			case "cursors":
				for i := range a.Vals {
					v := uint64(0)
					a.Scan(s.T, i, &v)
					c.Cursors = append(c.Cursors, v)
				}
			}
		}
		c.Shards = uint32(len(c.Cursors))
		r = s.create(c)
	case "advance":
		m := &notificationpb.Advance{Id: id, Disable: d.HasArg("disable")}
		for _, a := range d.CmdArgs {
			switch a.Key {
			case "shard":
				a.Scan(s.T, 0, &m.Shard)
			case "cursor":
				a.Scan(s.T, 0, &m.Cursor)
			case "delivered":
				a.Scan(s.T, 0, &m.Delivered)
			case "park":
				for _, v := range a.Vals {
					m.Park = append(m.Park, parkedArg(s.T, v))
				}
			case "unpark":
				for i := range a.Vals {
					v := uint64(0)
					a.Scan(s.T, i, &v)
					m.Unpark = append(m.Unpark, v)
				}
			case "disable":
				m.Reason = strings.Join(a.Vals, " ")
			}
		}
		r = s.advance(m)
	case "enable":
		r = s.apply(encode(&notificationpb.Command{Body: &notificationpb.Command_Enable{Enable: &notificationpb.EnableEndpoint{Id: id}}}))
	case "delete":
		r = s.apply(encode(&notificationpb.Command{Body: &notificationpb.Command_Delete{Delete: &notificationpb.DeleteEndpoint{Id: id}}}))
		id = ""
	case "restart":
		s.Restart()
		return "same state"
	case "list":
		var b strings.Builder
		for _, e := range s.list() {
			b.WriteString(describe(e))
		}
		return b.String()
	default:
		d.Fatalf(s.T, "unknown command %s", d.Cmd)
	}
	if !r.OK() {
		return r.Code + ": " + r.Detail
	}
	if id == "" {
		return "ok"
	}
	e, _ := s.find(id)
	return describe(e)
}

func TestBounds(t *testing.T) {
	s := newReceivers(t)
	for i := range MaxEndpoints {
		if r := s.create(&notificationpb.CreateEndpoint{Id: fmt.Sprint("e", i), Shards: 1}); !r.OK() {
			t.Fatalf("endpoint %d: %s %s", i, r.Code, r.Detail)
		}
	}
	long := strings.Repeat("x", maxTextBytes+1)
	for name, c := range map[string]struct {
		got  shard.Result
		want string
	}{
		"one too many":         {s.create(&notificationpb.CreateEndpoint{Id: "more", Shards: 1}), reject.TooManyEndpoints},
		"a known one":          {s.create(&notificationpb.CreateEndpoint{Id: "e0", Shards: 1}), ""},
		"without ID":           {s.create(&notificationpb.CreateEndpoint{Shards: 1}), reject.MalformedCommand},
		"long URL":             {s.create(&notificationpb.CreateEndpoint{Id: "e", Url: long}), reject.MalformedCommand},
		"long secret":          {s.create(&notificationpb.CreateEndpoint{Id: "e", Secret: long}), reject.MalformedCommand},
		"many types":           {s.create(&notificationpb.CreateEndpoint{Id: "e", Types: make([]string, maxTypes+1)}), reject.MalformedCommand},
		"many shards":          {s.create(&notificationpb.CreateEndpoint{Id: "e", Shards: 1 << 31}), reject.MalformedCommand},
		"cursors of no shard":  {s.create(&notificationpb.CreateEndpoint{Id: "e", Shards: 1, Cursors: []uint64{1, 2}}), reject.MalformedCommand},
		"advance of no shard":  {s.advance(&notificationpb.Advance{Id: "e0", Shard: 1}), reject.MalformedCommand},
		"advance of nobody":    {s.advance(&notificationpb.Advance{Id: "e"}), reject.EndpointNotFound},
		"too much to unpark":   {s.advance(&notificationpb.Advance{Id: "e0", Cursor: 9, Unpark: make([]uint64, MaxReported+1)}), reject.MalformedCommand},
		"too much to park":     {s.advance(&notificationpb.Advance{Id: "e0", Cursor: 9, Park: make([]*notificationpb.Parked, MaxReported+1)}), reject.MalformedCommand},
		"nothing":              {s.apply(nil), reject.MalformedCommand},
		"garbage":              {s.apply([]byte{0xff}), reject.MalformedCommand},
		"garbage query":        {s.Query([]byte{0xff}), reject.MalformedCommand},
		"no query":             {s.Query(nil), reject.MalformedCommand},
		"read of an unknown":   {second(s.find("e")), reject.EndpointNotFound},
		"read of a known":      {second(s.find("e0")), ""},
		"advance of one shard": {s.advance(&notificationpb.Advance{Id: "e1", Cursor: 3}), ""},
	} {
		if c.got.Code != c.want {
			t.Errorf("%s: code %q (%s), want %q", name, c.got.Code, c.got.Detail, c.want)
		}
	}
	if e, _ := s.find("e0"); e.Cursors[0] != 0 || len(e.Parked) > 0 {
		t.Errorf("refusals have changed the endpoint: %s", describe(e))
	}
}

func second(_ *notificationpb.Endpoint, r shard.Result) shard.Result { return r }

func TestMuchParkedDisables(t *testing.T) {
	s := newReceivers(t)
	s.create(&notificationpb.CreateEndpoint{Id: "e", Shards: 2})
	park := func(sh uint32, from, n int) *notificationpb.Endpoint {
		a := &notificationpb.Advance{Id: "e", Shard: sh, Cursor: uint64(from + n - 1)}
		for i := range n {
			a.Park = append(a.Park, &notificationpb.Parked{Position: uint64(from + i), Attempts: 1, Error: strings.Repeat("é", maxReasonBytes)})
		}
		if r := s.advance(a); !r.OK() {
			t.Fatalf("park: %s %s", r.Code, r.Detail)
		}
		e, _ := s.find("e")
		return e
	}
	if e := park(0, 1, MaxParked-10); e.Disabled {
		t.Fatal("disabled too early")
	}
	if e := park(1, 1, 10); e.Disabled || len(e.Parked) != MaxParked || e.Failed != MaxParked {
		t.Fatalf("disabled %v with %d parked, %d failed, want %d", e.Disabled, len(e.Parked), e.Failed, MaxParked)
	}
	e := park(1, 11, 5)
	if !e.Disabled || len(e.Parked) != MaxParked+5 {
		t.Fatalf("disabled %v with %d parked: what was reported must not be lost", e.Disabled, len(e.Parked))
	}
	for _, p := range e.Parked {
		if len(p.Error) > maxReasonBytes {
			t.Fatalf("an error of %d bytes is kept", len(p.Error))
		}
	}
	s.apply(encode(&notificationpb.Command{Body: &notificationpb.Command_Enable{Enable: &notificationpb.EnableEndpoint{Id: "e"}}}))
	s.advance(&notificationpb.Advance{Id: "e", Shard: 0, Unpark: []uint64{1}, Park: []*notificationpb.Parked{{Position: 2, Attempts: 1}}})
	if e, _ := s.find("e"); e.Disabled || len(e.Parked) != MaxParked+4 {
		t.Errorf("enabled again, but disabled %v with %d parked while they become fewer", e.Disabled, len(e.Parked))
	}
}

// TestParkedAgainstModel parks and unparks at random and compares with a map.
func TestParkedAgainstModel(t *testing.T) {
	type at struct {
		shard    uint32
		position uint64
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := newReceivers(t)
		s.create(&notificationpb.CreateEndpoint{Id: "e", Shards: 3})
		model := map[at]uint32{}
		var cursors [3]uint64
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			a := &notificationpb.Advance{Id: "e", Shard: rapid.Uint32Range(0, 2).Draw(rt, "shard"), Cursor: rapid.Uint64Range(0, 50).Draw(rt, "cursor")}
			a.Unpark = rapid.SliceOfN(rapid.Uint64Range(1, 9), 0, 3).Draw(rt, "unpark")
			for _, p := range a.Unpark {
				delete(model, at{a.Shard, p})
			}
			for _, p := range rapid.SliceOfN(rapid.Uint64Range(1, 9), 0, 3).Draw(rt, "park") {
				attempts := rapid.Uint32Range(0, 3).Draw(rt, "attempts")
				a.Park = append(a.Park, &notificationpb.Parked{Shard: 7, Position: p, Attempts: attempts})
				model[at{a.Shard, p}] = attempts
			}
			cursors[a.Shard] = max(cursors[a.Shard], a.Cursor)
			s.advance(a)
			if rapid.Bool().Draw(rt, "restart") {
				s.Restart()
			}
		}
		e, _ := s.find("e")
		if !slices.Equal(e.Cursors, cursors[:]) {
			rt.Fatalf("cursors %v, want %v", e.Cursors, cursors)
		}
		if !slices.IsSortedFunc(e.Parked, func(a, b *notificationpb.Parked) int { return comparePlace(a, place{b.Shard, b.Position}) }) {
			rt.Fatalf("not in order: %s", describe(e))
		}
		for _, p := range e.Parked {
			if attempts, ok := model[at{p.Shard, p.Position}]; !ok || attempts != p.Attempts {
				rt.Fatalf("parked %v, the model has %d, %v", p, attempts, ok)
			}
		}
		if len(e.Parked) != len(model) {
			rt.Fatalf("%d parked, want %d", len(e.Parked), len(model))
		}
	})
}

func FuzzApply(f *testing.F) {
	f.Add(encode(&notificationpb.Command{Body: &notificationpb.Command_Create{Create: &notificationpb.CreateEndpoint{Id: "e", Shards: 2, Cursors: []uint64{4}}}}))
	f.Add(encode(&notificationpb.Command{Body: &notificationpb.Command_Advance{Advance: &notificationpb.Advance{
		Id: "e", Shard: 1, Cursor: 3, Park: []*notificationpb.Parked{{Position: 2, Error: "500"}}, Unpark: []uint64{1},
	}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newReceivers(t)
		s.create(&notificationpb.CreateEndpoint{Id: "e", Shards: 2})
		s.apply(data)
		s.Query(data)
		s.Restart()
	})
}
