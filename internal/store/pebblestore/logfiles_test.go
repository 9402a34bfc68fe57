package pebblestore

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// reservingFS is a file system that notes what is reserved in its files.
type reservingFS struct {
	vfs.FS
	reserved []string
}

func (r *reservingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := r.FS.Create(name, category)
	return &reservingFile{f, r}, err
}

type reservingFile struct {
	vfs.File
	fs *reservingFS
}

func (f *reservingFile) Preallocate(offset, length int64) error {
	f.fs.reserved = append(f.fs.reserved, fmt.Sprintf("%d+%d", offset, length))
	return nil
}

func TestLogsReserveTheirPlaceAsTheyGrow(t *testing.T) {
	disk := &reservingFS{FS: vfs.NewMem()}
	f, err := (&logFiles{disk, func(err error) { t.Error(err) }}).Create("000001.log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	write := func(bytes int) {
		t.Helper()
		if n, err := f.Write(make([]byte, bytes)); n != bytes || err != nil {
			t.Fatalf("wrote %d bytes of %d: %v", n, bytes, err)
		}
	}
	if err := f.Preallocate(0, 70<<20); err != nil || len(disk.reserved) > 0 {
		t.Errorf("asked for 70 MiB: %v reserved, %v, want nothing", disk.reserved, err)
	}
	for _, c := range []struct {
		bytes int
		want  []string
	}{
		{1, []string{"0+4194304"}},
		{4<<20 - 1, []string{"0+4194304"}},
		{1, []string{"0+4194304", "4194304+4194304"}},
		{9 << 20, []string{"0+4194304", "4194304+4194304", "8388608+4194304", "12582912+4194304"}},
	} {
		if write(c.bytes); !slices.Equal(disk.reserved, c.want) {
			t.Errorf("after %d more bytes %v are reserved, want %v", c.bytes, disk.reserved, c.want)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
