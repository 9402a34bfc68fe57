package keyspaceshard

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"hanse/api/keyspacepb"
	"hanse/internal/reject"
	"hanse/internal/shard"
	"hanse/internal/shardtest"
)

// space is a shard with its store.
type space struct{ *shardtest.Machine }

func newSpace(tb testing.TB) *space { return &space{shardtest.New(tb, New())} }

// apply applies one command. The log is as many seconds old as it has entries.
func (s *space) apply(payload []byte) shard.Result {
	return s.Enter(int64(s.Index+1)*1000, shard.Command{Kind: shard.KindLogic, Payload: payload}).Results[0]
}

func (s *space) put(keyspace, key string, value []byte) shard.Result {
	return s.apply(encode(&keyspacepb.Command{Body: &keyspacepb.Command_Put{Put: &keyspacepb.Put{Keyspace: keyspace, Key: key, Value: value}}}))
}

func (s *space) delete(keyspace, key string) shard.Result {
	return s.apply(encode(&keyspacepb.Command{Body: &keyspacepb.Command_Delete{Delete: &keyspacepb.Delete{Keyspace: keyspace, Key: key}}}))
}

func (s *space) cas(keyspace, key string, value []byte, expected uint64) shard.Result {
	return s.apply(encode(&keyspacepb.Command{Body: &keyspacepb.Command_Cas{Cas: &keyspacepb.CompareAndSet{
		Keyspace: keyspace, Key: key, Value: value, ExpectedVersion: expected,
	}}}))
}

func (s *space) find(keyspace, key string) shard.Result {
	return s.Query(encode(&keyspacepb.Query{Body: &keyspacepb.Query_Find{Find: &keyspacepb.FindKey{Keyspace: keyspace, Key: key}}}))
}

func (s *space) list(q *keyspacepb.ListKeys) shard.Result {
	return s.Query(encode(&keyspacepb.Query{Body: &keyspacepb.Query_List{List: q}}))
}

// value reads the answer to anything but a list.
func value(tb testing.TB, r shard.Result) *keyspacepb.Value {
	v := new(keyspacepb.Value)
	if err := v.UnmarshalVT(r.Payload); err != nil {
		tb.Fatal(err)
	}
	return v
}

func page(tb testing.TB, r shard.Result) *keyspacepb.KeyList {
	l := new(keyspacepb.KeyList)
	if err := l.UnmarshalVT(r.Payload); err != nil || !r.OK() {
		tb.Fatalf("%s %s: %v", r.Code, r.Detail, err)
	}
	return l
}

func TestScripts(t *testing.T) {
	shardtest.Scripts(t, "testdata/scripts", func(t testing.TB) shardtest.Desk { return newSpace(t) })
}

// Do implements shardtest.Desk.
func (s *space) Do(d *datadriven.TestData) string {
	arg := func(name string) (v string) {
		d.MaybeScanArgs(s.T, name, &v)
		return v
	}
	keyspace := arg("in")
	if keyspace == "" {
		keyspace = DefaultKeyspace
	}
	key := arg("key")
	var r shard.Result
	switch d.Cmd {
	case "put":
		r = s.put(keyspace, key, []byte(arg("value")))
	case "delete":
		r = s.delete(keyspace, key)
	case "cas":
		var expected uint64
		d.ScanArgs(s.T, "version", &expected)
		r = s.cas(keyspace, key, []byte(arg("value")), expected)
	case "get":
		r = s.find(keyspace, key)
	case "list":
		var limit int
		d.MaybeScanArgs(s.T, "limit", &limit)
		r = s.list(&keyspacepb.ListKeys{Keyspace: keyspace, After: arg("after"), Prefix: arg("prefix"), Limit: uint32(limit)})
		if !r.OK() {
			break
		}
		var b strings.Builder
		l := page(s.T, r)
		for _, e := range l.Entries {
			fmt.Fprintf(&b, "%s=%s version %d\n", e.Key, e.Value.Value, e.Value.Version)
		}
		if l.More {
			b.WriteString("more\n")
		}
		return b.String()
	case "restart":
		s.Restart()
		return "same state"
	default:
		d.Fatalf(s.T, "unknown command %s", d.Cmd)
	}
	if !r.OK() {
		return fmt.Sprintf("%s %s: %s", r.Code, r.Field, r.Detail)
	}
	v := value(s.T, r)
	return strings.TrimSpace(fmt.Sprintf("version %d at %d s %s", v.Version, v.UpdatedAt/1000, v.Value))
}

