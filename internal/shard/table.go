package shard

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"hanse/internal/store"
)

// Codec turns the rows of a table into bytes and back. Decode must not keep data.
type Codec[V any] struct {
	Append func(dst []byte, v V) []byte
	Decode func(data []byte) (V, error)
	// Size estimates the length of v's encoding.
	Size func(v V) int
}

// record is what protobuf's generated types offer.
type record[T any] interface {
	*T
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVT([]byte) error
	SizeVT() int
}

// ProtoCodec is the codec of a generated protobuf message.
func ProtoCodec[T any, P record[T]]() Codec[P] {
	return Codec[P]{
		Append: func(dst []byte, v P) []byte {
			n := v.SizeVT()
			dst = slices.Grow(dst, n)
			end := len(dst) + n
			if _, err := v.MarshalToSizedBufferVT(dst[len(dst):end:end]); err != nil {
				panic("shard: encode row: " + err.Error()) // only a wrong size can fail
			}
			return dst[:end]
		},
		Decode: func(data []byte) (P, error) {
			v := P(new(T))
			return v, v.UnmarshalVT(data)
		},
		Size: func(v P) int { return v.SizeVT() },
	}
}

// Table holds objects by key: in memory as far as they are new, changed or recently used, in the store otherwise.
// The object that Find returns is the table's own. Apply may change it and must then Put it; what only reads must not.
type Table[V any] struct {
	state  *State
	prefix []byte
	codec  Codec[V]
	rows   map[string]*row[V]
	// recent are the rows that were looked up last, for nearly every Put follows a Find, and a lookup in a map of many rows is a miss
	// of the processor's cache or two.
	recent [4]*row[V]
	next   uint      // the place in recent that is taken next
	dirty  []*row[V] // changed rows, each once
	clock  []*row[V] // in order of arrival, for eviction
	keep   int       // clean rows kept in memory
	// floor is at or above every key that the store has and memory does not. Keys that grow with time, as IDs do, are
	// looked up once before they exist: above the floor that costs no read.
	floor  string
	opened bool
	// known, unless nil, has the keys of all rows, for tables whose keys do not grow.
	known *keySet
	bytes int // estimate for the dirty rows
}

type row[V any] struct {
	key     string
	value   V
	dirty   bool
	deleted bool
	stored  bool // the store has a row of this key, maybe an older one
	used    bool // second chance for eviction
	gone    bool // not in memory any more
}

// NewTable adds a table to s. Tag, one letter, keeps its keys apart from other tables' and is part of
// the disk format. Keep is how many unchanged rows stay in memory.
func NewTable[V any](s *State, tag byte, codec Codec[V], keep int) *Table[V] {
	t := &Table[V]{
		state: s, prefix: append(bytes.Clone(s.prefix), tag), codec: codec,
		rows: make(map[string]*row[V]), keep: keep,
	}
	s.tables = append(s.tables, t)
	return t
}

// Find returns the object at key, and false when there is none.
func (t *Table[V]) Find(key string) (V, bool) {
	if r := t.row(key); r != nil {
		r.used = true
		return r.value, !r.deleted
	}
	var zero V
	if !t.opened {
		t.open()
	}
	if key > t.floor || t.known != nil && !t.known.mayHave(key) {
		return zero, false
	}
	data, err := t.state.reader.Get(t.storeKey(key))
	if errors.Is(err, store.ErrNotFound) {
		return zero, false
	}
	if err != nil {
		panic(&StoreFault{err})
	}
	v := t.decode(data)
	t.insert(&row[V]{key: key, value: v, stored: true})
	return v, true
}

// row returns the row of a key, nil when it is not in memory.
func (t *Table[V]) row(key string) *row[V] {
	for _, r := range t.recent {
		if r != nil && r.key == key && !r.gone {
			return r
		}
	}
	r := t.rows[key]
	if r != nil {
		t.remember(r)
	}
	return r
}

func (t *Table[V]) remember(r *row[V]) {
	t.recent[t.next%uint(len(t.recent))] = r
	t.next++
}

// open finds the floor: the last key of the store.
func (t *Table[V]) open() {
	t.opened = true
	it, err := t.state.reader.Iter(t.prefix, prefixEnd(t.prefix))
	if err != nil {
		panic(&StoreFault{err})
	}
	for t.known != nil && it.Next() {
		t.known.add(string(it.Key()[len(t.prefix):]))
	}
	if it.SeekLT(prefixEnd(t.prefix)) {
		t.floor = max(t.floor, string(it.Key()[len(t.prefix):]))
	}
	if err := it.Close(); err != nil {
		panic(&StoreFault{err})
	}
}

// Put sets the object at key.
func (t *Table[V]) Put(key string, v V) {
	r := t.row(key)
	if r == nil {
		// Whether the store has this key is not known without a read; assume it, which costs at most a tombstone.
		r = &row[V]{key: key, stored: true}
		t.insert(r)
	}
	r.value, r.deleted = v, false
	t.markDirty(r)
}

