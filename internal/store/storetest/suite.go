package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"hanse/internal/invariant"
	"hanse/internal/store"
)

// Disk is what survives a crash of the engine under test.
type Disk interface {
	// Open opens an engine over what is on the disk. At most one is open at a time.
	Open() (store.Engine, error)
	// Crash stops the machine without a warning: the engine is abandoned, and of what is unsynced rng
	// decides how much turns out to have reached the disk.
	Crash(rng *rand.Rand)
}

// Run runs the suite; newDisk returns an empty disk.
func Run(t *testing.T, newDisk func() Disk) {
	tests := []struct {
		name string
		test func(t *testing.T, m *machine)
	}{
		{"reads what was written", testReadYourWrites},
		{"applies a batch in its order", testBatchOrder},
		{"deletes ranges", testDeleteRange},
		{"measures batches", testBatchLen},
		{"copies what goes in and out", testCopies},
		{"keeps keys and values up to the limits", testLimits},
		{"iterates in order and in bounds", testIterate},
		{"seeks", testSeek},
		{"iterators see the state of their creation", testIteratorIsolation},
		{"snapshots stay as they were", testSnapshotIsolation},
		{"estimates sizes", testSizeBytes},
		{"serves many goroutines", testConcurrency},
		{"answers ErrClosed after Close", testClosed},
		{"keeps everything over a close", testCloseKeepsUnsynced},
		{"keeps what was synced, and all before it, over a crash", testSyncedSurvives},
		{"an empty synced batch syncs what came before", testEmptySync},
		{"loses a suffix of whole batches in a crash", testCrashPrefix},
		{"replaces spans", testReplace},
		{"refuses pairs that do not belong into a replacement", testReplaceRefuses},
		{"abandoned replacements leave nothing", testReplaceAbandoned},
		{"replacements survive a crash, and all before them", testReplaceDurable},
		{"replaces spans of many files", testReplaceLarge},
		{"agrees with a sorted map over random histories", testModel},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			m := &machine{t: t, disk: newDisk()}
			m.open()
			c.test(t, m)
			if m.Engine != nil {
				m.close()
			}
		})
	}
}

// machine is a disk with its open engine, and short words for the tests.
type machine struct {
	store.Engine
	t    testing.TB
	disk Disk
}

func (m *machine) open() {
	m.t.Helper()
	e, err := m.disk.Open()
	if err != nil {
		m.t.Fatalf("Open: %v", err)
	}
	m.Engine = e
}

func (m *machine) close() {
	m.t.Helper()
	if err := m.Close(); err != nil {
		m.t.Fatalf("Close: %v", err)
	}
	m.Engine = nil
}

func (m *machine) crash(rng *rand.Rand) {
	m.t.Helper()
	m.Engine = nil
	m.disk.Crash(rng)
	m.open()
}

// apply applies changes written as "k=v", "-k" (delete) and "lo..hi" (delete the range).
func (m *machine) apply(sync bool, changes ...string) {
	m.t.Helper()
	b := m.NewBatch()
	defer b.Close()
	fill(b, changes...)
	if err := m.Apply(b, sync); err != nil {
		m.t.Fatalf("Apply(%v, %v): %v", changes, sync, err)
	}
}

func fill(b store.Batch, changes ...string) {
	for _, c := range changes {
		if k, v, ok := strings.Cut(c, "="); ok {
			b.Set([]byte(k), []byte(v))
		} else if lo, hi, ok := strings.Cut(c, ".."); ok {
			b.DeleteRange([]byte(lo), []byte(hi))
		} else {
			b.Delete([]byte(c[1:]))
		}
	}
}

// replacement returns one of [lo, hi) with the given pairs added.
func (m *machine) replacement(lo, hi string, pairs ...string) store.Replacement {
	m.t.Helper()
	r, err := m.Replace([]byte(lo), []byte(hi))
	if err != nil {
		m.t.Fatalf("Replace(%q, %q): %v", lo, hi, err)
	}
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		if err := r.Add([]byte(k), []byte(v)); err != nil {
			m.t.Fatalf("Add(%q): %v", p, err)
		}
	}
	return r
}

