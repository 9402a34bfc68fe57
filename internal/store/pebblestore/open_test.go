package pebblestore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func mustOpen(t *testing.T, dir string, cfg Config) *Store {
	t.Helper()
	s, err := Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// put sets keys to value.
func put(s *Store, sync bool, value string, keys ...string) error {
	b := s.NewBatch()
	defer b.Close()
	for _, key := range keys {
		b.Set([]byte(key), []byte(value))
	}
	return s.Apply(b, sync)
}

// dump lists the content as "k=v k=v".
func dump(t *testing.T, s *Store) string {
	t.Helper()
	it, err := s.Iter(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for it.Next() {
		pairs = append(pairs, fmt.Sprintf("%s=%s", it.Key(), it.Value()))
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(pairs, " ")
}

// On the operating system's file system, with its locks and its syncs.
func TestRealDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	s := mustOpen(t, dir, DefaultConfig())
	if err := put(s, true, "1", "a", "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, DefaultConfig()); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second Open: %v, want ErrLocked and the directory's name", err)
	}
	r, err := s.Replace([]byte("b"), []byte("c"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Add([]byte("b"), []byte("2")), r.Commit()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, incomingDir)); err != nil || len(left) > 0 {
		t.Errorf("after Commit %s has %v, %v; want nothing", incomingDir, left, err)
	}
	// An abandoned replacement: its file is there until the next Open.
	if r, err = s.Replace([]byte("b"), []byte("c")); err != nil {
		t.Fatal(err)
	}
	if err := r.Add([]byte("b"), []byte("3")); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	if left, err := os.ReadDir(filepath.Join(dir, incomingDir)); err != nil || len(left) != 1 {
		t.Errorf("after Close %s has %v, %v; want one file", incomingDir, left, err)
	}
	s = mustOpen(t, dir, DefaultConfig())
	if left, err := os.ReadDir(filepath.Join(dir, incomingDir)); err != nil || len(left) > 0 {
		t.Errorf("after Open %s has %v, %v; want nothing", incomingDir, left, err)
	}
	if got, want := dump(t, s), "a=1 b=2"; got != want {
		t.Errorf("content is [%s], want [%s]", got, want)
	}
	mustClose(t, s)
}

// A directory that is not as it was left is refused, and neither repaired nor emptied.
func TestOpenRefuses(t *testing.T) {
	// Pebble keeps files that it does not need any more: all that match are damaged.
	remove := func(pattern string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, name := range matching(t, dir, pattern) {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	edit := func(pattern string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, name := range matching(t, dir, pattern) {
				if err := os.WriteFile(name, change(read(t, name)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	flip := func(at int) func([]byte) []byte {
		return func(content []byte) []byte {
			content[at] ^= 0x10
			return content
		}
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   error
	}{
		{"no manifest", remove("MANIFEST-*"), ErrDamaged},
		{"no marker of the manifest", remove("marker.manifest.*"), ErrDamaged},
		{"a changed manifest", edit("MANIFEST-*", flip(10)), ErrDamaged},
		{"an empty manifest", edit("MANIFEST-*", func([]byte) []byte { return nil }), ErrDamaged},
		{"no table", remove("*.sst"), ErrDamaged},
		{"a truncated table", edit("*.sst", func(b []byte) []byte { return b[:len(b)/2] }), ErrDamaged},
		{"a changed log", edit("*.log", flip(30)), ErrDamaged},
		{"a newer format", func(t *testing.T, dir string) {
			old := only(t, dir, "marker.format-version.*")
			if err := os.Rename(old, filepath.Join(dir, "marker.format-version.000099.099")); err != nil {
				t.Fatal(err)
			}
		}, ErrNewer},
		{"a nonsensical format", func(t *testing.T, dir string) {
			old := only(t, dir, "marker.format-version.*")
			if err := os.Rename(old, filepath.Join(dir, "marker.format-version.000099.x")); err != nil {
				t.Fatal(err)
			}
		}, ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, DefaultConfig())
			if err := put(s, true, strings.Repeat("table", 100), "a"); err != nil {
				t.Fatal(err)
			}
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if err := put(s, true, strings.Repeat("log", 10_000), fmt.Sprint("b", i)); err != nil {
					t.Fatal(err)
				}
			}
			mustClose(t, s)
			c.damage(t, dir)
			before := list(t, dir)
			for range 2 {
				var faults []error
				cfg := DefaultConfig()
				cfg.OnFault = func(err error) { faults = append(faults, err) }
				_, err := Open(dir, cfg)
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), dir) {
					t.Errorf("Open: %v (faults %v), want [%v] and the directory's name", err, faults, c.want)
				}
			}
			if after := list(t, dir); after != before {
				t.Errorf("Open changed the directory\nfrom %s\nto   %s", before, after)
			}
		})
	}
	t.Run("a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, DefaultConfig()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Open: %v, want an error that names it", err)
		}
	})
}

