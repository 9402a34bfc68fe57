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

	// keepRows bounds the rows in memory by their number alone, so it is small: with the largest values they take 1 GiB.
	keepRows = 2048

	defaultPage = 100
	maxPage     = 1000
	// maxPageBytes bounds a page by the size of its values; the last one may go beyond.
	maxPageBytes = 2 << 20
)

type logic struct {
	// rows holds each key that was ever written. Its name is the row's; the Entry's own key only says whether it has a value:
	// it is live for one that has, empty for one that was deleted, whose version goes on.
	rows *shard.Table[*keyspacepb.Entry]
}

const live = "k"

// New returns the builder that [shard.Open] takes.
func New() func(*shard.State) shard.Logic {
	return func(s *shard.State) shard.Logic {
		return &logic{shard.NewTable(s, 'k', shard.ProtoCodec[keyspacepb.Entry](), keepRows)}
	}
}

func (l *logic) Apply(tx *shard.Tx, payload []byte) shard.Result {
	var c keyspacepb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return refuse(reject.MalformedCommand, "", "keyspace command: %v", err)
	}
	switch c := c.Body.(type) {
	case *keyspacepb.Command_Put:
		return l.write(tx, c.Put.GetKeyspace(), c.Put.GetKey(), c.Put.GetValue(), nil)
	case *keyspacepb.Command_Cas:
		return l.write(tx, c.Cas.GetKeyspace(), c.Cas.GetKey(), c.Cas.GetValue(), new(c.Cas.GetExpectedVersion()))
	case *keyspacepb.Command_Delete:
		return l.delete(tx, c.Delete)
	}
	return refuse(reject.MalformedCommand, "", "keyspace command without a body")
}

// find returns the name and the row of a key, which is nil for one that was never written.
func (l *logic) find(keyspace, key string) (string, *keyspacepb.Entry, *shard.Result) {
	if keyspace != DefaultKeyspace {
		r := refuse(reject.KeyspaceUnknown, "/keyspace", "there is no keyspace %.64q", keyspace)
		return "", nil, &r
	}
	if len(key) < 1 || len(key) > MaxKeyBytes {
		r := refuse(reject.KeyTooLong, "/key", "the key has %d bytes, want 1 to %d", len(key), MaxKeyBytes)
		return "", nil, &r
	}
	name := keyspace + "\x00" + key
	row, _ := l.rows.Find(name)
	return name, row, nil
}

func exists(row *keyspacepb.Entry) bool { return row.GetKey() != "" }

// write sets a key. With expected the key must have that version, or for 0 no value.
func (l *logic) write(tx *shard.Tx, keyspace, key string, value []byte, expected *uint64) shard.Result {
	name, row, bad := l.find(keyspace, key)
	if bad != nil {
		return *bad
	}
	if len(value) > MaxValueBytes {
		return refuse(reject.ValueTooLarge, "", "the value has %d bytes, at most %d are possible", len(value), MaxValueBytes)
	}
	version := row.GetValue().GetVersion()
	if expected != nil {
		switch {
		case *expected == 0 && exists(row):
			return refuse(reject.VersionMismatch, "", "the key exists, at version %d", version)
		case *expected != 0 && !exists(row):
			return refuse(reject.VersionMismatch, "", "the key has no value, so not version %d", *expected)
		case *expected != 0 && version != *expected:
			return refuse(reject.VersionMismatch, "", "the key is at version %d, not %d", version, *expected)
		}
	}
	return l.put(tx, name, live, value, version+1)
}

func (l *logic) delete(tx *shard.Tx, c *keyspacepb.Delete) shard.Result {
	name, row, bad := l.find(c.Keyspace, c.Key)
	if bad != nil {
		return *bad
	}
	if !exists(row) {
		return refuse(reject.KeyNotFound, "", "the key has no value")
	}
	return l.put(tx, name, "", nil, row.Value.Version+1)
}

// put writes a row and answers with its version.
func (l *logic) put(tx *shard.Tx, name, state string, value []byte, version uint64) shard.Result {
	v := &keyspacepb.Value{Value: value, Version: version, UpdatedAt: tx.Now.Millis()}
	l.rows.Put(name, &keyspacepb.Entry{Key: state, Value: v})
	return shard.Result{Payload: encode(&keyspacepb.Value{Version: v.Version, UpdatedAt: v.UpdatedAt})}
}

// Query answers a read-only question.
func (l *logic) Query(payload []byte) shard.Result {
	var q keyspacepb.Query
	if err := q.UnmarshalVT(payload); err != nil {
		return refuse(reject.MalformedCommand, "", "keyspace query: %v", err)
	}
	switch q := q.Body.(type) {
	case *keyspacepb.Query_Find:
		_, row, bad := l.find(q.Find.GetKeyspace(), q.Find.GetKey())
		if bad != nil {
			return *bad
		}
		if !exists(row) {
			return refuse(reject.KeyNotFound, "", "the key has no value")
		}
		return shard.Result{Payload: encode(row.Value)}
	case *keyspacepb.Query_List:
		return l.list(q.List)
	}
	return refuse(reject.MalformedCommand, "", "keyspace query without a body")
}

// list returns a page of keys with their values, in order of the keys, after the last one of the page before.
func (l *logic) list(q *keyspacepb.ListKeys) shard.Result {
	if q.GetKeyspace() != DefaultKeyspace {
		return refuse(reject.KeyspaceUnknown, "/keyspace", "there is no keyspace %.64q", q.GetKeyspace())
	}
	limit := int(q.Limit)
	if limit == 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	space := q.Keyspace + "\x00"
	from := space
	if q.After != "" {
		from = space + q.After + "\x00"
	}
	var page keyspacepb.KeyList
	size := 0
	l.rows.Scan(space+q.Prefix, from, func(name string, row *keyspacepb.Entry) bool {
		if !exists(row) {
			return true
		}
		if len(page.Entries) == limit || size >= maxPageBytes {
			page.More = true
			return false
		}
		size += len(name) + len(row.Value.GetValue())
		page.Entries = append(page.Entries, &keyspacepb.Entry{Key: name[len(space):], Value: row.Value})
		return true
	})
	return shard.Result{Payload: encode(&page)}
}

// The service sends no messages, sets no timers and has nothing that settles later.
func (l *logic) Reply(*shard.Tx, *shard.Message, shard.Result) {}
func (l *logic) Stuck(*shard.Tx, *shard.Message, shard.Stuck)  {}
func (l *logic) Due(*shard.Tx, string)                         {}
func (l *logic) Settled(string) bool                           { return false }
func (l *logic) View(string) shard.Result                      { return shard.Result{} }

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
