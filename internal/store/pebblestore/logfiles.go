package pebblestore

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFiles is the file system under Pebble's log: it reserves the log's place ([growingFile]), and reports what fails on the files of the
// log, the manifest, and directories at once. Pebble would
// report most of it, but not all: when the next log cannot be made, or the previous one not be closed, it panics, and
// does so with its locks in a state in which the runtime ends the process without a word to anyone.
type logFiles struct {
	vfs.FS
	fail func(error)
}

func (l *logFiles) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, category)
	return l.watch(name, "create", f, err)
}

func (l *logFiles) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.ReuseForWrite(old, name, category)
	return l.watch(name, "reuse", f, err)
}

func (l *logFiles) OpenDir(name string) (vfs.File, error) {
	f, err := l.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &logFile{f, name, l.fail}, nil
}

func (l *logFiles) watch(name, act string, f vfs.File, err error) (vfs.File, error) {
	base := filepath.Base(name)
	if !strings.HasSuffix(base, ".log") && !strings.HasPrefix(base, "MANIFEST-") {
		return f, err
	}
	if err != nil {
		l.fail(fmt.Errorf("%s %s: %w", act, name, err))
		return nil, err
	}
	file := &logFile{f, name, l.fail}
	if !strings.HasSuffix(base, ".log") {
		return file, nil
	}
	g := &growingFile{logFile: file}
	if info, err := f.Stat(); err == nil { // of an earlier log, whose place is used as it is
		g.ready, g.from = info.Size(), info.Size()
	}
	return g, nil
}

// Unwrap is part of vfs.FS.
func (l *logFiles) Unwrap() vfs.FS { return l.FS }

type logFile struct {
	vfs.File
	name string
	fail func(error)
}

func (f *logFile) check(act string, err error) error {
	if err != nil {
		f.fail(fmt.Errorf("%s %s: %w", act, f.name, err))
	}
	return err
}

func (f *logFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.check("write", err)
}

func (f *logFile) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	return n, f.check("write", err)
}

func (f *logFile) Sync() error     { return f.check("sync", f.File.Sync()) }
func (f *logFile) SyncData() error { return f.check("sync", f.File.SyncData()) }
func (f *logFile) Close() error    { return f.check("close", f.File.Close()) }

func (f *logFile) SyncTo(length int64) (fullSync bool, err error) {
	fullSync, err = f.File.SyncTo(length)
	return fullSync, f.check("sync", err)
}

// growingFile is a file of the log that gets its place on the disk a piece at a time. Pebble would have it all reserved at once, a tenth more than a
// memtable; but many a log ends after a megabyte, because replicas came or went, and keeps its place until it is used again.
//
// Place that is only reserved costs each sync a write of the file's metadata, to say that it has been used. Where syncs are many and small,
// it is filled with zeros instead, which costs a second write of each byte; to Pebble they are the end of the log.
type growingFile struct {
	*logFile
	offset int64 // of the next write: Pebble writes from front to back
	ready  int64 // place reserved or filled
	from   int64 // where the last piece began
	syncs  int64 // since
}

const (
	reserveBytes = 4 << 20
	fillBytes    = 256 << 10
	// fillBelow is how many bytes are written for a sync, at most, where place is filled.
	fillBelow = 8 << 10
)

var zeros [fillBytes]byte

// Preallocate does nothing: Write reserves.
func (f *growingFile) Preallocate(_, _ int64) error { return nil }

func (f *growingFile) Write(p []byte) (int, error) {
	for f.offset+int64(len(p)) > f.ready {
		f.grow()
	}
	n, err := f.logFile.Write(p)
	f.offset += int64(n)
	return n, err
}

// grow gets more place. Errors are left to the write that follows: without place it is only slower, or tells that there is no room.
func (f *growingFile) grow() {
	small := f.ready-f.from <= f.syncs*fillBelow
	f.from, f.syncs = f.ready, 0
	if small {
		if _, err := f.File.WriteAt(zeros[:], f.ready); err == nil {
			f.ready += fillBytes
			return
		}
	}
	_ = f.File.Preallocate(f.ready, reserveBytes)
	f.ready += reserveBytes
}

func (f *growingFile) SyncData() error {
	f.syncs++
	return f.logFile.SyncData()
}
