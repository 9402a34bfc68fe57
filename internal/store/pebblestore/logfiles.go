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
	return &growingFile{logFile: file}, nil
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
type growingFile struct {
	*logFile
	offset   int64 // of the next write: Pebble writes from front to back
	reserved int64
}

const reserveBytes = 4 << 20

// Preallocate does nothing: Write reserves.
func (f *growingFile) Preallocate(_, _ int64) error { return nil }

func (f *growingFile) Write(p []byte) (int, error) {
	for f.offset+int64(len(p)) > f.reserved {
		_ = f.File.Preallocate(f.reserved, reserveBytes) // only makes the write faster, which tells if there is no room
		f.reserved += reserveBytes
	}
	n, err := f.logFile.Write(p)
	f.offset += int64(n)
	return n, err
}