// Whatever byte of the log is changed: when more was synced after it, the store is not opened, and else it has all but the last write. Of the
// last write but one it depends on whether Pebble had noted that it is synced when the last one came.
func TestAChangedByteOfTheLogIsNoticed(t *testing.T) {
	const writes = 12
	dir := t.TempDir()
	s := mustOpen(t, dir, DefaultConfig())
	name := only(t, dir, "*.log")
	all, lastButOne, last := "", int64(0), int64(0) // where these writes begin
	for i := range writes {
		lastButOne, last = last, int64(len(strings.TrimRight(string(read(t, name)), "\x00")))
		all = dump(t, s)
		if err := put(s, true, strings.Repeat("v", 40*i), fmt.Sprintf("k%02d", i)); err != nil {
			t.Fatal(err)
		}
	}
	content := bytes.TrimRight(read(t, name), "\x00") // as a crash leaves it: Close writes once more
	mustClose(t, s)
	for at := range int64(len(content)) {
		changed := bytes.Clone(content)
		changed[at] ^= 0x10
		if err := os.WriteFile(name, changed, 0o644); err != nil {
			t.Fatal(err)
		}
		err := (&Store{fs: vfs.Default, dir: dir}).inspectLogs()
		if noticed := errors.Is(err, ErrDamaged); noticed && at >= last || !noticed && at < lastButOne {
			t.Fatalf("byte %d is changed, the last writes begin at %d and %d: %v", at, lastButOne, last, err)
		}
	}
	s = mustOpen(t, dir, DefaultConfig()) // the last byte is changed
	if got := dump(t, s); got != all {
		t.Errorf("content is [%s], want [%s]", got, all)
	}
	mustClose(t, s)
}

func matching(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("files %s: %v, %v; want some", pattern, names, err)
	}
	return names
}

// only returns the one file that matches the pattern.
func only(t *testing.T, dir, pattern string) string {
	t.Helper()
	names := matching(t, dir, pattern)
	if len(names) != 1 {
		t.Fatalf("files %s: %v; want one", pattern, names)
	}
	return names[0]
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// list names the files of Pebble with their sizes.
func list(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%s:%d", e.Name(), info.Size()))
	}
	return strings.Join(names, " ")
}

// A crash while the directory is made leaves one that can be opened, at every operation.
func TestCrashDuringCreation(t *testing.T) {
	for _, crashed := range crashes(t, vfs.NewCrashableMem(), func(fs vfs.FS) {
		s := mustOpen(t, "data", testConfig(fs))
		if err := put(s, true, "1", "a"); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
	}) {
		s, err := Open("data", testConfig(crashed.fs))
		if err != nil {
			t.Fatalf("%s: %v", crashed, err)
		}
		if got := dump(t, s); got != "" && got != "a=1" {
			t.Errorf("%s: content is [%s]", crashed, got)
		}
		if err := put(s, true, "2", "a"); err != nil {
			t.Errorf("%s: %v", crashed, err)
		}
		mustClose(t, s)
	}
}

// Directories of earlier formats stay readable. This one was left by a crash: a table, and a log that is not replayed yet.
func TestReadsFormat24(t *testing.T) {
	fs := vfs.NewMem()
	if ok, err := vfs.Clone(vfs.Default, fs, filepath.Join("testdata", "format24"), "data"); !ok || err != nil {
		t.Fatalf("read the sample: %v, %v", ok, err)
	}
	s := mustOpen(t, "data", testConfig(fs))
	if got, want := dump(t, s), "in/both=both in/log=log in/table=table"; got != want {
		t.Errorf("content is [%s], want [%s]", got, want)
	}
	mustClose(t, s)
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	err := Config{}.Validate()
	for _, field := range []string{
		"CacheBytes", "MemTableBytes", "MemTables", "L0Compaction", "L0Stop", "Compactions",
		"BlockBytes", "MaxOpenFiles", "IncomingFileBytes", "SlowSync",
	} {
		if err == nil || !strings.Contains(err.Error(), field+" is") {
			t.Errorf("Validate of nothing but zeros does not name %s: %v", field, err)
		}
	}
	if _, err := Open(t.TempDir(), Config{}); err == nil {
		t.Error("Open took a configuration of nothing but zeros")
	}
}