func (m *machine) replace(lo, hi string, pairs ...string) {
	m.t.Helper()
	r := m.replacement(lo, hi, pairs...)
	if err := r.Commit(); err != nil {
		m.t.Fatalf("Commit of [%q, %q): %v", lo, hi, err)
	}
	r.Abort()
}

func (m *machine) wantAll(r store.Reader, want string) {
	m.t.Helper()
	if got := m.dump(r, "", ""); got != want {
		m.t.Fatalf("content is [%s], want [%s]", got, want)
	}
}

// dump lists [lo, hi) of r as "k=v k=v"; an empty hi is no bound.
func (m *machine) dump(r store.Reader, lo, hi string) string {
	m.t.Helper()
	var upper []byte
	if hi != "" {
		upper = []byte(hi)
	}
	it, err := r.Iter([]byte(lo), upper)
	if err != nil {
		m.t.Fatalf("Iter(%q, %q): %v", lo, hi, err)
	}
	s := rest(it)
	if err := it.Close(); err != nil {
		m.t.Fatalf("close of the iterator over [%q, %q): %v", lo, hi, err)
	}
	return s
}

// rest lists what an iterator still has to give.
func rest(it store.Iterator) string {
	var pairs []string
	for it.Next() {
		pairs = append(pairs, string(it.Key())+"="+string(it.Value()))
	}
	return strings.Join(pairs, " ")
}

func (m *machine) iter(lo, hi string) store.Iterator {
	m.t.Helper()
	it, err := m.Iter([]byte(lo), []byte(hi))
	if err != nil {
		m.t.Fatalf("Iter(%q, %q): %v", lo, hi, err)
	}
	return it
}

func rng(n uint64) *rand.Rand { return rand.New(rand.NewPCG(n, 1)) }

func testReadYourWrites(t *testing.T, m *machine) {
	if v, err := m.Get([]byte("a")); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("Get of an absent key = %q, %v; want ErrNotFound", v, err)
	}
	m.apply(false, "a=1", "empty=")
	m.apply(false, "a=2")
	if v, err := m.Get([]byte("a")); err != nil || string(v) != "2" {
		t.Errorf("Get(a) = %q, %v; want 2", v, err)
	}
	if v, err := m.Get([]byte("empty")); err != nil || len(v) != 0 {
		t.Errorf("Get(empty) = %q, %v; want an empty value", v, err)
	}
	m.apply(false, "-a", "-absent")
	if v, err := m.Get([]byte("a")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of a deleted key = %q, %v; want ErrNotFound", v, err)
	}
	m.wantAll(m, "empty=")
}

func testBatchOrder(t *testing.T, m *machine) {
	m.apply(false, "a=old", "b=old", "c=old", "d=old")
	m.apply(false, "a=1", "a=2", "b=1", "-b", "-c", "c=1", "b..z", "c=2", "-d", "e=1")
	m.wantAll(m, "a=2 c=2 e=1")
}

func testDeleteRange(t *testing.T, m *machine) {
	all := []string{"a=1", "b=1", "ba=1", "c=1", "d=1"}
	for _, c := range []struct{ lo, hi, want string }{
		{"b", "c", "a=1 c=1 d=1"},
		{"b", "b", "a=1 b=1 ba=1 c=1 d=1"},
		{"", "b", "b=1 ba=1 c=1 d=1"},
		{"b\x00", "z", "a=1 b=1"},
		{"e", "f", "a=1 b=1 ba=1 c=1 d=1"},
		{"", "z", ""},
	} {
		m.apply(false, all...)
		m.apply(false, c.lo+".."+c.hi)
		if got := m.dump(m, "", ""); got != c.want {
			t.Errorf("after DeleteRange(%q, %q): [%s], want [%s]", c.lo, c.hi, got, c.want)
		}
	}
	b := m.NewBatch()
	defer b.Close()
	wantViolation(t, "DeleteRange(b, a)", func() { b.DeleteRange([]byte("b"), []byte("a")) })
	wantViolation(t, "DeleteRange(a, nil)", func() { b.DeleteRange([]byte("a"), nil) })
}

