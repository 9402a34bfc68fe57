package storetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hanse/internal/store"
)

// model is a version of the data as a plain map.
type model map[string]string

func (v model) String() string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(v)) {
		pairs = append(pairs, k+"="+v[k])
	}
	return strings.Join(pairs, " ")
}

func (v model) deleteRange(lo, hi string) {
	maps.DeleteFunc(v, func(k, _ string) bool { return k >= lo && k < hi })
}

// view is an open snapshot or iterator with what it has to show.
type view struct {
	snapshot store.Snapshot
	iterator store.Iterator
	want     string
}

// testModel plays random histories. Crashes may go back to any version since the latest sync, and to no other.
func testModel(t *testing.T, m *machine) {
	// Few short keys, so that changes meet; some share prefixes, and the ends are covered.
	key := rapid.StringMatching(`[a-d][ab]?`)
	rapid.Check(t, func(rt *rapid.T) {
		m.t = t
		m.apply(true, "a..z")
		// versions[0] is durable, the last is what readers see.
		versions := []model{{}}
		var views []view
		newest := func() model { return versions[len(versions)-1] }
		span := func() (lo, hi string) {
			lo, hi = key.Draw(rt, "lo"), key.Draw(rt, "hi")
			return min(lo, hi), max(lo, hi)
		}
		closeViews := func() {
			for _, v := range views {
				var got string
				if v.snapshot != nil {
					got = m.dump(v.snapshot, "", "")
					if err := v.snapshot.Close(); err != nil {
						rt.Fatalf("close of a snapshot: %v", err)
					}
				} else {
					got = rest(v.iterator)
					if err := v.iterator.Close(); err != nil {
						rt.Fatalf("close of an iterator: %v", err)
					}
				}
				if got != v.want {
					rt.Fatalf("an old view shows [%s], want [%s]", got, v.want)
				}
			}
			views = nil
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				if got, want := m.dump(m, "", ""), newest().String(); got != want {
					rt.Fatalf("content is [%s], want [%s]", got, want)
				}
			},
			"apply": func(rt *rapid.T) {
				next := maps.Clone(newest())
				b := m.NewBatch()
				defer b.Close()
				for range rapid.IntRange(0, 6).Draw(rt, "changes") {
					switch rapid.IntRange(0, 5).Draw(rt, "change") {
					default:
						k, v := key.Draw(rt, "key"), fmt.Sprint(rapid.IntRange(0, 9).Draw(rt, "value"))
						b.Set([]byte(k), []byte(v))
						next[k] = v
					case 4:
						k := key.Draw(rt, "key")
						b.Delete([]byte(k))
						delete(next, k)
					case 5:
						lo, hi := span()
						b.DeleteRange([]byte(lo), []byte(hi))
						next.deleteRange(lo, hi)
					}
				}
				sync := rapid.IntRange(0, 3).Draw(rt, "sync") == 0
				if err := m.Apply(b, sync); err != nil {
					rt.Fatalf("Apply: %v", err)
				}
				if sync {
					versions = nil
				}
				versions = append(versions, next)
			},
			"replace": func(rt *rapid.T) {
				lo, hi := span()
				if lo == hi {
					rt.Skip("an empty span")
				}
				pairs := rapid.MapOfN(key, rapid.StringN(0, 3, -1), 0, 5).Draw(rt, "pairs")
				r, err := m.Replace([]byte(lo), []byte(hi))
				if err != nil {
					rt.Fatalf("Replace(%q, %q): %v", lo, hi, err)
				}
				next := maps.Clone(newest())
				next.deleteRange(lo, hi)
				for _, k := range slices.Sorted(maps.Keys(pairs)) {
					if k < lo || k >= hi {
						continue
					}
					if err := r.Add([]byte(k), []byte(pairs[k])); err != nil {
						rt.Fatalf("Add(%q): %v", k, err)
					}
					next[k] = pairs[k]
				}
				if rapid.IntRange(0, 3).Draw(rt, "abort") == 0 {
					r.Abort()
					return
				}
				if err := r.Commit(); err != nil {
					rt.Fatalf("Commit of [%q, %q): %v", lo, hi, err)
				}
				versions = []model{next}
			},
			"read": func(rt *rapid.T) {
				k := key.Draw(rt, "key")
				got, err := m.Get([]byte(k))
				want, ok := newest()[k]
				if ok && (err != nil || string(got) != want) || !ok && !errors.Is(err, store.ErrNotFound) {
					rt.Fatalf("Get(%q) = %q, %v; want %q, found %v", k, got, err, want, ok)
				}
			},
			"walk": func(rt *rapid.T) { walk(rt, m, newest(), key) },
			"view": func(rt *rapid.T) {
				if len(views) == 4 {
					closeViews()
				}
				v := view{want: newest().String()}
				if rapid.Bool().Draw(rt, "snapshot") {
					v.snapshot = m.Snapshot()
				} else {
					var err error
					if v.iterator, err = m.Iter(nil, nil); err != nil {
						rt.Fatalf("Iter: %v", err)
					}
				}
				views = append(views, v)
			},
			"close": func(rt *rapid.T) {
				closeViews()
				m.close()
				m.open()
				versions = []model{newest()}
			},
			"crash": func(rt *rapid.T) {
				// The views go first: their engine is abandoned, but they were valid up to here.
				closeViews()
				m.crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0)))
				got := m.dump(m, "", "")
				for i, v := range versions {
					if v.String() == got {
						versions = []model{versions[i]}
						return
					}
				}
				rt.Fatalf("after the crash [%s], want one of %v", got, versions)
			},
		})
		closeViews()
	})
}

// walk moves an iterator about and compares it with the sorted keys in its range.
func walk(rt *rapid.T, m *machine, v model, key *rapid.Generator[string]) {
	lo, hi := key.Draw(rt, "lo"), key.Draw(rt, "hi")
	it := m.iter(lo, hi)
	defer it.Close()
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(v)) {
		if k >= lo && k < hi {
			keys = append(keys, k)
		}
	}
	// at is the index of the current key, -1 before the first and len(keys) past the last.
	at := -1
	for range rapid.IntRange(1, 8).Draw(rt, "moves") {
		var ok bool
		switch rapid.IntRange(0, 2).Draw(rt, "move") {
		case 0:
			ok = it.Next()
			at = min(at+1, len(keys))
		case 1:
			k := key.Draw(rt, "key")
			ok = it.SeekGE([]byte(k))
			at, _ = slices.BinarySearch(keys, k)
		case 2:
			k := key.Draw(rt, "key")
			ok = it.SeekLT([]byte(k))
			at, _ = slices.BinarySearch(keys, k)
			at--
		}
		if want := at >= 0 && at < len(keys); ok != want {
			rt.Fatalf("move to %d of %q in [%q, %q) found something: %v, want %v", at, keys, lo, hi, ok, want)
		}
		if ok && (string(it.Key()) != keys[at] || string(it.Value()) != v[keys[at]]) {
			rt.Fatalf("move to %d of %q found %q=%q", at, keys, it.Key(), it.Value())
		}
	}
}
