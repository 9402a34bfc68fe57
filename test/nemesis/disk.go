package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hanse/internal/dev"
)

// tracer puts faults into the system calls of a running process. The program is static and calls the kernel directly, so a library that
// stands before libc would see nothing; a tracer sees every call.
type tracer struct {
	*spawner
	log string
	cmd *exec.Cmd
	// ended is closed when strace has, by our signal or with the process that it traces.
	ended chan struct{}
}

// inject says what strace makes of the syncs.
func inject(f *fault) string {
	const calls = "inject=fsync,fdatasync"
	switch f.Kind {
	case syncError:
		return calls + ":error=EIO"
	case syncStall:
		return fmt.Sprintf("%s:delay_exit=%d", calls, f.Stall.Microseconds())
	}
	return calls + ":retval=0"
}

// attach begins. The process runs on when it is detached, or ends as the fault makes it.
func (t *tracer) attach(pid int, spec string) error {
	log, err := os.OpenFile(t.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of strace: %w", err)
	}
	defer log.Close() // the child has its own descriptor
	t.cmd = exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", spec, "-p", fmt.Sprint(pid))
	t.cmd.Stderr = log
	if err := t.start(t.cmd); err != nil {
		t.cmd = nil
		return fmt.Errorf("start strace: %w", err)
	}
	t.ended = make(chan struct{})
	go func() { // ends with strace
		_ = t.cmd.Wait() // how it ends says less than when
		close(t.ended)
	}()
	return nil
}

// detach ends the fault. It is an error when there was none although the process lives.
func (t *tracer) detach(pid int) error {
	if t.cmd == nil {
		return nil
	}
	early := isClosed(t.ended)
	_ = t.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	<-t.ended
	if early && syscall.Kill(pid, 0) == nil {
		return fmt.Errorf("strace ended before the fault did: %s", dev.Tail(t.log, 2))
	}
	return nil
}

// tracingWorks tells why syncs cannot be made to fail here, or nil: strace may be missing, or may not be allowed to attach.
func tracingWorks(ctx context.Context, s *spawner, dir string) error {
	if _, err := exec.LookPath("strace"); err != nil {
		return errors.New("strace is not installed")
	}
	victim := exec.Command("sleep", "60")
	if err := s.start(victim); err != nil {
		return fmt.Errorf("start a process to attach to: %w", err)
	}
	defer func() {
		_ = victim.Process.Kill() // it has no other purpose
		_ = victim.Wait()
	}()
	t := &tracer{spawner: s, log: filepath.Join(dir, "strace.log")}
	if err := t.attach(victim.Process.Pid, "inject=fsync:retval=0"); err != nil {
		return err
	}
	defer func() { _ = t.detach(victim.Process.Pid) }() // an attachment that ended early has been found out below
	deadline := time.Now().Add(5 * time.Second)
	for ctx.Err() == nil {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", victim.Process.Pid))
		if err != nil {
			return fmt.Errorf("read the state of a traced process: %w", err)
		}
		for line := range strings.Lines(string(status)) {
			if pid, ok := strings.CutPrefix(line, "TracerPid:"); ok && strings.TrimSpace(pid) != "0" {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return errors.New("strace may not attach to processes here")
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

// smallDisk is a file system in memory of a fixed size, for the data of one node.
type smallDisk struct{ dir string }

// newSmallDisk mounts one. It needs a mount namespace of its own: when the run's last process ends, the kernel unmounts it.
func newSmallDisk(ctx context.Context, dir string, minutes float64) (*smallDisk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the small disk's directory: %w", err)
	}
	// A node writes some 20 MB a minute at the usual rate, and keeps what is not compacted yet.
	megabytes := 384 + int(48*minutes)
	if err := pipe(ctx, nil, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", megabytes), "tmpfs", dir); err != nil {
		return nil, err
	}
	return &smallDisk{dir}, nil
}

func (d *smallDisk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill leaves no free byte.
func (d *smallDisk) fill() error {
	f, err := os.Create(d.ballast())
	if err != nil {
		return fmt.Errorf("fill the disk: %w", err)
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for {
		switch _, err := f.Write(chunk); {
		case errors.Is(err, syscall.ENOSPC) && len(chunk) > 1:
			chunk = chunk[:len(chunk)/2] // the last corners
		case errors.Is(err, syscall.ENOSPC):
			return nil
		case err != nil:
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
}

func (d *smallDisk) free() error {
	if err := os.Remove(d.ballast()); err != nil {
		return fmt.Errorf("free the disk: %w", err)
	}
	return nil
}
