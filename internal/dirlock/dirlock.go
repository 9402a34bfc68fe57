// Package dirlock lets one process at a time use a directory.
//
// The kernel keeps the lock, and lets go of it with the process however that ends; the file that carries it stays, and says who
// has it.
package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Name is the file in the directory that carries the lock.
const Name = "LOCK"

// HeldError says that somebody else uses the directory. Nothing has been written there.
type HeldError struct {
	Dir string
	// Holder is what that one has said of itself.
	Holder string
}

func (e *HeldError) Error() string { return fmt.Sprintf("%s is used by %s", e.Dir, e.Holder) }

// Lock is a directory that is ours until Release.
type Lock struct{ file *os.File }

// Take locks a directory, which is there, for a holder as others are told of it, for example "the dev cluster at port 7400". It does not
// wait: on [HeldError] it is another's.
func Take(dir, holder string) (*Lock, error) {
	path := filepath.Join(dir, Name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	held, err := lock(f)
	if held {
		other, _ := os.ReadFile(path) // who it is, if it has come to say so
		f.Close()
		if len(other) == 0 {
			other = []byte("another process")
		}
		return nil, &HeldError{Dir: dir, Holder: strings.TrimSpace(string(other))}
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteString(holder + "\n")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return &Lock{f}, nil
}

// Release lets others have the directory.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	return nil
}
