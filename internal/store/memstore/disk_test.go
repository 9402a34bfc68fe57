package memstore

import (
	"errors"
	"fmt"
	"testing"

	"hanse/internal/store"
)

func put(t *testing.T, s *Store, key string, sync bool) error {
	t.Helper()
	b := s.NewBatch()
	defer b.Close()
	b.Set([]byte(key), []byte("v"))
	return s.Apply(b, sync)
}

func has(t *testing.T, s *Store, key string) bool {
	t.Helper()
	_, err := s.Get([]byte(key))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("Get(%q): %v", key, err)
	}
	return err == nil
}

// Every choice of what a crash keeps is a prefix that holds all that was synced.
func TestCrashKeepsWhatTheCallerChooses(t *testing.T) {
	for keep := range 4 {
		d := NewDisk()
		s := d.Open()
		put(t, s, "lost-or-not-0", false)
		put(t, s, "synced", true)
		for _, key := range []string{"1", "2", "3"} {
			put(t, s, key, false)
		}
		if got := d.Unsynced(); got != 3 {
			t.Fatalf("Unsynced() = %d, want 3", got)
		}
		d.Crash(keep)
		if err := put(t, s, "x", true); !errors.Is(err, store.ErrClosed) {
			t.Fatalf("Apply on the dead store: %v, want ErrClosed", err)
		}
		s = d.Open()
		for i, key := range []string{"lost-or-not-0", "synced", "1", "2", "3"} {
			if got, want := has(t, s, key), i < 2+keep; got != want {
				t.Errorf("keep %d: has(%q) = %v, want %v", keep, key, got, want)
			}
		}
	}
}

func TestFaultsStrikeOnceAndStay(t *testing.T) {
	injected := errors.New("injected")
	for _, c := range []struct {
		name   string
		inject func(*Disk)
		strike func(*Store) error
		// maybe says that a crash may keep the data of the failed write.
		maybe int
	}{
		{"sync", func(d *Disk) { d.FailNextSync(injected) }, func(s *Store) error { return put(t, s, "a", true) }, 1},
		{"write", func(d *Disk) { d.FailNextWrite(injected) }, func(s *Store) error { return put(t, s, "a", false) }, 0},
		{"read", func(d *Disk) { d.FailNextRead(injected) }, func(s *Store) error { _, err := s.Get([]byte("k")); return err }, 0},
		{"iterate", func(d *Disk) { d.FailNextRead(injected) }, func(s *Store) error { _, err := s.Iter(nil, nil); return err }, 0},
		{"close", func(d *Disk) { d.FailNextSync(injected) }, (*Store).Close, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewDisk()
			s := d.Open()
			put(t, s, "k", true)
			c.inject(d)
			if err := c.strike(s); !errors.Is(err, injected) {
				t.Fatalf("%v, want the injected error", err)
			}
			if err := put(t, s, "b", true); !errors.Is(err, injected) {
				t.Errorf("Apply after the fault: %v, want the injected error", err)
			}
			if _, err := s.Get([]byte("k")); !errors.Is(err, injected) {
				t.Errorf("Get after the fault: %v, want the injected error", err)
			}
			if got := d.Unsynced(); got != c.maybe {
				t.Errorf("Unsynced() = %d, want %d", got, c.maybe)
			}
			d.Crash(0)
			s = d.Open()
			if !has(t, s, "k") || has(t, s, "a") || has(t, s, "b") {
				t.Errorf("after the crash: k %v, a %v, b %v; want only k", has(t, s, "k"), has(t, s, "a"), has(t, s, "b"))
			}
		})
	}
}

func TestCopyGoesItsOwnWay(t *testing.T) {
	d := NewDisk()
	s := d.Open()
	for i := range 50 {
		if err := put(t, s, fmt.Sprint("before", i), i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	other := d.Copy().Open()
	for i := range 50 {
		if err := errors.Join(put(t, s, fmt.Sprint("here", i), false), put(t, other, fmt.Sprint("there", i), true)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		if !has(t, s, fmt.Sprint("before", i)) || !has(t, other, fmt.Sprint("before", i)) {
			t.Errorf("before%d is not on both disks", i)
		}
		if has(t, s, fmt.Sprint("there", i)) || has(t, other, fmt.Sprint("here", i)) {
			t.Errorf("what was written to one disk (%d) is on the other", i)
		}
	}
}