// Insert sets the object at a key that has never been used. It saves the tombstone of an object that is
// deleted again before it was ever written back.
func (t *Table[V]) Insert(key string, v V) {
	r := t.row(key)
	if r == nil {
		r = &row[V]{key: key}
		t.insert(r)
	}
	r.value, r.deleted = v, false
	t.markDirty(r)
}

// Delete removes the object at key, if there is one.
func (t *Table[V]) Delete(key string) {
	r := t.row(key)
	if r == nil {
		r = &row[V]{key: key, stored: true}
		t.insert(r)
	}
	var zero V
	r.value, r.deleted = zero, true
	t.markDirty(r)
}

// Scan calls fn for the objects with the given key prefix, in key order from the first key at or after
// from, until fn returns false. The table must not be changed meanwhile.
func (t *Table[V]) Scan(prefix, from string, fn func(key string, v V) bool) {
	from = max(from, prefix)
	var changed []string // dirty rows override or add to what the store has
	for _, r := range t.dirty {
		if r.key >= from && strings.HasPrefix(r.key, prefix) {
			changed = append(changed, r.key)
		}
	}
	slices.Sort(changed)
	it, err := t.state.reader.Iter(t.storeKey(from), prefixEnd(t.storeKey(prefix)))
	if err != nil {
		panic(&StoreFault{err})
	}
	defer func() {
		if err := it.Close(); err != nil {
			panic(&StoreFault{err})
		}
	}()
	more := it.Next()
	for more || len(changed) > 0 {
		var key string
		if more {
			key = string(it.Key()[len(t.prefix):])
		}
		if len(changed) > 0 && (!more || changed[0] <= key) {
			if more && changed[0] == key {
				more = it.Next()
			}
			key, changed = changed[0], changed[1:]
			if r := t.rows[key]; !r.deleted && !fn(key, r.value) {
				return
			}
			continue
		}
		v, ok := t.cached(key)
		if !ok {
			v = t.decode(it.Value())
		}
		if !fn(key, v) {
			return
		}
		more = it.Next()
	}
}

func (t *Table[V]) cached(key string) (v V, ok bool) {
	r, ok := t.rows[key]
	if !ok {
		return v, false
	}
	return r.value, true
}

func (t *Table[V]) insert(r *row[V]) {
	if t.known != nil {
		if !t.opened {
			t.open()
		}
		t.known.add(r.key)
	}
	t.rows[r.key] = r
	t.clock = append(t.clock, r)
	t.remember(r)
}

// drop takes a row out of memory.
func (t *Table[V]) drop(r *row[V]) {
	r.gone = true
	delete(t.rows, r.key)
}

func (t *Table[V]) markDirty(r *row[V]) {
	if r.dirty {
		return
	}
	r.dirty = true
	t.dirty = append(t.dirty, r)
	t.bytes += len(r.key) + 32
	if !r.deleted {
		t.bytes += t.codec.Size(r.value)
	}
}

func (t *Table[V]) storeKey(key string) []byte {
	k := make([]byte, 0, len(t.prefix)+len(key))
	return append(append(k, t.prefix...), key...)
}

func (t *Table[V]) decode(data []byte) V {
	v, err := t.codec.Decode(data)
	if err != nil {
		panic(&StoreFault{err})
	}
	return v
}

// The methods below are what State needs of every table.

func (t *Table[V]) dirtyBytes() int { return t.bytes }

func (t *Table[V]) flush(b store.Batch) {
	slices.SortFunc(t.dirty, func(a, b *row[V]) int { return strings.Compare(a.key, b.key) })
	var key, value []byte
	for _, r := range t.dirty {
		r.dirty = false
		key = append(append(key[:0], t.prefix...), r.key...)
		if !r.deleted {
			value = t.codec.Append(value[:0], r.value)
			b.Set(key, value)
			r.stored = true
			continue
		}
		if r.stored {
			b.Delete(key)
		}
		t.drop(r) // its entry in clock is skipped when eviction comes to it
	}
	clear(t.dirty)
	t.dirty, t.bytes = t.dirty[:0], 0
	t.evict()
}

// evict drops clean rows beyond keep, least recently arrived first, with a second chance for the used ones.
// Only memory changes: a row that is gone is read again from the store.
func (t *Table[V]) evict() {
	budget := 2 * len(t.clock)
	i := 0
	for ; budget > 0 && i < len(t.clock) && (len(t.rows) > t.keep || len(t.clock)-i > 2*len(t.rows)+16); budget-- {
		r := t.clock[i]
		i++
		switch {
		case r.gone:
		case r.dirty || r.used || len(t.rows) <= t.keep:
			r.used = false
			t.clock = append(t.clock, r)
		default:
			t.drop(r)
			t.floor = max(t.floor, r.key)
		}
	}
	left := append(t.clock[:0], t.clock[i:]...)
	clear(t.clock[len(left):]) // lets go of rows
	t.clock = left
}

func (t *Table[V]) digest(sum func(key, value []byte)) {
	var value []byte
	t.Scan("", "", func(key string, v V) bool {
		value = t.codec.Append(value[:0], v)
		sum(t.storeKey(key), value)
		return true
	})
}

// prefixEnd returns the first key after all keys with the given prefix.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}