func testBatchLen(t *testing.T, m *machine) {
	b := m.NewBatch()
	defer b.Close()
	if !b.Empty() {
		t.Error("a new batch is not empty")
	}
	for i, grow := range []struct {
		by     int
		change func()
	}{
		{1010, func() { b.Set([]byte("0123456789"), make([]byte, 1000)) }},
		{10, func() { b.Delete([]byte("0123456789")) }},
		{20, func() { b.DeleteRange([]byte("0123456789"), []byte("1123456789")) }},
	} {
		before := b.Len()
		grow.change()
		// Each engine has its own overhead, but a small one.
		if grown := b.Len() - before; grown < grow.by || grown > grow.by+32 {
			t.Errorf("change %d: Len grew by %d, want %d and a little", i, grown, grow.by)
		}
		if b.Empty() {
			t.Errorf("change %d: the batch is empty", i)
		}
	}
	m.wantAll(m, "")
}

func testCopies(t *testing.T, m *machine) {
	b := m.NewBatch()
	defer b.Close()
	key, value := []byte("k"), []byte("v")
	b.Set(key, value)
	key[0], value[0] = 'x', 'x'
	if err := m.Apply(b, false); err != nil {
		t.Fatal(err)
	}
	b.Close()
	m.wantAll(m, "k=v")
	v, err := m.Get([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	v[0] = 'x'
	m.wantAll(m, "k=v")

	// The bounds of an iterator and of a replacement are the caller's to reuse, too.
	lo, hi := []byte("a"), []byte("z")
	it, err := m.Iter(lo, hi)
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Replace(lo, hi)
	if err != nil {
		t.Fatal(err)
	}
	lo[0], hi[0] = 'y', 'y'
	if got := rest(it); got != "k=v" {
		t.Errorf("iterator gave [%s], want [k=v]", got)
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	key, value = []byte("m"), []byte("w")
	if err := r.Add(key, value); err != nil {
		t.Fatal(err)
	}
	key[0], value[0] = 'a', 'a'
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	m.wantAll(m, "m=w")
}

func wantViolation(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if _, ok := recover().(*invariant.Violation); !ok {
			t.Errorf("%s did not panic with an *invariant.Violation", what)
		}
	}()
	f()
}

func testLimits(t *testing.T, m *machine) {
	longest, largest := bytes.Repeat([]byte{0xff}, store.MaxKeyBytes), bytes.Repeat([]byte("v"), store.MaxValueBytes)
	for _, sync := range []bool{false, true} {
		b := m.NewBatch()
		b.Set(longest, largest)
		if err := m.Apply(b, sync); err != nil {
			t.Fatalf("Apply of the longest key and the largest value: %v", err)
		}
		b.Close()
	}
	m.close()
	m.open()
	if v, err := m.Get(longest); err != nil || !bytes.Equal(v, largest) {
		t.Errorf("Get of the longest key: %d bytes, %v; want the largest value", len(v), err)
	}
	b := m.NewBatch()
	defer b.Close()
	wantViolation(t, "Set of an empty key", func() { b.Set(nil, nil) })
	wantViolation(t, "Set of a too long key", func() { b.Set(append(longest, 0), nil) })
	wantViolation(t, "Set of a too large value", func() { b.Set([]byte("k"), append(largest, 0)) })
	if !b.Empty() {
		t.Error("what was refused is in the batch")
	}
}

func testIterate(t *testing.T, m *machine) {
	m.apply(false, "b=1", "a=1", "c\x00=1", "c=1", "\xff=1", "\x00=1")
	for _, c := range []struct{ lo, hi, want string }{
		{"", "", "\x00=1 a=1 b=1 c=1 c\x00=1 \xff=1"},
		{"a", "c", "a=1 b=1"},
		{"a\x00", "c\x00", "b=1 c=1"},
		{"c", "\xff\xff", "c=1 c\x00=1 \xff=1"},
		{"d", "e", ""},
		{"b", "b", ""},
		{"c", "b", ""},
	} {
		if got := m.dump(m, c.lo, c.hi); got != c.want {
			t.Errorf("Iter(%q, %q) gives [%q], want [%q]", c.lo, c.hi, got, c.want)
		}
	}
	it := m.iter("c", "d")
	defer it.Close()
	if rest(it); it.Next() || it.Next() {
		t.Error("Next after the end found something")
	}
}

func testSeek(t *testing.T, m *machine) {
	m.apply(false, "a=1", "c=1", "e=1", "g=1", "i=1")
	it := m.iter("c", "h")
	for _, c := range []struct{ move, key, want string }{
		// want is the key found, - for none; the moves are made one after the other.
		{"LT", "f", "e"}, {"next", "", "g"}, {"next", "", "-"}, {"next", "", "-"},
		{"LT", "z", "g"}, {"LT", "h", "g"}, {"LT", "g", "e"}, {"LT", "d", "c"},
		{"LT", "c", "-"}, {"next", "", "c"}, {"LT", "a", "-"}, {"next", "", "c"}, {"next", "", "e"},
		{"GE", "d", "e"}, {"GE", "e", "e"}, {"next", "", "g"},
		{"GE", "a", "c"}, {"next", "", "e"}, {"GE", "", "c"},
		{"GE", "h", "-"}, {"next", "", "-"}, {"GE", "z", "-"}, {"LT", "z", "g"},
		{"GE", "gg", "-"}, {"LT", "e", "c"}, {"next", "", "e"},
	} {
		var ok bool
		switch c.move {
		case "LT":
			ok = it.SeekLT([]byte(c.key))
		case "GE":
			ok = it.SeekGE([]byte(c.key))
		default:
			ok = it.Next()
		}
		got := "-"
		if ok {
			got = string(it.Key())
		}
		if got != c.want {
			t.Fatalf("%s %q found %s, want %s", c.move, c.key, got, c.want)
		}
	}
	if err := it.Close(); err != nil {
		t.Error(err)
	}

	empty := m.iter("x", "y")
	defer empty.Close()
	if empty.SeekGE([]byte("a")) || empty.SeekLT([]byte("z")) || empty.Next() {
		t.Error("an iterator over an empty range found something")
	}
}

func testIteratorIsolation(t *testing.T, m *machine) {
	m.apply(false, "a=1", "b=1", "c=1")
	it := m.iter("", "")
	if !it.Next() {
		t.Fatal("Next found nothing")
	}
	m.apply(true, "a=2", "-b", "bb=2", "c..z", "d=2")
	m.replace("a", "z", "b=3")
	got := string(it.Key()) + "=" + string(it.Value())
	got += " " + rest(it)
	if want := "a=1 b=1 c=1"; got != want {
		t.Errorf("the iterator saw [%s], want [%s]", got, want)
	}
	if err := it.Close(); err != nil {
		t.Error(err)
	}
	m.wantAll(m, "b=3")
}

func testSnapshotIsolation(t *testing.T, m *machine) {
	empty := m.Snapshot()
	m.apply(false, "a=1", "b=1", "c=1")
	s := m.Snapshot()
	m.apply(true, "a=2", "-b", "d=2")
	later := m.Snapshot()
	for step, change := range []func(){
		func() {},
		func() { m.apply(false, "a..z", "b=3") },
		func() { m.replace("a", "c", "b=4") },
		func() { m.replace("a", "z") },
		func() { m.apply(true, "a=5") },
	} {
		change()
		for _, c := range []struct {
			s    store.Snapshot
			want string
		}{{empty, ""}, {s, "a=1 b=1 c=1"}, {later, "a=2 c=1 d=2"}} {
			if got := m.dump(c.s, "", ""); got != c.want {
				t.Errorf("step %d: snapshot shows [%s], want [%s]", step, got, c.want)
			}
		}
		if v, err := s.Get([]byte("b")); err != nil || string(v) != "1" {
			t.Errorf("step %d: snapshot's Get(b) = %q, %v; want 1", step, v, err)
		}
		if v, err := later.Get([]byte("b")); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("step %d: later snapshot's Get(b) = %q, %v; want ErrNotFound", step, v, err)
		}
	}
	for _, s := range []store.Snapshot{empty, s, later} {
		if err := s.Close(); err != nil {
			t.Errorf("close of a snapshot: %v", err)
		}
		if _, err := s.Get([]byte("b")); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Get of a closed snapshot: %v, want ErrClosed", err)
		}
		if _, err := s.Iter(nil, nil); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Iter of a closed snapshot: %v, want ErrClosed", err)
		}
		if err := s.Close(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("second close of a snapshot: %v, want ErrClosed", err)
		}
	}
}

