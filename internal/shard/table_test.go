package shard

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hanse/internal/store"
	"hanse/internal/store/memstore"
)

var textCodec = Codec[string]{
	Append: func(dst []byte, v string) []byte { return append(dst, v...) },
	Decode: func(data []byte) (string, error) { return string(data), nil },
	Size:   func(v string) int { return len(v) },
}

// countingReader counts the reads of single keys.
type countingReader struct {
	store.Reader
	gets int
}

func (c *countingReader) Get(key []byte) ([]byte, error) {
	c.gets++
	return c.Reader.Get(key)
}

// TestTable_agrees_with_a_map over random histories with flushes, evictions and restarts.
func TestTable_agrees_with_a_map(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		engine := memstore.NewDisk().Open()
		model := make(map[string]string)
		var table *Table[string]
		indexed, limit := rapid.Bool().Draw(t, "indexed"), rapid.SampledFrom([]int{2, 5, 1000}).Draw(t, "limit")
		open := func() {
			table = NewTable(&State{reader: engine, prefix: []byte("p/")}, 'x', textCodec, 3)
			if indexed {
				table.known = newKeySet(limit)
			}
		}
		open()
		flush := func() {
			b := engine.NewBatch()
			table.flush(b)
			if err := engine.Apply(b, false); err != nil {
				t.Fatal(err)
			}
		}
		keys := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"})
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			key := keys.Draw(t, "key")
			value := fmt.Sprint(key, i)
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				table.Put(key, value)
				model[key] = value
			case 2:
				if _, ok := model[key]; !ok {
					if _, known := table.Find(key); known {
						t.Fatalf("Find(%s) found what is not there", key)
					}
					table.Put(key, value)
					model[key] = value
				}
			case 3:
				table.Delete(key)
				delete(model, key)
			case 4:
				flush()
			case 5:
				flush()
				open()
			case 6:
				got, ok := table.Find(key)
				if want, there := model[key]; ok != there || got != want {
					t.Fatalf("Find(%s) = %q, %v, want %q, %v", key, got, ok, want, there)
				}
			}
			var seen []string
			table.Scan("", "", func(key, v string) bool {
				if model[key] != v {
					t.Fatalf("Scan shows %s = %q, want %q", key, v, model[key])
				}
				seen = append(seen, key)
				return true
			})
			if want := slices.Sorted(maps.Keys(model)); !slices.Equal(seen, want) {
				t.Fatalf("Scan shows %v, want %v", seen, want)
			}
		}
	})
}

func TestKeySet_knows_what_was_added(t *testing.T) {
	s := newKeySet(100_000)
	for i := range 50_000 {
		s.add(fmt.Sprint("key", i))
	}
	wrong := 0
	for i := range 50_000 {
		if !s.mayHave(fmt.Sprint("key", i)) {
			t.Fatalf("key%d was added and is not known", i)
		}
		if s.mayHave(fmt.Sprint("other", i)) {
			wrong++
		}
	}
	if wrong > 10 {
		t.Errorf("%d of 50000 unknown keys pass for known, want next to none", wrong)
	}
	for i := range 60_000 {
		s.add(fmt.Sprint("more", i))
	}
	if !s.mayHave("never added") {
		t.Error("beyond its limit the set still claims to know")
	}
}

func TestTable_looks_up_growing_keys_without_reading(t *testing.T) {
	engine := memstore.NewDisk().Open()
	r := &countingReader{Reader: engine}
	table := NewTable(&State{reader: r, prefix: []byte("p/")}, 'x', textCodec, 5)
	for i := range 1000 {
		key := fmt.Sprintf("%06d", i)
		if _, ok := table.Find(key); ok {
			t.Fatalf("%s is there before it was put", key)
		}
		table.Insert(key, key)
		if i%10 == 9 {
			b := engine.NewBatch()
			table.flush(b)
			if err := engine.Apply(b, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r.gets != 0 {
		t.Errorf("%d reads for keys that did not exist, want none", r.gets)
	}
	if v, ok := table.Find("000000"); !ok || v != "000000" || r.gets != 1 {
		t.Errorf("Find of an evicted row = %q, %v after %d reads", v, ok, r.gets)
	}
	if !bytes.Equal(table.prefix, []byte("p/x")) {
		t.Errorf("prefix %q", table.prefix)
	}
}
