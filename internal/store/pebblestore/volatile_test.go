package pebblestore

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// On a disk that loses nothing, what a process has not synced is lost with it only if it was held back.
func TestVolatile_loses_what_is_not_synced(t *testing.T) {
	for _, volatile := range []bool{false, true} {
		disk := vfs.NewCrashableMem()
		cfg := testConfig(disk)
		cfg.Volatile = volatile
		s := mustOpen(t, "data", cfg)
		for _, w := range []struct {
			sync bool
			key  string
		}{{true, "a"}, {false, "b"}, {true, "c"}, {false, "d"}} {
			if err := put(s, w.sync, "1", w.key); err != nil {
				t.Fatal(err)
			}
		}
		// Pebble writes its log by the block and in the background: what is here is what the process had written by itself.
		killed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
		mustClose(t, s)
		s = mustOpen(t, "data", testConfig(killed))
		got := dump(t, s)
		if volatile && got != "a=1 b=1 c=1" {
			t.Errorf("after the kill [%s], want what was synced, which an earlier write is too", got)
		}
		mustClose(t, s)
	}
}

func TestVolatileFiles(t *testing.T) {
	disk, megabyte := vfs.NewMem(), make([]byte, 1<<20)
	v := newVolatileFS(disk)
	size := func(fs vfs.FS, name string) int64 {
		t.Helper()
		info, err := fs.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	create := func(name string) vfs.File {
		t.Helper()
		f, err := v.Create(name, vfs.WriteCategoryUnspecified)
		must(err)
		_, err = f.Write([]byte("12345"))
		must(err)
		if n := size(disk, name); n != 0 {
			t.Errorf("%s: %d bytes are on the disk before anything is synced", name, n)
		}
		return f
	}
	for name, sync := range map[string]func(vfs.File) error{
		"Sync": vfs.File.Sync, "SyncData": vfs.File.SyncData,
		"SyncTo": func(f vfs.File) error { _, err := f.SyncTo(5); return err },
		"Close":  func(vfs.File) error { return nil },
	} {
		f := create(name)
		must(sync(f))
		if name != "Close" && size(disk, name) != 5 {
			t.Errorf("%d bytes after %s, want 5", size(disk, name), name)
		}
		must(f.Close())
		if size(disk, name) != 5 || len(v.open) != 0 {
			t.Errorf("%d bytes after Close, want 5; %d files open", size(disk, name), len(v.open))
		}
	}
	// Whoever looks sees all, under whatever name.
	f := create("old")
	must(v.Rename("old", "new"))
	if n := size(v, "new"); n != 5 {
		t.Errorf("%d bytes after the file was renamed, want 5", n)
	}
	must(f.Close())
	f = create("read")
	r, err := v.Open("read")
	must(err)
	content := [5]byte{}
	if _, err := r.Read(content[:]); err != nil || string(content[:]) != "12345" {
		t.Errorf("read %q, %v", content, err)
	}
	must(r.Close())
	must(f.Close())
	f = create("large")
	for range maxVolatile >> 20 {
		_, err := f.Write(megabyte)
		must(err)
	}
	if n := size(disk, "large"); n < maxVolatile {
		t.Errorf("%d bytes of more than %d are on the disk", n, maxVolatile)
	}
	must(f.Close())
}
