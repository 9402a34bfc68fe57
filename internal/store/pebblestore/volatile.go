package pebblestore

import (
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// volatileFS is a file system for tests: what was written and not synced is in this process alone, and is lost when it is killed. The kernel
// keeps what a process has written, so without this only a machine that loses power would show that something relied on it.
//
// It is about the content of files that are made here, which Pebble writes from front to back. Names appear and disappear at once,
// and whatever is read, closed, or larger than maxVolatile is written first.
type volatileFS struct {
	vfs.FS
	mu   sync.Mutex
	open map[string]*volatileFile // for writing, by name
}

// maxVolatile bounds what a file may hold back; a kernel writes back in time, too.
const maxVolatile = 64 << 20

func newVolatileFS(fs vfs.FS) *volatileFS {
	return &volatileFS{FS: fs, open: make(map[string]*volatileFile)}
}

// Unwrap is part of vfs.FS.
func (v *volatileFS) Unwrap() vfs.FS { return v.FS }

func (v *volatileFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := v.FS.Create(name, category)
	return v.hold(name, f, err)
}

func (v *volatileFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := v.FS.ReuseForWrite(old, name, category)
	return v.hold(name, f, err)
}

func (v *volatileFS) hold(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	held := &volatileFile{File: f, fs: v}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.open[name] = held
	return held, nil
}

// written writes what a file holds back, so that another look at it sees all.
func (v *volatileFS) written(name string) error {
	v.mu.Lock()
	f := v.open[name]
	v.mu.Unlock()
	if f == nil {
		return nil
	}
	return f.flush()
}

func (v *volatileFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := v.written(name); err != nil {
		return nil, err
	}
	return v.FS.Open(name, opts...)
}

func (v *volatileFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := v.written(name); err != nil {
		return nil, err
	}
	return v.FS.OpenReadWrite(name, category, opts...)
}

func (v *volatileFS) Stat(name string) (vfs.FileInfo, error) {
	if err := v.written(name); err != nil {
		return nil, err
	}
	return v.FS.Stat(name)
}

func (v *volatileFS) Rename(from, to string) error {
	if err := v.FS.Rename(from, to); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.open, to)
	if f := v.open[from]; f != nil {
		v.open[to] = f
		delete(v.open, from)
	}
	return nil
}

// volatileFile holds back what has been written since the last sync.
type volatileFile struct {
	vfs.File
	fs   *volatileFS
	mu   sync.Mutex
	held []byte
}

func (f *volatileFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = append(f.held, p...)
	if len(f.held) > maxVolatile {
		return len(p), f.flushLocked()
	}
	return len(p), nil
}

func (f *volatileFile) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flushLocked()
}

func (f *volatileFile) flushLocked() error {
	if len(f.held) == 0 {
		return nil
	}
	n, err := f.File.Write(f.held)
	f.held = slices.Delete(f.held, 0, min(n, len(f.held)))
	return err
}

// flushed does something to the file after all of it has been written.
func (f *volatileFile) flushed(then func() error) error {
	if err := f.flush(); err != nil {
		return err
	}
	return then()
}

func (f *volatileFile) Sync() error     { return f.flushed(f.File.Sync) }
func (f *volatileFile) SyncData() error { return f.flushed(f.File.SyncData) }

func (f *volatileFile) SyncTo(length int64) (full bool, err error) {
	err = f.flushed(func() error { full, err = f.File.SyncTo(length); return err })
	return full, err
}

func (f *volatileFile) Stat() (info vfs.FileInfo, err error) {
	err = f.flushed(func() error { info, err = f.File.Stat(); return err })
	return info, err
}

func (f *volatileFile) ReadAt(p []byte, at int64) (n int, err error) {
	err = f.flushed(func() error { n, err = f.File.ReadAt(p, at); return err })
	return n, err
}

func (f *volatileFile) Close() error {
	f.fs.mu.Lock()
	for name, open := range f.fs.open {
		if open == f {
			delete(f.fs.open, name)
		}
	}
	f.fs.mu.Unlock()
	err := f.flush()
	if err2 := f.File.Close(); err == nil {
		err = err2
	}
	return err
}