func testSizeBytes(t *testing.T, m *machine) {
	size := func(lo, hi []byte) uint64 {
		n, err := m.SizeBytes(lo, hi)
		if err != nil {
			t.Fatalf("SizeBytes(%q, %q): %v", lo, hi, err)
		}
		return n
	}
	if n := size(nil, nil); n > 1<<10 {
		t.Errorf("an empty engine has %d bytes", n)
	}
	// Random bytes, for engines compress. A replacement is on disk at once; of other writes an estimate may not know yet.
	const pairs, valueBytes = 64, 16 << 10
	r := m.replacement("k", "l")
	bytesOf := rand.NewChaCha8([32]byte{})
	for i := range pairs {
		value := make([]byte, valueBytes)
		bytesOf.Read(value)
		if err := r.Add(fmt.Appendf(nil, "k%02d", i), value); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	const total = pairs * valueBytes
	for _, c := range []struct {
		lo, hi string
		want   float64
	}{{"", "", total}, {"k", "l", total}, {"k00", "k32", total / 2}, {"a", "b", 0}, {"k63", "k00", 0}} {
		var hi []byte
		if c.hi != "" {
			hi = []byte(c.hi)
		}
		if got := float64(size([]byte(c.lo), hi)); got < 0.8*c.want || got > 1.2*c.want {
			t.Errorf("SizeBytes(%q, %q) = %.0f, want about %.0f", c.lo, c.hi, got, c.want)
		}
	}
}

func testConcurrency(t *testing.T, m *machine) {
	// Two keys are always written together; nobody may ever see them differ.
	const writers, rounds = 3, 50
	var group sync.WaitGroup
	m.apply(false, "x=0.0", "y=0.0")
	for w := range writers {
		group.Go(func() {
			for i := range rounds {
				b := m.NewBatch()
				fill(b, fmt.Sprintf("x=%d.%d", w, i), fmt.Sprintf("y=%d.%d", w, i), fmt.Sprintf("w%d=%d", w, i))
				if err := m.Apply(b, i%10 == 0); err != nil {
					t.Errorf("Apply: %v", err)
				}
				b.Close()
			}
		})
		group.Go(func() {
			for range rounds {
				s := m.Snapshot()
				it, err := s.Iter([]byte("x"), nil)
				if err != nil {
					t.Errorf("Iter: %v", err)
					return
				}
				var values []string
				for it.Next() {
					values = append(values, string(it.Value()))
				}
				if len(values) != 2 || values[0] != values[1] {
					t.Errorf("x and y are %v, want two equal values", values)
				}
				if err := errors.Join(it.Close(), s.Close()); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		})
	}
	group.Wait()
	if got, want := m.dump(m, "w", "x"), "w0=49 w1=49 w2=49"; got != want {
		t.Errorf("after all writes: [%s], want [%s]", got, want)
	}
}

func testClosed(t *testing.T, m *machine) {
	m.apply(false, "a=1")
	e := m.Engine
	r := m.replacement("k", "l", "k=1")
	m.close()
	b := e.NewBatch()
	defer b.Close()
	b.Set([]byte("a"), []byte("2"))
	s := e.Snapshot()
	for name, f := range map[string]func() error{
		"Get":          func() error { _, err := e.Get([]byte("a")); return err },
		"Iter":         func() error { _, err := e.Iter(nil, nil); return err },
		"Apply":        func() error { return e.Apply(b, false) },
		"Apply synced": func() error { return e.Apply(b, true) },
		"Replace":      func() error { _, err := e.Replace([]byte("a"), []byte("b")); return err },
		"Commit":       func() error { return r.Commit() },
		"SizeBytes":    func() error { _, err := e.SizeBytes(nil, nil); return err },
		"Close":        func() error { return e.Close() },
		"snapshot.Get": func() error { _, err := s.Get([]byte("a")); return err },
		"snapshot.It":  func() error { _, err := s.Iter(nil, nil); return err },
	} {
		if err := f(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	r.Abort()
	m.open()
	m.wantAll(m, "a=1")
}

func testCloseKeepsUnsynced(t *testing.T, m *machine) {
	m.apply(false, "a=1")
	m.close()
	m.disk.Crash(rng(1))
	m.open()
	m.wantAll(m, "a=1")
}

func testSyncedSurvives(t *testing.T, m *machine) {
	for seed := range uint64(8) {
		m.apply(false, fmt.Sprintf("u%d=1", seed))
		m.apply(false, fmt.Sprintf("u%d=2", seed), "gone=1")
		m.apply(true, fmt.Sprintf("v%d=1", seed), "-gone")
		want := m.dump(m, "", "")
		m.crash(rng(seed))
		m.wantAll(m, want)
	}
}

func testEmptySync(t *testing.T, m *machine) {
	for seed := range uint64(4) {
		m.apply(false, fmt.Sprintf("u%d=1", seed))
		m.apply(true)
		want := m.dump(m, "", "")
		m.crash(rng(seed))
		m.wantAll(m, want)
	}
}

func testCrashPrefix(t *testing.T, m *machine) {
	for seed := range uint64(16) {
		m.apply(true, " ..z", "a=0", "b=0")
		versions := []string{m.dump(m, "", "")}
		for i := range 6 {
			// Each batch moves a value from one key to another: half a batch would show.
			if i%2 == 0 {
				m.apply(false, "-a", fmt.Sprintf("b=%d", i), fmt.Sprintf("c%d=", i))
			} else {
				m.apply(false, fmt.Sprintf("a=%d", i), "-b", "c..d")
			}
			versions = append(versions, m.dump(m, "", ""))
		}
		m.crash(rng(seed))
		got := m.dump(m, "", "")
		found := false
		for _, v := range versions {
			found = found || v == got
		}
		if !found {
			t.Fatalf("seed %d: after the crash [%s], want one of %q", seed, got, versions)
		}
	}
}

func testReplace(t *testing.T, m *machine) {
	m.apply(false, "a=1", "b=1", "b1=1", "b9=1", "c=1")
	r := m.replacement("b", "c", "b=2", "b5=2")
	m.apply(false, "b7=1")
	m.wantAll(m, "a=1 b=1 b1=1 b7=1 b9=1 c=1")
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	m.wantAll(m, "a=1 b=2 b5=2 c=1")
	if err := r.Commit(); err == nil {
		t.Error("a second Commit succeeded")
	}
	if err := r.Add([]byte("b8"), nil); err == nil {
		t.Error("Add after Commit succeeded")
	}
	r.Abort()
	m.wantAll(m, "a=1 b=2 b5=2 c=1")

	m.apply(false, "b6=3")
	m.wantAll(m, "a=1 b=2 b5=2 b6=3 c=1")
	m.replace("b", "b6")
	m.wantAll(m, "a=1 b6=3 c=1")
	m.replace("a", "z")
	m.wantAll(m, "")
	m.replace("a", "z")
	m.replace("k", "l", "k=1")
	m.wantAll(m, "k=1")
	m.close()
	m.open()
	m.wantAll(m, "k=1")
}

func testReplaceRefuses(t *testing.T, m *machine) {
	for _, span := range [][2]string{{"b", "b"}, {"b", "a"}, {"b", ""}} {
		if _, err := m.Replace([]byte(span[0]), []byte(span[1])); err == nil {
			t.Errorf("Replace(%q, %q) succeeded", span[0], span[1])
		}
	}
	r := m.replacement("b", "c", "b=1", "b5=1")
	for _, key := range []string{"", "a", "c", "d", "b5", "b4", "b" + strings.Repeat("x", store.MaxKeyBytes)} {
		if err := r.Add([]byte(key), nil); err == nil {
			t.Errorf("Add of %.10q succeeded", key)
		}
	}
	if err := r.Add([]byte("b6"), make([]byte, store.MaxValueBytes+1)); err == nil {
		t.Error("Add of a too large value succeeded")
	}
	// What was refused left no trace, and the replacement goes on.
	if err := r.Add([]byte("b7"), []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	m.wantAll(m, "b=1 b5=1 b7=1")
}

func testReplaceAbandoned(t *testing.T, m *machine) {
	m.apply(true, "a=1", "b=1")
	r := m.replacement("a", "z", "c=2")
	r.Abort()
	r.Abort()
	if err := r.Commit(); err == nil {
		t.Error("Commit after Abort succeeded")
	}
	m.wantAll(m, "a=1 b=1")
	for seed := range uint64(4) {
		m.replacement("a", "z", "c=2", "d=2")
		m.crash(rng(seed))
		m.wantAll(m, "a=1 b=1")
		m.replacement("a", "z", "c=2", "d=2")
		m.close()
		m.open()
		m.wantAll(m, "a=1 b=1")
		// Nor does it stand in the way of the next.
		m.replace("k", "l", fmt.Sprintf("k=%d", seed))
		m.replace("k", "l")
	}
}

func testReplaceDurable(t *testing.T, m *machine) {
	for seed := range uint64(8) {
		m.apply(true, "a=1", "b=1", "c=1")
		m.apply(false, "a=2", "b2=2")
		m.apply(false, fmt.Sprintf("z=%d", seed))
		m.replace("b", "c", fmt.Sprintf("b7=%d", seed))
		want := fmt.Sprintf("a=2 b7=%d c=1 z=%d", seed, seed)
		m.wantAll(m, want)
		m.crash(rng(seed))
		m.wantAll(m, want)
		m.replace("b", "c")
		want = fmt.Sprintf("a=2 c=1 z=%d", seed)
		m.crash(rng(seed))
		m.wantAll(m, want)
	}
}

func testReplaceLarge(t *testing.T, m *machine) {
	m.apply(false, "a=1", "k0050x=old", "l=1")
	const pairs = 300
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 8<<10) }
	r := m.replacement("k", "l")
	for i := range pairs {
		if err := r.Add(fmt.Appendf(nil, "k%04d", i), value(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	m.crash(rng(1))
	it := m.iter("k", "l")
	defer it.Close()
	n := 0
	for ; it.Next(); n++ {
		if want := fmt.Sprintf("k%04d", n); string(it.Key()) != want || !bytes.Equal(it.Value(), value(n)) {
			t.Fatalf("pair %d has key %q and %d bytes, want key %s", n, it.Key(), len(it.Value()), want)
		}
	}
	if n != pairs {
		t.Errorf("%d pairs, want %d", n, pairs)
	}
	if got := m.dump(m, "", "k") + " " + m.dump(m, "l", ""); got != "a=1 l=1" {
		t.Errorf("around the span: [%s], want [a=1 l=1]", got)
	}
}
