package pebblestore

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// reservingFS is a file system that notes what place its files get.
type reservingFS struct {
	vfs.FS
	got []string
}

func (r *reservingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := r.FS.Create(name, category)
	return &reservingFile{f, r}, err
}

func (r *reservingFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := r.FS.ReuseForWrite(old, name, category)
	return &reservingFile{f, r}, err
}

type reservingFile struct {
	vfs.File
	fs *reservingFS
}

func (f *reservingFile) note(act string, offset, length int64) {
	f.fs.got = append(f.fs.got, fmt.Sprintf("%s %d+%d", act, offset>>10, length>>10))
}

func (f *reservingFile) Preallocate(offset, length int64) error {
	f.note("reserved", offset, length)
	return nil
}

func (f *reservingFile) WriteAt(p []byte, at int64) (int, error) {
	f.note("filled", at, int64(len(p)))
	return f.File.WriteAt(p, at)
}

// A log gets its place a piece at a time: filled where a sync writes little, reserved where it writes much.
func TestLogsGetTheirPlaceAsTheyGrow(t *testing.T) {
	const kib = 1 << 10
	disk := &reservingFS{FS: vfs.NewMem()}
	logs := &logFiles{disk, func(err error) { t.Error(err) }}
	f, err := logs.Create("000001.log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	write := func(f vfs.File, bytes, times int) {
		t.Helper()
		for range times {
			if n, err := f.Write(make([]byte, bytes)); n != bytes || err != nil {
				t.Fatalf("wrote %d bytes of %d: %v", n, bytes, err)
			}
			if err := f.SyncData(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Preallocate(0, 70<<20); err != nil || len(disk.got) > 0 {
		t.Errorf("asked for 70 MiB: %v, %v, want nothing", disk.got, err)
	}
	for _, c := range []struct {
		bytes, times int
		want         []string // KiB
	}{
		{1, 1, []string{"filled 0+256"}},
		{8 * kib, 31, nil},
		{8 * kib, 1, []string{"filled 256+256"}},
		{16 * kib, 16, []string{"reserved 512+4096"}}, // much was written for each sync of the piece before
		{64 * kib, 63, nil},
		{64 * kib, 1, []string{"reserved 4608+4096"}},
		{4 * kib, 1024, []string{"filled 8704+256"}}, // and now it is little
	} {
		disk.got = nil
		if write(f, c.bytes, c.times); !slices.Equal(disk.got, c.want) {
			t.Errorf("after %d times %d more bytes: %v, want %v", c.times, c.bytes, disk.got, c.want)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	disk.got = nil
	again, err := logs.ReuseForWrite("000001.log", "000002.log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if write(again, 64*kib, 16); len(disk.got) > 0 {
		t.Errorf("of an earlier log: %v, want nothing: it has its place", disk.got)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}
