package keyspaceshard

import (
	"fmt"

	"hanse/api/keyspacepb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

const (
	// MaxKeyBytes and MaxValueBytes bound a key and its value.
	MaxKeyBytes   = 1024
	MaxValueBytes = 512 << 10
	// DefaultKeyspace always exists.
	DefaultKeyspace = "default"

	keepRows    = 50_000
	maxPage     = 1000
	defaultPage = 100
)

// row is a key: its value, or that it was deleted.
type row struct {
	value   []byte
	version uint64
	at      int64
	deleted bool
}

type logic struct {
	rows *shard.Table[*row]
}

// New returns the builder that [shard.Open] takes.
func New() func(*shard.State) shard.Logic {
	return func(s *shard.State) shard.Logic { return &logic{shard.NewTable(s, 'k', rowCodec, keepRows)} }
}

// rowCodec stores a row as a keyspacepb.Entry; one without a key is a deleted one.
var rowCodec = shard.Codec[*row]{
	Append: func(dst []byte, r *row) []byte {
		e := keyspacepb.Entry{Value: &keyspacepb.Value{Value: r.value, Version: r.version, UpdatedAt: r.at}}
		if !r.deleted {
			e.Key = "k"
		}
		data, err := e.MarshalVT()
		if err != nil {
			panic("keyspaceshard: encode row: " + err.Error()) // only a wrong size can fail
		}
		return append(dst, data...)
	},
	Decode: func(data []byte) (*row, error) {
		e := new(keyspacepb.Entry)
		if err := e.UnmarshalVT(data); err != nil {
			return nil, err
		}
		v := e.GetValue()
		return &row{value: v.GetValue(), version: v.GetVersion(), at: v.GetUpdatedAt(), deleted: e.Key == ""}, nil
	},
	Size: func(r *row) int { return len(r.value) + 32 },
}

func (l *logic) Apply(tx *shard.Tx, payload []byte) shard.Result {
	var c keyspacepb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return refuse(reject.MalformedCommand, "", "keyspace command: %v", err)
	}
	switch c := c.Body.(type) {
	case *keyspacepb.Command_Put:
		return l.write(tx, c.Put.Keyspace, c.Put.Key, c.Put.Value, nil)
	case *keyspacepb.Command_Cas:
		return l.write(tx, c.Cas.Keyspace, c.Cas.Key, c.Cas.Value, &c.Cas.ExpectedVersion)
	case *keyspacepb.Command_Delete:
		return l.delete(tx, c.Delete)
	}
	return refuse(reject.MalformedCommand, "", "keyspace command without a body")
}

// find returns a key's row, nil for one that was never written.
func (l *logic) find(keyspace, key string) (string, *row, *shard.Result) {
	if keyspace != DefaultKeyspace {
		r := refuse(reject.KeyspaceUnknown, "/keyspace", "there is no keyspace %.64q", keyspace)
		return "", nil, &r
	}
	if len(key) < 1 || len(key) > MaxKeyBytes {
		r := refuse(reject.KeyTooLong, "/key", "the key has %d bytes, want 1 to %d", len(key), MaxKeyBytes)
		return "", nil, &r
	}
	id := keyspace + "\x00" + key
	found, _ := l.rows.Find(id)
	return id, found, nil
}

// write sets a key. With expected the key must have that version, or for 0 no value.
func (l *logic) write(tx *shard.Tx, keyspace, key string, value []byte, expected *uint64) shard.Result {
	id, old, bad := l.find(keyspace, key)
	if bad != nil {
		return *bad
	}
	if len(value) > MaxValueBytes {
		return refuse(reject.ValueTooLarge, "", "the value has %d bytes, at most %d are possible", len(value), MaxValueBytes)
	}
	version, exists := uint64(0), false
	if old != nil {
		version, exists = old.version, !old.deleted
	}
	if expected != nil {
		switch {
		case *expected == 0 && exists:
			return refuse(reject.VersionMismatch, "", "the key exists, at version %d", version)
		case *expected != 0 && (!exists || version != *expected):
			return refuse(reject.VersionMismatch, "", "the key is at version %d%s, not %d", version, gone(exists), *expected)
		}
	}
	r := &row{value: append([]byte(nil), value...), version: version + 1, at: tx.Now.Millis()}
	l.rows.Put(id, r)
	return answer(r, false)
}