func TestBounds(t *testing.T) {
	s := newSpace(t)
	long := strings.Repeat("k", MaxKeyBytes)
	large := bytes.Repeat([]byte{7}, MaxValueBytes)
	if r := s.put(DefaultKeyspace, long, large); !r.OK() {
		t.Fatalf("the longest key with the largest value: %s %s", r.Code, r.Detail)
	}
	if v := value(t, s.find(DefaultKeyspace, long)); !bytes.Equal(v.Value, large) {
		t.Errorf("got %d bytes back, want %d", len(v.Value), len(large))
	}
	for name, c := range map[string]struct {
		got  shard.Result
		want string
	}{
		"empty key":          {s.put(DefaultKeyspace, "", nil), reject.KeyTooLong},
		"long key":           {s.put(DefaultKeyspace, long+"k", nil), reject.KeyTooLong},
		"read of a long key": {s.find(DefaultKeyspace, long+"k"), reject.KeyTooLong},
		"delete of no key":   {s.delete(DefaultKeyspace, ""), reject.KeyTooLong},
		"large value":        {s.put(DefaultKeyspace, "k", append(large, 1)), reject.ValueTooLarge},
		"cas of large value": {s.cas(DefaultKeyspace, "k", append(large, 1), 0), reject.ValueTooLarge},
		"unknown keyspace":   {s.put("other", "k", nil), reject.KeyspaceUnknown},
		"list in unknown":    {s.list(&keyspacepb.ListKeys{Keyspace: "other"}), reject.KeyspaceUnknown},
		"garbage":            {s.apply([]byte{0xff}), reject.MalformedCommand},
		"nothing":            {s.apply(nil), reject.MalformedCommand},
		"garbage query":      {s.Query([]byte{0xff}), reject.MalformedCommand},
		"no query":           {s.Query(nil), reject.MalformedCommand},
	} {
		if c.got.Code != c.want {
			t.Errorf("%s: code %q (%s), want %q", name, c.got.Code, c.got.Detail, c.want)
		}
	}
	all := page(t, s.list(&keyspacepb.ListKeys{Keyspace: DefaultKeyspace})).Entries
	if len(all) != 1 || all[0].Key != long || all[0].Value.Version != 1 {
		t.Errorf("after refusals there are %d keys, want the first one as it was", len(all))
	}
}

func TestPagesAreBoundedInBytes(t *testing.T) {
	s := newSpace(t)
	for i := range 10 {
		s.put(DefaultKeyspace, fmt.Sprint("k", i), make([]byte, MaxValueBytes))
	}
	after, seen := "", 0
	for pages := 1; ; pages++ {
		r := s.list(&keyspacepb.ListKeys{Keyspace: DefaultKeyspace, After: after})
		if len(r.Payload) > maxPageBytes+MaxValueBytes+1024 {
			t.Fatalf("a page of %d bytes", len(r.Payload))
		}
		l := page(t, r)
		for _, e := range l.Entries {
			if want := fmt.Sprint("k", seen); e.Key != want {
				t.Fatalf("got key %s, want %s", e.Key, want)
			}
			seen++
			after = e.Key
		}
		if !l.More {
			break
		}
		if pages > 10 {
			t.Fatal("the pages do not end")
		}
	}
	if seen != 10 {
		t.Errorf("the pages have %d keys, want 10", seen)
	}
}

// TestAgainstModel compares random histories, with restarts in between, with a map.
func TestAgainstModel(t *testing.T) {
	type entry struct {
		version uint64
		value   string
		exists  bool
	}
	rapid.Check(t, func(rt *rapid.T) {
		s, model := newSpace(t), map[string]entry{}
		keys := rapid.SampledFrom([]string{"a", "b", "ab", "\x00", "k"})
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			key, v := keys.Draw(rt, "key"), rapid.StringN(0, 3, 8).Draw(rt, "value")
			old := model[key]
			want, next := "", old
			var r shard.Result
			switch rapid.SampledFrom([]string{"put", "cas", "delete", "restart"}).Draw(rt, "do") {
			case "put":
				r, next = s.put(DefaultKeyspace, key, []byte(v)), entry{old.version + 1, v, true}
			case "cas":
				expected := rapid.Uint64Range(0, 4).Draw(rt, "expected")
				r = s.cas(DefaultKeyspace, key, []byte(v), expected)
				if expected == 0 && old.exists || expected != 0 && (!old.exists || expected != old.version) {
					want = reject.VersionMismatch
				} else {
					next = entry{old.version + 1, v, true}
				}
			case "delete":
				r = s.delete(DefaultKeyspace, key)
				if !old.exists {
					want = reject.KeyNotFound
				} else {
					next = entry{version: old.version + 1}
				}
			case "restart":
				s.Restart()
				continue
			}
			if r.Code != want {
				rt.Fatalf("%q: code %q, want %q", key, r.Code, want)
			}
			if want == "" && value(t, r).Version != next.version {
				rt.Fatalf("%q: version %d, want %d", key, value(t, r).Version, next.version)
			}
			model[key] = next
			found := s.find(DefaultKeyspace, key)
			if found.OK() != next.exists || next.exists && (string(value(t, found).Value) != next.value || value(t, found).Version != next.version) {
				rt.Fatalf("%q: found %v, want %+v", key, found, next)
			}
		}
		listed := page(t, s.list(&keyspacepb.ListKeys{Keyspace: DefaultKeyspace})).Entries
		for _, e := range listed {
			if m := model[e.Key]; !m.exists || m.value != string(e.Value.Value) {
				rt.Fatalf("listed %q=%q, the model has %+v", e.Key, e.Value.Value, m)
			}
			delete(model, e.Key)
		}
		for key, m := range model {
			if m.exists {
				rt.Fatalf("%q is not listed", key)
			}
		}
	})
}

func FuzzApply(f *testing.F) {
	f.Add(encode(&keyspacepb.Command{Body: &keyspacepb.Command_Put{Put: &keyspacepb.Put{Keyspace: "default", Key: "k", Value: []byte("v")}}}))
	f.Add(encode(&keyspacepb.Query{Body: &keyspacepb.Query_List{List: &keyspacepb.ListKeys{Keyspace: "default", After: "a", Prefix: "b"}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newSpace(t)
		s.apply(data)
		s.Query(data)
		s.Restart()
	})
}