func gone(exists bool) string {
	if exists {
		return ""
	}
	return " and deleted"
}

func (l *logic) delete(tx *shard.Tx, c *keyspacepb.Delete) shard.Result {
	id, old, bad := l.find(c.Keyspace, c.Key)
	if bad != nil {
		return *bad
	}
	if old == nil || old.deleted {
		return refuse(reject.KeyNotFound, "", "the key has no value")
	}
	r := &row{version: old.version + 1, at: tx.Now.Millis(), deleted: true}
	l.rows.Put(id, r)
	return answer(r, false)
}

func answer(r *row, withValue bool) shard.Result {
	v := keyspacepb.Value{Version: r.version, UpdatedAt: r.at}
	if withValue {
		v.Value = r.value
	}
	return shard.Result{Payload: encode(&v)}
}

// Query answers a read-only question.
func (l *logic) Query(payload []byte) shard.Result {
	var q keyspacepb.Query
	if err := q.UnmarshalVT(payload); err != nil {
		return refuse(reject.MalformedCommand, "", "keyspace query: %v", err)
	}
	switch q := q.Body.(type) {
	case *keyspacepb.Query_Find:
		_, r, bad := l.find(q.Find.Keyspace, q.Find.Key)
		if bad != nil {
			return *bad
		}
		if r == nil || r.deleted {
			return refuse(reject.KeyNotFound, "", "the key has no value")
		}
		return answer(r, true)
	case *keyspacepb.Query_List:
		return l.list(q.List)
	}
	return refuse(reject.MalformedCommand, "", "keyspace query without a body")
}

func (l *logic) list(q *keyspacepb.ListKeys) shard.Result {
	if q.Keyspace != DefaultKeyspace {
		return refuse(reject.KeyspaceUnknown, "/keyspace", "there is no keyspace %.64q", q.Keyspace)
	}
	limit := int(q.Limit)
	if limit == 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	prefix := q.Keyspace + "\x00"
	from := prefix + q.Prefix
	if q.After != "" {
		from = prefix + q.After + "\x00"
	}
	var page keyspacepb.KeyList
	bytes := 0
	l.rows.Scan(prefix+q.Prefix, from, func(key string, r *row) bool {
		if r.deleted {
			return true
		}
		if len(page.Entries) == limit || bytes > 2<<20 {
			page.More = true
			return false
		}
		bytes += len(r.value) + len(key)
		page.Entries = append(page.Entries, &keyspacepb.Entry{
			Key: key[len(prefix):], Value: &keyspacepb.Value{Value: r.value, Version: r.version, UpdatedAt: r.at},
		})
		return true
	})
	return shard.Result{Payload: encode(&page)}
}

// The service sends no messages, sets no timers and has nothing that settles later.
func (l *logic) Reply(*shard.Tx, *shard.Message, shard.Result) {}
func (l *logic) Stuck(*shard.Tx, *shard.Message, shard.Stuck)  {}
func (l *logic) Due(*shard.Tx, string)                         {}
func (l *logic) View(string) (shard.Result, bool)              { return shard.Result{}, false }

func refuse(code, field, format string, args ...any) shard.Result {
	return shard.Result{Code: code, Field: field, Detail: fmt.Sprintf(format, args...)}
}

func encode(m interface{ MarshalVT() ([]byte, error) }) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		panic("keyspaceshard: encode: " + err.Error()) // only a wrong size can fail
	}
	return data
}
